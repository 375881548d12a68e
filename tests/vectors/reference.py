#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes logprobs.json: ln p of each next token of the prompts and of the perplexity text, in float64.

    pip install numpy gguf && reference.py MODEL > logprobs.json

The model as the vectors' reference has it: dequantised weights, all else in float64. The script checks itself
against the mean NLLs of logits.json and ppl.json, and the last position's logits.
"""
import json
import os
import sys

import numpy as np
from gguf import GGUFReader, quants

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return json.load(f)


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.w = {t.name: quants.dequantize(t.data, t.tensor_type).astype(np.float64).reshape(
            [int(n) for n in reversed(t.shape)]) for t in reader.tensors}
        number = lambda key: reader.fields["llama." + key].parts[-1][0]
        self.layers, self.heads = int(number("block_count")), int(number("attention.head_count"))
        self.kv_heads = int(number("attention.head_count_kv"))
        self.eps = float(number("attention.layer_norm_rms_epsilon"))
        self.base = float(number("rope.freq_base"))

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name + ".weight"]

    def rope(self, x):  # (positions, heads, head_dim), adjacent pairs
        n, _, dim = x.shape
        angle = np.arange(n)[:, None] * self.base ** (-np.arange(0, dim, 2) / dim)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)

    def logits(self, tokens):
        x = self.w["token_embd.weight"][tokens]
        n = len(tokens)
        mask = np.triu(np.full((n, n), -np.inf), 1)
        for i in range(self.layers):
            b = "blk.%d." % i
            h = self.norm(x, b + "attn_norm")
            q, k, v = ((h @ self.w[b + "attn_%s.weight" % c].T).reshape(n, heads, -1)
                       for c, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)))
            q, k = self.rope(q), self.rope(k)
            k, v = (np.repeat(c, self.heads // self.kv_heads, 1) for c in (k, v))
            s = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1]) + mask
            s = np.exp(s - s.max(-1, keepdims=True))
            s /= s.sum(-1, keepdims=True)
            x = x + np.einsum("hqk,khd->qhd", s, v).reshape(n, -1) @ self.w[b + "attn_output.weight"].T
            h = self.norm(x, b + "ffn_norm")
            gate = h @ self.w[b + "ffn_gate.weight"].T
            h = gate / (1 + np.exp(-gate)) * (h @ self.w[b + "ffn_up.weight"].T)
            x = x + h @ self.w[b + "ffn_down.weight"].T
        return self.norm(x, "output_norm") @ self.w["token_embd.weight"].T


def main():
    model, out = Model(sys.argv[1]), []
    for r in read("logits.json") + [dict(read("ppl.json"), id="ppl")]:
        t = r["tokens"]
        y = model.logits(t)
        top = y.max(-1, keepdims=True)
        lp = y - top - np.log(np.exp(y - top).sum(-1, keepdims=True))
        each = [float(lp[i, t[i + 1]]) for i in range(len(t) - 1)]
        assert not each or abs(-sum(each) / len(each) - r["nll"]) < 2e-5, (r["id"], r["nll"], each)
        assert all(abs(y[-1, i] - v) < 2e-4 for i, v in r.get("top", ())), r["id"]
        out.append({"id": r["id"], "logprobs": [round(v, 5) for v in each]})
    print("[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]")


main()
