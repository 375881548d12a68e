#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: bench-cpu-plot.sh CSV PNG   every raw sample of the table of ends, one column a row and thread count.
set -eu
csv=$1 png=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v gnuplot >/dev/null || { echo "bench-cpu-plot: gnuplot is missing (package gnuplot-nox)" >&2; exit 1; }
# x: the column's number, engines side by side; y: tokens/s, or first tokens/s.
awk -F, -v work="$work" '$1 == "ends" {
	column = $2 " T=" $4
	if (!(column in x)) { x[column] = ++n; label[n] = column }
	if (!($3 in shift)) { shift[$3] = (++engines - 2) * 0.22; name[engines] = $3 }
	print x[column] + shift[$3], $7 > (work "/" $3)
} END {
	for (i = 1; i <= n; i++) tics = tics (i > 1 ? ", " : "") "\"" label[i] "\" " i
	print "set xtics rotate by -35 (" tics ")" > (work "/tics")
	for (i = 1; i <= engines; i++)
		plot = plot (i > 1 ? ", " : "plot ") "\"" work "/" name[i] "\" title \"" name[i] "\" pt " 5 + 2 * (i - 1) " ps 0.8"
	print plot > (work "/plot")
}' "$csv"
{
	echo 'set terminal pngcairo size 1200,600; set output "'"$png"'"'
	echo 'set logscale y; set ylabel "tokens/s (first tokens/s)"; set grid y; set key top left; set rmargin 12; set offsets 0.4, 0.5, 0, 0'
	cat "$work/tics" "$work/plot"
} | gnuplot
