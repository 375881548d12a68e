#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Seeds of fuzz_lpu for admin commands, and for work that is ended early: made from the seeds "decode" and "score" of
its corpus. usage: lpu_seeds.py CORPUS"""
import os
import struct
import sys

IO, HOT, ECC, ASSERTS, ARM, REGS, RINGS, ON = (1 << n for n in range(8))
AT = 0x10000000 + 65536
GET_LOG, FEATURES, ASYNC_EVENT, ABORT = 4, 5, 6, 7


def command(opcode, request, form='', *fields):
    return (struct.pack('<HHI' + form, opcode, 0, request, *fields)).ljust(64, b'\0')


def log(n, offset=0, size=4096, at=AT):
    return command(GET_LOG, 50 + n, 'QIIQ', at, size, n, offset)


def feature(n, action, value=0, queue=0, iova=0):
    return command(FEATURES, 80 + n, 'IIIIQ', n, action, value, queue, iova)


def abort(queue, target):
    return command(ABORT, 90, 'II', queue, target)


def write(folder, name, commands, data=b''):
    body = b''.join(bytes([flags]) + c for flags, c in commands)
    with open(os.path.join(folder, name), 'wb') as f:
        f.write(bytes([len(commands)]) + body + data)


def parts(folder, name):
    with open(os.path.join(folder, name), 'rb') as f:
        whole = f.read()
    n = whole[0]
    return [(whole[1 + i * 65], whole[2 + i * 65:66 + i * 65]) for i in range(n)], whole[1 + n * 65:]


def ended_early(folder, name, opcode):
    """The works run on; one is ended while it runs, one while it waits, and one that is not there."""
    commands, data = parts(folder, name)
    out = []
    for flags, c in commands:
        kind, _, request = struct.unpack_from('<HHI', c)
        if kind == opcode:
            again = c[:4] + struct.pack('<I', request + 1000) + c[8:]
            out += [(flags | ON, c), (flags | ON, again), (0, abort(1, request + 1000)), (0, abort(1, request)),
                    (0, abort(1, 77777))]
        else:
            out.append((flags, c))
    return out[:63], data


def main():
    folder = sys.argv[1]
    asks = [(0, log(1))] + [(ON, command(ASYNC_EVENT, n)) for n in range(5)]
    write(folder, 'logs', [(0, log(n)) for n in range(9)] +
          [(0, log(1, 100)), (0, log(1, 1 << 40)), (0, log(2, 0, 64)), (0, log(4, 0, 4096, 0)),
           (ASSERTS, log(6))])
    write(folder, 'asks', asks + [(0, abort(0, 2)), (0, abort(0, 999)), (0, abort(3, 1)), (0, abort(99, 1)),
                                  (0, feature(4, 2, 300000)), (HOT, log(7)), (HOT, log(7)), (ECC, log(4)),
                                  (RINGS, log(1)), (RINGS, feature(9, 1)), (0, log(3)), (ECC | HOT, log(4)),
                                  (0, log(4, 0, 64, 64)), (0, log(3))])
    write(folder, 'registers', [(REGS, command(1, n, 'I', n * 4)) for n in range(17)])
    write(folder, 'armed', asks[:3] + [(ARM, log(1)), (IO | ARM, command(0x89, 1)), (0, feature(2, 2, 2 | 50 << 8, 1)),
                                       (IO | ARM, command(0x89, 2)), (IO, command(0x89, 3)),
                                       (0, feature(2, 2, 200 | 100 << 8, 1)), (IO | ARM, command(0x89, 4)),
                                       (IO, command(0x89, 5))])
    write(folder, 'abort-decode', *ended_early(folder, 'decode', 0x86))
    write(folder, 'abort-score', *ended_early(folder, 'score', 0x87))
    # A completion ring, and a submission ring, that the device cannot reach.
    queue = struct.Struct('<HHIIIQQQIIQQ')
    for name, sq, cq in (('no-completions', AT + 4096, 64), ('no-commands', 64, AT + 8192)):
        write(folder, name, [(0, queue.pack(2, 0, 1, 2, 16, sq, cq, AT + 16384, 512, 1, 0, 0)),
                             (RINGS, command(0x89, 9, 'I', 0x60002)), (RINGS, command(0x89, 9, 'I', 6)),
                             (0, log(6))])


main()
