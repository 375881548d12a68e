#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tools for those who run or bring an LPU: log pages, also of a device that gave up; firmware; features; a bus
# trace, recorded and played on another device; program containers from files; devices by their own ids.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
tool=tests/support/bus_trace.py
work=$(mktemp -d)
server=
cleanup() {
	[ -n "$server" ] && kill -KILL "$server" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}
# expect STATUS PATTERN ARGUMENT...: of millrace lpu, stdout and stderr together
expect() {
	want=$1 pattern=$2
	shift 2
	timeout 100 "$bin" lpu "$@" >"$work/out" 2>&1 </dev/null
	rc=$?
	[ $rc = "$want" ] && grep -aqE -- "$pattern" "$work/out" && return
	say "lpu $* gave status $rc, want $want and $pattern: $(cat "$work/out")"
}
start() {
	: >"$work/sim"
	"$bin" lpu sim --socket "$work/s" "$@" >"$work/sim" 2>&1 </dev/null &
	server=$!
	tries=0
	until grep -q listening "$work/sim"; do
		tries=$((tries + 1))
		[ $tries -gt 400 ] && say "no socket: $(cat "$work/sim")" && exit 1
		sleep 0.05
	done
}
# run [option...]: an answer's ids
run() {
	timeout 100 "$bin" run -m $tiny --ids --quiet -n 12 "$@" \
		-p 'The water of the mill runs on, and the wheel turns, and the stones grind.' </dev/null
}
far=vfio-user:$work/s

# ---- ids of one's own ---------------------------------------------------------------------------------------
start --pci 1af4:4c50
expect 0 'heartbeat_ms=1000' features --lpu "$far@1af4:4c50"
expect 1 'this is PCI 1af4:4c50, not the device asked for.*E_NOT_SUPPORTED' features --lpu "$far@1af4:4c51"
expect 1 'E_NOT_FOUND' features --lpu "$far@mill"

# ---- features -----------------------------------------------------------------------------------------------
expect 0 '^heartbeat_ms=250$' features --lpu "$far" heartbeat_ms=250
expect 0 '^heartbeat_ms=1000$' features --lpu "$far" heartbeat_ms
expect 1 'heartbeat_ms: .*E_RANGE' features --lpu "$far" heartbeat_ms=1
expect 1 'shadow: .*E_NOT_SUPPORTED' features --lpu "$far" shadow=0
expect 2 "no feature 'heart'" features --lpu "$far" heart=1
expect 2 'heartbeat_ms takes a whole number' features --lpu "$far" heartbeat_ms=fast
[ "$("$bin" lpu features --lpu "$far" | wc -l)" = 7 ] || say "not seven features"

# ---- logs ---------------------------------------------------------------------------------------------------
run --lpu "$far" >"$work/ids" || say "run --lpu vfio-user"
"$bin" lpu poke --socket "$work/s" --sense 361250:275500 || say "poke --sense"
"$bin" lpu poke --socket "$work/s" --ecc 3:1 || say "poke --ecc"
expect 0 '^  temperature +361.2 K \(88.1 C\)$' log --lpu "$far" --page power
expect 0 '^  power +275.500 W$' log --lpu "$far" --page health
expect 0 '^  ecc corrected +3$' log --lpu "$far"
expect 0 '^  records +12$' log --lpu "$far"
grep -qE '^  steps +12$' "$work/out" || say "not 12 steps: $(cat "$work/out")"
for page in counters health power firmware errors crash; do
	grep -q "^$page\$" "$work/out" || say "no page $page in lpu log: $(cat "$work/out")"
done
expect 0 '^  none since power-on$' log --lpu "$far" --page crash
expect 0 '^name[[:space:]]+mr1[[:space:]]' log --lpu "$far" --page chip
expect 2 "crash or chip, not 'smell'" log --page smell
expect 1 'E_NOT_FOUND' log --lpu "vfio-user:$work/none"
"$bin" lpu log --lpu "$far" --json >"$work/json" || say "lpu log --json"
python3 - "$work/json" <<'PY' || say "lpu log --json: $(cat "$work/json")"
import json, sys
o = json.load(open(sys.argv[1]))
assert o["counters"]["records"] == 12 and o["health"]["ecc_uncorrected"] == 1, o
assert o["power"]["temperature_mk"] == 361250 and o["crash"] is None, o
assert o["firmware"]["version"] == ["firmware-sim", ""], o
PY

