#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# House rules that a machine can check: layers point one way, banned calls, SPDX lines, file lengths,
# words that must not be in the tree, formatting, and no symbol of the simulator in the driver.
cd "$(dirname "$0")/../.." || exit 1
bad=0
say() {
	echo "lint: $1"
	bad=1
}
# deny MESSAGE PATTERN PATH...: no line of these files may match
deny() {
	msg=$1 pattern=$2
	shift 2
	hits=$(grep -rnE "$pattern" "$@" --include='*.c' --include='*.h' --include='*.def' 2>/dev/null | head -n 5)
	[ -n "$hits" ] && say "$msg:
$hits"
}

# Who may include whom.
deny "driver/ includes firmware-sim/ or tools/" '#include "(firmware-sim|tools)/' driver
deny "firmware-sim/ includes driver/ or tools/" '#include "(driver|tools)/' firmware-sim
deny "kernels/ includes a layer above it" '#include "(driver|firmware-sim|tools|userlib)/' kernels
deny "userlib/ includes a layer beside it" '#include "(driver|firmware-sim|tools)/' userlib
deny "driver/sched knows a backend" '#include "driver/(cpu|lpu|nil|cuda|bus|net|ring)/' driver/sched
deny "an example includes more than millrace's public headers" '#include "' userlib/examples

# Banned calls.
deny "memcpy on the data path: use mr_copy, which counts" '\b(memcpy|memmove|rte_memcpy)\(' \
	driver/net driver/ring driver/sched
deny "a library prints or ends the process" '\b(printf|puts|perror|abort|exit|_exit|assert)\(' \
	driver userlib/spec kernels firmware-sim
deny "libmillrace prints or ends the process" '\b(printf|fprintf|puts|perror|abort|exit|_exit)\(' \
	userlib/*.c userlib/include
deny "volatile is for MMIO; share memory through __atomic builtins" '^[^/*]*\bvolatile\b' \
	driver userlib kernels firmware-sim
deny "unsafe string call" '\b(strcpy|strcat|sprintf|gets)\(' driver userlib kernels firmware-sim tools

# Each source opens with its licence and is of readable length.
for f in $(git ls-files '*.c' '*.h' '*.def' '*.sh' '*.py' '*.ld' Makefile .ci/run); do
	[ -e "$f" ] || continue
	case $f in tests/vectors/*) continue ;; esac
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || say "$f: no SPDX line"
	lines=$(wc -l <"$f")
	[ "$lines" -gt 800 ] && say "$f: $lines lines; two rooms with clear names read better"
done

# Words that must not be in the tree.
hits=$(git grep -nIE '\b(TODO|FIXME|XXX|HACK)\b|march=native' -- . ':!tests/integration/lint.sh' \
	':!Makefile' ':!tests/vectors' ':!*.rst' | head -n 5)
[ -n "$hits" ] && say "left undone, or bound to one CPU:
$hits"
hits=$(git grep -nIE '(^|[^A-Za-z0-9_.~])/(work|root|home)/[a-z]' -- . ':!tests/integration/lint.sh' \
	':!tests/vectors' | head -n 5)
[ -n "$hits" ] && say "a machine's own path:
$hits"

# The driver's archive names nothing of the simulator, and the client library exports only its map.
lib=${MR_BIN:-build/bin}/../lib
if [ -e "$lib/libmrdrv.a" ]; then
	nm -u "$lib/libmrdrv.a" 2>/dev/null | grep -q 'mr_sim_' && say "libmrdrv.a needs a symbol of firmware-sim/"
	nm --defined-only "$lib/libmrsim.a" 2>/dev/null | awk '$2=="T"{print $3}' | grep -v '^mr_' | head -n 3 |
		while read -r s; do echo "lint: libmrsim.a: public symbol $s without mr_"; done
	nm "$lib/libmrsim.a" 2>/dev/null | awk '/^exec/{on=1} /^[a-z]*\.o:/{on=/^exec/} on' |
		grep -iE 'gguf|llama|attention|rope|swiglu|layer|ffn' | head -n 3 |
		while read -r s; do echo "lint: the executor of schedules knows a model: $s"; done
	nm -D --defined-only "$lib/libmillrace.so" | awk '$2=="T"{print $3}' | grep -v '^mr_' | grep -q . &&
		say "libmillrace.so exports a name without mr_"
else
	echo "skipped: no archives built yet, so their symbols were not looked at"
fi

if command -v clang-format >/dev/null; then
	for f in $(git ls-files '*.c' '*.h'); do
		clang-format --dry-run -Werror "$f" >/dev/null 2>&1 || say "$f: not as .clang-format says (make fmt)"
	done
else
	echo "skipped: no clang-format here, so formatting was not looked at"
fi
[ $bad = 0 ] && echo "lint: nothing to say"
exit $bad
