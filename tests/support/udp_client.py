#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client of the wire on an ordinary UDP socket, out of the Python standard library alone: it is written from
userlib/include/millrace/wire.h, not from the C code, so that each checks the other.

    udp_client.py --server A [--port N] --key FILE [--max-tokens N] [--ignore-eos] [--reverse] TEXT
    udp_client.py --server A [--port N] --key FILE --hostile

The first form prints one JSON object: status, finish, ids, the counts of DONE. The second sends what a server
must drop or refuse and prints how it was answered. Exit status 0 when the server kept to the protocol."""

import argparse
import hashlib
import json
import os
import socket
import stat
import struct
import sys
import time

MAGIC, VERSION, FRAGMENT, TAG, DATAGRAM_MAX = 0x5752, 1, 1024, 16, 1472
SUBMIT, CANCEL, RESEND, TOKENS, DONE, ERROR, WANT = range(1, 8)
HEADER = struct.Struct("<HBBBBHQQQ")
PARAMS = struct.Struct("<IIII64s")
DONE_BODY = struct.Struct("<iIIIQQQQQII")
FINISH = ("stop", "length", "cancel", "error")
IGNORE_EOS = 2


class Key:
    def __init__(self, path):
        if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            sys.exit(f"{path}: readable by others")
        with open(path, "rb") as f:
            self.bytes = f.read()
        self.id = int.from_bytes(self.tag(b"millrace key id")[:8], "little")

    def tag(self, data):
        return hashlib.blake2b(data, key=self.bytes, digest_size=TAG).digest()


def datagram(key, kind, request, body=b"", version=VERSION, direction=0, body_bytes=None):
    n = len(body) if body_bytes is None else body_bytes
    data = HEADER.pack(MAGIC, version, kind, direction, 0, n, key.id, request, 0) + body
    return data + key.tag(data)


def fragments(key, request, text, max_tokens, flags):
    for offset in range(0, len(text), FRAGMENT):
        params = PARAMS.pack(offset, len(text), max_tokens, flags, bytes(64))
        yield datagram(key, SUBMIT, request, params + text[offset:offset + FRAGMENT])


def take(key, data):
    """(kind, request, body) of an authentic datagram to a client, or None."""
    if not HEADER.size + TAG <= len(data) <= DATAGRAM_MAX or key.tag(data[:-TAG]) != data[-TAG:]:
        return None
    magic, version, kind, direction, zero, n, key_id, request, zeros = HEADER.unpack_from(data)
    if (magic, version, direction, zero, zeros, key_id) != (MAGIC, VERSION, 1, 0, 0, key.id):
        return None
    if n != len(data) - HEADER.size - TAG:
        return None
    return kind, request, data[HEADER.size:-TAG]


def ask(sock, key, request, text, args):
    """Sends a prompt and puts its answer together; returns the object to print."""
    parts = list(fragments(key, request, text, args.max_tokens, IGNORE_EOS if args.ignore_eos else 0))
    if args.reverse:
        parts.reverse()
    for part in parts:
        sock.send(part)
    tokens, deadline = {}, time.monotonic() + args.timeout
    out = {"status": None, "datagrams": 0, "bad": 0, "resends": 0}
    sock.settimeout(0.3)
    while time.monotonic() < deadline:
        try:
            got = take(key, sock.recv(2048))
        except TimeoutError:
            first = next(i for i in range(len(tokens) + 1) if i not in tokens)
            sock.send(datagram(key, RESEND, request, struct.pack("<II", first, 0)))
            out["resends"] += 1
            continue
        if got is None or got[1] != request:
            out["bad"] += 1
            continue
        kind, _, body = got
        out["datagrams"] += 1
        if kind == TOKENS:
            first, count = struct.unpack_from("<II", body)
            assert len(body) == 8 + 16 * count
            for i in range(count):
                tokens[first + i] = struct.unpack_from("<IfQ", body, 8 + 16 * i)
        elif kind == ERROR:
            out["status"], out["limit"] = struct.unpack("<iI", body)
            break
        elif kind == DONE:
            done = DONE_BODY.unpack_from(body)
            if len(tokens) < done[3]:
                continue  # some are missing: silence will ask for them
            out.update(status=done[0], finish=FINISH[done[1]], prompt_tokens=done[2], tokens=done[3],
                       total_ns=done[7], cycles=done[8],
                       copies=list(struct.unpack_from(f"<{done[9]}Q", body, DONE_BODY.size)))
            break
    out["ids"] = [tokens[i][0] for i in sorted(tokens)]
    return out


def silent(sock, what, *parts):
    """Sends what must not be answered; returns a complaint or None."""
    for part in parts:
        sock.send(part)
    sock.settimeout(0.1)
    try:
        data = sock.recv(2048)
    except TimeoutError:
        return None
    return f"{what} was answered with {len(data)} bytes"


def refused(sock, key, what, part, want):
    """Sends what must be answered by ERROR @want, with no more bytes than were sent."""
    sock.send(part)
    sock.settimeout(3)
    try:
        data = sock.recv(2048)
    except TimeoutError:
        return f"{what} was not answered"
    got = take(key, data)
    if not got or got[0] != ERROR or struct.unpack("<iI", got[2])[0] != want:
        return f"{what} was answered by {data.hex()}"
    return f"{what}: the answer is longer than the question" if len(data) > len(part) else None


def hostile(sock, key, request):
    """What the server must count: 5 of bad format, 1 version, 3 tags, 1 fragment, 1 unknown, 1 too large."""
    good = next(fragments(key, request, b"abc", 4, 0))
    other = Key.__new__(Key)
    other.bytes, other.id = bytes(32), key.id
    params = PARAMS.pack(0, 70000, 4, 0, bytes(64))
    two = list(fragments(key, request + 2, bytes(1500), 4, 0))
    more = list(fragments(key, request + 2, bytes(1500), 5, 0))
    return [c for c in (
        silent(sock, "an empty datagram", b""),                                    # format 1
        silent(sock, "a short one", good[:40]),                                    # format 2
        silent(sock, "one with a byte more", good + b"x"),                         # format 3
        silent(sock, "a wrong magic", b"xx" + good[2:]),                           # format 4
        silent(sock, "a server's type", datagram(key, DONE, request, direction=1)),  # format 5
        silent(sock, "another version", datagram(key, SUBMIT, request, b"", version=9)),
        silent(sock, "a flipped bit", good[:-20] + bytes([good[-20] ^ 1]) + good[-19:]),  # tag 1
        silent(sock, "another key", datagram(other, CANCEL, request)),             # tag 2
        silent(sock, "an unknown key id", good[:8] + bytes(8) + good[16:]),        # tag 3
        silent(sock, "a contradiction", two[0], more[1]),
        silent(sock, "CANCEL of an unknown request", datagram(key, CANCEL, request + 1)),
        refused(sock, key, "RESEND of one", datagram(key, RESEND, request + 1, bytes(8)), -4),
        refused(sock, key, "a large prompt", datagram(key, SUBMIT, request + 3, params + bytes(1024)), -18),
    ) if c]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--server", required=True)
    p.add_argument("--port", type=int, default=7878)
    p.add_argument("--key", required=True)
    p.add_argument("--max-tokens", type=int, default=16)
    p.add_argument("--timeout", type=float, default=30)
    p.add_argument("--ignore-eos", action="store_true")
    p.add_argument("--reverse", action="store_true", help="send the last fragment first")
    p.add_argument("--hostile", action="store_true")
    p.add_argument("text", nargs="?", default="")
    args = p.parse_args()
    key = Key(args.key)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((args.server, args.port))
    request = time.time_ns()
    if args.hostile:
        complaints = hostile(sock, key, request)
        print(json.dumps({"complaints": complaints}))
        return 1 if complaints else 0
    out = ask(sock, key, request, args.text.encode(), args)
    print(json.dumps(out))
    return 0 if out["status"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
