#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Replays committed corpora in a build that counts lines, and says of each parser how many of its lines ran. Less
# than 80 in a hundred fails. usage: fuzz-coverage.sh
set -eu
cd "$(dirname "$0")/.."
least=80
# A fuzz target, then the parsers that its corpus is to reach.
targets='
fuzz_vfio_user firmware-sim/vfio_user.c firmware-sim/vfio_user_dma.c firmware-sim/vfio_user_irq.c firmware-sim/vfio_user_pci.c
fuzz_vfio_user_client driver/bus/vfio_user.c driver/bus/vfio_user_link.c driver/bus/pci.c
'
out=build-coverage
# A cache of compilers would keep the notes that gcov reads under another build's name.
export CCACHE_DISABLE=1
make --no-print-directory -j"$(nproc)" O=$out CFLAGS='-O0 -g --coverage' \
	$(echo "$targets" | awk -v o=$out 'NF { print o "/tests/" $1 }')
find $out -name '*.gcda' -delete
bad=0
while read -r target files; do
	[ -n "$target" ] || continue
	"$out/tests/$target" "tests/fuzz/corpus/${target#fuzz_}" >/dev/null
	for f in $files; do
		percent=$(gcov -n -o "$out/obj/$(dirname "$f")" "$out/obj/${f%.c}.o" 2>/dev/null |
			grep -A1 "^File '$f'" | sed -n 's/^Lines executed:\([0-9]*\).*/\1/p')
		printf '%3s%%  %s\n' "${percent:-0}" "$f"
		[ "${percent:-0}" -ge $least ] || bad=1
	done
done <<END
$targets
END
[ $bad = 0 ] || { echo "a parser has fewer than $least% of its lines covered by its corpus" >&2; exit 1; }
