/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An orchestrator with two devices under it and a front that takes the time of every token, for
 * `millrace bench sched`. The devices are nil devices in virtual time, nil devices without costs, or
 * whatever a command has opened; what is asked of them is the same.
 */
#ifndef MR_TOOLS_SCHED_RIG_H
#define MR_TOOLS_SCHED_RIG_H

#include <stdint.h>

#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "driver/sched/sched.h"
#include "tools/tools.h"

#define SCHED_RIG_CLIENTS 16u

struct sched_rig {
	struct mr_model own_model; /* of nil devices: a shape, and no weights */
	const struct mr_model *model;
	struct mr_device *prefill, *decode;
	struct mr_sched *sched;
	struct mr_clock clock;
	uint64_t virtual_ns;
	int virtual_time, own_devices;
	uint64_t next_key;
	uint64_t *itl_ns; /* where gaps between tokens are kept, while not NULL */
	uint64_t itl_count, itl_max;
	int32_t status; /* of the first request that failed */
};

/* What became of a request; the caller keeps it until the request has ended. */
struct sched_answer {
	struct sched_rig *rig;
	uint64_t key;
	uint64_t last_ns; /* its last token's time */
	uint32_t tokens;
	int ended;
	struct mr_end end;
	void (*on_end)(struct sched_answer *answer); /* may ask again; NULL = nothing */
	uint32_t asked;                              /* for on_end's own use */
};

struct sched_ask {
	enum mr_request_op op;
	uint32_t flags;  /* over TOKENS and IGNORE_EOS */
	uint64_t client; /* below SCHED_RIG_CLIENTS */
	uint64_t target, prefix;
	uint64_t itl_ns;
	uint32_t family; /* names the text that the prompt begins with ... */
	uint32_t shared; /* ... for so many tokens; the others are its own */
	uint32_t count, max_tokens;
};

struct sched_rig_options {
	const struct tool_devices *devices; /* with @model; NULL = nil devices */
	const struct mr_model *model;
	const struct mr_nil_costs *prefill, *decode; /* nil: virtual time; both NULL = no costs */
	int one_device;                              /* nil: decode does prefill too */
	uint32_t layers, context;                    /* nil */
	uint32_t requests, chunk;
	int no_cache;
};

/* 0 or a status. The rig is the caller's memory. */
int sched_rig_open(struct sched_rig *rig, const struct sched_rig_options *options);
void sched_rig_close(struct sched_rig *rig);
uint64_t sched_rig_now(const struct sched_rig *rig);
/* Submits; @answer is filled in as it goes. 0 or a status. */
int sched_rig_ask(struct sched_rig *rig, const struct sched_ask *ask, struct sched_answer *answer);
/* One turn, and in virtual time a step of the clock where nothing was to do. 0 or a status. */
int sched_rig_turn(struct sched_rig *rig);
/* Turns until @answer has ended, and gives its status. */
int sched_rig_wait(struct sched_rig *rig, const struct sched_answer *answer);

/* Ends all that was asked, sequences that were kept and prefixes too, so that no answer is written to after. */
void sched_rig_clear(struct sched_rig *rig);

#endif /* MR_TOOLS_SCHED_RIG_H */
