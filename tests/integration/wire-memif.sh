#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The wire over net_memif, as anyone can run it: `serve` and `load` in two processes on tests/tiny.gguf. Ids equal
# those of `run`, prompts of several fragments and many at once; a wrong key, a large prompt and a long answer are
# refused by name and counted; load tells a missing server and a dead one, and the next client is served.
# sanitizers: yes
set -u
. tests/support/server.sh

"$bin" keys new "$work/key" >/dev/null || exit 1
"$bin" keys new "$work/other" >/dev/null || exit 1

start() {
	start_server --memif "$work/m" --key "$work/key" --stats "$work/stats" "$@"
}
load() {
	timeout 60 "$bin" load --memif "$work/m" --key "$work/key" --json "$@" >"$work/out" 2>"$work/err"
}
# holds NAME EXPRESSION: about the JSON object o of the last load
holds() {
	python3 -c 'import json,sys; o=json.load(open(sys.argv[1])); a=o["answers"]; sys.exit(not eval(sys.argv[2]))' \
		"$work/out" "$2" || say "$1: $(cat "$work/out" "$work/err")"
}
# metric NAME WANT, of the server that ended
metric() {
	got=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["metrics"][sys.argv[2]])' \
		"$work/stats" "$1")
	[ "$got" = "$2" ] || say "metric $1 is $got, not $2"
}

# Nobody there: an error that says so, in the time given.
load -p x --wait 200 && say "load found a server that is not there"
grep -q 'is `millrace serve` running there' "$work/err" || say "no clear error: $(cat "$work/err")"
chmod 640 "$work/other"
load -p x --key "$work/other" && say "load took a key file that others may read"
grep -q "$work/other" "$work/err" || say "the key file is not named: $(cat "$work/err")"
chmod 600 "$work/other"

for device in cpu lpu; do
	start --device $device
	text='What does a mill race carry?'
	"$bin" run -m "$tiny" --device $device --quiet --json -n 24 -p "$text" >"$work/run" || say "run failed"
	load -p "$text" --chat --max-tokens 24 || say "load failed on $device: $(cat "$work/err")"
	python3 - "$work/run" "$work/out" <<'PY' || say "run and the wire differ on $device"
import json, sys
run, load = (json.load(open(f)) for f in sys.argv[1:])
want = run["tokens"]
got = load["answers"][0]["ids"]
assert got == want and len(got) > 0, (want, got)
PY
	# Alone and in company, and in a second client after the first has gone: the same ids.
	cp "$work/out" "$work/alone"
	load -p "$text" --chat --max-tokens 24 -n 40 -c 8 || say "40 requests failed on $device: $(cat "$work/err")"
	holds "company changed ids on $device" 'len(a) == 40 and all(
		x["ids"] == json.load(open(sys.argv[1].replace("out", "alone")))["answers"][0]["ids"] for x in a)'
	holds "one copy of the prompt on $device" "o['copies_per_request']['copy_prompt_wire'] == ${#text}"
	[ $device = cpu ] || holds "no cycles from the LPU" 'o["cycles_per_token"] > 0'
	stop_server
	metric copy_prompt_wire $((41 * ${#text}))
	metric wire_bad_tag 0
	metric wire_bad_format 0
	metric sched_done 41
done

start --device cpu
# Two fragments; each fits the context of 512 only because the merges know these words.
long=$(python3 -c 'print(("the prompt and " * 100)[:1300])')
load -p "$long" --max-tokens 8 || say "a prompt of two fragments failed: $(cat "$work/err")"
holds "two fragments" 'a[0]["status"] == "OK" and len(a[0]["ids"]) > 0'
python3 -c 'print("7" * 65536)' >"$work/context"
python3 -c 'print("7" * 65537)' >"$work/large"
load --prompts "$work/context" && say "a prompt beyond the context was answered"
holds "beyond the context" 'a[0]["status"] == "E_CONTEXT_FULL"'
load --prompts "$work/large" && say "a prompt above the limit was answered"
holds "above the limit" 'a[0]["status"] == "E_TOO_LARGE" and a[0]["limit"] == 65536'
load -p x --max-tokens 100000 && say "an answer above the limit was begun"
holds "answer above the limit" 'a[0]["status"] == "E_TOO_LARGE"'
load -p x --key "$work/other" --timeout 700 && say "another key was answered"
holds "another key" 'a[0]["status"] == "E_TIMEOUT" and a[0]["ids"] == []'
load -p x --max-tokens 4 || say "no answer after the bad ones: $(cat "$work/err")"
stop_server
metric wire_too_large 2
grep -q '"wire_bad_tag": *0,' "$work/stats" && say "the other key was not counted"
metric sched_done 2

# A server that dies under load is told as a time-out.
start --device cpu
"$bin" load --memif "$work/m" --key "$work/key" --json -p x --ignore-eos --max-tokens 400 -n 10000 \
	-c 4 --timeout 800 >"$work/out" 2>"$work/err" &
client=$!
sleep 1
kill_server
# The requests that were never answered give the status; SIGTERM ends the rest cleanly.
sleep 1.5
kill -TERM "$client"
wait "$client"
rc=$?
[ $rc = 1 ] || say "load ended with status $rc after the server died: $(cat "$work/err")"
grep -q E_TIMEOUT "$work/err" || say "the time-out has no name: $(cat "$work/err")"
exit $bad
