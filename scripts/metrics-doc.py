#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints Documentation/metrics.rst, made from driver/metrics.def and driver/histogram.def.

usage: metrics-doc.py [driver/metrics.def [driver/histogram.def]]

tests/integration/docs.sh compares the committed page with what this prints. A line of the
definition file that this does not understand ends it with status 1: no metric is left out in
silence.
"""
import re
import sys

HEAD = """\
.. This page is made by scripts/metrics-doc.py from driver/metrics.def and driver/histogram.def; change those
   files instead.

Metrics
=======

Every counter of the server, from ``driver/metrics.def``. That one list makes the C enumeration
(``enum mr_metric``), the printed table, the counters file (:doc:`observing`) and this page.

All values are unsigned 64-bit counts since the process started. They never go down. A metric whose
name holds ``_max_`` is the largest value seen so far, not a sum.

Each metric has one owner: the only thread that writes it. So counting is a load and a store, never a
locked instruction. Any thread may read; it sees a recent value, never a torn one. There is no order
between two metrics.

==========  ===================================================================================
Owner       Thread
==========  ===================================================================================
"""
RULE = "==========  " + "=" * 83
METRIC = re.compile(r'^X\((\w+), "([^"]+)", (\w+), "([^"]+)"\)$')
HISTOGRAM = re.compile(r'^X\((\w+), (\w+), "([^"]+)"\)$')
OWNER = re.compile(r"^ \*   (\w+)\s{2,}(.+)$")


def read(path):
    """Returns owners as [(name, text)] and sections as [(title, [(id, unit, owner, help)])]."""
    owners, sections, inside = [], [], False
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip()
            metric = METRIC.match(line)
            if metric:
                if not sections:
                    sys.exit(f"{path}:{number}: a metric before the first section's comment")
                if metric[3] not in dict(owners):
                    sys.exit(f"{path}:{number}: the opening comment has no owner {metric[3]}")
                sections[-1][1].append(metric.groups())
            elif line.startswith("/* ") and line.endswith(" */"):
                title = line[3:-3]
                if not title.startswith("SPDX"):
                    sections.append((title, []))
            elif line == "/*" or inside:
                inside = not line.endswith("*/")
                owner = OWNER.match(line)
                if owner:
                    owners.append(owner.groups())
            elif line:
                sys.exit(f"{path}:{number}: neither a metric, a comment nor empty: {line}")
    return owners, sections


def histograms(path, owners):
    """Returns [(id, owner, help)]."""
    found, inside = [], False
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip()
            one = HISTOGRAM.match(line)
            if one:
                if one[2] not in dict(owners):
                    sys.exit(f"{path}:{number}: no owner {one[2]}")
                found.append(one.groups())
            elif line == "/*" or inside:
                inside = not line.endswith("*/")
            elif line and not line.startswith("/* SPDX"):
                sys.exit(f"{path}:{number}: neither a histogram nor a comment: {line}")
    return found


def table(rows, header):
    """A simple table of @rows under @header; every cell is one line."""
    rows = [header] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule] + lines[1:] + [rule])


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "driver/metrics.def"
    owners, sections = read(path)
    print(HEAD + "\n".join(f"{name:10}  {text}" for name, text in owners))
    print(RULE)
    for title, metrics in sections:
        heading = title[0].upper() + title[1:]
        rows = [(f"``{m[0]}``", m[1], m[2], m[3]) for m in metrics]
        print(f"\n{heading}\n{'-' * len(heading)}\n")
        print(table(rows, ("Metric", "Unit", "Owner", "Meaning")))
    path = sys.argv[2] if len(sys.argv) > 2 else "driver/histogram.def"
    print("\nLatency histograms\n------------------\n\nFrom ``driver/histogram.def``; all are in ns. "
          ":doc:`observing` says how exact they are.\n")
    rows = [(f"``{h[0]}``", h[1], h[2]) for h in histograms(path, owners)]
    print(table(rows, ("Histogram", "Owner", "Meaning")))


if __name__ == "__main__":
    main()
