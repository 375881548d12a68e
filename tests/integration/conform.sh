#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The conformance suite against firmware-sim, in this process and behind vfio-user (doorbells mapped, and as
# messages): every rule of the page holds, but for those with a reason. And that it says no: of a device whose
# answers are late, of what is no device, of a bad profile. The report is sound JSON with every rule in it.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
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
# status WANT ARGS...
status() {
	want=$1
	shift
	timeout 100 "$bin" lpu conform "$@" >"$work/out" 2>"$work/err" </dev/null
	got=$?
	[ $got = "$want" ] || say "lpu conform $*: status $got, not $want: $(grep -A 1 '^not ok' "$work/out")$(cat "$work/err")"
}
start() {
	rm -f "$work/sim"
	"$bin" lpu sim --socket "$work/s" --spec tiny --quiet "$@" >"$work/sim" 2>&1 </dev/null &
	server=$!
	tries=0
	until grep -q listening "$work/sim" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -gt 400 ] && say "no socket: $(cat "$work/sim")" && exit 1
		sleep 0.05
	done
}
stop() {
	kill -TERM $server
	wait $server || say "lpu sim: $(cat "$work/sim")"
	server=
}
# Instrumented code is slower than what the page lets a device be.
printf 'wait_ms 5000 # milliseconds\n\nquiet_ms 20\n' >"$work/profile"
rules=$(grep -c '^:LPU-' Documentation/lpu-spec.rst)

# lines: TAP of every rule, and the few that are skipped
lines() {
	grep -q "^1\.\.$rules\$" "$work/out" || say "$1: not $rules rules: $(sed -n 2p "$work/out")"
	[ "$(grep -c '^ok [0-9]* - LPU-' "$work/out")" = "$rules" ] || say "$1: not $rules lines: $(tail -n 1 "$work/out")"
	echo "$1: $(tail -n 1 "$work/out")"
	grep '# SKIP' "$work/out" | grep -v '^ok [0-9]* - LPU-H-' | sed 's/^ok [0-9]* - \(LPU[-A-Z0-9]*\) .*# SKIP/	\1:/' >"$work/skips"
	cat "$work/skips"
	[ "$(wc -l <"$work/skips")" -le "$2" ] || say "$1: more than $2 rules without an answer"
}

status 0 --bus local --profile "$work/profile" --report "$work/report"
lines local 3
python3 - "$work/report" "$rules" <<'PY' || say "the report"
import json
import sys

r = json.load(open(sys.argv[1], encoding="utf-8"))
ids = [x["id"] for x in r["rules"]]
assert len(ids) == len(set(ids)) == int(sys.argv[2]), len(ids)
assert r["counts"]["fails"] == 0 and r["counts"]["holds"] > 200 and r["bus"] == "local", r["counts"]
assert r["device"]["product"] == "tiny" and len(r["device"]["chip_hash"]) == 64, r["device"]
assert r["profile"]["wait_ms"] == 5000 and r["date"].endswith("Z") and r["specification"] == "1.0"
assert all(x["why"] or x["result"] == "ok" for x in r["rules"])
PY

# The same device with a program of the other payload, compiled before.
"$bin" lpu compile -m tests/tiny.gguf --chip tiny --chips 2 --batch 4 --context 128 -o "$work/program" >"$work/out" 2>&1 ||
	say "lpu compile: $(cat "$work/out")"
status 0 --bus local --profile "$work/profile" -m tests/tiny.gguf --program "$work/program"
lines 'local, schedule' 3

start
status 0 --bus "vfio-user:$work/s" --profile "$work/profile"
lines vfio-user 5
status 0 --bus "vfio-user:$work/s" --profile "$work/profile" --json --only LPU-Q-3
grep -q '"id": *"LPU-Q-3"' "$work/out" || say "--json --only: $(cat "$work/out")"
stop
start --trapped
status 0 --bus "vfio-user:$work/s" --profile "$work/profile"
lines 'vfio-user, doorbells as messages' 5
# Another device by the same page, that computes what its own program says: weights with a fault are noticed.
stop
start --fault sram-flip=token_embd:4
status 1 --bus "vfio-user:$work/s" --profile "$work/profile" --only LPU-T-11
grep -q '^not ok 1 - LPU-T-11' "$work/out" || say "a flipped bit of the weights: $(cat "$work/out")"
printf 'bit_equal 0\nlogits_abs 1000\nlogprob_abs 1000\nwait_ms 5000\n' >"$work/loose"
status 0 --bus "vfio-user:$work/s" --profile "$work/loose" --only LPU-T-11
stop

# A device of another maker that comes up, makes queues and runs FENCE, and no more.
python3 tests/conformance/vfio_user_server.py "$work/p" --clients 1 >"$work/sim" 2>&1 </dev/null &
server=$!
tries=0
until [ -S "$work/p" ]; do
	tries=$((tries + 1))
	[ $tries -gt 400 ] && say "no socket: $(cat "$work/sim")" && exit 1
	sleep 0.05
done
echo "wait_ms 1000" >"$work/brief"
status 1 --bus "vfio-user:$work/p" --profile "$work/brief"
wait $server
server=
echo "a device without programs: $(tail -n 1 "$work/out")"
for rule in R-3 R-4 R-5 D-1 C-1 C-5 I-1 Q-1 Q-5; do
	grep -q "^ok [0-9]* - LPU-$rule [^#]*$" "$work/out" || say "a device without programs: LPU-$rule"
done
grep -q '^# slots: no program for it: ' "$work/out" || say "a device without programs: $(grep '^# slots' "$work/out")"

# A device that answers each command and is slow at it: a bound for the scenario.
printf 'scenario_ms 20\n' >"$work/short"
status 1 --bus local --profile "$work/short" --only LPU-C-11
grep -q 'random_bytes: the scenario takes longer than 20 ms' "$work/out" || say "no bound: $(cat "$work/out")"

status 3 --bus "vfio-user:$work/none"
grep -q 'none' "$work/err" || say "no device: $(cat "$work/err")"
status 2
status 2 --bus pci
status 2 --bus local --only LPU-Q-99
grep -q 'LPU-Q-99' "$work/err" || say "no such rule: $(cat "$work/err")"
status 2 --bus local -m "$work/none"
status 2 --bus local --program "$work/none"
for line in 'wait_ms' 'wait_ms 0' 'wait_ms ten' 'wait 10' 'quiet_ms 10 20'; do
	echo "$line" >"$work/bad"
	status 2 --bus local --profile "$work/bad"
	grep -q "bad:1" "$work/err" || say "profile '$line': $(cat "$work/err")"
done
exit $bad
