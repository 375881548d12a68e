#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a tiny random model for each architecture and RoPE scaling, and what `transformers` makes of it.

    pip install numpy gguf==0.19.0 torch==2.15.0 transformers==5.24.0 && make_models.py FOLDER [CORPUS]

Writes FOLDER/*.gguf and FOLDER/logits.json: for each file the token ids of one sequence and, after some of
its positions, the logits of the whole vocabulary, computed by transformers in float32 from the weights as
`gguf` dequantises them. Writes the fuzzer's inputs to CORPUS. tests/unit/test_models.c holds the CPU backend to them.
"""
import json
import os
import sys

import numpy as np
import torch
from gguf import GGMLQuantizationType as T, GGUFWriter, TokenType, quants
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import make_tiny  # noqa: E402: its tokeniser

COUNT = 72                   # tokens of the sequence
AFTER = [0, 1, 17, 40, 71]   # positions whose logits are kept
ARCH = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
SMALL = dict(layers=2, width=64, ffn=96, heads=4, kv_heads=2, head_dim=16, context=128, base=10000.0)
MODELS = {
    "llama-linear": dict(SMALL, arch="llama", pre="gpt-2", type=T.F16, tied=False,
                         rope={"rope_type": "linear", "factor": 4.0}),
    "llama-factors": dict(SMALL, arch="llama", pre="llama-bpe", type=T.BF16, tied=False, base=500000.0,
                          rope={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}),
    "llama-yarn": dict(SMALL, arch="llama", pre="smollm", type=T.F32, tied=True, layers=1,
                       rope={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    "llama-k": dict(SMALL, arch="llama", pre="smollm", tied=True, layers=1, width=256, ffn=256, heads=4,
                    kv_heads=1, embd=T.Q6_K, q=T.Q5_K, k=T.Q4_0, v=T.Q6_K, o=T.Q4_1, gate=T.Q4_K,
                    up=T.Q5_K, down=T.Q6_K),
    "qwen2": dict(SMALL, arch="qwen2", pre="qwen2", type=T.F16, tied=True, base=1000000.0),
    "qwen3": dict(SMALL, arch="qwen3", pre="qwen2", type=T.F16, tied=False, head_dim=32, base=1000000.0),
}

# Inputs of a few KB for the GGUF fuzzer, under tests/fuzz/corpus/gguf.
SEED = dict(layers=1, width=32, ffn=32, heads=2, kv_heads=1, head_dim=16, context=64, base=10000.0, type=T.Q4_0)
SEEDS = {
    "qwen2": dict(SEED, arch="qwen2", pre="qwen2", tied=True),
    "qwen3": dict(SEED, arch="qwen3", pre="gpt-2", tied=False, down=T.F16),
    "yarn": dict(SEED, arch="llama", pre="gpt-2", tied=True, up=T.BF16,
                 rope={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    "factors": dict(SEED, arch="llama", pre="llama-bpe", tied=True, rope=MODELS["llama-factors"]["rope"]),
}


def weights(rng, rows, cols, kind, gain):
    """A matrix as the file holds it, and as floats; standard deviation gain / sqrt(cols)."""
    deviation = gain / cols ** 0.5
    if kind == T.F32:
        raw = rng.normal(0, deviation, (rows, cols)).astype(np.float32)
    elif kind == T.F16:
        raw = rng.normal(0, deviation, (rows, cols)).astype(np.float16)
    elif kind in (T.BF16, T.Q4_0, T.Q4_1, T.Q8_0):
        raw = quants.quantize(rng.normal(0, deviation, (rows, cols)).astype(np.float32), kind)
    else:  # the package does not quantise these: random blocks, scales for the deviation
        _, size = quants.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (rows, cols // 256, size), np.uint8)
        def put(at, values):
            raw[:, :, at:at + 2] = values.astype(np.float16)[..., None].view(np.uint8)
        spread = rng.uniform(0.8, 1.2, (rows, cols // 256)) * deviation
        if kind == T.Q6_K:  # int8 scales of deviation 74, values of deviation 18.5
            put(208, spread / (74 * 18.5))
        else:  # scales and minima of 6 bits: mean 31.5
            middle = 7.5 if kind == T.Q4_K else 15.5
            put(0, spread / (36 * middle * 1.2))
            put(2, spread / (36 * 1.2))
        raw = raw.reshape(rows, -1)
    return raw, quants.dequantize(raw, kind).astype(np.float32)


def half_rows(matrix, heads):
    """Rows of adjacent pairs, as the llama architecture's files have them, to those of transformers."""
    return matrix.reshape(heads, -1, 2, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape)


def tokenizer(w, pre):
    tokens, types, merges = make_tiny.tokeniser(24, False)
    if pre == "qwen2":  # a token of the user's own and one that pads the vocabulary
        tokens += ["<think>", "[PAD0]"]
        types += [TokenType.USER_DEFINED, TokenType.UNUSED]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    if pre == "qwen2":
        w.add_add_bos_token(False)
    return len(tokens)


def rope_config(spec):
    rope = dict(spec.get("rope") or {"rope_type": "default"})
    rope["rope_theta"] = spec["base"]
    return rope


def llama3_factors(spec):
    """What the file's rope_freqs.weight holds: how much each pair's angle is divided by."""
    rope, out = spec["rope"], []
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    for i in range(0, spec["head_dim"], 2):
        wave = 2 * np.pi * spec["base"] ** (i / spec["head_dim"])
        smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (
            rope["high_freq_factor"] - rope["low_freq_factor"])
        out.append(1 if wave < high else rope["factor"] if wave > low else
                   1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(out, np.float32)


def metadata(w, spec):
    w.add_block_count(spec["layers"])
    w.add_context_length(spec["context"])
    w.add_embedding_length(spec["width"])
    w.add_feed_forward_length(spec["ffn"])
    w.add_head_count(spec["heads"])
    w.add_head_count_kv(spec["kv_heads"])
    w.add_key_length(spec["head_dim"])
    w.add_value_length(spec["head_dim"])
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(spec["base"])
    rope = spec.get("rope", {})
    if rope.get("rope_type") == "linear":
        w.add_string("%s.rope.scaling.type" % spec["arch"], "linear")
        w.add_rope_scaling_factor(rope["factor"])
    elif rope.get("rope_type") == "yarn":
        w.add_string("%s.rope.scaling.type" % spec["arch"], "yarn")
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif rope.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(spec))


def make(path, name, spec, rng):
    w, state = GGUFWriter(path, spec["arch"]), {}
    w.add_name("millrace " + name)
    vocab = tokenizer(w, spec["pre"])
    metadata(w, spec)

    def matrix(ours, theirs, part, rows, cols, gain, heads=0):
        kind = spec.get(part, spec.get("type"))
        raw, floats = weights(rng, rows, cols, kind, gain)
        w.add_tensor(ours, raw, raw_dtype=kind)
        state[theirs] = half_rows(floats, heads) if heads and spec["arch"] == "llama" else floats

    def vector(ours, theirs, n, centre, spread):
        v = rng.uniform(centre - spread, centre + spread, n).astype(np.float32)
        w.add_tensor(ours, v)
        state[theirs] = v

    width, ffn = spec["width"], spec["ffn"]
    q, kv = spec["heads"] * spec["head_dim"], spec["kv_heads"] * spec["head_dim"]
    matrix("token_embd.weight", "model.embed_tokens.weight", "embd", vocab, width, 0.25 * width ** 0.5)
    for i in range(spec["layers"]):
        a, b = "blk.%d." % i, "model.layers.%d." % i
        vector(a + "attn_norm.weight", b + "input_layernorm.weight", width, 1, 0.25)
        matrix(a + "attn_q.weight", b + "self_attn.q_proj.weight", "q", q, width, 1.25, spec["heads"])
        matrix(a + "attn_k.weight", b + "self_attn.k_proj.weight", "k", kv, width, 1.25, spec["kv_heads"])
        matrix(a + "attn_v.weight", b + "self_attn.v_proj.weight", "v", kv, width, 1.25)
        matrix(a + "attn_output.weight", b + "self_attn.o_proj.weight", "o", width, q, 2.5)
        if spec["arch"] == "qwen2":
            for part, n in (("q", q), ("k", kv), ("v", kv)):
                vector(a + "attn_%s.bias" % part, b + "self_attn.%s_proj.bias" % part, n, 0, 1)
        if spec["arch"] == "qwen3":
            for part in "qk":
                vector(a + "attn_%s_norm.weight" % part, b + "self_attn.%s_norm.weight" % part,
                       spec["head_dim"], 1, 0.5)
        vector(a + "ffn_norm.weight", b + "post_attention_layernorm.weight", width, 1, 0.25)
        matrix(a + "ffn_gate.weight", b + "mlp.gate_proj.weight", "gate", ffn, width, 1.5)
        matrix(a + "ffn_up.weight", b + "mlp.up_proj.weight", "up", ffn, width, 1.5)
        matrix(a + "ffn_down.weight", b + "mlp.down_proj.weight", "down", width, ffn, 2.5)
    vector("output_norm.weight", "model.norm.weight", width, 1.5, 0.25)
    if not spec["tied"]:
        matrix("output.weight", "lm_head.weight", "output", vocab, width, 1.5)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return vocab, state


def reference(spec, vocab, state, ids):
    config_of, model_of = ARCH[spec["arch"]]
    config = config_of(
        vocab_size=vocab, hidden_size=spec["width"], intermediate_size=spec["ffn"],
        num_hidden_layers=spec["layers"], num_attention_heads=spec["heads"],
        num_key_value_heads=spec["kv_heads"], head_dim=spec["head_dim"],
        max_position_embeddings=spec["context"], rms_norm_eps=1e-5, rope_parameters=rope_config(spec),
        tie_word_embeddings=spec["tied"], attn_implementation="eager")
    model = model_of(config).to(torch.float32).eval()
    state = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()}
    if spec["tied"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def main():
    folder, out = sys.argv[1], []
    for seed, (name, spec) in enumerate(MODELS.items()):
        rng = np.random.default_rng(seed)
        vocab, state = make(os.path.join(folder, name + ".gguf"), name, spec, rng)
        ids = [int(i) for i in rng.integers(0, vocab, COUNT)]
        logits = reference(spec, vocab, state, ids)
        print(name, vocab, "logits", float(logits.std()), float(np.abs(logits).max()))
        out.append({"model": name, "tokens": ids,
                    "logits": [{"position": p, "values": [round(float(v), 5) for v in logits[p]]} for p in AFTER]})
    for seed, (name, spec) in enumerate(SEEDS.items() if len(sys.argv) > 2 else ()):
        make(os.path.join(sys.argv[2], name + ".gguf"), name, spec, np.random.default_rng(seed))
    with open(os.path.join(folder, "logits.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(m) for m in out) + "\n]\n")


main()
