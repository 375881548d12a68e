#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What SRAM holds is what is computed with: the digest of tiny.gguf's logits is the same on every path and
# group of chips, and one flipped bit anywhere in a matrix, or a matrix of zeros, changes it.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

# digest OPTIONS...: of the logits of twelve tokens
digest() {
	"$bin" model logits -m tests/tiny.gguf --tokens 1,2,3,5,8,13,21,34,55,89,144,233 --top 0 \
		--digest "$@" 2>"$work/err" | sed -n 's/^sha256 //p'
	[ -s "$work/err" ] && cat "$work/err" >&2
}

good=$(digest --device lpu)
if [ ${#good} != 64 ]; then
	echo "FAILED: no digest: '$good'"
	exit 1
fi

# same NAME OPTIONS...
same() {
	name=$1
	shift
	got=$(digest "$@")
	[ "$got" = "$good" ] && return
	echo "FAILED: $name: digest $got, want $good"
	bad=1
}
# differs NAME OPTIONS...: another digest, not an error
differs() {
	name=$1
	shift
	got=$(digest "$@")
	[ ${#got} = 64 ] && [ "$got" != "$good" ] && return
	echo "FAILED: $name: digest '$got' beside $good"
	bad=1
}

same "the LPU once more" --device lpu
same "one chip" --device lpu --chips 1
same "the tiny chip" --device lpu --chip tiny --chips 1
same "scalar kernels in the LPU" --device lpu --kernels scalar
same "the CPU" --device cpu
same "scalar kernels of the CPU" --device cpu --kernels scalar

for fault in sram-flip=token_embd:64 sram-flip=blk.0.attn_q:0 sram-flip=blk.1.ffn_down:100 \
	sram-zero=blk.1.ffn_up sram-zero=blk.0.attn_v.weight; do
	differs "$fault" --device lpu --fault $fault
done

"$bin" model logits -m tests/tiny.gguf --tokens 1 --fault sram-zero=blk.9.ffn_up 2>"$work/err" && bad=1
grep -q 'E_NOT_FOUND' "$work/err" || {
	echo "FAILED: a fault in a tensor that is not there: $(cat "$work/err")"
	bad=1
}
exit $bad
