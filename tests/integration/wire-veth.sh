#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The wire to an ordinary UDP socket: two network namespaces joined by a veth pair. The server's end has no
# kernel address and is driven by net_af_packet, so its namespace shows no UDP socket while tokens flow; the client
# is tests/support/udp_client.py. The answer's ids are found in a capture of the wire, and what is malformed or
# not authentic is counted and not answered. Needs root.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
skip() {
	echo "skipped: $1"
	exit 77
}
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
for tool in ip ethtool ss python3; do
	command -v $tool >/dev/null || skip "no $tool (Debian: iproute2, ethtool, python3)"
done
work=$(mktemp -d)
server= capture= srv= cli=
cleanup() {
	for pid in $capture $server $srv $cli; do
		kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}

# Each namespace lives as long as a process in it, and has no name: that asks for no mount, so a chroot will do.
unshare -n sleep 600 2>"$work/err" &
srv=$!
unshare -n sleep 600 2>>"$work/err" &
cli=$!
tries=0
for pid in $srv $cli; do
	until [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do
		kill -0 $pid 2>/dev/null && [ $tries -lt 200 ] || skip "network namespaces: $(cat "$work/err")"
		tries=$((tries + 1))
		sleep 0.05
	done
done
in_srv() {
	nsenter -t $srv -n "$@"
}
in_cli() {
	nsenter -t $cli -n "$@"
}
ip link add mrs0 netns $srv type veth peer name mrc0 netns $cli 2>"$work/err" || skip "veth: $(cat "$work/err")"
# The server's kernel keeps out of it: no IPv6 address comes up by itself, no IPv4 address is given.
in_srv sh -c 'echo 1 >/proc/sys/net/ipv6/conf/mrs0/disable_ipv6' 2>/dev/null
in_srv ip link set mrs0 up
in_cli ip addr add 10.77.0.2/24 dev mrc0
in_cli ip link set mrc0 up
# Checksums are left to hardware that a veth does not have: what arrives must be complete.
in_cli ethtool -K mrc0 tx off >"$work/err" 2>&1 || skip "ethtool -K tx off is refused: $(cat "$work/err")"

"$bin" keys new "$work/key" >/dev/null || exit 1
: >"$work/log"
nsenter -t $srv -n "$bin" serve -m "$tiny" --quiet --device lpu --vdev net_af_packet0,iface=mrs0 \
	--key "$work/key" --stats "$work/stats" 2>"$work/log" &
server=$!
tries=0
until grep -q '^millrace: serving' "$work/log"; do
	if ! kill -0 "$server" 2>/dev/null || [ $tries -gt 600 ]; then
		say "serve did not start: $(cat "$work/log")"
		exit 1
	fi
	tries=$((tries + 1))
	sleep 0.05
done

udp() {
	in_cli timeout 60 python3 tests/support/udp_client.py --server 10.77.0.1 --key "$work/key" "$@"
}

nsenter -t $cli -n python3 tests/support/capture.py mrc0 "$work/frames" >"$work/ready" &
capture=$!
tries=0
until grep -q ready "$work/ready" || [ $tries -gt 100 ]; do
	tries=$((tries + 1))
	sleep 0.05
done

# Requests in the background while the namespace's sockets are looked at: none may be there, and tokens must flow.
(
	for i in 1 2 3 4 5 6; do
		udp --max-tokens 400 --ignore-eos 'the prompt' >"$work/flow$i" || exit 1
	done
) &
flow=$!
looks=0
while kill -0 $flow 2>/dev/null; do
	sockets=$(in_srv ss -Hlun)
	[ -z "$sockets" ] || say "the server's namespace has a UDP socket: $sockets"
	[ -z "$(in_srv ip -o addr show dev mrs0)" ] || say "the server's end has a kernel address"
	looks=$((looks + 1))
	sleep 0.02
done
wait $flow || say "a request failed: $(cat "$work"/flow*)"
# The look can find something: a socket in that namespace shows.
in_srv python3 -c 'import socket, subprocess
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7879))
subprocess.run(["ss", "-Hlun"], check=True)' | grep -q 7879 || say "ss does not show a socket that is there"
[ $looks -ge 3 ] || say "the answers were over before anyone looked ($looks looks)"

# Fragments in the wrong order, then the ids of `run`.
long=$(python3 -c 'print(("the prompt and " * 100)[:1300])')
udp --max-tokens 16 --reverse "$long" >"$work/answer" || say "a reversed prompt failed: $(cat "$work/answer")"
"$bin" run -m "$tiny" --device lpu --quiet --json --raw -n 16 -p "$long" >"$work/run" || say "run failed"
sleep 0.3
kill "$capture"
wait "$capture"
capture=
python3 - "$work" <<'PY' || say "ids differ, or are not on the wire"
import json, struct, sys
work = sys.argv[1]
answer, run = json.load(open(work + "/answer")), json.load(open(work + "/run"))
assert answer["ids"] == run["tokens"], (answer["ids"], run["tokens"])
data, at, ids = open(work + "/frames", "rb").read(), 0, {}
while at < len(data):
    n, = struct.unpack_from("<I", data, at)
    f = data[at + 4:at + 4 + n]
    at += 4 + n
    # IPv4, UDP, from the server, a TOKENS datagram
    if len(f) < 42 + 48 or f[12:14] != b"\x08\x00" or f[23] != 17 or f[26:30] != bytes([10, 77, 0, 1]):
        continue
    magic, version, kind = struct.unpack_from("<HBB", f, 42)
    if (magic, version, kind) != (0x5752, 1, 4):
        continue
    request, = struct.unpack_from("<Q", f, 42 + 16)
    first, count = struct.unpack_from("<II", f, 74)
    for i in range(count):
        ids.setdefault(request, {})[first + i] = struct.unpack_from("<I", f, 82 + 16 * i)[0]
seen = [[r[i] for i in sorted(r)] for r in ids.values()]
flows = [json.load(open(f"{work}/flow{i}"))["ids"] for i in range(1, 7)]
assert answer["ids"] in seen and all(f in seen and len(f) == 400 for f in flows), (len(seen), seen[-1:])
PY

# Hostile datagrams: the client counts what it sent, the server what it dropped; then a prompt is answered still.
udp --hostile >"$work/hostile" || say "hostile datagrams: $(cat "$work/hostile")"
udp --max-tokens 4 'again' >"$work/again" || say "no answer after hostile datagrams: $(cat "$work/again")"
kill -TERM "$server"
wait "$server"
rc=$?
server=
[ $rc = 0 ] || say "the server ended with status $rc: $(cat "$work/log")"
python3 - "$work/stats" <<'PY' || say "the counters do not say what came"
import json, sys
m = json.load(open(sys.argv[1]))["metrics"]
want = {"wire_bad_format": 5, "wire_bad_version": 1, "wire_bad_tag": 3, "wire_bad_fragment": 1, "wire_unknown": 1, "wire_too_large": 1,
        "sched_done": 8}
got = {k: m[k] for k in want}
assert got == want, got
PY
exit $bad
