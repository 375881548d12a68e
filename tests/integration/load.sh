#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `millrace load` against `millrace serve` on tests/tiny.gguf: over the ring and over memif; closed loop, Poisson and
# trace; what it counts is what the server counts. Bad options are refused by name, Ctrl-C prints what was measured,
# and a server that dies ends the load by name.
# sanitizers: yes
set -u
. tests/support/server.sh

start() {
	start_server --ring "$work/ring" --memif "$work/memif" --key "$work/key" --stats "$work/stats.json" "$@"
}
# expect STATUS PATTERN COMMAND...
expect() {
	status=$1 pattern=$2
	shift 2
	timeout 60 "$@" >"$work/out" 2>"$work/err"
	rc=$?
	cat "$work/out" "$work/err" >"$work/both"
	[ $rc = "$status" ] && grep -aqE -- "$pattern" "$work/both" && return
	say "$* gave status $rc, want $status and $pattern: $(head -c 2000 "$work/both")"
}

"$bin" keys new "$work/key" >/dev/null
ring="--ring $work/ring"
wire="--memif $work/memif --key $work/key"

# What load counted, in three to five runs on each transport, is what the server counted.
for device in nil cpu; do
	for way in ring wire; do
		start --device $device
		eval "server_is=\$$way"
		model=
		[ $way = wire ] && model="-m $tiny"
		i=0
		for run in "--trace tests/traces/mixed.csv $model" \
			"--seconds 0.2 --rate 100 -p Hello --max-tokens 3 --ignore-eos --poll busy" \
			"-n 24 -c 4 -p One -p Two --max-tokens 12" \
			"-n 20 -c 3 --mix 8:200:5 --max-tokens 5 $model" \
			"-n 20 --rate 200 --seed 1 --prompt-tokens 9 --max-tokens 6 $model"; do
			[ $device-$i = nil-3 ] && break
			i=$((i + 1))
			# shellcheck disable=SC2086
			timeout 60 "$bin" load $server_is $run --json >"$work/load.$i" 2>"$work/err" ||
				say "load $server_is $run on $device: status $?: $(cat "$work/err")"
		done
		stop_server
		python3 - "$work" $i $device $way <<'PY' || say "load over the $way and the server on $device differ"
import json, sys
work, n, device, way = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
runs = [json.load(open("%s/load.%d" % (work, i + 1))) for i in range(n)]
m = json.load(open(work + "/stats.json"))["metrics"]
assert m["sched_done"] == sum(r["answered"] for r in runs), m["sched_done"]
assert m["sched_requests"] == sum(r["requests"] for r in runs)
assert m["sched_tokens"] == sum(r["tokens"] for r in runs), (m["sched_tokens"], [r["tokens"] for r in runs])
assert m["sched_failed"] == m["sched_cancelled"] == 0
said = sum(a["prompt_tokens"] for r in runs for a in r["answers"])
# a prompt's last token, and a prefix that is there already, are not prefilled
assert 0 < m["sched_prompt_tokens"] < said, (said, m["sched_prompt_tokens"])
# trace: three clients are three connections of a ring
assert m["ring_clients"] == (n + 2 if way == "ring" else 0), m["ring_clients"]
for r, arrivals in zip(runs, ("trace", "poisson", "closed", "closed", "poisson")):
    assert r["transport"] == way and r["arrivals"] == arrivals and r["machine"] and r["hiccup_ns"]
    assert r["failed"] == r["never_sent"] == r["cut_off"] == 0 and not r["failures"] and not r["server_gone"]
    assert r["requests"] == r["answered"] == len(r["answers"]) == r["ttft_ns"]["n"] == r["end_to_end_ns"]["n"]
    assert r["itl_ns"]["n"] == r["tokens"] - r["requests"] and r["served_per_s"] > 0
    if arrivals != "closed":
        assert r["generator"]["lag_ns"]["n"] == r["requests"] and r["offered_per_s"] > 0
        assert r["ttft_ns"]["max"] >= r["ttft_from_sending_ns"]["max"]
    for a in r["answers"]:
        if "random_tokens" in a:
            assert a["prompt_tokens"] == a["random_tokens"], a