# --watch goes on, and Ctrl-C ends it with status 0.
: >"$work/watch"
"$bin" lpu log --lpu "$far" --page power --json --watch >"$work/watch" 2>&1 </dev/null &
watch=$!
tries=0
until [ "$(wc -l <"$work/watch")" -ge 2 ]; do
	tries=$((tries + 1))
	[ $tries -gt 200 ] && say "lpu log --watch: $(cat "$work/watch")" && break
	sleep 0.05
done
kill -INT $watch 2>/dev/null || kill -TERM $watch
tries=0
while kill -0 $watch 2>/dev/null && [ $tries -lt 60 ]; do
	tries=$((tries + 1))
	[ $tries = 2 ] && kill -TERM $watch 2>/dev/null # a shell's job in the background may ignore SIGINT
	sleep 0.05
done
wait $watch || say "lpu log --watch ended with status $?"

# A device that gave up while a client that is gone had it: it is brought back, and its dump is there.
: >"$work/watch" # the last one's lines must not be taken for its own
"$bin" lpu log --lpu "$far" --page power --json --watch >"$work/watch" 2>&1 </dev/null &
watch=$!
tries=0
until [ -s "$work/watch" ] || [ $tries -gt 200 ]; do
	tries=$((tries + 1))
	sleep 0.05
done
"$bin" lpu poke --socket "$work/s" --assert || say "poke --assert"
sleep 0.2
kill -KILL $watch
wait $watch 2>/dev/null
expect 0 'ASSERT: the firmware found its own state wrong' log --lpu "$far" --page crash
grep -q 'the device had given up (ASSERT' "$work/out" || say "FATAL is not told: $(cat "$work/out")"
grep -qE '^  text +asked to$' "$work/out" || say "no text of the dump: $(cat "$work/out")"
expect 0 '"number":1,.*"cause":3,.*"firmware":"firmware-sim","text":"asked to"' log --lpu "$far" --page crash --json
run --lpu "$far" >"$work/after" || say "run after a crash"
cmp "$work/ids" "$work/after" || say "other tokens after a crash"

# ---- firmware -----------------------------------------------------------------------------------------------
image() {
	python3 tests/support/firmware_image.py "$@"
}
image "$work/good.fw" --version mill-2
image "$work/foreign.fw" --product mr9
image "$work/format.fw" --format 7
head -c 100000 "$work/good.fw" >"$work/torn.fw"
{ head -c 150000 "$work/good.fw"; printf x; tail -c +150002 "$work/good.fw"; } >"$work/damaged.fw"
image "$work/large.fw" --bytes 3000000
expect 0 'slot 1 +firmware-sim, runs' firmware status --lpu "$far"
expect 1 'E_NOT_FOUND' firmware activate --lpu "$far"
expect 1 "foreign.fw: an image for 'mr9'; this device is 'mr1' \(E_NOT_SUPPORTED" firmware update "$work/foreign.fw" --lpu "$far"
expect 1 'torn.fw: the image is cut short \(E_TRUNCATED' firmware update "$work/torn.fw" --lpu "$far"
expect 1 'damaged.fw: the image is damaged: its hash differs .E_CHECKSUM' firmware update "$work/damaged.fw" --lpu "$far"
expect 1 'format.fw: .*E_VERSION' firmware update "$work/format.fw" --lpu "$far"
expect 1 'E_TOO_LARGE' firmware update "$work/large.fw" --lpu "$far"
expect 1 'no firmware image \(E_FORMAT' firmware update $tiny --lpu "$far"
expect 1 'good.fw: .*E_BUSY' firmware update "$work/good.fw" --slot 1 --lpu "$far"
expect 1 'E_NOT_FOUND' firmware update "$work/none.fw" --lpu "$far"
expect 2 'status, update FILE or activate' firmware update --lpu "$far"
expect 0 'slot 2 +empty' firmware status --lpu "$far"
expect 0 'slot 2 holds mill-2; slot 1, firmware-sim, runs until' firmware update "$work/good.fw" --lpu "$far"
expect 0 'slot 1 +firmware-sim, runs$' firmware status --lpu "$far"
expect 0 '^before: slot 1, firmware-sim$' firmware activate --lpu "$far"
grep -q '^now:    slot 2, mill-2$' "$work/out" || say "what runs now is not told: $(cat "$work/out")"
expect 0 'slot 2 +mill-2, runs$' firmware status --lpu "$far"

