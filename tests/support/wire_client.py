#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client of the wire on an ordinary kernel UDP socket, written from <millrace/wire.h> alone.

Run by tests/integration/wire.sh in a network namespace of its own. usage:
  wire_client.py capture INTERFACE FILE     writes every frame of the interface until killed
  wire_client.py ask KEY PROMPT TOKENS SECONDS-FILE COMMAND...
      sends the prompt again and again while COMMAND runs (from the first token on); prints the answer's ids, and
      writes COMMAND's start and end to SECONDS-FILE
  wire_client.py abuse KEY                  sends what no server may answer, and what it must refuse by name
  wire_client.py find FILE SECONDS-FILE     prints the ids of each answer in the capture, and fails unless
                                            tokens flowed before, in and after what SECONDS-FILE brackets
"""
import hashlib
import socket
import struct
import subprocess
import sys
import time

SERVER = ("10.77.0.1", 7878)
MAGIC, VERSION = 0x5752, 1
SUBMIT, CANCEL, RESEND, TOKENS, DONE, ERROR, WANT = range(1, 8)
HEADER = struct.Struct("<HBBBBHQQQ")
FRAGMENT, TAG = 1024, 16
CHAT = 1
SO_TIMESTAMPNS = 35  # Linux; Python has no name for it
E_TOO_LARGE, E_CONTEXT_FULL, E_NOT_FOUND = "E_TOO_LARGE", "E_CONTEXT_FULL", "E_NOT_FOUND"
FRAME = struct.Struct("<dI")  # of the capture: time, bytes


def code(name):
    """A status code's number, out of the header."""
    for line in open("userlib/include/millrace/status.h", encoding="utf-8"):
        if line.startswith(f"\tX({name}, "):
            return int(line.split(",")[1])
    raise SystemExit(f"no status code {name}")


class Wire:
    def __init__(self, path):
        self.key = open(path, "rb").read()
        self.id = int.from_bytes(self.hash(b"millrace key id")[:8], "little")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.request = time.time_ns()

    def hash(self, data):
        return hashlib.blake2b(data, key=self.key, digest_size=TAG).digest()

    def datagram(self, kind, request, body=b"", magic=MAGIC, version=VERSION, direction=0, reserved=0,
                 key_id=None, length=None):
        data = HEADER.pack(magic, version, kind, direction, 0, len(body) if length is None else length,
                           self.id if key_id is None else key_id, request, reserved) + body
        return data + self.hash(data)

    def send(self, data):
        self.socket.sendto(data, SERVER)

    def fragments(self, request, text, tokens, total=None):
        for at in range(0, len(text), FRAGMENT):
            body = struct.pack("<IIII", at, total or len(text), tokens, CHAT) + bytes(64)
            yield self.datagram(SUBMIT, request, body + text[at:at + FRAGMENT])

    def receive(self, seconds):
        """(type, request, body) of an authentic datagram; None when none came in time."""
        self.socket.settimeout(seconds)
        try:
            data, sender = self.socket.recvfrom(2048)
        except TimeoutError:
            return None
        magic, version, kind, direction, _, length, key_id, request, _ = HEADER.unpack_from(data)
        assert sender == SERVER and (magic, version, direction, key_id) == (MAGIC, VERSION, 1, self.id)
        assert len(data) == HEADER.size + length + TAG and self.hash(data[:-TAG]) == data[-TAG:]
        return kind, request, data[HEADER.size:-TAG]

    def ask(self, text, tokens, first=lambda: None):
        """The answer's ids. Lost datagrams are asked for again; @first is called at the first token."""
        self.request += 1
        for fragment in self.fragments(self.request, text, tokens):
            self.send(fragment)
        ids, total, silent = {}, None, 0
        while total is None or len(ids) < total:
            got = self.receive(0.5)
            if got is None:
                silent += 1
                assert silent < 40, "no answer"
                at = next(i for i in range(tokens + 1) if i not in ids)
                self.send(self.datagram(RESEND, self.request, struct.pack("<II", at, 0)))
                continue
            kind, request, body = got
            if request != self.request:
                continue
            assert kind in (TOKENS, DONE, WANT), f"type {kind}, status {body[:4]}"
            if kind == TOKENS:
                for i, token in ids_of(body):
                    ids[i] = token
                first()
            elif kind == DONE:
                status, _, _, total = struct.unpack_from("<iIII", body)
                assert status == 0, status
        return [ids[i] for i in range(total)]


def ids_of(body):
    first, count = struct.unpack_from("<II", body)
    return [(first + i, struct.unpack_from("<I", body, 8 + 16 * i)[0]) for i in range(count)]


