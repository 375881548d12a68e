#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: bench-cpu.sh BIN OUT-FOLDER [options of `BIN bench cpu`]   runs it beside the engines that
# scripts/peers.sh installs, a row of the ends at a time, and leaves bench-cpu.txt (facts and tables), .csv (raw
# samples) and .png there. On a host with neighbours of its own, MR_BENCH_UNDER="chrt -r 1" keeps them off the
# cores while a row runs, for us and for the peers alike. The plot needs gnuplot (package gnuplot-nox).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$1 out=$2
shift 2
mkdir -p "$out"
MR_MODEL=$(sh "$here/model.sh")
export MR_MODEL
peers=$(sh "$here/peers.sh" | sed '/^--peer$/d')
txt=$out/bench-cpu.txt csv=$out/bench-cpu.csv
under=${MR_BENCH_UNDER:-}
part=$(mktemp)
trap 'rm -f "$part"' EXIT

# one TABLE-OPTIONS...: a part of the whole, its samples and its text added to the files
one() {
	$under "$bin" bench cpu --csv "$part" "$@" >>"$txt.new"
	[ -s "$csv.new" ] && sed 1d "$part" >>"$csv.new" || cat "$part" >"$csv.new"
	sleep "${MR_BENCH_PAUSE:-0}"
}
rm -f "$txt.new" "$csv.new"
[ -z "$under" ] || echo "run under: $under" >>"$txt.new"
one --only kernels "$@"
old=$IFS
IFS='
'
for command in $peers; do
	set -- "$@" --peer "$command"
done
IFS=$old
for row in decode-empty decode-1024 batch-16 batch-64 prefill-512 first-token-64; do
	one --only ends --row "$row" "$@"
done
# The facts once, and the folders of peers not at all: they are this machine's own.
sed "s|$HOME|~|g" "$txt.new" | awk '/^machine/ && seen++ { skip = 1 } /^cpu / { skip = 0 } !skip' >"$txt"
mv "$csv.new" "$csv"
rm -f "$txt.new"
cat "$txt"
sh "$here/bench-cpu-plot.sh" "$csv" "$out/bench-cpu.png"
