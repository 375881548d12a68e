#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints unicode_table.h: the ranges of letters and numbers, from Python's Unicode database.

Run by hand with a Python whose unicodedata has the wanted version (3.11 has Unicode 14.0, as has the
PCRE2 that tests/unit/test_tokenizer_split.c compares with): make_unicode.py > unicode_table.h
"""
import sys
import unicodedata

ranges = []
for code in range(sys.maxunicode + 1):
    group = {"L": "LETTER", "N": "NUMBER"}.get(unicodedata.category(chr(code))[0])
    if ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == group:
        ranges[-1][1] = code
    elif group:
        ranges.append([code, code, group])

print("/* SPDX-License-Identifier: Apache-2.0 */")
print("/* Letters and numbers of Unicode %s, ascending; written by make_unicode.py, included by unicode.c. */"
      % unicodedata.unidata_version)
print("/* clang-format off */")
cells = ["{0x%x, 0x%x, %s}," % (first, last, group[0]) for first, last, group in ranges]
line = ""
for cell in cells:
    if len(line) + len(cell) + 1 > 92:
        print("\t" + line)
        line = ""
    line = (line + " " + cell).strip()
print("\t" + line)
