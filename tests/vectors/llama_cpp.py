#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the vectors of this folder through llama.cpp: the object that compare.py and accuracy.py take.

    pip install llama-cpp-python && llama_cpp.py MODEL > OUTPUT

Logits and perplexity only. A prompt goes in as one batch, the forced tokens one by one, as in use; all else
as the package has it (KV in FP16).
"""
import importlib.metadata
import json
import math
import os
import sys

# A script's own folder comes first among the places that Python imports from, and this one has the package's name.
sys.path.pop(0)
import llama_cpp  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return json.load(f)


def log_prob(row, token):
    top = max(row)
    return row[token] - top - math.log(sum(math.exp(v - top) for v in row))


def rows(llama, tokens, forced=()):
    """Logits after each of tokens, then after each of forced."""
    llama.reset()
    llama.eval(tokens)
    for token in forced:
        llama.eval([token])
    return [[float(v) for v in row] for row in llama.scores[:len(tokens) + len(forced)]]


def nll(row, tokens):
    each = [log_prob(row[i], tokens[i + 1]) for i in range(len(tokens) - 1)]
    return {"nll": -sum(each) / len(each) if each else None, "logprobs": each}


def main():
    refs, ppl = read("logits.json"), read("ppl.json")
    context = max(len(ppl["tokens"]), max(len(r["tokens"]) + 32 for r in refs)) + 8
    llama = llama_cpp.Llama(sys.argv[1], n_ctx=context, n_batch=context, logits_all=True, n_threads=2,
                            n_threads_batch=2, verbose=False)
    out = {"program": "llama.cpp (llama-cpp-python %s)" % importlib.metadata.version("llama_cpp_python"),
           "logits": []}
    for r in refs:
        t = r["tokens"]
        row = rows(llama, t, r["greedy"][:31])
        last = row[len(t) - 1:]
        out["logits"].append({
            "id": r["id"],
            "top": sorted(([i, v] for i, v in enumerate(last[0])), key=lambda e: -e[1])[:40],
            "forced": [max(range(len(x)), key=x.__getitem__) for x in last],
            **nll(row, t),
            "logprob_checks": [[p, k, log_prob(row[p], k)] for p, k, _ in r["logprob_checks"]],
        })
    out["ppl"] = nll(rows(llama, ppl["tokens"]), ppl["tokens"])
    json.dump(out, sys.stdout)


main()
