#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `millrace bench lpu` on tests/tiny.gguf: every figure is there, shadow doorbells spare nearly all doorbells, and a
# polled step or FENCE allocates nothing and calls no kernel, by the command's own count and by strace's; the server
# that it starts is gone afterwards.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}
[ "$(nproc)" -ge 2 ] || { echo "skipped: one CPU: the driver and the device need one each"; exit 77; }
mkdir "$work/tmp"
export TMPDIR="$work/tmp"

"$bin" bench lpu -m $tiny --runs 1 --json --csv "$work/csv" >"$work/json" 2>"$work/err" </dev/null ||
	say "--json: $(cat "$work/err")"
cat >"$work/check.py" <<'PY'
import csv
import json
import sys

rows = {row["id"]: row for row in json.load(open(sys.argv[1]))["lpu"]["figures"]}
bad = 0


def need(ok, what):
    global bad
    if not ok:
        print("FAILED:", what)
        bad = 1


both = "fence", "fence_ratio", "fence_post", "post_1", "post_16", "record_1", "record_16", "step_1", "step_16"
for way in "nil", "local", "vfio_user":
    for name in ("line", *both) * (way != "nil") + ("cpu_1", "cpu_16"):
        row = rows.get(f"{way}.{name}")
        need(row and row["value"] > 0, f"{way}.{name}: {row}")
        need(row and row["min"] <= row["value"] <= row["p99"], row)
    need(rows[f"{way}.allocations"]["value"] == 0, rows[f"{way}.allocations"])
    calls = rows[f"{way}.system_calls"]
    if "not_measured" in calls:
        print("skipped: system calls:", calls["not_measured"])
    else:
        # In this process a device that a neighbour's work sent to sleep is woken by a call.
        need(calls["value"] <= (50 if way == "local" else 2), calls)
for way in "local", "vfio_user":
    need(rows[f"{way}.doorbells_avoided"]["value"] > 80, rows[f"{way}.doorbells_avoided"])
    need(rows[f"{way}.doorbells"]["value"] < 0.4, rows[f"{way}.doorbells"])
need(rows["vfio_user.fence_ratio"]["target"] == 3, "no target over vfio-user")
need(rows["vfio_user.cpu_16"]["target"] == 2, "no target of CPU time")

samples = list(csv.DictReader(open(sys.argv[2])))
figures = {(s["way"], s["figure"]) for s in samples}
need(len(figures) == 2 * 12 + 8, f"{len(figures)} figures in the CSV")
for way, figure in figures:
    of = [int(s["ns"]) for s in samples if (s["way"], s["figure"]) == (way, figure)]
    need(len(of) == 12 and of == sorted(of), f"{way} {figure}: {of}")
sys.exit(bad)
PY
python3 "$work/check.py" "$work/json" "$work/csv" || bad=1

# The driver's thread alone: what it asks of the kernel is set-up and the bench's own clocks and pauses, so it must not
# grow with the commands, of which there are 20,000 and more a run.
if [ "${bin#*build-}" != "$bin" ]; then
	echo "skipped: strace of a build with sanitizers, which make calls of their own"
elif ! strace -o "$work/none" true 2>/dev/null; then
	echo "skipped: no strace, or it may not trace: the kernel's own count must do"
else
	# calls RUNS: of all kinds but those of the bench
	calls() {
		strace -o "$work/trace" "$bin" bench lpu -m $tiny --runs "$1" >"$work/text" 2>"$work/err" </dev/null ||
			say "under strace: $(cat "$work/err")"
		count=$(grep -cvE '^(clock_gettime|clock_nanosleep|futex|rt_sigreturn|---|munmap|mmap|write\(1)' "$work/trace")
	}
	calls 1
	one=$count
	calls 2
	[ $((count - one)) -lt 1000 ] || say "$one system calls in one run, $count in two"
fi

"$bin" bench lpu -m $tiny --runs 1 --lpu local >"$work/text" 2>"$work/err" </dev/null || say "as text: $(cat "$work/err")"
grep -q "^  16 slots, driver's CPU a step  .* us .*target < 2 us: " "$work/text" || say "no CPU time in: $(cat "$work/text")"
grep -q '^vfio-user' "$work/text" && say "--lpu local measures over vfio-user too"
grep -q '^  hiccups of the host: ' "$work/text" || say "no hiccups in: $(cat "$work/text")"
"$bin" bench lpu -m $tiny --runs 1 --lpu "vfio-user:$work/none" >"$work/text" 2>"$work/err" </dev/null &&
	say "a server that is not there"
grep -q E_NOT_FOUND "$work/err" || say "no server: $(cat "$work/err")"
"$bin" bench lpu -m $tiny --runs 1 --chip "$work/none" >"$work/text" 2>"$work/err" </dev/null && say "a chip that is not there"
taskset -c "$(taskset -pc $$ | sed 's/.*: //; s/[-,].*//')" "$bin" bench lpu -m $tiny --runs 1 >"$work/text" 2>"$work/err" </dev/null &&
	say "one CPU is enough"
grep -q 'two CPUs are needed' "$work/err" || say "one CPU: $(cat "$work/err")"
[ -z "$(ls -A "$work/tmp")" ] || say "left behind: $(ls -A "$work/tmp")"
exit $bad
