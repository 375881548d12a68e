#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A decode device in Python, written from Documentation/lpu-spec.rst and the published vfio-user protocol alone.

It has registers, doorbells, the admin queue (IDENTIFY, QUEUE_CREATE, QUEUE_DELETE, GET_LOG of the counters) and
I/O queues that know FENCE; everything else it refuses by name. It shares no code with the simulator or the
driver: what both take for granted and the documents do not say shows here.

usage: vfio_user_server.py SOCKET [--trapped] [--clients N]
"""
import array
import errno
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import sys

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO = 1, 2, 3, 4, 5
GET_IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE, RESET = 7, 8, 9, 10, 13
BAR0, BAR2, BAR4, CONFIG, REGIONS, IRQS, MSIX = 0, 2, 4, 7, 9, 5, 2
BYTES = {BAR0: 4096, BAR2: 32768, BAR4: 4096, CONFIG: 256}
VECTORS, QUEUES, RING_MAX, PAGE = 5, 4, 1024, 4096

MAGIC, LPU_VERSION = 0x55504C4D, 0x00010000
R_MAGIC, R_VERSION, R_CAPS, R_TIMEOUT, R_CONTROL, R_STATUS = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14
R_ENTRIES, R_SQ, R_CQ, R_HEARTBEAT, R_REFUSED = 0x20, 0x28, 0x30, 0x38, 0x3C
SQ_TAIL, CQ_HEAD, RECORD_HEAD, ARM = 0x0, 0x4, 0x8, 0xC
IDENTIFY, QUEUE_CREATE, QUEUE_DELETE, GET_LOG, FENCE = 0x01, 0x02, 0x03, 0x04, 0x89
E_INVALID, E_NOT_SUPPORTED, E_NOT_FOUND, E_EXISTS, E_RANGE, E_DMA_FAULT = 1, 3, 4, 5, 17, 26
READY, FATAL = 1, 2


class Refused(Exception):
    """A command's status, or a message's errno."""


class Queue:
    def __init__(self, index, entries, sq, cq, vector):
        self.index, self.entries, self.sq, self.cq, self.vector = index, entries, sq, cq, vector
        self.sq_head = self.cq_head = self.cq_tail = 0


class Device:
    """The LPU: registers, queues, memory that it may touch."""

    def __init__(self):
        self.doorbell_fd = os.memfd_create("bar2", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.doorbell_fd, BYTES[BAR2])
        fcntl.fcntl(self.doorbell_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.bar2 = mmap.mmap(self.doorbell_fd, BYTES[BAR2])
        self.maps, self.vectors = {}, {}
        self.commands = self.completions = self.refused = 0
        self.reset()

    def reset(self):
        self.regs, self.queues, self.status = {}, {}, 0
        self.bar2[:] = bytes(len(self.bar2))

    # DMA: (address, bytes) inside one mapping with that access, or E_DMA_FAULT
    def memory(self, at, n, access):
        for base, (size, flags, mem) in self.maps.items():
            if mem and base <= at and at + n <= base + size and flags & access:
                return mem, at - base
        raise Refused(E_DMA_FAULT)

    def read(self, at, n):
        mem, offset = self.memory(at, n, 1)
        return mem[offset:offset + n]

    def write(self, at, data):
        mem, offset = self.memory(at, len(data), 2)
        mem[offset:offset + len(data)] = data

    def reg_read(self, at):
        fixed = {R_MAGIC: MAGIC, R_VERSION: LPU_VERSION, R_TIMEOUT: 1000, R_STATUS: self.status,
                 R_CAPS: 10 | 12 << 8 | QUEUES << 16, R_REFUSED: self.refused & 0xFFFFFFFF}
        if at == R_HEARTBEAT:
            self.regs[at] = self.regs.get(at, 0) + 1 & 0xFFFFFFFF
        return fixed.get(at, self.regs.get(at, 0))

    def reg_write(self, at, value):
        if at == R_CONTROL:
            self.regs[at] = value & 1
            if value & 1 and not self.status:
                self.enable()
            elif not value & 1:
                self.queues, self.status = {}, 0
        elif at in (R_ENTRIES, R_SQ, R_SQ + 4, R_CQ, R_CQ + 4) and not self.status & READY:
            self.regs[at] = value

    def enable(self):
        entries = self.regs.get(R_ENTRIES, 0)
        sq = self.regs.get(R_SQ, 0) | self.regs.get(R_SQ + 4, 0) << 32
        cq = self.regs.get(R_CQ, 0) | self.regs.get(R_CQ + 4, 0) << 32
        self.bar2[:] = bytes(len(self.bar2))
        if not 2 <= entries <= 4096 or entries & entries - 1 or sq % 64 or cq % 64:
            self.status = FATAL
            return
        self.queues, self.status = {0: Queue(0, entries, sq, cq, 0)}, READY

    def doorbell(self, queue, word):
        return struct.unpack_from("I", self.bar2, queue * PAGE + word)[0]

    # Everything that the doorbells ask for; 1 = there was something
    def run(self):
        did = 0
        for q in list(self.queues.values()):
            while self.status == READY and q.index in self.queues and self.step(q):
                did = 1
        return did

    def step(self, q):
        tail, head = self.doorbell(q.index, SQ_TAIL), self.doorbell(q.index, CQ_HEAD)
        if (head - q.cq_head) & 0xFFFFFFFF <= (q.cq_tail - q.cq_head) & 0xFFFFFFFF:
            q.cq_head = head
        waiting = (tail - q.sq_head) & 0xFFFFFFFF
        if not waiting or waiting > q.entries or (q.cq_tail - q.cq_head) & 0xFFFFFFFF >= q.entries:
            return 0
        try:
            command = self.read(q.sq + q.sq_head % q.entries * 64, 64)
        except Refused:
            self.status |= FATAL  # a ring that is not there leaves nothing to answer with
            return 0
        q.sq_head = q.sq_head + 1 & 0xFFFFFFFF
        self.commands += 1
        opcode, flags, request = struct.unpack_from("<HHI", command)
        status = result = 0
        try:
            if flags:
                raise Refused(E_INVALID)
            result = (self.admin if q.index == 0 else self.io)(opcode, command) or 0
        except Refused as e:
            status = e.args[0]
            self.refused += 1
        if q.index in self.queues:
            self.complete(q, request, result, status)
        return 1

    def complete(self, q, request, result, status):
        phase = 1 - (q.cq_tail // q.entries & 1)
        at = q.cq + q.cq_tail % q.entries * 16
        try:
            mem, offset = self.memory(at, 16, 2)
        except Refused:
            self.status |= FATAL
            return
        mem[offset:offset + 12] = struct.pack("<IIHH", request, result, q.sq_head & 0xFFFF, status)
        struct.pack_into("I", mem, offset + 12, phase)  # one store, after the rest
        q.cq_tail = q.cq_tail + 1 & 0xFFFFFFFF
        self.completions += 1
        if self.doorbell(q.index, ARM):
            struct.pack_into("I", self.bar2, q.index * PAGE + ARM, 0)
            if q.vector in self.vectors:
                os.write(self.vectors[q.vector], struct.pack("Q", 1))

    def admin(self, opcode, c):
        if opcode == IDENTIFY:
            iova, n, zero = struct.unpack_from("<QII", c, 8)
            if zero or any(c[24:]):
                raise Refused(E_INVALID)
            if not 0 < n <= 512:
                raise Refused(E_RANGE)
            self.write(iova, self.identity()[:n])
            return n
        if opcode == QUEUE_CREATE:
            q, entries, sq, cq, records, record_entries, vector = struct.unpack_from("<IIQQQII", c, 8)
            if any(c[48:]):
                raise Refused(E_INVALID)
            for n in (entries, record_entries):
                if not 2 <= n <= RING_MAX or n & n - 1:
                    raise Refused(E_RANGE)
            if not 1 <= q <= QUEUES or vector >= VECTORS or (sq | cq | records) % 64:
                raise Refused(E_RANGE)
            if q in self.queues:
                raise Refused(E_EXISTS)
            self.bar2[q * PAGE:q * PAGE + 12] = bytes(12)
            self.queues[q] = Queue(q, entries, sq, cq, vector)
            return 0
        if opcode == QUEUE_DELETE:
            q = struct.unpack_from("<I", c, 8)[0]
            if any(c[12:]):
                raise Refused(E_INVALID)
            if not 1 <= q <= QUEUES:
                raise Refused(E_RANGE)
            if not self.queues.pop(q, None):
                raise Refused(E_NOT_FOUND)
            return 0
        if opcode == GET_LOG:
            iova, room, log, offset = struct.unpack_from("<QIIQ", c, 8)
            if any(c[32:]):
                raise Refused(E_INVALID)
            if log != 1:
                raise Refused(E_NOT_SUPPORTED)
            text = struct.pack("<4Q", self.commands, self.completions, 0, self.refused).ljust(256, b"\0")
            if offset > len(text):
                raise Refused(E_RANGE)
            text = text[offset:offset + room]
            if text:
                self.write(iova, text)
            return len(text)
        raise Refused(E_NOT_SUPPORTED)

    def io(self, opcode, c):
        if opcode != FENCE:
            raise Refused(E_NOT_SUPPORTED)
        if any(c[8:]):
            raise Refused(E_INVALID)
        return 0  # commands run in order: all before it have completed

    def identity(self):
        text = struct.pack("<II32s32s32s64s", MAGIC, LPU_VERSION, b"millrace tests", b"fence", b"python", b"D")
        # chips, slots, queues, ring, batch, steps, context, block tokens, FP16, bytes of the chip log
        text += struct.pack("<10I", 1, 1, QUEUES, RING_MAX, 1, 1, 16, 16, 1, 1)
        admin = 1 << IDENTIFY | 1 << QUEUE_CREATE | 1 << QUEUE_DELETE | 1 << GET_LOG
        text += struct.pack("<QQQQ", 1 << 20, 1000, admin, 1 << (FENCE & 63))
        return text.ljust(512, b"\0")


class Client:
    """One connection: messages to the device, and its memory and interrupts from them."""

    def __init__(self, device, sock, share):
        self.d, self.sock, self.share = device, sock, share
        self.config = bytearray(256)
        struct.pack_into("<HHHH", self.config, 0, 0xF00D, 0x5059, 0, 0x10)
        self.config[8:12] = b"\x01\x00\x00\x12"  # processing accelerator
        self.config[0x34] = 0x40
        struct.pack_into("<BBHII", self.config, 0x40, 0x11, 0, VECTORS - 1, BAR4, 0x800 | BAR4)

    def receive(self):
        data, fds = b"", []
        while len(data) < 16 or len(data) < struct.unpack_from("I", data, 4)[0]:
            want = (16 if len(data) < 16 else struct.unpack_from("I", data, 4)[0]) - len(data)
            part, rights = self.sock.recvmsg(want, 1024)[:2]
            if not part:
                return None, []
            data += part
            for level, kind, body in rights:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    got = array.array("i")
                    got.frombytes(body[:len(body) // 4 * 4])
                    fds += list(got)
        return data, fds

    def serve(self):
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        idle = 0
        while True:
            idle = 0 if self.d.run() else idle + 1
            if not poll.poll((0 if idle < 100 else 1) if self.share else None):
                continue
            message, fds = self.receive()
            if message is None:
                break
            self.answer(message, fds)
        self.d.maps, self.d.vectors = {}, {}

    def answer(self, message, fds):
        ident, command, _, flags, _ = struct.unpack_from("HHIII", message)
        body, fd, error = b"", None, 0
        try:
            body, fd = self.handle(command, message[16:], fds)
        except Refused as e:
            error = e.args[0]
        except struct.error:
            error = errno.EINVAL
        for left in fds:
            os.close(left)
        if flags & 0x10:
            return
        head = struct.pack("HHIII", ident, command, 16 + len(body), 0x21 if error else 1, error)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        self.sock.sendmsg([head + body], rights)

    def handle(self, command, m, fds):
        if command == VERSION:
            if struct.unpack_from("HH", m)[0] != 0:
                raise Refused(errno.ENOTSUP)
            caps = {"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 4096}}
            return struct.pack("HH", 0, 0) + json.dumps(caps).encode() + b"\0", None
        if command == GET_INFO:
            return struct.pack("IIII", 16, 3, REGIONS, IRQS), None
        if command == GET_REGION_INFO:
            index = struct.unpack_from("I", m, 8)[0]
            shared = index == BAR2 and self.share
            flags = (3 if index in BYTES else 0) | (4 if shared else 0)
            info = struct.pack("IIIIQQ", 32, flags, index, 0, BYTES.get(index, 0), 0)
            return info, self.d.doorbell_fd if shared else None
        if command == GET_IRQ_INFO:
            index = struct.unpack_from("I", m, 8)[0]
            return struct.pack("IIII", 16, 1, index, VECTORS if index == MSIX else 0), None
        if command == SET_IRQS:
            _, flags, index, start, count = struct.unpack_from("IIIII", m)
            if index != MSIX or flags != 0x24 or start + count > VECTORS or len(fds) not in (0, count):
                raise Refused(errno.EINVAL)
            for vector in range(start, start + count):
                self.d.vectors.pop(vector, None)
                if fds:
                    self.d.vectors[vector] = os.dup(fds[vector - start])
            return b"", None
        if command == DMA_MAP:
            _, flags, offset, address, size = struct.unpack_from("IIQQQ", m)
            if any(a < address + size and address < a + n for a, (n, _, _) in self.d.maps.items()):
                raise Refused(errno.EEXIST)
            prot = mmap.PROT_READ | (mmap.PROT_WRITE if flags & 2 else 0)
            mem = mmap.mmap(fds[0], size, prot=prot, offset=offset) if fds else None
            self.d.maps[address] = (size, flags, mem)
            return b"", None
        if command == DMA_UNMAP:
            _, _, address, size = struct.unpack_from("IIQQ", m)
            if address not in self.d.maps or self.d.maps[address][0] != size:
                raise Refused(errno.ENOENT)
            del self.d.maps[address]
            return m[:24], None
        if command in (REGION_READ, REGION_WRITE):
            return self.access(command, m), None
        if command == RESET:
            self.d.reset()
            return b"", None
        raise Refused(errno.ENOTSUP)

    def access(self, command, m):
        offset, region, count = struct.unpack_from("QII", m)
        if region not in BYTES or not 0 < count <= 4096 or offset + count > BYTES[region]:
            raise Refused(errno.EINVAL)
        if region in (BAR0, BAR2) and (count != 4 or offset % 4):
            raise Refused(errno.EINVAL)
        data = m[16:16 + count]
        if command == REGION_READ:
            data = {BAR0: lambda: struct.pack("I", self.d.reg_read(offset)),
                    CONFIG: lambda: bytes(self.config[offset:offset + count])
                    }.get(region, lambda: bytes(count))()
            return m[:16] + data
        if region == BAR0:
            self.d.reg_write(offset, struct.unpack("I", data)[0])
        elif region == BAR2:
            self.d.bar2[offset:offset + 4] = data
        elif region == CONFIG and (offset in (4, 0x42)):
            self.config[offset:offset + count] = data
        return m[:16]


def main():
    args = sys.argv[1:]
    clients = int(args[args.index("--clients") + 1]) if "--clients" in args else -1
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(args[0])
    listener.listen(1)
    device = Device()
    while clients:
        sock = listener.accept()[0]
        Client(device, sock, "--trapped" not in args).serve()
        sock.close()
        clients -= 1
    os.unlink(args[0])


main()
