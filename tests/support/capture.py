#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Captures what passes an interface: capture.py IFACE FILE writes every frame, length first (4 bytes, little-
endian), until SIGTERM; it prints "ready" once it listens. Needs root, and nothing but Python."""

import signal
import socket
import struct
import sys

ETH_P_ALL = 3


def main():
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((sys.argv[1], ETH_P_ALL))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with open(sys.argv[2], "wb", buffering=0) as out:
        print("ready", flush=True)
        while True:
            frame = sock.recv(65536)
            out.write(struct.pack("<I", len(frame)) + frame)


main()
