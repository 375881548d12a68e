#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Transcripts of vfio-user connections: records one between a client and a server, replays one against a server.

usage: vfio_user_transcript.py record LISTEN SERVER FILE    stands between one client and SERVER, until it leaves
       vfio_user_transcript.py replay SERVER FILE...        sends what the client sent, compares what comes back

A transcript is text, a message a line: ">" from the client or "<" from the server, its bytes in hexadecimal
without spaces, then a word for each descriptor that came with it: "memfd:BYTES" (a file, as long as that, sealed
against shrinking), "eventfd", or "file:BYTES" (from the server). Lines that begin with "#" are remarks.

Replay makes descriptors of the same kinds, with zeros in them: the device finds no command where the client had
written some. So a reply must be the recorded one, but for: the registers that tell what a device is doing (STATUS,
HEARTBEAT, REFUSED), the minor version of the LPU, and the order of names in VERSION's JSON.
"""
import array
import fcntl
import json
import os
import select
import socket
import struct
import sys

REPLY, NO_REPLY, ERROR = 1, 0x10, 0x20
VERSION, REGION_READ = 1, 9
VOLATILE = (0x14, 0x38, 0x3C)  # STATUS, HEARTBEAT, REFUSED of BAR0
LPU_VERSION = 0x04
LIMIT_S = 20


def receive(sock):
    """A message and its descriptors; nothing where the other side has left."""
    data, fds, want = b"", [], 16
    while len(data) < want:
        part, rights, _, _ = sock.recvmsg(want - len(data), 4096)
        if not part:
            return b"", fds
        data += part
        for level, kind, body in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                got = array.array("i")
                got.frombytes(body[: len(body) // 4 * 4])
                fds += list(got)
        if len(data) >= 16:
            want = max(16, struct.unpack_from("I", data, 4)[0])
    return data, fds


def send(sock, data, fds):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = sock.sendmsg([data], rights)
    sock.sendall(data[sent:])


def describe(fd, from_client):
    if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]":
        return "eventfd"
    return f"{'memfd' if from_client else 'file'}:{os.fstat(fd).st_size}"


def record(listen, server, path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(listen)
    listener.listen(1)
    client = listener.accept()[0]
    far = socket.socket(socket.AF_UNIX)
    far.connect(server)
    out = open(path, "w", encoding="ascii")
    out.write("# vfio-user transcript, format 1; see tests/support/vfio_user_transcript.py\n")
    poll = select.poll()
    for s in (client, far):
        poll.register(s, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            source, to = (client, far) if number == client.fileno() else (far, client)
            data, fds = receive(source)
            if not data:
                return
            words = [describe(fd, source is client) for fd in fds]
            out.write(" ".join([">" if source is client else "<", data.hex()] + words) + "\n")
            send(to, data, fds)
            for fd in fds:
                os.close(fd)


def make(word):
    kind, _, size = word.partition(":")
    if kind == "eventfd":
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    fd = os.memfd_create("replay", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, int(size))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def masked(data):
    """What must be equal of a reply."""
    _, command, _, flags, _ = struct.unpack_from("HHIII", data)
    if command == VERSION and not flags & ERROR:
        return data[:4], data[8:20], json.loads(data[20:].rstrip(b"\0") or b"{}")
    if command == REGION_READ and not flags & ERROR:
        offset, region, _ = struct.unpack_from("QII", data, 16)
        if region == 0 and offset in VOLATILE:
            return data[:32], len(data)
        if region == 0 and offset == LPU_VERSION:
            return data[:32], data[34:]
    return data


def replay(server, path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(LIMIT_S)
    sock.connect(server)
    keep, messages, bad = [], 0, 0
    for number, line in enumerate(open(path, encoding="ascii"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        data = bytes.fromhex(words[1])
        if words[0] == ">":
            fds = [make(word) for word in words[2:]]
            keep += fds  # a client keeps its own
            send(sock, data, fds)
            messages += 1
            continue
        try:
            got, fds = receive(sock)
        except OSError as e:
            sys.exit(f"{path}:{number}: no reply: {e}")
        if not got:
            sys.exit(f"{path}:{number}: the server has closed the connection")
        kinds = [describe(fd, False) for fd in fds]
        if masked(got) != masked(data) or kinds != words[2:]:
            print(f"{path}:{number}: got {got.hex()} {kinds}, recorded {words[1:]}")
            bad += 1
        for fd in fds:
            os.close(fd)
    sock.close()
    for fd in keep:
        os.close(fd)
    print(f"{path}: {messages} messages replayed, {bad} replies differ")
    return bad


def main():
    args = sys.argv[1:]
    if args[:1] == ["record"] and len(args) == 4:
        record(*args[1:])
    elif args[:1] == ["replay"] and len(args) >= 3:
        sys.exit(1 if sum(replay(args[1], path) for path in args[2:]) else 0)
    else:
        sys.exit(__doc__)


main()
