#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What others see of a server: `top` and `trace` agree with what `load` counted, on a server that runs, hangs,
# was killed or was stopped; and both say so where a file is none of theirs.
# sanitizers: yes
set -u
. tests/support/server.sh
export XDG_RUNTIME_DIR="$work"
# expect STATUS PATTERN COMMAND...
expect() {
	status=$1 pattern=$2
	shift 2
	timeout 30 "$@" >"$work/out" 2>&1
	rc=$?
	[ $rc = "$status" ] && grep -aqE -- "$pattern" "$work/out" && return
	say "$* gave status $rc, want $status and $pattern: $(head -c 2000 "$work/out")"
}

"$bin" keys new "$work/key" >/dev/null
i=0
while [ $i -lt 9 ]; do
	echo "What does a mill race carry to the wheel, and what does it carry away, number $i?"
	i=$((i + 1))
done >"$work/prompts"
start_server --device lpu --memif "$work/m" --key "$work/key" --chunk 16 --counters "$work/c" --trace "$work/t"
grep -q "^millrace: counters in $work/c" "$work/log" || say "the log does not name the counters file"
timeout 60 "$bin" load -m "$tiny" --memif "$work/m" --key "$work/key" --prompts "$work/prompts" -n 18 -c 4 \
	--max-tokens 24 --json >"$work/load.json" || { say "load failed"; exit 1; }
expect 0 '"state": ?"serving"' "$bin" top "$work/c" --json
cp "$work/out" "$work/top.json"
expect 0 '^TTFT' env LC_ALL=C "$bin" top "$work/c" --once
grep -aqP '[^\x00-\x7f]' "$work/out" && say "top --once is not ASCII in the C locale"
awk 'length > 80' "$work/out" | grep -q . && say "top --once is wider than 80 columns"
expect 0 '[0-9]+ records' "$bin" trace "$work/t" -o "$work/t.json" --summary
cp "$work/out" "$work/summary"

# A second server may not have the same files; a hung one is told from one that serves.
expect 1 'another running server writes it \(E_BUSY\)' "$bin" serve -m "$tiny" --quiet --ring "$work/r" \
	--counters "$work/c"
kill -STOP "$server"
sleep 2.2
expect 0 'hung: no heartbeat for [2-9] s' "$bin" top "$work/c" --once

# Killed: everything is still there, and the next server takes the files over.
kill_server
expect 0 'died [0-9]+ s ago' "$bin" top "$work/c" --once
expect 0 '"state": ?"died"' "$bin" top "$work/c" --json
cp "$work/out" "$work/top2.json"
expect 0 '[0-9]+ records' "$bin" trace "$work/t" -o "$work/t2.json" --summary
cmp -s "$work/t.json" "$work/t2.json" || say "the trace changed when the server was killed"

cat >"$work/check.py" <<'PY'
import json
import re
import sys

work, fed = sys.argv[1], sys.argv[2] == "fed"
load = json.load(open(work + "/load.json"))
top = json.load(open(work + "/top.json"))
tokens = sum(len(a["ids"]) for a in load["answers"])
assert load["answered"] == 18 and tokens == load["tokens"] > 100, (load["answered"], tokens)

m = top["metrics"]
assert m["sched_requests"] == m["sched_done"] == 18 and m["sched_tokens"] == tokens, m
assert m["copy_prompt_wire"] > 0 and m["copy_kv_lpu"] > 0 and top["errors"] == {}, m
assert [d["name"].split(":")[0] for d in top["devices"]] == ["cpu", "lpu"], top["devices"]
assert top["devices"][1]["kv_blocks"] > 0
again = json.load(open(work + "/top2.json"))
assert again["metrics"]["sched_tokens"] == tokens and again["histograms"] == top["histograms"]

trace = json.load(open(work + "/t.json"))
assert trace["otherData"]["broken"] == 0 and trace["otherData"]["lost"] == 0, trace["otherData"]
slices, names, made = {}, {}, 0
for e in trace["traceEvents"]:
    if e["ph"] == "X":
        assert e["dur"] >= 0 and e["ts"] >= 0, e
        # whole ns, so that nothing is lost to a float
        span = round(e["ts"] * 1000), round((e["ts"] + e["dur"]) * 1000)
        slices.setdefault((e["pid"], e["tid"]), []).append(span + (e["name"],))
        names[e["name"]] = names.get(e["name"], 0) + 1
    made += e["ph"] == "i" and e["name"] == "token"
for track, spans in slices.items():
    open_ = []
    for begin, end, name in sorted(spans, key=lambda s: (s[0], -s[1])):
        while open_ and open_[-1][1] <= begin:
            open_.pop()
        assert not open_ or end <= open_[-1][1], ("slices cross", track, open_[-1], (begin, end, name))
        open_.append((begin, end))
if not fed:
    print("skipped: driver/sched writes no trace and no histograms, so they were not compared")
    sys.exit(0)
