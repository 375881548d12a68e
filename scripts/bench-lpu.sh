#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: bench-lpu.sh BIN OUT-FOLDER [options of `BIN bench lpu`]   measures the LPU driver on tests/tiny.gguf and leaves
# bench-lpu.txt (facts and table), .csv (percentiles) and .png there. The plot needs gnuplot (package gnuplot-nox).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$1 out=$2
shift 2
mkdir -p "$out"
part=$(mktemp)
trap 'rm -f "$part"' EXIT
"$bin" bench lpu -m "$here/../tests/tiny.gguf" --csv "$part" "$@" >"$out/bench-lpu.txt"
cat "$part" >"$out/bench-lpu.csv"
cat "$out/bench-lpu.txt"
sh "$here/bench-lpu-plot.sh" "$out/bench-lpu.csv" "$out/bench-lpu.png"
