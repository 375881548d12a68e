#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Transcripts of vfio-user clients (tests/transcripts), replayed against a fresh server each: every reply is the
# recorded one. And the other way round: a recording of today's driver replays, and a device with another id does
# not pass for the recorded one.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tool=tests/support/vfio_user_transcript.py
work=$(mktemp -d)
server=
cleanup() {
	[ -n "$server" ] && kill -KILL "$server" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}
wait_for() {
	tries=0
	until [ -S "$1" ]; do
		tries=$((tries + 1))
		[ $tries -gt 200 ] && say "no socket $1" && exit 1
		sleep 0.05
	done
}
start() {
	"$bin" lpu sim --socket "$work/s" "$@" 2>"$work/sim" </dev/null &
	server=$!
	wait_for "$work/s"
}
stop() {
	kill -TERM $server
	wait $server || say "lpu sim: $(cat "$work/sim")"
	server=
}

for t in tests/transcripts/*.txt; do
	start
	python3 $tool replay "$work/s" "$t" || say "$t"
	stop
done
start --pci 1234:5678
python3 $tool replay "$work/s" tests/transcripts/driver.txt >"$work/out" 2>&1 && say "another device passes for the recorded one"
stop

start
python3 $tool record "$work/p" "$work/s" "$work/now.txt" &
recorder=$!
wait_for "$work/p"
"$bin" run -m tests/tiny.gguf --lpu "vfio-user:$work/p" --quiet --ids -n 6 -p 'a mill' >"$work/out" 2>&1 </dev/null ||
	say "run through the recorder: $(cat "$work/out")"
wait $recorder || say "the recorder ended with status $?"
stop
start
python3 $tool replay "$work/s" "$work/now.txt" || say "a fresh recording does not replay"
stop
exit $bad
