#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: peer.py ENGINE MODEL THREADS   another engine beside `millrace bench cpu --peer`.

ENGINE is llama.cpp (PyPI llama-cpp-python) or openvino (PyPI openvino-genai), installed by scripts/peers.sh.
Speaks the lines of tools/bench_peer.h: name and version, build flags, then for each request one answer.
What is timed favours the engine: no sampling, no detokenising, ids given.
"""
import os
import sys
import time


class LlamaCpp:
    """One context for a lone sequence (flash attention on), one for batches (off): the faster for each."""

    SEQUENCES, POSITIONS = 64, 320

    def __init__(self, model, threads):
        import llama_cpp as lib

        self.lib, self.threads = lib, threads
        quiet = lib.llama_log_callback(lambda level, text, data: None)
        lib.llama_log_set(quiet, None)
        self.quiet = quiet
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.context, self.wide = None, None
        self.batch = lib.llama_batch_init(2048, 0, 1)

    def about(self):
        import llama_cpp

        info = self.lib.llama_print_system_info().decode().strip()
        return f"llama.cpp (llama-cpp-python {llama_cpp.__version__})", info

    def open(self, wide):
        if self.context and self.wide == wide:
            return
        lib = self.lib
        if self.context:
            lib.llama_free(self.context)
        p = lib.llama_context_default_params()
        p.n_ctx = self.SEQUENCES * self.POSITIONS if wide else 2048
        p.n_seq_max = self.SEQUENCES if wide else 1
        p.n_batch, p.n_ubatch = 2048, 512
        p.n_threads = p.n_threads_batch = self.threads
        p.flash_attn_type = 0 if wide else 1
        p.kv_unified = False
        self.context = lib.llama_init_from_model(self.model, p)
        self.wide = wide

    def decode(self, rows):
        """rows: (token, position, sequence, wants logits)"""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            b.token[i], b.pos[i] = token, position
            b.n_seq_id[i], b.seq_id[i][0] = 1, sequence
            b.logits[i] = logits
        if self.lib.llama_decode(self.context, b):
            raise RuntimeError("llama_decode")
        self.lib.llama_synchronize(self.context)

    def token(self, i):
        return i * 2654435761 % self.vocab

    def prepare(self, prefill, first, batch, context, steps):
        self.spec = prefill, first, batch, context, steps
        self.open(batch > 1)
        memory = self.lib.llama_get_memory(self.context)
        self.lib.llama_memory_clear(memory, True)
        for s in range(batch):
            for at in range(0, context, 512):
                n = min(512, context - at)
                self.decode([(self.token(at + i), at + i, s, 0) for i in range(n)])
        self.run()

    def run(self):
        prefill, first, batch, context, steps = self.spec
        memory = self.lib.llama_get_memory(self.context)
        for s in range(batch):
            self.lib.llama_memory_seq_rm(memory, s, 0 if prefill else context, -1)
        if prefill:
            work = [[(self.token(i), i, 0, i == prefill - 1) for i in range(prefill)]]
        else:
            work = [[(self.token(context + t + s), context + t, s, 1) for s in range(batch)]
                    for t in range(steps)]
        start = time.perf_counter()
        for rows in work:
            self.decode(rows)
        return time.perf_counter() - start


class OpenVino:
    def __init__(self, model, threads):
        import openvino_genai

        self.genai, self.runs = openvino_genai, 0
        self.pipe = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    def about(self):
        import openvino

        core = openvino.Core()
        return (f"openvino (genai {self.genai.get_version()})",
                "CPU capabilities " + " ".join(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))

    def generate(self, rows, length, tokens):
        import numpy
        import openvino

        self.runs += 1  # never the same prompt twice: it keeps KV of the last one
        ids = numpy.array([[(r + i + 101 * self.runs) * 7919 % 40000 + 20 for i in range(length)]
                           for r in range(rows)], dtype=numpy.int64)
        inputs = self.genai.TokenizedInputs(openvino.Tensor(ids),
                                            openvino.Tensor(numpy.ones_like(ids)))
        config = self.genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        start = time.perf_counter()
        result = self.pipe.generate(inputs, config)
        return time.perf_counter() - start, result.perf_metrics

    def prepare(self, prefill, first, batch, context, steps):
        self.spec = prefill, first, batch, context, steps
        self.run()

    def run(self):
        prefill, first, batch, context, steps = self.spec
        if prefill:
            return self.generate(1, prefill, 1)[0]
        # its own account of the time between tokens, prefill left out
        metrics = self.generate(batch, max(context, 1), steps + 1)[1]
        return metrics.get_tpot().mean / 1e3 * steps * batch  # a token of any row


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("llama.cpp", "openvino"):
        sys.exit(__doc__)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the engine prints
    engine = {"llama.cpp": LlamaCpp, "openvino": OpenVino}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))

    def say(text):
        print(str(text).replace("\n", " "), file=out, flush=True)

    for line in engine.about():
        say(line)
    for line in sys.stdin:
        word, *numbers = line.split()
        try:
            if word == "prepare":
                engine.prepare(*map(int, numbers))
                say("ok")
            else:
                say(engine.run())
        except Exception as error:  # the bench goes on without this row
            say(f"failed: {error}")


main()