def ask(path, prompt, tokens, brackets, *command):
    wire, running = Wire(path), []

    def start():
        if not running:
            running.extend((time.time(), subprocess.Popen(command)))

    answers = [wire.ask(prompt.encode(), int(tokens), start)]
    while running[1].poll() is None:
        answers.append(wire.ask(prompt.encode(), int(tokens)))
    end = time.time()
    answers.append(wire.ask(prompt.encode(), int(tokens)))
    assert running[1].returncode == 0, running[1].returncode
    assert all(answer == answers[0] for answer in answers), answers
    with open(brackets, "w", encoding="utf-8") as f:
        print(running[0], end, file=f)
    print(*answers[0])


def abuse(path):
    wire = Wire(path)
    good = next(wire.fragments(1, b"hello", 4))
    stranger = Wire(path)
    stranger.key = bytes(32)
    silent = [
        b"", b"x", good[:40], good[:-1], good + b"x",                      # lengths
        wire.datagram(SUBMIT, 1, good[32:-16], magic=0x1234),              # somebody else's protocol
        wire.datagram(SUBMIT, 1, good[32:-16], version=9),
        wire.datagram(SUBMIT, 1, good[32:-16], direction=1),
        wire.datagram(SUBMIT, 1, good[32:-16], reserved=5),
        wire.datagram(TOKENS, 1, struct.pack("<II", 0, 1) + bytes(16), direction=1),  # sent back
        wire.datagram(99, 1),
        wire.datagram(CANCEL, 1, b"body"),
        wire.datagram(SUBMIT, 1, struct.pack("<IIII", 512, 2048, 4, 0) + bytes(64) + bytes(1024)),
        wire.datagram(SUBMIT, 1, struct.pack("<IIII", 0, 5, 4, 1 << 31) + bytes(64) + b"hello"),
        good[:-1] + bytes([good[-1] ^ 1]),                                 # tag
        good[:50] + bytes([good[50] ^ 1]) + good[51:],                     # body under an old tag
        stranger.datagram(SUBMIT, 1, good[32:-16]),                        # a key that is not ours
        stranger.datagram(SUBMIT, 1, good[32:-16], key_id=wire.id),
    ]
    for data in silent:
        wire.send(data)
    got = wire.receive(0.3)
    assert got is None, f"an answer to a datagram that nobody may answer: {got}"

    def refused(name, fragments):
        for i, data in enumerate(fragments):
            wire.send(data)
            if i % 8 == 7:
                time.sleep(0.005)  # the server's queue has 256 places
        while (got := wire.receive(5)) and got[0] == WANT:
            pass
        assert got and got[0] == ERROR, got
        assert struct.unpack_from("<i", got[2])[0] == code(name), (name, struct.unpack("<iI", got[2]))

    refused(E_TOO_LARGE, [next(wire.fragments(2, bytes(1024), 4, total=64 * 1024 + 1))])
    refused(E_CONTEXT_FULL, wire.fragments(3, b"7" * 64 * 1024, 4))
    refused(E_NOT_FOUND, [wire.datagram(CANCEL, 4)])
    print(f"{len(silent)} datagrams without an answer, 3 refused by name")


def capture(interface, path):
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # every protocol
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # when it came, not when this process ran
    tap.bind((interface, 0))
    with open(path, "wb", buffering=0) as f:
        while True:
            data, stamps, _, _ = tap.recvmsg(2048, 64)
            seconds, ns = struct.unpack("@qq", stamps[0][2])
            f.write(FRAME.pack(seconds + ns / 1e9, len(data)) + data)


def find(path, brackets):
    start, end = map(float, open(brackets, encoding="utf-8").read().split())
    answers, before, meanwhile, after, at = {}, 0, 0, 0, 0
    data = open(path, "rb").read()
    while at + FRAME.size <= len(data):
        when, length = FRAME.unpack_from(data, at)
        frame = data[at + FRAME.size:at + FRAME.size + length]
        at += FRAME.size + length
        if frame[12:14] != b"\x08\x00" or frame[23] != 17:  # IPv4, UDP
            continue
        source, = struct.unpack_from("!H", frame, 34)
        datagram = frame[42:]
        if frame[26:30] != socket.inet_aton(SERVER[0]) or source != SERVER[1] or datagram[3] != TOKENS:
            continue
        length, = struct.unpack_from("<H", datagram, 6)
        request, = struct.unpack_from("<Q", datagram, 16)
        answers.setdefault(request, {}).update(ids_of(datagram[32:32 + length]))
        before += when < start
        meanwhile += start <= when <= end
        after += when > end
    assert before and meanwhile and after, f"datagrams of tokens: {before} before, {meanwhile} meanwhile, {after} after"
    for ids in answers.values():
        print(*(ids[i] for i in sorted(ids)))


{"ask": ask, "abuse": abuse, "capture": capture, "find": find}[sys.argv[1]](*sys.argv[2:])
