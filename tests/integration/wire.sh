#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The wire with an ordinary kernel UDP socket at its other end, in a network namespace of its own: DPDK's
# net_af_packet on one end of a veth pair that has no address. While tokens flow the server's namespace holds
# no UDP socket; the answer's ids are those of `run --device cpu`, and lie in a capture of the wire. Malformed
# and unauthentic datagrams are counted, never answered, and change nothing.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
client=tests/support/wire_client.py
server_ns=mrs$$ client_ns=mrc$$
work=$(mktemp -d)
pids=
cleanup() {
	for pid in $pids; do
		kill "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	ip netns del $server_ns 2>/dev/null
	ip netns del $client_ns 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}

[ "$(id -u)" = 0 ] || { echo "skipped: a network namespace needs root"; exit 77; }
for tool in ip ss ethtool python3; do
	command -v $tool >/dev/null || { echo "skipped: no $tool here"; exit 77; }
done
if ! { ip netns add $server_ns && ip netns add $client_ns &&
	ip -n $server_ns link add mr0 type veth peer name mr1 netns $client_ns; } 2>"$work/why"; then
	echo "skipped: no network namespace with a veth pair: $(head -n 1 "$work/why")"
	exit 77
fi

in_server() {
	ip netns exec $server_ns "$@"
}
in_client() {
	ip netns exec $client_ns "$@"
}
# The server's end has no address of the kernel's, of IPv6 neither; the client's end computes its checksums.
in_server sh -c 'echo 1 >/proc/sys/net/ipv6/conf/mr0/disable_ipv6' 2>/dev/null
ip -n $server_ns link set mr0 up
ip -n $client_ns addr add 10.77.0.2/24 dev mr1
ip -n $client_ns link set mr1 up
in_client ethtool -K mr1 tx off rx off >/dev/null 2>&1
[ -z "$(ip -n $server_ns -o addr show dev mr0)" ] || say "the server's end has an address"

"$bin" keys new "$work/key" >/dev/null || exit 1
[ "$(stat -c %a "$work/key")" = 600 ] || say "the key file's mode is not 0600"
: >"$work/log"
ip netns exec $server_ns "$bin" serve -m $tiny --quiet --vdev net_af_packet0,iface=mr0 --key "$work/key" \
	--stats "$work/stats.json" 2>"$work/log" &
server=$!
pids=$server
tries=0
until grep -q '^millrace: serving' "$work/log"; do
	if ! kill -0 $server 2>/dev/null || [ $tries -gt 600 ]; then
		say "serve did not start: $(cat "$work/log")"
		exit 1
	fi
	tries=$((tries + 1))
	sleep 0.05
done
ip netns exec $client_ns python3 $client capture mr1 "$work/capture" &
pids="$pids $!"
until [ -e "$work/capture" ]; do sleep 0.05; done

prompt='Why does a mill need a channel?'
"$bin" run -m $tiny --device cpu --quiet --ids -n 60 -p "$prompt" | tr '\n' ' ' | sed 's/ *$//' >"$work/want"
in_client python3 $client ask "$work/key" "$prompt" 60 "$work/while" \
	ip netns exec $server_ns sh -c 'for i in 1 2 3 4 5; do ss -Haun || exit 1; done' >"$work/ask" 2>&1 || say "no answer: $(cat "$work/ask")"
# ss prints into the same file: one line, the ids, is all that may be there.
[ "$(wc -w <"$work/want")" -gt 20 ] || say "run gave no ids: $(cat "$work/want")"
[ "$(cat "$work/ask")" = "$(cat "$work/want")" ] ||
	say "the client has, and ss shows: $(cat "$work/ask"); run has $(cat "$work/want")"
[ -z "$(in_server ss -Hlun)" ] || say "the server listens on a kernel socket: $(in_server ss -Hlun)"
# The check can fail: a socket in that namespace shows.
in_server python3 -c 'import socket, subprocess
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 7878))
subprocess.run(["ss", "-Hlun"], check=True)' | grep -q 7878 || say "ss does not show a socket that is there"

sleep 0.2
python3 $client find "$work/capture" "$work/while" >"$work/found" || say "tokens did not flow meanwhile"
[ "$(wc -l <"$work/found")" -ge 2 ] || say "$(wc -l <"$work/found") answers in the capture"
[ "$(sort -u "$work/found")" = "$(cat "$work/want")" ] || say "the capture holds other ids: $(cat "$work/found")"

in_client python3 $client abuse "$work/key" || say "hostile datagrams"
in_client python3 $client ask "$work/key" "$prompt" 60 "$work/while" true >"$work/again" 2>&1
[ "$(cat "$work/again")" = "$(cat "$work/want")" ] || say "another answer after that: $(cat "$work/again")"

kill -TERM $server
wait $server || say "serve ended with $?: $(cat "$work/log")"
python3 - "$work/stats.json" <<'PY' || say "the counters do not tell what was dropped"
import json, sys
m = json.load(open(sys.argv[1]))["metrics"]
want = {"wire_bad_format": 13, "wire_bad_version": 1, "wire_bad_tag": 4, "wire_too_large": 1}
got = {name: m[name] for name in want}
assert got == want, (got, want)
assert m["copy_token_wire"] > 0
PY
exit $bad
