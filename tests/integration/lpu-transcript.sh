#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What QEMU's vfio-user-pci said to `millrace lpu sim`, word by word, is answered as it was then. A server that
# answers otherwise is told apart.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
talk=tests/fixtures/vfio-user-qemu.txt
work=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
bad=0

# start OPTION...
start() {
	"$bin" lpu sim --socket "$work/s" --chips 1 --spec tiny --quiet "$@" >"$work/sim" 2>&1 </dev/null &
	server=$!
	tries=0
	until [ -S "$work/s" ]; do
		tries=$((tries + 1))
		[ $tries -gt 200 ] && echo "FAILED: no socket: $(cat "$work/sim")" && exit 1
		sleep 0.05
	done
}
stop() {
	kill "$server"
	wait "$server" || { echo "FAILED: lpu sim ended with $?: $(cat "$work/sim")"; bad=1; }
	server=
}

start
timeout 60 python3 tests/support/vfio_user_talk.py replay $talk "$work/s" >"$work/out" 2>&1 || bad=1
cat "$work/out"
stop
start --pci f00d:4c51
timeout 60 python3 tests/support/vfio_user_talk.py replay $talk "$work/s" >"$work/out" 2>&1 &&
	{ echo "FAILED: another device gave the same answers"; bad=1; }
stop
start --trapped
timeout 60 python3 tests/support/vfio_user_talk.py replay $talk "$work/s" >"$work/out" 2>&1 &&
	{ echo "FAILED: a BAR that is not shared gave the same answers"; bad=1; }
stop
exit $bad
