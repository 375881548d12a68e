#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `millrace serve` with a ring on tests/tiny.gguf: it answers the example as `run` answers, prints its metrics
# on SIGUSR1, drains and leaves with 0 on SIGTERM and SIGINT, and refuses what it cannot serve in one line.
# sanitizers: yes
set -u
. tests/support/server.sh

start() {
	start_server --ring "$work/ring" --stats "$work/stats.json" "$@"
}
# stop SIGNAL: it has to leave with status 0, within its 5 s and some
stop() {
	kill "-$1" "$server"
	tries=0
	while kill -0 "$server" 2>/dev/null && [ $tries -lt 200 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
	kill -9 "$server" 2>/dev/null
	wait "$server"
	rc=$?
	server=
	[ $rc = 0 ] || say "SIG$1 ended it with status $rc: $(cat "$work/log")"
	[ -e "$work/ring" ] && say "the socket stayed behind"
	return 0
}
# metric NAME: its value in the statistics
metric() {
	python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["metrics"][sys.argv[2]])' \
		"$work/stats.json" "$1"
}

for device in cpu lpu nil; do
	for poll in adaptive sleep; do
		start --device $device --poll $poll
		"$bin" run -m "$tiny" --device $device --quiet -n 64 -p 'What does a mill race carry?' >"$work/want"
		if [ -x "$dir/example-hello" ]; then
			for i in 1 2 3; do
				timeout 30 "$dir/example-hello" 'What does a mill race carry?' "$work/ring" \
					>"$work/got$i" 2>&1 &
				eval "client$i=$!"
			done
			for i in 1 2 3; do
				eval "wait \$client$i" || say "example $i on $device: $(cat "$work/got$i")"
				cmp -s "$work/got1" "$work/got$i" || say "example $i got another answer on $device"
			done
				# run shows what is not UTF-8 as U+FFFD and the example as it is, and the example asks for more
			# tokens: ASCII compares, as far as run went.
			python3 - "$work/want" "$work/got1" <<'PY' || say "serve and run differ on $device"
import sys
want, got = (bytes(c for c in open(f, "rb").read() if c < 0x80).rstrip(b"\n") for f in sys.argv[1:])
assert len(want) > 30 and got.startswith(want), (want, got)
PY
		else
			echo "skipped: no example-hello in this build, so serve was only started and stopped"
		fi
		kill -USR1 "$server"
		sleep 0.3
		grep -q '^sched_cycle_max_ns' "$work/log" || say "SIGUSR1 printed no metrics"
		stop TERM
		[ -x "$dir/example-hello" ] && [ "$(metric sched_done)" != 3 ] &&
			say "$device: $(metric sched_done) requests done, not 3"
		[ "$(metric sched_bad_event)" = 0 ] || say "$device: events that name no work"
	done
done

# A killed server's socket does not keep the next one from starting; SIGINT drains as SIGTERM does.
start --device nil
kill_server
start --device nil
stop INT

# --json: one line when it serves, one with the metrics at the end.
start --device nil --json >"$work/json"
stop TERM
python3 - "$work/json" "$work/ring" <<'PY' || say "--json printed $(cat "$work/json")"
import json, sys
first, last = map(json.loads, open(sys.argv[1]))
assert first["ring"] == sys.argv[2] and first["context"] == 512 and first["port"] is None, first
assert last["metrics"]["sched_done"] == 0 and last["machine"], last
PY

# refuse STATUS PATTERN OPTION...
refuse() {
	status=$1 pattern=$2
	shift 2
	timeout 20 "$bin" serve "$@" >"$work/out" 2>&1
	rc=$?
	[ $rc = "$status" ] && grep -qE -- "$pattern" "$work/out" && return
	say "serve $* gave $rc, want $status and $pattern: $(cat "$work/out")"
}
refuse 2 'give --ring' -m "$tiny"
refuse 2 'needs --key' -m "$tiny" --memif "$work/m"
refuse 1 'E_NOT_FOUND' -m "$tiny" --quiet --device nil --memif "$work/m" --key "$work/none"
refuse 2 'poll is busy' -m "$tiny" --ring "$work/r" --poll lazily
refuse 2 'whole number' -m "$tiny" --ring "$work/r" --steps -1
refuse 1 'E_NOT_FOUND' -m "$work/none.gguf" --ring "$work/r"
refuse 1 'E_FORMAT' -m Makefile --ring "$work/r"
refuse 1 'E_[A-Z]+' -m "$tiny" --quiet --device nil --ring "$work/none/ring"
head -c 100000 "$tiny" >"$work/cut.gguf"
refuse 1 'E_TRUNCATED|E_FORMAT|E_RANGE' -m "$work/cut.gguf" --ring "$work/r"
exit $bad
