#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads bus traces by Documentation/lpu-trace.rst alone, for tests.

  summary FILE              kinds with their counts
  container FILE OUT        the program container that the host sent, from the memory that PROGRAM commands name
  vendor CONTAINER OUT N    the same container with payload kind N, its hash made anew
  cut FILE OUT BYTES        without memory entries of more than BYTES
  change FILE OUT KIND      flips a bit in the last answer of that kind: completions or records
"""
import collections
import hashlib
import struct
import sys

KINDS = ["", "reg_read", "reg_write", "doorbell", "map", "unmap", "memory", "completions", "records", "irq", "reset",
         "end"]
HEADER, ENTRY = 64, struct.Struct("<HHIQQII")


def entries(data):
    magic, version, size = struct.unpack_from("<8sII", data)
    assert magic == b"MRBUTRC1" and version == 1 and size == HEADER, data[:16]
    at, time = HEADER, 0
    while at < len(data):
        kind, queue, size, ns, where, value, zero = ENTRY.unpack_from(data, at)
        end = at + ENTRY.size + (size + 7) // 8 * 8
        assert 0 < kind < len(KINDS) and zero == 0 and ns >= time and end <= len(data), at
        yield KINDS[kind], queue, where, value, data[at + ENTRY.size:at + ENTRY.size + size], data[at:end], at
        at, time = end, ns


def container(data):
    out, iova, offset, size = bytearray(), 0, 0, 0
    for kind, _, where, _, payload, _, _ in entries(data):
        if kind == "memory" and len(payload) == 64 and payload[:2] == b"\x08\0":  # PROGRAM; what it names follows
            action, = struct.unpack_from("<I", payload, 8)
            iova, offset, size = struct.unpack_from("<QQQ", payload, 16)
            if action == 1:
                out, size = bytearray(size), 0
        elif kind == "memory" and iova <= where < iova + size:
            at = offset + where - iova
            out[at:at + len(payload)] = payload
    return bytes(out)


def main():
    what, data = sys.argv[1], open(sys.argv[2], "rb").read()
    if what == "summary":
        counts = collections.Counter(e[0] for e in entries(data))
        print(" ".join(f"{k}={counts[k]}" for k in KINDS[1:]))
        return
    if what == "container":
        result = container(data)
    elif what == "vendor":
        result = bytearray(data)
        struct.pack_into("<I", result, 140, int(sys.argv[4]))
        meta, = struct.unpack_from("<Q", result, 144)
        result[16:48] = hashlib.sha256(result[48:meta]).digest()
    elif what == "cut":
        result = data[:HEADER] + b"".join(
            e[5] for e in entries(data) if e[0] != "memory" or len(e[4]) <= int(sys.argv[4]))
    elif what == "change":
        result = bytearray(data)
        at = [e[6] for e in entries(data) if e[0] == sys.argv[4]][-1] + ENTRY.size
        result[at + (10 if sys.argv[4] == "completions" else 8)] ^= 1
    with open(sys.argv[3], "wb") as f:
        f.write(result)


main()
