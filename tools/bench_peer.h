/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another engine as a child process, for `millrace bench cpu`: a command that is given the model's path and the
 * number of threads, and then reads one line a request from its input and answers with one line:
 *   prepare PREFILL FIRST BATCH CONTEXT STEPS -> "ok"
 *   run                                       -> seconds, in decimal
 * Its first line is its name and version, its second what it was built with. scripts/peer.py speaks it.
 */
#ifndef MR_TOOLS_BENCH_PEER_H
#define MR_TOOLS_BENCH_PEER_H

#include "tools/bench_cpu.h"

struct bench_peer;
int bench_peer_open(const char *command, const char *model, uint32_t threads,
		    struct bench_peer **out);
void bench_peer_close(struct bench_peer *peer); /* NULL is allowed */
const char *bench_peer_name(const struct bench_peer *peer);
/* Returns 0, or MR_E_NOT_SUPPORTED where the peer said anything but what is expected. */
int bench_peer_prepare(struct bench_peer *peer, const struct bench_end *end);
int bench_peer_run(struct bench_peer *peer, const struct bench_end *end, double *seconds);

#endif /* MR_TOOLS_BENCH_PEER_H */
