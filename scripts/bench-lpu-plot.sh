#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: bench-lpu-plot.sh CSV PNG   the distribution of each figure that is the way's and the driver's own, by way.
set -eu
csv=$1 png=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v gnuplot >/dev/null || { echo "bench-lpu-plot: gnuplot is missing (package gnuplot-nox)" >&2; exit 1; }
awk -F, -v work="$work" '
BEGIN {
	n = split("line fence fence_post post_1 post_16 cpu_1 cpu_16", figure, " ")
	split("cache line, round trip|FENCE, round trip|FENCE, posting|DECODE of 1, posting|DECODE of 16, posting|" \
	      "CPU of a step of 1|CPU of a step of 16", title, "|")
	for (i = 1; i <= n; i++) known[figure[i]] = 1
}
FNR > 1 && $2 in known && $1 != "nil" && $3 <= 99.9 { print $4, $3 > (work "/" $1 "." $2); there[$1 "." $2] = 1 }
END {
	split("local vfio_user", way, " ")
	for (w = 1; w <= 2; w++)
		for (i = 1; i <= n; i++)
			if ((way[w] "." figure[i]) in there)
				plot = plot (plot ? ", " : "plot ") "\"" work "/" way[w] "." figure[i] \
				       "\" with linespoints lw 2 ps 0.5 pt 7 lc " i " dt " w " title \"" \
				       (w == 1 ? title[i] ", local" : "vfio-user") "\""
	print plot > (work "/plot")
}' "$csv"
{
	echo 'set terminal pngcairo size 1200,640; set output "'"$png"'"'
	echo 'set logscale x; set xlabel "ns"; set ylabel "percent of samples below"; set grid; set yrange [0:100]'
	echo 'set key outside right noenhanced'
	cat "$work/plot"
} | gnuplot
