/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A front for tests of the orchestrator: remembers every answer and checks, at each call, what every front
 * may rely on (order of tokens, credit respected, one end for each accepted request).
 */
#ifndef MR_TESTS_SCHED_FRONT_H
#define MR_TESTS_SCHED_FRONT_H

#include "driver/sched/sched.h"

#define ANSWER_MAX 1024

struct answer {
	uint64_t key;
	uint32_t prompt;
	int accepted, ended;
	uint32_t credit; /* left */
	uint32_t count;
	uint32_t ids[ANSWER_MAX];
	float logprobs[ANSWER_MAX];
	struct mr_end end;
};

struct sched_front {
	struct answer *answers; /* by key */
	uint32_t capacity;
	uint32_t ended;
	int broken; /* rules that were broken; a test demands 0 */
};

extern const struct mr_front_ops sched_front_ops;

void sched_front_init(struct sched_front *front, uint32_t capacity);
void sched_front_free(struct sched_front *front);
/*
 * Submits @count ids as the prompt of request @key of client @client. Returns mr_sched_submit's status, or
 * MR_E_FULL where the pool is empty.
 */
int sched_front_submit(struct sched_front *front, struct mr_sched *sched, uint64_t client,
		       uint64_t key, const uint32_t *ids, uint32_t count, uint32_t max_tokens,
		       uint32_t credit);
/* Polls until nothing is active; 0, or -1 after @turns turns. */
int sched_front_drain(struct mr_sched *sched, uint32_t turns);

#endif /* MR_TESTS_SCHED_FRONT_H */
