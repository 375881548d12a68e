/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring's NOP round trip, client and server busy on two pinned cores, beside the bare round trip of one
 * cache line each way between the same cores in the same run. The ratio can be below 1: the bare round
 * trip fights over the same two lines for ever, while each ring entry is a line that nobody polled for
 * a lap. For `millrace bench ring`.
 */
#ifndef MR_TOOLS_BENCH_RING_H
#define MR_TOOLS_BENCH_RING_H

#include "tools/tools.h"

struct bench_ring_options {
	uint64_t rounds; /* of each kind; 0 = 200000 */
};

struct bench_ring_result {
	struct tool_summary nop;  /* ns a round trip: SQE pushed to CQE seen */
	struct tool_summary bare; /* ns: line written to the answering line seen */
	double ratio;             /* nop.p50 / bare.p50 */
	int client_cpu, server_cpu;
};

/*
 * Runs it; some hundred milliseconds. Two threads are pinned meanwhile, the caller's among them. Returns 0;
 * MR_E_NOT_SUPPORTED: fewer than two CPUs; or what making a server and connecting to it said.
 */
int bench_ring(const struct bench_ring_options *options, struct bench_ring_result *result);
void bench_ring_print(FILE *out, const struct bench_ring_result *result);
struct json_object *bench_ring_json(const struct bench_ring_result *result);

#endif /* MR_TOOLS_BENCH_RING_H */
