#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `millrace run` on tests/tiny.gguf: equal ids on cpu, lpu and by any chunk and steps; output on the right
# stream; refusals by name.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}

# expect STATUS PATTERN COMMAND...: the status, and a line of stdout and stderr together that matches
expect() {
	status=$1 pattern=$2
	shift 2
	"$@" >"$work/out" 2>&1 </dev/null
	rc=$?
	[ $rc = "$status" ] && grep -aqE -- "$pattern" "$work/out" && return
	say "$* gave status $rc, want $status and $pattern:"
	cat "$work/out"
}

# ids DEVICE [option...]: the answer's ids to one long prompt
ids() {
	device=$1
	shift
	"$bin" run -m "$tiny" --device "$device" --numerics strict --ids --quiet -n 40 "$@" \
		-p 'The water of the mill runs on, and the wheel turns, and the stones grind, and the meal falls.'
}

for sampling in "" "--temperature 0.9 --top-k 50 --seed 11"; do
	# shellcheck disable=SC2086
	ids cpu $sampling >"$work/cpu" || say "run --device cpu $sampling"
	# shellcheck disable=SC2086
	ids lpu $sampling >"$work/lpu" || say "run --device lpu $sampling"
	# shellcheck disable=SC2086
	ids lpu $sampling --chunk 7 --steps 4 >"$work/chunks" || say "run --chunk 7 --steps 4"
	cmp "$work/cpu" "$work/lpu" || say "ids of lpu differ from cpu's ($sampling)"
	cmp "$work/cpu" "$work/chunks" || say "ids depend on chunk and steps ($sampling)"
	[ "$(wc -w <"$work/cpu")" = 40 ] || say "not 40 ids: $(cat "$work/cpu")"
	mv "$work/cpu" "$work/cpu.${sampling:+sampled}"
done
# The same with prompts in the CPU's class P, where it has one: both decode from the same KV.
ids cpu --numerics exact >"$work/cpu" || say "run --device cpu --numerics exact"
ids lpu --numerics exact --chunk 7 >"$work/lpu" || say "run --device lpu --numerics exact"
cmp "$work/cpu" "$work/lpu" || say "ids of lpu differ from cpu's with --numerics exact"
cmp -s "$work/cpu." "$work/cpu.sampled" && say "sampling changes nothing"

# Text on stdout and nothing else there; the same prompt by -p and by stdin.
"$bin" run -m "$tiny" --device cpu --raw -n 12 -p 'a mill' >"$work/argument" 2>"$work/err" || say "run"
grep -q 'tokens at .*/s on cpu' "$work/err" || say "no timings on stderr"
printf 'a mill' | "$bin" run -m "$tiny" --device cpu --raw -n 12 --quiet -p - >"$work/stdin" 2>"$work/err"
cmp "$work/argument" "$work/stdin" || say "stdin and -p differ"
[ -s "$work/err" ] && say "--quiet is not: $(cat "$work/err")"

"$bin" run -m "$tiny" --device lpu --json -n 5 -p hi >"$work/json" 2>/dev/null || say "run --json"
python3 - "$work/json" <<'PY' || say "--json is not what it should be: $(cat "$work/json")"
import json, sys
o = json.load(open(sys.argv[1]))
assert len(o["tokens"]) == len(o["logprobs"]) == 5 and o["finish"] == "length", o
assert o["status"] == "OK" and o["cycles"] > 0 and o["copies"]["copy_kv_lpu"] > 0, o
assert o["timings"]["first_token_ms"] > 0 and o["machine"] and o["prompt_tokens"] > 1, o
PY

expect 1 'E_CONTEXT_FULL' "$bin" run -m "$tiny" --device cpu -p x -n 5000
expect 1 'no token|E_INVALID' "$bin" run -m "$tiny" --device cpu --raw -p ''
expect 1 'E_NOT_FOUND' "$bin" run -m tests/no-such.gguf -p x
expect 1 'E_FORMAT' "$bin" run -m Makefile -p x
head -c 100000 "$tiny" >"$work/cut.gguf"
expect 1 'E_TRUNCATED|E_FORMAT|E_RANGE' "$bin" run -m "$work/cut.gguf" -p x
expect 2 'no prompt' "$bin" run -m "$tiny"
expect 2 'temperature takes a number' "$bin" run -m "$tiny" --temperature hot -p x
expect 2 "not 'tpu'" "$bin" run -m "$tiny" --device tpu -p x
expect 0 '^usage: millrace run' "$bin" run --help

# SIGINT gives up the answer: what came so far stays printed, and the status is a shell's for SIGINT. The tiny
# model is done before a signal could come.
if [ -n "${MR_MODEL:-}" ]; then
	rm "$work/out" # or the loop below could see the last test's
	"$bin" run -m "$MR_MODEL" --device cpu --no-huge -n 4000 -p 'Tell a very long story.' >"$work/out" 2>"$work/err" &
	pid=$!
	tries=0
	until [ -s "$work/out" ] || [ $tries -gt 600 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
	kill -INT $pid
	wait $pid
	rc=$?
	[ $rc = 130 ] || say "SIGINT gave status $rc: $(tail -n 3 "$work/err")"
	grep -q '(cancel)$' "$work/err" || say "SIGINT is not said to be a cancel"
else
	echo "skipped: SIGINT during an answer: needs the real model (MR_MODEL)"
fi
exit $bad