trace = runs[0]["classes"]
assert trace["chat"]["requests"] == 8 and trace["document"]["requests"] == 2
assert trace["chat"]["itl_ns"]["n"] + trace["document"]["itl_ns"]["n"] == runs[0]["itl_ns"]["n"]
for mix in (r["classes"] for r in runs[3:4]):
    assert mix["short"]["requests"] == 16 and mix["long"]["requests"] == 4, mix
    assert mix["long"]["prompt_tokens"] == 800 and mix["short"]["ttft_ns"]["n"] == 16
# the same random prompts on both ways, so greedy answers are the same
with open("%s/ids.%s.%s" % (work, device, way), "w") as f:
    json.dump([[a["ids"] for a in r["answers"]] for i, r in enumerate(runs) if i != 1], f)
PY
	done
	cmp "$work/ids.$device.ring" "$work/ids.$device.wire" || say "ring and wire got other answers on $device"
done

# The samples hold every token and every end; the plot gets its data, or says what is missing.
start --device nil
mkdir "$work/path" "$work/none"
printf '#!/bin/sh\ncat >%s\n' "$work/plotted" >"$work/path/gnuplot"
chmod +x "$work/path/gnuplot"
# shellcheck disable=SC2086
expect 0 'hiccups of this host' env PATH="$work/path:$PATH" "$bin" load $ring --mix 4:40:2 -n 10 --max-tokens 4 \
	--ignore-eos --samples "$work/samples.csv" --plot "$work/plot.png"
python3 - "$work/samples.csv" <<'PY' || say "the samples are not all there"
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1])))
assert len(rows) == 10 * 5 and sum(r["event"] == "end" for r in rows) == 10, len(rows)
for a, b in zip(rows, rows[1:]):
    assert a["status"] == "ok" and int(a["sent_ns"]) >= int(a["due_ns"]) >= 0
    assert a["request"] != b["request"] or int(a["at_ns"]) <= int(b["at_ns"])
assert {r["class"] for r in rows} == {"short", "long"}
PY
for words in "set output '$work/plot.png'" 'set terminal png' '^\$ttft1 <<' '^\$itl0 <<' "title 'short'"; do
	grep -q -- "$words" "$work/plotted" || say "gnuplot was not told $words"
done
# shellcheck disable=SC2086
expect 1 'gnuplot, which is not installed.*E_NOT_FOUND' env PATH="$work/none" "$bin" load $ring -p x --plot "$work/p.png"
if command -v gnuplot >/dev/null; then
	# shellcheck disable=SC2086
	expect 0 answered "$bin" load $ring -p x -n 20 --plot "$work/real.svg"
	grep -q '<svg' "$work/real.svg" || say "gnuplot drew nothing"
else
	echo "skipped: no gnuplot here, so no plot was drawn"
