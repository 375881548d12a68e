#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A conversation over vfio-user, written down and played again.

record LISTEN SERVER FILE: a client that connects to LISTEN talks to the server at SERVER; all of it goes to FILE.
replay FILE SERVER: says to the server what the client said, and demands the answers that it got.

FILE is text. Lines that start with # say what it is. Else a line is a message, in order: "> " from the client or
"< " from the server, its bytes in hexadecimal, header included, then a word for each descriptor beside it: "event"
(an eventfd), or "memory:N:BYTES" (the N-th file of memory in this conversation, sealed where it was).

On replay descriptors are new ones of the same kinds, memory is zeros, and answers are compared byte by byte, but for
what changes by itself: the registers STATUS, HEARTBEAT and REFUSED, and the words of VERSION.
"""
import array
import fcntl
import os
import socket
import struct
import sys
import threading

VERSION, REGION_READ = 1, 9
VOLATILE = (0x14, 0x38, 0x3C)  # of BAR0
NO_REPLY = 0x10


def receive(sock):
    """A message and the descriptors beside it; b"" at the end."""
    data, fds = b"", []
    while len(data) < 16 or len(data) < struct.unpack_from("I", data, 4)[0]:
        want = (16 if len(data) < 16 else struct.unpack_from("I", data, 4)[0]) - len(data)
        part, rights = sock.recvmsg(want, 1024)[:2]
        if not part:
            return b"", fds
        data += part
        for _, _, body in rights:
            got = array.array("i")
            got.frombytes(body[:len(body) // 4 * 4])
            fds += list(got)
    return data, fds


def send(sock, data, fds):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = sock.sendmsg([data], rights)
    sock.sendall(data[sent:])
    for fd in fds:
        os.close(fd)


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock


def record(listen, server, path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(listen)
    listener.listen(1)
    client = listener.accept()[0]
    device = connect(server)
    lock, inodes, out = threading.Lock(), {}, open(path, "w", encoding="ascii")

    def note(fd):
        if "eventfd" in os.readlink(f"/proc/self/fd/{fd}"):
            return "event"
        stat = os.fstat(fd)
        return f"memory:{inodes.setdefault(stat.st_ino, len(inodes))}:{stat.st_size}"

    def carry(source, to, mark):
        while True:
            data, fds = receive(source)
            if not data:
                break
            with lock:  # so that no answer is written down before its question
                out.write(" ".join([mark, data.hex(), *map(note, fds)]) + "\n")
            send(to, data, fds)
        to.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=carry, args=(device, client, "<"))
    back.start()
    try:
        carry(client, device, ">")
    except OSError:
        pass
    back.join()
    os.unlink(listen)


def make(word, files):
    if word == "event":
        return os.eventfd(0, os.EFD_NONBLOCK)
    _, number, size = word.split(":")
    if number not in files:
        files[number] = os.memfd_create("replay", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(files[number], int(size))
        fcntl.fcntl(files[number], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return os.dup(files[number])


def comparable(message):
    command = struct.unpack_from("H", message, 2)[0]
    if command == VERSION:
        return message[:4] + message[8:20]
    if command == REGION_READ and len(message) > 32:
        offset, region = struct.unpack_from("QI", message, 16)
        if region == 0 and offset in VOLATILE:
            return message[:32]
    return message


def replay(path, server):
    said = [line.split() for line in open(path, encoding="ascii") if line.strip() and line[0] != "#"]
    answers = iter([(bytes.fromhex(w[1]), len(w) - 2) for w in said if w[0] == "<"])
    sock, files, count = connect(server), {}, 0
    sock.settimeout(20)
    for number, words in enumerate(said, 1):
        if words[0] != ">":
            continue
        message = bytes.fromhex(words[1])
        send(sock, message, [make(w, files) for w in words[2:]])
        count += 1
        if struct.unpack_from("I", message, 8)[0] & NO_REPLY:
            continue
        want, want_fds = next(answers)
        got, fds = receive(sock)
        for fd in fds:
            os.close(fd)
        if comparable(got) != comparable(want) or len(fds) != want_fds:
            at = next((i for i, (g, w) in enumerate(zip(got, want)) if g != w), min(len(got), len(want)))
            sys.exit(f"FAILED: message {number}, {message[:48].hex()}: {len(got)} bytes and {len(fds)} descriptors, "
                     f"not {len(want)} and {want_fds}; from byte {at} on {got[at:at + 16].hex()}, "
                     f"not {want[at:at + 16].hex()}")
    print(f"{count} messages of the client, every answer as it was")


if __name__ == "__main__":
    {"record": record, "replay": replay}[sys.argv[1]](*sys.argv[2:])
