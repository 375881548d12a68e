#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How far the CPU backend lies from the float64 reference on tests/vectors, all in class D and with prompts in
# the CPU's class P; beside it llama.cpp, where
# PEER_PYTHON names a Python that has llama-cpp-python. usage: accuracy.sh BIN
set -eu
bin=$1
root=$(dirname "$0")/..
model=$(sh "$root/scripts/model.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for how in strict exact; do
	"$bin" model vectors "$root/tests/vectors" -m "$model" --only logits,ppl --device cpu --numerics $how \
		-o "$work/$how.json"
done
set -- "millrace, class D=$work/strict.json"
# What a prompt's class makes of the logits after it; where there is no class P it is class D once more.
set -- "$@" "millrace, --numerics=exact=$work/exact.json"
if [ -n "${PEER_PYTHON:-}" ]; then
	"$PEER_PYTHON" "$root/tests/vectors/llama_cpp.py" "$model" >"$work/llama.json"
	set -- "$@" "llama.cpp=$work/llama.json"
else
	echo "accuracy: PEER_PYTHON is not set: llama.cpp is not run" >&2
fi
python3 "$root/tests/vectors/accuracy.py" "$@"
