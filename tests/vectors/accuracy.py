#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How far programs lie from the float64 reference: one row for each output.

    accuracy.py NAME=OUTPUT...

OUTPUT is what `millrace model vectors` or llama_cpp.py here wrote. Prints a reST table:
  logit       largest and root mean square difference of a logit over the reference's top 20, at the last
              position of each prompt, where the output has the id too
  greedy      argmaxes that agree, of all forced greedy steps; and how many do not where the reference's
              margin is 0.5 or more
  ln p        root mean square difference of the log-probability of the next token, over every position of
              the prompts and of the perplexity text
  NLL         difference of the mean NLL over the same positions, and its standard error: the differences
              of single tokens are of either sign, and so is their mean
  perplexity  of the text, and the reference's
Below it, for each output after the first: how much larger the first one's NLL and squared differences of
ln p are, token by token, with standard errors.
"""
import json
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def rms(values):
    return math.sqrt(sum(v * v for v in values) / len(values))


def mean_error(values):
    """The mean, and its standard error."""
    mean = sum(values) / len(values)
    return mean, rms([v - mean for v in values]) / math.sqrt(len(values))


def by_id(out):
    return dict({g["id"]: g for g in out["logits"]}, ppl=out["ppl"])


def differences(logprobs, out):
    """Of ln p of each token."""
    got = by_id(out)
    return [b - a for r in logprobs for a, b in zip(r["logprobs"], got[r["id"]]["logprobs"], strict=True)]


def row(name, refs, ppl, lp, out):
    got = by_id(out)
    diffs, agree, steps, wide = [], 0, 0, 0
    for r in refs:
        ours = dict(map(tuple, got[r["id"]]["top"]))
        diffs += [ours[i] - v for i, v in r["top"] if i in ours]
        for want, have, margin in zip(r["greedy"], got[r["id"]]["forced"], r["margin"]):
            steps += 1
            agree += want == have
            wide += want != have and margin >= 0.5
    return [name, "%.3f" % max(map(abs, diffs)), "%.3f" % rms(diffs), "%d of %d, %d" % (agree, steps, wide),
            "%.3f" % rms(lp), "%+.4f +- %.4f" % mean_error([-d for d in lp]),
            "%.2f (%.2f)" % (math.exp(out["ppl"]["nll"]), math.exp(ppl["nll"]))]


def main():
    refs, ppl, logprobs = (read(os.path.join(HERE, n + ".json")) for n in ("logits", "ppl", "logprobs"))
    table = [["program", "logit: largest", "RMS", "greedy", "ln p: RMS", "NLL", "perplexity"]]
    each = []
    for arg in sys.argv[1:]:
        name, path = arg.rsplit("=", 1)
        out = read(path)
        each.append(differences(logprobs, out))
        table.append(row(out.get("program", name), refs, ppl, each[-1], out))
    widths = [max(len(r[i]) for r in table) for i in range(len(table[0]))]
    rule = " ".join("=" * w for w in widths)
    for i, r in enumerate(table):
        if i < 2:
            print(rule)
        print(" ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip())
    print(rule)
    for r, other in zip(table[2:], each[1:]):
        print("%s against %s, over %d tokens: NLL %+.4f +- %.4f, squares %+.5f +- %.5f" % (
            (table[1][0], r[0], len(other)) + mean_error([b - a for a, b in zip(each[0], other)]) +
            mean_error([a * a - b * b for a, b in zip(each[0], other)])))


main()
