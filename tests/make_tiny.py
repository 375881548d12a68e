#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the small models that the tests run: GGUF version 3, random weights, a real tokeniser format.

    make_tiny.py tiny FILE    2 layers, the demo model's tensor types and control tokens
    make_tiny.py seed FILE    1 layer and a small vocabulary, a few KB: a seed for the GGUF fuzzer

The output is a pure function of this file: own generator, no libm, Python's standard library only.
tests/unit/test_model.c holds the committed tiny.gguf to what this script writes.
"""
import re
import struct
import sys

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # metadata value types
TENSOR_F32, TENSOR_Q4_1, TENSOR_Q8_0 = 0, 3, 8
ALIGNMENT = 32

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>",
           "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>",
           "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>",
           "<jupyter_script>", "<empty_output>"]
# The bytes that the demo model has no token for: encoding drops them.
NO_TOKEN = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)}

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}")

# What the merges are learnt from: words of the trade, other scripts, runs of spaces, contractions.
TEXT = """\
The water of the mill runs through the race to the wheel, and the wheel turns the stone. A prompt
comes in over the network, the prefill makes the keys and the values, and the decode device makes
one token after another. It's the tail of the latency that counts: we'll measure it, they've
measured it, and I'd say you're not done until you can't find the token that was late.
    if (head - tail == size) {
        return -1;
    }
        for (i = 0; i < count; i++)
            sum += weights[i] * inputs[i];
Once upon a time, in a small town by the river, there was a miller who had a daughter. She asked
the miller: "What is the capital of France?" and he answered that the capital of France is Paris.
Hello, how are you? I am well, thank you. What can you tell me about the sea, the stars and the
rain? The quick brown fox jumps over the lazy dog, again and again, and then the dog is asleep.
Ça va très bien, merci; der Müller geht zur Mühle; l'été à la rivière; größer, später, schöner.
Вода течёт и течёт; вода и колесо. 水は流れる。水は流れる。水车。 \U0001F600\U0001F600 \U0001F44D\U0001F44D
The function takes a pointer and a length, and returns the number of bytes that it wrote, or a
negative status. The caller owns the memory; the callee never frees it. One producer, one consumer:
the producer stores the entry, then the sequence word with release; the consumer loads the sequence
word with acquire, then the entry. Every error that a caller can cause has a name and a counter.
""" * 2


class Rng:
    """splitmix64: 64 bits at a time, the same on every machine."""

    def __init__(self, seed):
        self.state = seed

    def u64(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def bytes(self, n):
        return b"".join(struct.pack("<Q", self.u64()) for _ in range((n + 7) // 8))[:n]

    def around(self, centre, spread):
        """Uniform in centre * (1 - spread .. 1 + spread)."""
        return centre * (1.0 + spread * ((self.u64() >> 40) / float(1 << 23) - 1.0))


def byte_symbols():
    """Byte value -> the printable character that byte-level BPE writes for it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(other)}


def learn_merges(count):
    """The first `count` merges of byte-level BPE over TEXT; ties go to the smaller pair."""
    symbols = byte_symbols()
    split = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d| ?[^\s\w]+|\s+(?!\S)|\s+")
    words = {}
    for part in split.findall(TEXT):
        word = tuple(symbols[b] for b in part.encode())
        words[word] = words.get(word, 0) + 1
    merges = []
    while len(merges) < count:
        pairs = {}
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + n
        if not pairs:
            sys.exit("make_tiny: the text is too short for %d merges" % count)
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        merged = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i:i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] = merged.get(tuple(out), 0) + n
        words = merged
    return merges


def tokeniser(merge_count, all_bytes):
    """Tokens, their types and the merges, in the demo model's order: control, bytes, merges."""
    symbols = byte_symbols()
    merges = learn_merges(merge_count)
    used = {c for pair in merges for c in pair[0] + pair[1]}
    singles = sorted(symbols[b] for b in range(256)
                     if b not in NO_TOKEN and (all_bytes or symbols[b] in used))
    tokens, seen = CONTROL + singles, set(CONTROL + singles)
    for left, right in merges:
        if left + right not in seen:  # two merges can spell one token
            seen.add(left + right)
            tokens.append(left + right)
    types = [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL))
    return tokens, types, ["%s %s" % pair for pair in merges]


