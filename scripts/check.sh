#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every test: units, corpora and integration scripts of the plain build, then units, corpora and those
# integration scripts that ask for it under ASan and UBSan, on tests/tiny.gguf. Prints each test's seconds;
# at the end, what was skipped and why, and how many passed.
#
# A test is a program: exit 0 passed, 77 skipped, else failed. A skip says "skipped: why" on a line of its
# output; so does a single skipped check inside a test that passes. An integration script that also runs
# under the sanitizers has a line "# sanitizers: yes". usage: check.sh [name...] runs only those.
set -u
cd "$(dirname "$0")/.."
only=" $* "
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
passed=0 failed=0 skipped=0
: >"$work/skips"

# The real model is fetched once; without it the tests that need it skip aloud.
if [ -z "${MR_MODEL:-}" ]; then
	MR_MODEL=$(sh scripts/model.sh) && export MR_MODEL || unset MR_MODEL
fi

# run NAME SECONDS-LIMIT COMMAND...
run() {
	name=$1 limit=$2
	shift 2
	case "$only" in
	"  ") ;;
	*" ${name#asan:} "*) ;;
	*) return ;;
	esac
	start=$(date +%s%N)
	timeout -k 5 "$limit" "$@" >"$work/out" 2>&1 </dev/null
	rc=$?
	secs=$(awk -v a="$start" -v b="$(date +%s%N)" 'BEGIN{printf "%.1f", (b-a)/1e9}')
	grep -a '^skipped: ' "$work/out" | sort -u | sed "s|^|  $name: |" >>"$work/skips"
	case $rc in
	0) passed=$((passed + 1)) word=ok ;;
	77) skipped=$((skipped + 1)) word=skip ;;
	124 | 137) failed=$((failed + 1)) word="FAILED (no end within $limit s)" ;;
	*) failed=$((failed + 1)) word="FAILED (status $rc)" ;;
	esac
	printf '%6s s  %-28s %s\n' "$secs" "$name" "$word"
	case $word in
	FAILED*)
		sed 's/^/        | /' "$work/out" | tail -n 60
		;;
	skip)
		grep -aq '^skipped: ' "$work/out" || echo "  $name: gave no reason" >>"$work/skips"
		;;
	esac
}

# suite BUILD PREFIX: units and corpora of one build
suite() {
	for t in tests/unit/test_*.c; do
		t=$(basename "$t" .c)
		run "$2$t" 240 "$1/tests/$t"
	done
	for t in tests/fuzz/fuzz_*.c; do
		t=$(basename "$t" .c)
		run "$2$t" 120 "$1/tests/$t" "tests/fuzz/corpus/${t#fuzz_}"
	done
}

# Servers that tests start keep their counters here.
export XDG_RUNTIME_DIR=$work
export UBSAN_OPTIONS=print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0

echo "== plain build"
suite build ""
for t in tests/integration/*.sh; do
	MR_BIN=build/bin run "$(basename "$t" .sh)" 300 sh "$t"
done
echo "== ASan and UBSan build"
suite build-address asan:
for t in $(grep -l '^# sanitizers: yes' tests/integration/*.sh); do
	MR_BIN=build-address/bin run "asan:$(basename "$t" .sh)" 300 sh "$t"
done

if [ -s "$work/skips" ]; then
	echo "== skipped, and why"
	cat "$work/skips"
fi
printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed = 0 ] && [ $passed -gt 0 ]
