#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Mutants of firmware-sim (firmware-sim/mutant.h): each breaks one rule of the specification, and the conformance
# suite's check of that very rule has to notice. Prints how many of them it caught, and which rules have none.
# usage: mutants.sh [RULE...]   only these, such as Q-3, with what the suite says
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${MR_BIN:-build/bin}/../tests/millrace-mutants
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -x "$bin" ] || { echo "no $bin: make check-build"; exit 1; }
# Hangs are short here: the simulator answers in microseconds.
printf 'wait_ms 400\nquiet_ms 10\n' >"$work/profile"
export MR_PROFILE=$work/profile MR_PROGRAM=$bin MR_WORK=$work

cat >"$work/one" <<'SH'
MR_MUTANT=$1 timeout 60 "$MR_PROGRAM" lpu conform --bus local --profile "$MR_PROFILE" --only "LPU-$1" \
	>"$MR_WORK/$1.out" 2>&1 </dev/null
rc=$?
if [ $rc = 1 ] && grep -q "^not ok .* LPU-$1 " "$MR_WORK/$1.out"; then
	echo "$1" >>"$MR_WORK/caught"
elif [ $rc = 3 ]; then
	echo "$1" >>"$MR_WORK/dead"
else
	echo "$1" >>"$MR_WORK/missed"
fi
SH
: >"$work/caught"
: >"$work/missed"
: >"$work/dead"
grep -oh 'MUTANT([A-Z]*_[0-9]*)' firmware-sim/*.c | sed 's/MUTANT(\(.*\))/\1/; s/_/-/' | sort -u >"$work/all"
if [ $# -gt 0 ]; then
	for rule in "$@"; do
		sh "$work/one" "$rule"
		cat "$work/$rule.out"
	done
else
	xargs -P "$(nproc)" -n 1 sh "$work/one" <"$work/all"
fi
for rule in $(cat "$work/missed"); do
	echo "FAILED: the mutant of LPU-$rule is not caught by its check: $(tail -n 1 "$work/$rule.out")"
	sed -n 's/^\(not ok.*\)/	\1/p' "$work/$rule.out"
done
for rule in $(cat "$work/dead"); do
	echo "FAILED: the mutant of LPU-$rule does not come up: $(tail -n 1 "$work/$rule.out")"
done
[ $# -gt 0 ] && exit 0

# Rules of a device that no mutant breaks, and mutants of no rule.
sed -n 's/^:LPU-\([A-Z]*-[0-9]*\): .*/\1/p' Documentation/lpu-spec.rst | grep -v '^H-' | sort >"$work/rules"
sort "$work/all" | comm -13 "$work/rules" - | sed 's/^/FAILED: a mutant of no rule: LPU-/' | tee "$work/odd"
echo "$(wc -l <"$work/caught") mutants of $(wc -l <"$work/all") caught, each by the check of its own rule;" \
	"$(wc -l <"$work/rules") rules bind the device"
echo "no mutant: $(sort "$work/all" | comm -23 "$work/rules" - | tr '\n' ' ')"
[ "$(wc -l <"$work/caught")" = "$(wc -l <"$work/all")" ] && [ ! -s "$work/odd" ]
