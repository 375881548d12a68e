#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The examples that keep sequences, against `millrace serve` with tests/tiny.gguf: the agent's first answer is
# the one that `run` gives, its second one knows what the tool printed; the decision is the same on every
# device, and the safe one when its time is over. (serve.sh runs example-hello.)
# sanitizers: yes
set -u
. tests/support/server.sh
if [ ! -x "$dir/example-agent" ] || [ ! -x "$dir/example-decide" ]; then
	echo "skipped: no examples in this build"
	exit 77
fi
# example NAME ARGUMENT...: its output, on the server's socket
example() {
	name=$1
	shift
	timeout 60 "$dir/example-$name" "$@" "$work/ring" 2>"$work/err" || say "example-$name: $(cat "$work/err")"
}

for device in cpu lpu; do
	start_server --device $device --ring "$work/ring" --stats "$work/stats"

	"$bin" run -m "$tiny" --device $device --quiet -n 64 -p 'What is the level?' >"$work/want"
	example agent 'What is the level?' 'echo 12 metres' >"$work/agent1"
	example agent 'What is the level?' 'echo 12 metres' >"$work/agent2"
	example agent 'What is the level?' 'echo 3 feet, falling' >"$work/agent3"
	cmp -s "$work/agent1" "$work/agent2" || say "$device: the agent got another answer to the same"
	# run shows what is not UTF-8 as U+FFFD and the example as it is: ASCII compares.
	python3 - "$work/want" "$work/agent1" "$work/agent3" <<'PY' || say "$device: the agent's answers"
import sys
want, one, other = (bytes(c for c in open(f, "rb").read() if c < 0x80) for f in sys.argv[1:])
want = want.rstrip(b"\n")
assert len(want) > 30 and one.startswith(want) and other.startswith(want), (want, one)
assert len(one) > len(want) + 30 and one != other, "the tool's result changed nothing"
PY

	example decide 'Mill burns down' 60000 >"$work/decision"
	grep -qxE 'buy|hold|sell' "$work/decision" || say "$device decided $(cat "$work/decision")"
	[ $device = cpu ] && cp "$work/decision" "$work/decision.cpu"
	cmp -s "$work/decision" "$work/decision.cpu" || say "$device decides otherwise than the CPU"
	example decide 'Mill burns down' 0 >"$work/decision"
	{ [ "$(cat "$work/decision")" = hold ] && grep -q deadline "$work/err"; } ||
		say "$device: too late, and not the safe decision: $(cat "$work/decision" "$work/err")"

	stop_server
	python3 - "$work/stats" <<'PY' || say "$device: what the server counted"
import json, sys
m = json.load(open(sys.argv[1]))["metrics"]
assert m["sched_appends"] == 3 and 3 <= m["sched_scores"] <= 6, m
assert m["ring_overrun"] == 0 and m["sched_bad_event"] == 0 and m["sched_failed"] == 0, m
PY
done

# A server that lacks what an example needs says so: without a server there is none.
timeout 20 "$dir/example-decide" x 1000 "$work/none" >"$work/out" 2>&1 && say "decided without a server, and well"
grep -qx hold "$work/out" || say "without a server the decision is not the safe one"
exit $bad
