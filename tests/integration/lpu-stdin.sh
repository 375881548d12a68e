#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# millrace lpu sim --stdin: a client of plain bytes is answered, memory without a descriptor is none that the device
# can reach, and every input of the server's corpus ends with 0 or 1.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}
python3 - "$bin" <<'END' || say "a client by pipes"
import struct, subprocess, sys

HEAD = struct.Struct("<HHIII")
sim = subprocess.Popen([sys.argv[1], "lpu", "sim", "--stdin", "--spec", "tiny", "--slots", "8"],
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)

def ask(command, body=b""):
    sim.stdin.write(HEAD.pack(7, command, 16 + len(body), 0, 0) + body)
    sim.stdin.flush()
    number, got, size, flags, error = HEAD.unpack(sim.stdout.read(16))
    assert (number, got, flags & 15) == (7, command, 1)
    return error, sim.stdout.read(size - 16)

def read(offset):
    error, body = ask(9, struct.pack("<QII", offset, 0, 4))
    assert not error
    return struct.unpack_from("<I", body, 16)[0]

def write(offset, value, region=0):
    assert not ask(10, struct.pack("<QIII", offset, region, 4, value))[0]

error, body = ask(1, struct.pack("<HH", 0, 1) + b'{}\0')
assert not error and body[:4] == b"\0\0\1\0"
assert read(0) == 0x55504c4d
# A mapping without a descriptor: the device is brought up over it, cannot read its ring, and gives up.
assert not ask(2, struct.pack("<IIQQQ", 32, 3, 0, 0x100000, 0x10000))[0]
for offset, value in ((0x20, 8), (0x28, 0x100000), (0x2c, 0), (0x30, 0x101000), (0x34, 0), (0x10, 1)):
    write(offset, value)
while read(0x14) != 1:
    pass
write(0, 1, 2)
while read(0x14) != 3:
    pass
assert read(0x18) == 2
sim.stdin.close()
assert sim.wait(20) == 0
END
"$bin" lpu sim --stdin --socket "$work/s" </dev/null 2>/dev/null
[ $? = 2 ] || say "--stdin with --socket is no wrong command line"
# An input of the corpus has a byte of the target's own first, and one before each message: bytes like any others.
for f in tests/fuzz/corpus/vfio_user/*; do
	tail -c +3 "$f" | "$bin" lpu sim --stdin --spec tiny >"$work/out" 2>"$work/err"
	rc=$?
	[ $rc -le 1 ] || say "$f: status $rc: $(cat "$work/err")"
done
exit $bad
