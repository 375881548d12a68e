#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How a schedule scales: cycles of a step, seconds to compile and to verify, against chips, context and batch, for
# the demo's model on mr1. usage: lpu-scale.sh MILLRACE FOLDER   writes lpu-scale.csv and .png there.
set -eu
bin=$1 out=$2
model=$(sh "$(dirname "$0")/model.sh")
csv=$out/lpu-scale.csv
mkdir -p "$out"
# row SWEEP CHIPS BATCH CONTEXT: all slots at the end of the context
row() {
	"$bin" lpu compile -m "$model" --chips "$2" --batch "$3" --context "$4" |
		awk -v head="$1,$2,$3,$4" -v batch="$3" -v context="$4" '
		/^cycles of a step/ { gsub(/[(+)]/, ""); base = $5; slot = $9; block = $10; tile = $14 }
		/^compiled in/ { compiled = $3; cut = /cut by columns/ ? "columns" : "pipeline" }
		/^verified in/ { verified = $3 }
		END { blocks = int((context + 15) / 16); tiles = int((blocks + 15) / 16)
			printf "%s,%s,%s,%s,%d\n", head, cut, compiled, verified, \
				base + batch * (slot + block * blocks + tile * tiles) }'
}
{
	echo sweep,chips,batch,context,cut,compile_s,verify_s,cycles
	for n in 1 2 4 8 16 32 64; do row chips $n 1 512; done
	for n in 128 256 512 1024 2048 4096 8192; do row context 2 1 $n; done
	for n in 1 2 4 8 16 32 64; do row batch 2 $n 512; done
} >"$csv"
command -v gnuplot >/dev/null || { echo "lpu-scale: gnuplot is missing (package gnuplot-nox); no picture" >&2; exit 0; }
gnuplot <<PLOT
set terminal pngcairo size 1200,420
set output "$out/lpu-scale.png"
set datafile separator ","
set multiplot layout 1,3
set logscale xy
set key top left
set grid
do for [k=1:3] {
	name = word("chips batch context", k)
	set xlabel name
	plot "$csv" using (strcol(1) eq name ? (k == 1 ? \$2 : k == 2 ? \$3 : \$4) : NaN):8 with linespoints title "cycles of a step", \
		"" using (strcol(1) eq name ? (k == 1 ? \$2 : k == 2 ? \$3 : \$4) : NaN):(\$6*1e6) with linespoints title "us to compile", \
		"" using (strcol(1) eq name ? (k == 1 ? \$2 : k == 2 ? \$3 : \$4) : NaN):(\$7*1e6) with linespoints title "us to verify"
}
PLOT