fi
# shellcheck disable=SC2086
{
	expect 1 'no/samples: No such' "$bin" load $ring -p x --samples "$work/no/samples"
	expect 0 '^> x$' "$bin" load $ring -p x --stream
	expect 1 '3 x E_CONTEXT_FULL' "$bin" load $ring --prompt-tokens 5000 -n 3
	expect 1 'tests/digest/tiny-logits: line 1: unknown column.*E_FORMAT' \
		"$bin" load $ring --trace tests/digest/tiny-logits
	expect 1 'no.jsonl.*E_NOT_FOUND' "$bin" load $ring --trace "$work/no.jsonl"
	expect 1 'none/ring: .*E_NOT_FOUND.*serve --ring' "$bin" load --ring "$work/none/ring" -p x --wait 100
	# EAL starts threads of its own; over a ring there is only the hiccup meter beside the loop.
	"$bin" load $ring -p x --rate 50 --seconds 100 --json >"$work/cut" 2>"$work/err" &
}
load=$!
sleep 0.5
grep -lE 'dpdk|eal|rte' /proc/$load/task/*/comm && say "EAL runs beside a ring"
kill -INT $load
wait $load
rc=$?
python3 - "$work/cut" $rc <<'PY' || say "Ctrl-C: status $rc: $(head -c 500 "$work/cut" "$work/err")"
import json, sys
r = json.load(open(sys.argv[1]))
assert sys.argv[2] == "1" and r["answered"] >= 1 and r["ttft_ns"]["n"] >= 1 and r["never_sent"] > 0, r
assert r["failed"] == 0 and not r["server_gone"]
PY

# The loop allocates nothing: a hundred times the requests make no more allocations, but for those of the report's
# sorting, a few.
if nm "$bin" 2>/dev/null | grep -q __asan_init; then
	echo "skipped: allocations are not counted under ASan, which has its own allocator"
else
	cat >"$work/count.c" <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static unsigned long count;
void *malloc(size_t n) { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED); return __libc_malloc(n); }
void *calloc(size_t m, size_t n) { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED); return __libc_calloc(m, n); }
void *realloc(void *p, size_t n) { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED); return __libc_realloc(p, n); }
__attribute__((destructor)) static void say(void) { fprintf(stderr, "allocations: %lu\n", count); }
C
	${CC:-cc} -shared -fPIC -o "$work/count.so" "$work/count.c" || say "no counter of allocations"
	for way in ring wire; do
		for n in 20 2000; do
			eval "server_is=\$$way"
			# shellcheck disable=SC2086
			LD_PRELOAD="$work/count.so" "$bin" load $server_is -p x -n $n -c 4 --max-tokens 8 2>&1 >/dev/null |
				grep '^allocations:' >"$work/count.$n"
		done
		[ $(($(sed 's/.*: //' "$work/count.2000") - $(sed 's/.*: //' "$work/count.20"))) -lt 20 ] ||
			say "the loop allocates over the $way: $(cat "$work/count.20" "$work/count.2000")"
	done
fi

# Refusals name the option.
while read -r status pattern options; do
	# shellcheck disable=SC2086
	expect "$status" "$(echo "$pattern" | tr _ ' ')" "$bin" load $options
done <<EOT
2 --key_is_of_the_wire $ring -p x --key k
2 --memif_is_of_the_wire $ring -p x --memif m
2 --eal_is_of_the_wire $ring -p x --eal -v
2 --server-port_is_of_the_wire $ring -p x --server-port 1
2 --model_is_of_the_wire $ring -p x -m f
2 --clients_is_of_the_ring $wire -p x --clients 2
2 no_server -p x
2 no_prompt $ring
2 one_of_-p $ring -p x --mix 1:2
2 --rate_makes_arrivals $ring --trace t --rate 1
2 --concurrency_is_of_the_closed $ring -p x --rate 1 -c 2
2 --stream_writes $ring -p x --rate 1 --stream
2 --chat_renders_text $ring --prompt-tokens 3 -n 1 --chat
2 how_many_random $ring --prompt-tokens 3
2 --mix_takes_SHORT:LONG $ring --mix 3 -n 1
2 --mix_takes_SHORT:LONG $ring --mix 3:4:1 -n 1
2 --rate_takes_a_number $ring -p x --rate 0
2 --seconds_takes_a_number $ring -p x --seconds -1
2 --poll_is_busy $ring -p x --poll lazy
1 ends_in_.png_or_.svg $ring -p x --plot plot.bmp
EOT

stop_server
# A server that dies: over the ring at once, over the wire after --timeout of silence.
start --device nil
# shellcheck disable=SC2086
"$bin" load $ring -p x -c 4 --seconds 60 -n 100000 --poll adaptive >"$work/out" 2>"$work/err" &
load=$!
# shellcheck disable=SC2086
"$bin" load $wire -p x --rate 100 --seconds 60 --timeout 500 >"$work/out2" 2>"$work/err2" &
load2=$!
tries=0
until grep -q '^wire_rx_datagrams' "$work/log" && grep -q '^ring_sqe' "$work/log" || [ $tries -gt 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
	kill -USR1 "$server"
done
kill -STOP "$server"
sleep 0.2
kill_server
start=$(date +%s)
wait $load && say "a ring's server died and the load ended well"
wait $load2 && say "a wire's server died and the load ended well"
[ $(($(date +%s) - start)) -lt 10 ] || say "the loads went on without a server"
grep -q 'the server went away: .*(E_DISCONNECTED); the load ends' "$work/err" ||
	say "the ring's load said $(cat "$work/err")"
grep -q '4 at once: [1-9][0-9]* answered, 4 failed, [0-9]* never sent' "$work/out" || say "$(cat "$work/out")"
grep -q 'x E_TIMEOUT' "$work/err2" && grep -q 'said nothing for 500 ms (E_TIMEOUT); the load ends' "$work/err2" ||
	say "the wire's load said $(cat "$work/err2")"
exit $bad
