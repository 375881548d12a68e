#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Seeds of fuzz_lpu_driver: runs that reach each of the driver's readers, then each answer of such a run spoilt in
each way. usage: lpu_driver_seeds.py FOLDER (as many files as there are runs and ways)"""
import os
import sys

POLL, OPEN, CLOSE, FORK, IMPORT, DECODE, SCORE, READ = range(8)
SLEEP, EVENT, LET_GO, SCRIBBLE, RESET, SET_UP, REGISTERS, LOAD = range(8, 16)
BRING_UP = 24  # bytes that the device takes until the program is loaded


def act(op, which=0, *params):
    return bytes([op | which << 4, *params])


def decode(count, steps, flags, *positions):
    return act(DECODE, 0, count, steps, flags, *positions)


SLOT = act(OPEN, 0, 48, 1)
RUNS = {
    'decode': SLOT + SLOT + decode(2, 4, 0, 0, 0) + act(POLL) * 3,
    'logits': act(OPEN, 0, 70, 0) + decode(1, 8, 12, 0) + act(POLL) * 3 + act(CLOSE),
    'score': SLOT + act(SCORE, 0, 5, 0) + act(POLL) * 2,
    'read': SLOT + act(IMPORT, 0, 2, 0, 1) + act(READ, 0, 0, 0, 2) + act(POLL) * 2,
    'fork': SLOT + act(IMPORT, 0, 2, 0, 1) + act(FORK, 0, 60, 1, 20) + act(POLL) +
            decode(2, 2, 0, 40, 32) + act(POLL) * 2 + act(CLOSE, 0) + act(CLOSE, 1) + act(POLL),
    'events': b''.join(act(EVENT, 0, 1 + 2 * t, log, 0, 2) + act(POLL) * 2
                       for t, log in enumerate((1, 3, 7, 4, 5, 6))),
    'set-up': b''.join(act(SET_UP, w, v, f) for w, v, f in
                       ((0, 0, 4), (1, 0, 3), (2, 9, 3), (3, 200, 0), (4, 0, 0), (2, 1, 7))),
    'eager': act(REGISTERS, 7) + act(EVENT, 0, 7, 4, 0, 1) + act(POLL) * 3,
    'silent': SLOT + act(REGISTERS, 4) + decode(1, 2, 0, 0) + act(SLEEP, 15) * 3 + act(RESET) + act(POLL),
    'frozen': SLOT + act(REGISTERS, 4) + act(REGISTERS, 2) + decode(1, 2, 0, 0) + act(SLEEP, 15) * 2 +
              act(REGISTERS, 6) + act(SLEEP, 3),
    'stuck': SLOT + decode(1, 2, 0, 0) + act(REGISTERS, 3) + act(RESET) + act(POLL) + SLOT +
             decode(1, 1, 0, 0) + act(POLL),
    'gone': SLOT + act(REGISTERS, 4) + decode(1, 2, 0, 0) + act(REGISTERS, 5) + act(POLL) * 2 + act(RESET) +
            act(POLL) + SLOT + decode(1, 2, 0, 0) + act(POLL),
    'fatal': SLOT + act(REGISTERS, 4) + decode(1, 2, 0, 0) + act(REGISTERS, 0, 2) + act(SLEEP, 4) + act(RESET),
    'load': SLOT + decode(1, 1, 0, 0) + act(POLL) + act(CLOSE) + act(LOAD) + SLOT + act(LOAD),
}


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)

    def write(name, script, tape=b'', how=0):
        with open(os.path.join(folder, name), 'wb') as f:
            f.write(bytes([how]) + script + tape[::-1])

    for name, script in RUNS.items():
        write(name, script)
        write(name + '-how', script, how=7)
        for late in range(12):
            for way in (160, 161, 162, 163, 164, 165, 168, 170, 171, 240):
                tape = bytes(BRING_UP + late) + bytes([way]) + bytes([1, 3, 0, 7, 5, 9] * 4)
                write(f'{name}-{late}-{way}', script, tape)
    for early in range(BRING_UP):
        for way in (8, 168, 170, 240, 255):
            write(f'open-{early}-{way}', RUNS['decode'], bytes(early) + bytes([way]) + b'\3\7\1' * 8)
    # A controller that cannot be reset, and a function neither.
    for late in range(8):
        write(f'dead-{late}', SLOT + act(REGISTERS, 4) + decode(1, 2, 0, 0) + act(REGISTERS, 3) + act(RESET) +
              act(POLL) * 2 + act(RESET) + act(POLL), bytes(BRING_UP + late) + b'\360')


main()
