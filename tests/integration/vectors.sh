#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The reference vectors on the real model: tokens, chats, logits, forced greedy steps and perplexity within
# their tolerances on the CPU and on the LPU; and proof that the judge can say no: with one matrix zeroed in the
# LPU's SRAM it must fail.
set -u
bin=${MR_BIN:-build/bin}/millrace
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

if ! model=$(MR_MODEL=${MR_MODEL:-} sh scripts/model.sh 2>/dev/null) || [ ! -r "$model" ]; then
	echo "skipped: the real model is not here and cannot be fetched"
	exit 77
fi

# judge STATUS NAME OPTIONS...: the vectors with these options end in compare.py's STATUS
judge() {
	want=$1 name=$2
	shift 2
	if ! "$bin" model vectors tests/vectors -m "$model" -o "$work/$name.json" "$@"; then
		echo "FAILED: $name: the vectors did not run"
		bad=1
		return
	fi
	python3 tests/vectors/compare.py "$work/$name.json" >"$work/$name.txt"
	rc=$?
	echo "$name: $(tail -n 1 "$work/$name.txt")"
	[ $rc = "$want" ] && return
	echo "FAILED: $name: compare.py gave $rc, want $want"
	cat "$work/$name.txt"
	bad=1
}

judge 0 cpu --device cpu
judge 0 cpu-strict --device cpu --numerics strict
judge 0 lpu --device lpu
judge 1 lpu-fault --device lpu --fault sram-zero=blk.7.ffn_down
exit $bad
