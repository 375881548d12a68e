/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The measurements of `millrace bench`, apart from how they are printed: decode and prefill through the
 * orchestrator (bench_decode.c), and the read roof that decode is held against (bench_roof.c).
 */
#ifndef MR_TOOLS_BENCH_H
#define MR_TOOLS_BENCH_H

#include <stdint.h>

#include "driver/model/model.h"
#include "tools/tools.h"

struct bench_decode_options {
	uint32_t batch;  /* sequences that decode together */
	uint32_t prompt; /* tokens of each */
	uint32_t answer; /* tokens made for each */
};

struct bench_decode_result {
	double prefill_tokens_s; /* of one prompt alone: from its first chunk to its KV's hand-over */
	double decode_tokens_s; /* all sequences together, while all of them decode */
	uint64_t cycles_token;  /* device cycles a token; 0 = the device counts none */
};

/* One run. Returns 0 or a status. */
int bench_decode_run(struct tool_devices *devices, const struct mr_model *model,
		     const struct bench_decode_options *options, struct bench_decode_result *out);

/* Bytes of weights that one decode step reads: every matrix and norm of every layer, and the head. */
uint64_t bench_weight_bytes(const struct mr_model *model);

/*
 * Reads a buffer of @bytes on this thread, front to back with 32-byte loads, @runs times; each run's bytes
 * per second into @rates. Returns 0 or MR_E_NO_MEMORY.
 */
int bench_roof(uint64_t bytes, unsigned runs, double *rates);

#endif /* MR_TOOLS_BENCH_H */
