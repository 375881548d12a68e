#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `millrace bench sched` on tests/tiny.gguf: every figure is there and within reason; a decode step allocates
# nothing and calls no kernel; what virtual time says meets its targets, and is the same a second time; and `bench
# cpu` measures loading.
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

"$bin" bench sched -m $tiny --runs 1 --json >"$work/a.json" 2>"$work/err" || say "--json: $(cat "$work/err")"
"$bin" bench sched -m $tiny --runs 1 --device nil --json >"$work/b.json" || say "--device nil"
"$bin" bench sched -m $tiny --runs 1 --device nil >"$work/text" || say "as text"
grep -q '^  CPU, 64 sequences, p50 .* us  target < 5 us: ' "$work/text" || say "no CPU time in: $(cat "$work/text")"
grep -q '^  ITL meanwhile, p99 .* target <= 100 ms: met$' "$work/text" || say "no bound in: $(cat "$work/text")"

cat >"$work/check.py" <<'PY'
import json
import sys

a, b = (json.load(open(path))["sched"]["figures"] for path in sys.argv[1:])
rows = {row["id"]: row for row in a}
again = {row["id"]: row for row in b}


def need(ok, what):
    if not ok:
        print("FAILED:", what)
        sys.exitcode = 1


sys.exitcode = 0
need(len(rows) == len(a), "two figures have one id")
for size in (1, 16, 64, 256):
    need(0 < rows[f"step.cpu_{size}"]["value"] < 1000, f"CPU at {size}: {rows[f'step.cpu_{size}']}")
need(rows["quiet.allocations"]["value"] == 0, rows["quiet.allocations"])
calls = rows["quiet.system_calls"]
if "not_measured" in calls:
    print("skipped: system calls:", calls["not_measured"])
else:
    need(calls["value"] == 0, calls)
for real in ("real_cpu", "real_lpu"):
    need(rows[f"{real}.allocations"]["value"] == 0, rows[f"{real}.allocations"])
    for kind in ("hit", "prefix", "fork"):
        need(0 < rows[f"{real}.{kind}"]["value"] < 100, rows[f"{real}.{kind}"])
for load in ("mixed_1", "mixed_8", "mixed_bound"):
    for figure in ("itl_p50", "itl_p99", "prompt", "rate"):
        need(rows[f"{load}.{figure}"]["value"] > 0, rows[f"{load}.{figure}"])
        need(rows[f"{load}.{figure}_ratio"]["value"] > 0, rows[f"{load}.{figure}_ratio"])
need(rows["mixed_prompts.all_ratio"]["value"] > 0, rows["mixed_prompts.all_ratio"])
need(rows["real_handover.hidden"]["value"] >= 0, rows["real_handover.hidden"])
for name in ("first_cpu_lpu.hit", "first_cpu_lpu.prefix", "first_cpu_lpu.fork", "first_gpu_lpu.fork",
             "itl_other.busy_p99", "itl_bound.busy_p99"):
    need(rows[name]["met"], rows[name])
need(rows["itl_whole.busy_p99"]["value"] > 10 * rows["itl_bound.busy_p99"]["value"], "chunks buy nothing")
need(rows["handover.hidden"]["value"] > 90, rows["handover.hidden"])
need(rows["handover.exposed_share"]["value"] < 5, rows["handover.exposed_share"])
virtual = [n for n in rows if n.startswith(("first_", "itl_", "handover."))]
need(len(virtual) >= 36, f"only {len(virtual)} figures in virtual time")
for name in virtual:
    need(rows[name] == again[name], f"not the same twice: {rows[name]} {again[name]}")
sys.exit(sys.exitcode)
PY
python3 "$work/check.py" "$work/a.json" "$work/b.json" || bad=1

"$bin" bench sched -m "$work/no.gguf" --runs 1 >/dev/null 2>"$work/err"
[ $? = 1 ] && grep -q 'E_NOT_FOUND\|E_IO' "$work/err" || say "no such model: $(cat "$work/err")"

"$bin" bench cpu --only load -m $tiny --runs 1 --csv "$work/load.csv" >"$work/text" 2>"$work/err" ||
	say "bench cpu --only load: $(cat "$work/err")"
grep -q '^  packing alone  *1 .* ms$' "$work/text" || say "no time of packing in: $(cat "$work/text")"
grep -q '^load,read-packed,millrace,1,0,ms,' "$work/load.csv" || say "no samples in: $(cat "$work/load.csv")"
exit $bad