def string(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    if kind == STRING:
        return string(v)
    if kind == ARRAY:
        item, items = v
        return struct.pack("<IQ", item, len(items)) + b"".join(value(item, i) for i in items)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def f32_vector(rng, n, centre):
    return b"".join(struct.pack("<f", rng.around(centre, 0.25)) for _ in range(n))


def q4_1_matrix(rng, rows, cols, deviation):
    """Blocks of 32: FP16 scale and minimum, 32 uniform nibbles (standard deviation 4.61 scales)."""
    out = []
    for _ in range(rows * cols // 32):
        scale = rng.around(deviation / 4.61, 0.25)
        out.append(struct.pack("<ee", scale, rng.around(-7.5 * scale, 0.05)) + rng.bytes(16))
    return b"".join(out)


def q8_0_matrix(rng, rows, cols, deviation):
    """Blocks of 32: FP16 scale, 32 uniform int8 (standard deviation 73.9 scales)."""
    return b"".join(struct.pack("<e", rng.around(deviation / 73.9, 0.25)) + rng.bytes(32)
                    for _ in range(rows * cols // 32))


def tensors(shape, vocab):
    """(name, dimensions innermost first, type, data), in the demo model's order.

    The embedding is small beside what the layers add, so that the tied output does not merely repeat
    the last token; the output norm is large, so that logits spread over a few units.
    """
    rng = Rng(shape["seed"])
    width, ffn = shape["width"], shape["ffn"]
    q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]

    def matrix(name, rows, cols, gain):
        data = q4_1_matrix(rng, rows, cols, gain / cols ** 0.5)
        return (name, [cols, rows], TENSOR_Q4_1, data)

    def norm(name, centre):
        return (name, [width], TENSOR_F32, f32_vector(rng, width, centre))

    out = [("token_embd.weight", [width, vocab], TENSOR_Q8_0, q8_0_matrix(rng, vocab, width, 0.25))]
    for i in range(shape["layers"]):
        b = "blk.%d." % i
        out += [norm(b + "attn_norm.weight", 1.0),
                matrix(b + "ffn_down.weight", width, ffn, 2.5),
                matrix(b + "ffn_gate.weight", ffn, width, 1.5),
                matrix(b + "ffn_up.weight", ffn, width, 1.5),
                norm(b + "ffn_norm.weight", 1.0),
                matrix(b + "attn_k.weight", kv, width, 1.25),
                matrix(b + "attn_output.weight", width, q, 2.5),
                matrix(b + "attn_q.weight", q, width, 1.25),
                matrix(b + "attn_v.weight", kv, width, 1.25)]
    return out + [norm("output_norm.weight", 1.5)]


def gguf(shape, name):
    tokens, types, merges = tokeniser(shape["merges"], shape["all_bytes"])
    metadata = [
        ("general.architecture", STRING, "llama"),
        ("general.type", STRING, "model"),
        ("general.name", STRING, name),
        ("general.languages", ARRAY, (STRING, ["en"])),
        ("llama.block_count", U32, shape["layers"]),
        ("llama.context_length", U32, shape["context"]),
        ("llama.embedding_length", U32, shape["width"]),
        ("llama.feed_forward_length", U32, shape["ffn"]),
        ("llama.attention.head_count", U32, shape["heads"]),
        ("llama.attention.head_count_kv", U32, shape["kv_heads"]),
        ("llama.rope.freq_base", F32, 100000.0),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("general.file_type", U32, 3),
        ("llama.vocab_size", U32, len(tokens)),
        ("llama.rope.dimension_count", U32, shape["head_dim"]),
        ("tokenizer.ggml.add_space_prefix", BOOL, False),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "smollm"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, types)),
        ("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
        ("tokenizer.ggml.bos_token_id", U32, 1),
        ("tokenizer.ggml.eos_token_id", U32, 2),
        ("tokenizer.ggml.unknown_token_id", U32, 0),
        ("tokenizer.ggml.padding_token_id", U32, 2),
        ("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
        ("general.quantization_version", U32, 2),
    ]
    pad = lambda n: -n % ALIGNMENT
    head, body = [], b""
    weights = tensors(shape, len(tokens))
    head.append(struct.pack("<4sIQQ", b"GGUF", 3, len(weights), len(metadata)))
    for key, kind, v in metadata:
        head.append(string(key) + struct.pack("<I", kind) + value(kind, v))
    for tensor, dims, kind, data in weights:
        head.append(string(tensor) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, kind, len(body)))
        body += data + bytes(pad(len(data)))
    header = b"".join(head)
    return header + bytes(pad(len(header))) + body


SHAPES = {
    "tiny": dict(seed=20260101, layers=2, width=96, heads=6, kv_heads=2, head_dim=16, ffn=160,
                 context=512, merges=450, all_bytes=True),
    "seed": dict(seed=1, layers=1, width=32, heads=2, kv_heads=1, head_dim=16, ffn=32,
                 context=64, merges=24, all_bytes=False),
}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit("usage: make_tiny.py tiny|seed FILE")
    with open(sys.argv[2], "wb") as out:
        out.write(gguf(SHAPES[sys.argv[1]], "millrace " + sys.argv[1]))


if __name__ == "__main__":
    main()