assert made == tokens, (made, tokens)
assert names["step"] == m["sched_steps"] and names["hand-over"] >= 18 and names["chunk"] >= 36, names
assert sum(1 for n in names if re.fullmatch(r"request \d+", n)) == 18
h = top["histograms"]
assert h["ttft"]["count"] == h["queue"]["count"] == h["prefill"]["count"] == h["handover"]["count"] == 18, h
assert h["itl"]["count"] == tokens - 18 and h["step"]["count"] == m["sched_steps"]
for name, one in h.items():
    assert 0 < one["p50_ns"] <= one["p90_ns"] <= one["p99_ns"] <= one["max_ns"], (name, one)
    assert sum(n for _, n in one["buckets"]) == one["count"]
# What the server measured lies within what the client saw.
assert h["ttft"]["max_ns"] <= load["ttft_ns"]["max"], (h["ttft"], load["ttft_ns"])
assert all(0 < d["busy_ns"] for d in top["devices"]), top["devices"]
text = open(work + "/summary").read()
assert "18 requests, %d tokens" % tokens in text, text
for line in text.splitlines():
    shares = line.split()
    if len(shares) == 11 and shares[0].isdigit():
        assert abs(sum(map(float, shares[4:])) - 100) < 0.5, line
PY
grep -q 'mr_trace' driver/sched/*.c && fed=fed || fed=unfed
python3 "$work/check.py" "$work" $fed || say "top or trace differs from what load counted"

# Stopped in order: its own choice of a file is found without a name, and used again by the next.
start_server --device nil --ring "$work/r"
file=$(sed -n 's/^millrace: counters in //p' "$work/log")
case $file in "$work"/millrace-*.counters) ;; *) say "the default file is '$file'" ;; esac
expect 0 'serving, up' "$bin" top --once
# The interactive screen, on a terminal of 80 by 24 that is then made larger.
if ! python3 -c 'import os; os.openpty()' 2>/dev/null; then
	echo "skipped: no pseudo-terminal here (/dev/pts), so top's screen was not looked at"
elif python3 - "$bin" >"$work/out" 2>&1 <<'PY'
import fcntl, os, pty, select, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm", LC_ALL="C")
    os.execv(sys.argv[1], [sys.argv[1], "top"])
def resize(rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
def read(seconds):
    seen, until = b"", time.time() + seconds
    while time.time() < until and select.select([fd], [], [], until - time.time())[0]:
        try:
            seen += os.read(fd, 65536)
        except OSError:
            break
    return seen
resize(24, 80)
seen = read(0.5)
resize(50, 140)
seen += read(1.2)
os.write(fd, b"w")
seen += read(0.3)
os.write(fd, b"q")
read(1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
for text in b"DEVICES", b"LATENCY", b"serving", b"nil", b"last 10 s":
    assert text in seen, (text, seen)
PY
then :; else say "the screen: $(tail -n 3 "$work/out")"; fi
stop_server
expect 0 'stopped [0-9]+ s ago' "$bin" top --once
start_server --device nil --ring "$work/r" --no-counters
grep -q 'counters in' "$work/log" && say "--no-counters made a file"
stop_server

# Files of something else are left alone, and named.
echo 'notes of somebody, nothing that a server has written' >"$work/notes"
cp "$work/notes" "$work/notes.old"
for option in --counters --trace; do
	expect 1 'a file of something else.*\(E_EXISTS\)' "$bin" serve -m "$tiny" --quiet --ring "$work/r" \
		$option "$work/notes"
	expect 1 '\(E_NOT_FOUND\)' "$bin" serve -m "$tiny" --quiet --ring "$work/r" $option "$work/none/x"
done
cmp -s "$work/notes" "$work/notes.old" || say "serve wrote over a file of somebody"
expect 2 'not both' "$bin" serve -m "$tiny" --ring "$work/r" --counters x --no-counters
head -c 1000 "$work/c" >"$work/cut"
head -c 1000 "$work/t" >"$work/tcut"
for how in '--once' '--json'; do
	expect 1 'no counters file \(E_FORMAT\)' "$bin" top "$work/notes" $how
	expect 1 'no counters file \(E_FORMAT\)' "$bin" top "$work/t" $how
	expect 1 'no counters file \(E_FORMAT\)' "$bin" top "$work" $how
	expect 1 'cut short \(E_TRUNCATED\)' "$bin" top "$work/cut" $how
	expect 1 '\(E_NOT_FOUND\)' "$bin" top "$work/none" $how
done
expect 2 'no terminal here' "$bin" top "$work/c"
expect 2 'takes one file' "$bin" top a b
expect 1 'no trace file \(E_FORMAT\)' "$bin" trace "$work/c" --summary
expect 1 'cut short \(E_TRUNCATED\)' "$bin" trace "$work/tcut" --summary
expect 1 '\(E_NOT_FOUND\)' "$bin" trace "$work/none" --summary
expect 2 'takes one file' "$bin" trace "$work/t"
expect 1 'none/out' "$bin" trace "$work/t" -o "$work/none/out"
exit $bad
