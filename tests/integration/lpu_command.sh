#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `millrace lpu`: programs are compiled, verified, explained and drawn; changed and foreign ones are refused.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

# expect STATUS PATTERN COMMAND...: the status, and a line of stdout and stderr together that matches
expect() {
	status=$1 pattern=$2
	shift 2
	"$@" >"$work/out" 2>&1
	rc=$?
	[ $rc = "$status" ] && grep -aqE -- "$pattern" "$work/out" && return
	echo "FAILED: $* gave status $rc, want $status and $pattern:"
	cat "$work/out"
	bad=1
}

expect 0 '^verified in' "$bin" lpu compile -m $tiny --chip tiny --batch 4 -o "$work/a.lpu"
expect 0 '^verified in' "$bin" lpu compile -m $tiny --chip tiny --batch 4 -o "$work/b.lpu"
cmp "$work/a.lpu" "$work/b.lpu" || { echo "FAILED: two compilations differ"; bad=1; }
expect 0 '^verified in' "$bin" lpu verify "$work/a.lpu" --chip tiny
expect 1 'another chip file.*E_NOT_SUPPORTED' "$bin" lpu verify "$work/a.lpu" --chip mr1
expect 1 'for 2 chips, the device has 1.*E_NOT_SUPPORTED' "$bin" lpu verify "$work/a.lpu" --chip tiny --chips 1
cp "$work/a.lpu" "$work/c.lpu"
printf 'x' | dd of="$work/c.lpu" bs=1 seek=40000 conv=notrunc 2>/dev/null
expect 1 'E_CHECKSUM' "$bin" lpu verify "$work/c.lpu" --chip tiny
head -c 100 "$work/a.lpu" >"$work/d.lpu"
expect 1 'E_TRUNCATED' "$bin" lpu verify "$work/d.lpu" --chip tiny
expect 1 'E_FORMAT' "$bin" lpu verify Makefile --chip tiny
sed 's/^sram_bytes.*/sram_bytes 131072 assumed/' firmware-sim/chips/tiny.chip >"$work/small.chip"
expect 1 'does not fit: [0-9]+ bytes of matrices.*chips that would do: [0-9]' \
	"$bin" lpu compile -m $tiny --chip "$work/small.chip" --chips 1 --batch 1 --context 64
expect 1 'no product' "$bin" lpu compile -m $tiny --chip tsp1
expect 1 'no-such' "$bin" lpu compile -m $tiny --chip no-such.chip
expect 0 '^critical path' "$bin" lpu explain "$work/a.lpu" --chip tiny --slots 2 --position 40
expect 0 'KV blocks' "$bin" lpu explain "$work/a.lpu" --chip tiny
expect 1 'beyond its context' "$bin" lpu explain "$work/a.lpu" --chip tiny --position 5000
expect 2 'is needed' "$bin" lpu timeline "$work/a.lpu" --chip tiny
"$bin" lpu timeline "$work/a.lpu" --chip tiny -o "$work/t.json" || bad=1
python3 - "$work/t.json" <<'PY' || { echo "FAILED: the trace events"; bad=1; }
import json, sys
events = json.load(open(sys.argv[1]))["traceEvents"]
names = {e["name"] for e in events}
assert {"LOADW", "MUL", "READ", "RECORD", "SEND", "RECV"} <= names, names
assert all(e["ph"] == "M" or e["dur"] >= 0 for e in events)
PY
# The gates hold, and a product's split by K falls outside.
expect 0 'FP16, 8 chips +[0-9.]+ +330.0 us .* ok$' "$bin" lpu validate
expect 0 'split by K.* outside the gate' "$bin" lpu validate
if command -v gnuplot >/dev/null; then
	"$bin" lpu timeline "$work/a.lpu" --chip tiny --to 2000 -o "$work/t.png" || bad=1
	head -c 4 "$work/t.png" | grep -aq PNG || { echo "FAILED: no PNG"; bad=1; }
else
	echo "skipped: no gnuplot here, so no picture was drawn"
fi
expect 2 "no sub-command 'frob'" "$bin" lpu frob
expect 0 '^usage: millrace lpu' "$bin" lpu --help

# A unit that is slower than the chip file says: the pass is refused by name.
expect 1 'E_SCHEDULE_VIOLATION' "$bin" run -m $tiny --chip tiny -p hello -n 4 --no-huge --perturb mxm.latency=+1
expect 0 '([0-9]+) device cycles, \1 predicted' "$bin" run -m $tiny --chip tiny -p hello -n 4 --no-huge
# Paced, no token comes before its cycles are over.
"$bin" run -m $tiny --chip tiny -p hello -n 4 --no-huge --paced=20000 --json >"$work/paced" </dev/null 2>/dev/null
python3 - "$work/paced" <<'PY' || { echo "FAILED: tokens came before their time"; bad=1; }
import json, sys
run = json.load(open(sys.argv[1]))
assert len(run["tokens"]) == 4 and run["cycles"] == run["cycles_predicted"] > 0
assert run["timings"]["total_ms"] >= run["cycles"] * 1e-6 * 20000, run["timings"]
PY
exit $bad
