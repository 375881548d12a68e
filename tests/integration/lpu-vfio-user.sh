#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The LPU as a process behind vfio-user: the tokens of the one in this process, with doorbells mapped and trapped;
# the device's own count of records and steps; damage to its SRAM; a server that is killed, that is none, that
# comes back; client after client.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
work=$(mktemp -d)
server=
cleanup() {
	[ -n "${front:-}" ] && kill -KILL "$front" 2>/dev/null
	[ -n "$server" ] && kill -KILL "$server" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}

# start SOCKET [option...]
start() {
	socket=$1
	shift
	: >"$work/sim" # the last one's line must not be taken for its own
	"$bin" lpu sim --socket "$socket" "$@" >"$work/sim" 2>&1 </dev/null &
	server=$!
	tries=0
	until grep -q listening "$work/sim"; do
		tries=$((tries + 1))
		[ $tries -gt 400 ] && say "no socket: $(cat "$work/sim")" && exit 1
		sleep 0.05
	done
}
# stop SIGNAL: the server's status is 0 and nothing is left
stop() {
	kill "-$1" $server
	wait $server || say "lpu sim ended with status $? on SIG$1: $(cat "$work/sim")"
	server=
	[ -e "$socket" ] || [ -e "$socket.control" ] && say "lpu sim left its sockets"
}
# ids LPU [option...]: an answer's ids
ids() {
	bus=$1
	shift
	timeout 100 "$bin" run -m $tiny --lpu "$bus" --ids --quiet -n 40 "$@" \
		-p 'The water of the mill runs on, and the wheel turns, and the stones grind, and the meal falls.' </dev/null
}

ids local >"$work/local" || say "run --lpu local"
[ "$(wc -w <"$work/local")" = 40 ] || say "not 40 ids: $(cat "$work/local")"
ids local --seed 5 --temperature 0.9 >"$work/local.sampled"

start "$work/s"
for steps in 1 4; do
	ids "vfio-user:$work/s" --steps $steps >"$work/far" || say "run --lpu vfio-user --steps $steps"
	cmp "$work/local" "$work/far" || say "tokens over vfio-user differ (--steps $steps)"
done
ids "vfio-user:$work/s" --seed 5 --temperature 0.9 >"$work/far" || say "run --lpu vfio-user, sampled"
cmp "$work/local.sampled" "$work/far" || say "sampled tokens over vfio-user differ"

# The device counted what the driver posted, no more and no less, although it has served others before.
"$bin" run -m $tiny --lpu "vfio-user:$work/s" --json -n 23 --steps 3 -p 'a mill' >"$work/json" 2>"$work/err" </dev/null ||
	say "run --json: $(cat "$work/err")"
python3 - "$work/json" <<'PY' || say "the device's log does not match the run: $(cat "$work/json")"
import json, sys
o = json.load(open(sys.argv[1]))
log = o["device_log"]
assert len(o["tokens"]) == 23, o
assert log["records"] == log["records_taken"] == 23, log
assert log["steps"] == log["steps_posted"] == 23, log
PY

# A second server in the same place is refused; damage shows; a new client mends it by loading.
"$bin" lpu sim --socket "$work/s" 2>"$work/err" && say "two servers at one socket"
grep -q E_BUSY "$work/err" || say "two servers: $(cat "$work/err")"
old=$("$bin" lpu poke --socket "$work/s" --address 4096 --value 17) || say "lpu poke"
[ "$("$bin" lpu poke --socket "$work/s" --address 4096 --value "$old")" = 17 ] || say "lpu poke does not read back"
"$bin" lpu poke --socket "$work/s" --address 99999999999 --value 1 2>"$work/err" && say "poke outside SRAM"
grep -q E_RANGE "$work/err" || say "poke outside SRAM: $(cat "$work/err")"
"$bin" lpu poke --socket "$work/s" --fault sram-zero=blk.9.attn_q 2>"$work/err" && say "damage to no tensor"
grep -q E_NOT_FOUND "$work/err" || say "damage to no tensor: $(cat "$work/err")"
"$bin" lpu poke --socket "$work/s" --fault sram-flip=token_embd:64 || say "damage"
stop TERM
grep -q '(0 refused), 0 connections broken off' "$work/sim" || say "the server refused our client: $(cat "$work/sim")"

