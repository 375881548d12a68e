#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How far the CPU backend lies from the float64 reference on tests/vectors; beside it llama.cpp, where
# PEER_PYTHON names a Python that has llama-cpp-python. usage: accuracy.sh BIN
set -eu
bin=$1
root=$(dirname "$0")/..
model=$(sh "$root/scripts/model.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$bin" model vectors "$root/tests/vectors" -m "$model" --only logits,ppl --device cpu -o "$work/ours.json"
set -- "millrace, class D=$work/ours.json"
if [ -n "${PEER_PYTHON:-}" ]; then
	"$PEER_PYTHON" "$root/tests/vectors/llama_cpp.py" "$model" >"$work/llama.json"
	set -- "$@" "llama.cpp=$work/llama.json"
else
	echo "accuracy: PEER_PYTHON is not set: llama.cpp is not run" >&2
fi
python3 "$root/tests/vectors/accuracy.py" "$@"
