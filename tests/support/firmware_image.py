#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a firmware image as Documentation/lpu-spec.rst lays it out, for tests of `millrace lpu firmware`: the code is
counted bytes, which the simulated LPU takes and never runs."""
import argparse
import hashlib
import struct

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("output")
parser.add_argument("--product", default="mr1")
parser.add_argument("--version", default="test-1")
parser.add_argument("--bytes", type=int, default=200000)
parser.add_argument("--format", type=int, default=1)
args = parser.parse_args()

code = bytes(i * 7 & 0xFF for i in range(args.bytes))
header = struct.pack("<IIQ32s32s32s16x", 0x57464C4D, args.format, len(code), args.product.encode(),
                     args.version.encode(), hashlib.sha256(code).digest())
assert len(header) == 128
with open(args.output, "wb") as f:
    f.write(header + code)