# Doorbells by message; a fault from the start; other chips.
start "$work/t" --trapped --chips 1 --spec tiny --pci 1234:11e8
ids "vfio-user:$work/t" >"$work/far" || say "run with trapped doorbells"
cmp "$work/local" "$work/far" || say "tokens with trapped doorbells differ"
stop INT
start "$work/t" --fault sram-zero=blk.1.ffn_up
ids "vfio-user:$work/t" >"$work/far" || say "run on a faulty device"
cmp -s "$work/local" "$work/far" && say "--fault changes nothing"
stop INT

# No server, a server killed in the middle of a run, a dead one's socket.
ids "vfio-user:$work/none" 2>"$work/err" && say "run without a server"
grep -q "start 'millrace lpu sim --socket .*E_NOT_FOUND" "$work/err" || say "no server: $(cat "$work/err")"
start "$work/k"
mkfifo "$work/prompt"
"$bin" run -m $tiny --lpu "vfio-user:$work/k" --raw -n 100 -p - <"$work/prompt" >"$work/out" 2>"$work/err" &
run=$!
exec 3>"$work/prompt"
tries=0 # it is loaded once there is a program to be damaged
until "$bin" lpu poke --socket "$work/k" --fault sram-flip=token_embd:64 2>"$work/poke"; do
	tries=$((tries + 1))
	[ $tries -gt 300 ] && say "the run does not load: $(cat "$work/poke" "$work/err")" && exit 1
	sleep 0.05
done
kill -KILL $server
wait $server 2>/dev/null
server=
echo 'a mill' >&3
exec 3>&-
killed=$(date +%s)
wait $run && say "a run whose server was killed succeeds"
grep -q E_DISCONNECTED "$work/err" || say "a killed server is not named: $(cat "$work/err")"
[ $(($(date +%s) - killed)) -lt 10 ] || say "a killed server was noticed after $(($(date +%s) - killed)) s"
[ -S "$work/k" ] || say "a killed server left no socket to be replaced"
start "$work/k"
ids "vfio-user:$work/k" >"$work/far" || say "run after the server came back"
cmp "$work/local" "$work/far" || say "tokens after the server came back differ"
stop TERM

# `millrace serve` on it answers as `run` does, and goes on after its LPU was killed and started again.
dir=${MR_BIN:-build/bin}
if [ ! -x "$dir/example-hello" ]; then
	echo "skipped: no example-hello built, so serve was not asked"
	exit $bad
fi
# ask: the example's answer, in ASCII
ask() {
	timeout 60 "$dir/example-hello" 'What does a mill race carry?' "$work/ring" 2>"$work/err" | tr -cd ' -~'
}
start "$work/v"
"$bin" serve -m $tiny --quiet --ring "$work/ring" --lpu "vfio-user:$work/v" 2>"$work/log" </dev/null &
front=$!
tries=0
until grep -q '^millrace: serving' "$work/log"; do
	tries=$((tries + 1))
	[ $tries -gt 600 ] && say "serve did not start: $(cat "$work/log")" && exit 1
	sleep 0.05
done
ask >"$work/first"
[ -s "$work/first" ] || say "no answer from serve: $(cat "$work/err" "$work/log")"
kill -KILL $server
wait $server 2>/dev/null
start "$work/v"
ask >"$work/second"
cmp "$work/first" "$work/second" || say "another answer after the LPU came back: $(cat "$work/err" "$work/log")"
kill -TERM $front
wait $front || say "serve ended with status $?: $(cat "$work/log")"
stop TERM
exit $bad