# ---- a trace, recorded and played ---------------------------------------------------------------------------
run --record "$work/local.trace" >"$work/recorded" 2>"$work/err" || say "run --record: $(cat "$work/err")"
cmp "$work/ids" "$work/recorded" || say "other tokens under --record"
grep -qE 'local.trace: [0-9]+ entries, [0-9]+ bytes' "$work/err" || say "--record says nothing: $(cat "$work/err")"
[ "$(stat -c %a "$work/local.trace")" = 600 ] || say "a trace that others may read"
python3 $tool summary "$work/local.trace" >"$work/out" || say "the trace is not as documented"
grep -qE 'map=[5-9].*unmap=[5-9].*records=[1-9].*irq=1 reset=0 end=1' "$work/out" || say "summary: $(cat "$work/out")"
expect 0 ' 12 records compared, 0 events not; 0 differences$' replay "$work/local.trace" --exact
expect 0 ' 12 records compared, .*; 0 differences$' replay "$work/local.trace" --exact --lpu "$far"
run --lpu "$far" --record "$work/far.trace" >"$work/recorded" 2>/dev/null || say "run --lpu vfio-user --record"
cmp "$work/ids" "$work/recorded" || say "other tokens under --record, vfio-user"
expect 0 ' 12 records compared, .*; 0 differences$' replay "$work/far.trace" --exact
expect 0 '0 differences' replay "$work/far.trace" --record "$work/again.trace"
expect 0 ' 12 records compared, .*; 0 differences$' replay "$work/again.trace" --exact
expect 0 . features --record "$work/features.trace" heartbeat_ms=300
expect 0 '0 differences' replay "$work/features.trace" --lpu "$far"

# What differs is explained: another answer, another device, a damaged one; what is no trace is refused.
python3 $tool change "$work/local.trace" "$work/c.trace" completions
expect 1 'first difference: completion [0-9]+ of queue [01] .*: status E_INVALID recorded, OK here' replay "$work/c.trace"
python3 $tool change "$work/local.trace" "$work/r.trace" records
expect 1 'first difference: record [0-9]+ of queue 1 .*: token [0-9]+ recorded, [0-9]+ here' replay "$work/r.trace"
grep -q ' 1 differences' "$work/out" || say "one changed token is more than one difference: $(cat "$work/out")"
expect 1 'first difference: completion .*PROGRAM.*: status OK recorded, E_NOT_SUPPORTED here' \
	replay "$work/local.trace" --chips 1 --wait 300
expect 1 'E_TIMEOUT' replay "$work/local.trace" --chips 1 --wait 300
head -c 1000 "$work/local.trace" >"$work/torn.trace"
expect 1 'torn.trace: byte [0-9]+: the trace is cut short: it has no end \(E_TRUNCATED' replay "$work/torn.trace"
expect 1 'this is no bus trace \(E_FORMAT' replay $tiny
kill -TERM $server
wait $server || say "lpu sim ended with status $?"
start --fault sram-zero=blk.1.ffn_up
expect 1 'first difference: record ' replay "$work/local.trace" --lpu "$far"

# --record needs an LPU, and a place.
timeout 60 "$bin" run -m $tiny --device cpu --record "$work/no" -p x >"$work/out" 2>&1 </dev/null && say "--record without an LPU"
grep -q 'record is of an LPU' "$work/out" || say "--record without an LPU: $(cat "$work/out")"
expect 1 'E_IO' log --record "$work/none/trace"

# ---- containers from files ----------------------------------------------------------------------------------
python3 $tool container "$work/local.trace" "$work/tiny.lpu" || say "no container in the trace"
expect 0 'payload kind [0-9]+, batch .*: active on lpu:mr1x2' load "$work/tiny.lpu"
kill -TERM $server
wait $server
start
expect 0 'active on lpu:mr1x2' load "$work/tiny.lpu" --lpu "$far"
"$bin" lpu poke --socket "$work/s" --fault sram-flip=token_embd:64 || say "the loaded program is not active"
python3 $tool vendor "$work/tiny.lpu" "$work/vendor.lpu" 4660
expect 1 'vendor.lpu: payload kind 4660, lpu:mr1x2 refuses it \(E_NOT_SUPPORTED' load "$work/vendor.lpu" --lpu "$far"
head -c 5000 "$work/tiny.lpu" >"$work/torn.lpu"
expect 1 'cut short \(E_TRUNCATED' load "$work/torn.lpu"
{ cat "$work/tiny.lpu"; echo; } >"$work/long.lpu"
expect 1 'after the container.s end \(E_FORMAT' load "$work/long.lpu"
expect 1 'no program container \(E_FORMAT' load $tiny
expect 1 'E_NOT_SUPPORTED' load "$work/tiny.lpu" --chips 1
kill -TERM $server
wait $server
server=
exit $bad
