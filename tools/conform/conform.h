/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance suite: does a device keep the rules of Documentation/lpu-spec.rst? It is a host of its own, over
 * driver/bus and nothing else of the driver, so that what it says does not depend on driver/lpu.
 *
 * Concepts
 *   rule      a line of the page, LPU-X-n. The list is made from the page when this is built (rules.c).
 *   scenario  a function that talks to the device and says of the rules that it cites whether they hold. It
 *             starts with an enabled device, an admin queue and zeroed memory, and with what it asks for.
 *   expect    one observation about one rule. A rule holds where one was made and none failed.
 *   broken off  a scenario that cannot go on (a completion that does not come) ends there: the rules that it
 *             cites and has not looked at have failed, and the device is reset.
 *
 * Called by tools/cmd_lpu_conform.c. One thread.
 */
#ifndef MR_TOOLS_CONFORM_CONFORM_H
#define MR_TOOLS_CONFORM_CONFORM_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <millrace/lpu_spec.h>
#include <millrace/status.h>

#include "userlib/spec/chip.h"
#include "userlib/spec/container.h"

struct mr_arena;
struct mr_bus;
struct mr_model;

/* What is asked of a device that is not bit-equal, and how long its answers may take. */
struct conform_profile {
	uint64_t wait_ms;     /* for an answer */
	uint64_t quiet_ms;    /* watched where nothing may happen */
	uint64_t scenario_ms; /* for one scenario, however fast its answers come */
	uint64_t bit_equal;   /* 1 = logits are those of class D, bit for bit */
	double logits_abs;    /* else: how far a logit may be off */
	double logprob_abs;   /* how far a log-probability may be off where bits may differ */
	uint64_t cycles;      /* 1 = cycles are those of the CLAIM */
	uint64_t fuzz;        /* commands of random bytes */
	uint64_t seed;        /* of them */
};
void conform_profile_default(struct conform_profile *profile);
/* Lines "key value", '#' begins a remark. 0, or -1 after one line on stderr. */
int conform_profile_read(const char *path, struct conform_profile *profile);

/* What makes a device feel something, where the bus's other end lets us: each may be NULL. */
struct conform_stimulus {
	void (*temperature)(void *arg, uint32_t millikelvin);
	void (*ecc)(void *arg, uint64_t corrected, uint64_t uncorrected);
	void (*lose_word)(void *arg); /* of SRAM, that the next DECODE meets */
	void (*assert_firmware)(void *arg);
	void *arg;
};

struct conform_queue {
	struct mr_lpu_command *sq;
	struct mr_lpu_completion *cq;
	struct mr_lpu_record *ring;
	uint32_t entries, records;
	uint32_t tail, head, record_head; /* free-running */
	uint32_t out_of_order; /* completions may come in another order: ASYNC_EVENTs are out */
};

#define CONFORM_QUEUES    65u
#define CONFORM_MEM_BYTES (8u << 20)
#define CONFORM_SIDE      65536u /* bytes of the read-only and of the write-only region */
#define CONFORM_BATCH     4u
#define CONFORM_CONTEXT   128u

struct conform {
	struct mr_bus *bus;
	struct mr_arena *arena;
	const struct mr_model *model; /* NULL = only a container: no logits to compare with */
	struct conform_profile profile;
	struct conform_stimulus stimulus;
	void *program; /* as given, or NULL = compiled from the model */
	size_t program_bytes;
	int owns_program;
	/* host memory: read and write, the device may only read, may only write */
	uint8_t *mem, *ro, *wo, *load;
	uint64_t iova, ro_iova, wo_iova, load_iova;
	size_t used; /* of mem, by conform_take */
	/* the device */
	struct mr_lpu_identify id;
	struct mr_chip chip;
	struct mr_container c;
	struct mr_lpu_crash crash_at_start;
	uint32_t crash_bytes_at_start;
	uint32_t timeout_ms;
	int loaded;           /* the container is active, as far as we know */
	int dead;             /* not even a function-level reset helped */
	char no_program[256]; /* why there is none; "" = there is one */
	struct conform_queue q[CONFORM_QUEUES];
	struct mr_lpu_shadow *shadow; /* NULL = doorbells by BAR2 */
	uint32_t request;             /* the last one used */
	uint32_t result;              /* of the last completion waited for */
	/* the run */
	const struct conform_scenario *now;
	uint64_t started_us; /* when it began; 0 = none runs */
	jmp_buf broken;
	char why[256];
	const char *only; /* rule, "LPU-Q-3", or NULL */
	uint64_t observations;
	int verbose; /* a line a scenario on stderr: what it took */
};

/* ---- rules and their results ------------------------------------------------------------------ */

enum conform_state { CONFORM_NONE, CONFORM_PASS, CONFORM_SKIP, CONFORM_FAIL };
struct conform_rule {
	const char *id;     /* "LPU-Q-3" */
	const char *text;   /* of the page */
	const char *unseen; /* why no host can look at it, or NULL */
	enum conform_state state;
	char why[256];
};
extern struct conform_rule conform_rules[];           /* ends with a NULL id */
struct conform_rule *conform_rule_of(const char *id); /* without "LPU-" too; NULL = none */

/* ---- scenarios --------------------------------------------------------------------------------- */

enum {
	CONFORM_PROGRAM = 1, /* the program is active */
	CONFORM_QUEUE = 2,   /* queue 1 is there: 8 entries, 8 records, vector 1 */
};
struct conform_scenario {
	const char *name, *rules; /* "Q-3 Q-4" */
	uint32_t needs;
	void (*run)(struct conform *t);
};
#define SCENARIO(ident, asks, cites)                                                          \
	static void ident(struct conform *t);                                                 \
	static const struct conform_scenario scenario_##ident = {#ident, cites, asks, ident}; \
	static const struct conform_scenario *const scenario_ref_##ident                      \
		__attribute__((used, section("conform_scenarios"))) = &scenario_##ident;      \
	static void ident(struct conform *t)

/* Opens memory and device: 0, or a status after one line on stderr. */
int conform_open(struct conform *t);
void conform_close(struct conform *t);
/* Runs all scenarios, or those that cite t->only. */
void conform_run(struct conform *t);
/* TAP as it goes is run.c's; the report for a release is report.c's. */
int conform_tap(struct conform *t, FILE *out); /* how many rules failed */
int conform_json(struct conform *t, const char *bus_name, FILE *out);

/* ---- what scenarios call ------------------------------------------------------------------------- */

void conform_expect(struct conform *t, const char *rule, int holds, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void conform_status(struct conform *t, const char *rule, int got, int want, const char *what);
/* Both do not return: the scenario ends. */
void conform_stuck(struct conform *t, const char *format, ...)
	__attribute__((noreturn, format(printf, 2, 3)));
void conform_skip(struct conform *t, const char *format, ...)
	__attribute__((noreturn, format(printf, 2, 3)));
/* The device has not what @rule is about: skipped, unless something else is seen of it. */
void conform_lacks(struct conform *t, const char *rule, const char *why);
#define EXPECT(rule, holds)     conform_expect(t, rule, holds, "not: %s", #holds)
#define STATUS(rule, got, want) conform_status(t, rule, got, want, #got)
#define MUST(holds)                                          \
	do {                                                 \
		if (!(holds))                                \
			conform_stuck(t, "not: %s", #holds); \
	} while (0)

uint64_t conform_now_us(void);
void conform_nap_us(uint64_t us);
/* Waits at most @ms for @cond; 1 = it came true. */
#define WAIT(cond, ms)                                                    \
	({                                                                \
		uint64_t until_ = conform_now_us() + (uint64_t)(ms)*1000; \
		int ok_;                                                  \
		while (!(ok_ = (cond)) && conform_now_us() < until_)      \
			conform_nap_us(20);                               \
		ok_ || (cond);                                            \
	})

/* Zeroed host memory, 64-byte aligned, until the scenario ends; its IOVA. */
void *conform_take(struct conform *t, size_t bytes);
uint64_t conform_iova(const struct conform *t, const void *p);
uint32_t conform_reg(struct conform *t, uint32_t offset);
void conform_reg_set(struct conform *t, uint32_t offset, uint32_t value);
void conform_ring(struct conform *t, uint32_t queue, uint32_t offset, uint32_t value);
void conform_bell(struct conform *t, uint32_t queue, uint32_t offset, uint32_t value); /* BAR2 */

/* A doorbell that is to be ignored; waits a while for REFUSED to count it, then tells the right @after. */
void conform_bad_bell(struct conform *t, uint32_t queue, uint32_t value, uint32_t after);

/* ENABLE = 0, and then READY = 0 within TIMEOUT_MS: 1, or 0. */
int conform_disable(struct conform *t);
/* Registers, ENABLE = 1; 1 where READY comes. */
int conform_enable(struct conform *t, uint32_t entries);
void conform_flr(struct conform *t);   /* and enables again */
void conform_again(struct conform *t); /* disable, enable; breaks off where that fails */
void conform_fill_in_queue(struct conform *t, uint32_t queue, uint32_t entries, uint32_t records,
			   struct mr_lpu_cmd_queue_create *cmd);
int conform_queue(struct conform *t, uint32_t queue, uint32_t entries, uint32_t records);
int conform_load(struct conform *t); /* BEGIN to ACTIVATE: the first status that is not 0 */
int conform_program_write(struct conform *t, const void *bytes, uint64_t offset, uint64_t count);
int conform_program_step(struct conform *t, uint32_t action, uint64_t bytes);

/* Posts with a request id of its own, which it returns. */
uint32_t conform_post(struct conform *t, uint32_t queue, void *command);
uint32_t conform_place(struct conform *t, uint32_t queue, void *command); /* no doorbell */
/* 1 = a completion is there within @ms; taken, no credit given. */
int conform_completion(struct conform *t, uint32_t queue, uint64_t ms,
		       struct mr_lpu_completion *out);
void conform_credit(struct conform *t, uint32_t queue); /* for all completions taken */
/* Waits for the completion of @request; the status as a negative mr_status. */
int conform_wait(struct conform *t, uint32_t queue, uint32_t request);
int conform_do(struct conform *t, uint32_t queue, void *command);
int conform_record(struct conform *t, uint32_t queue, uint64_t ms, struct mr_lpu_record *out);
void conform_record_credit(struct conform *t, uint32_t queue);
/* @type cmd = {...}, posted and waited for; its status. */
#define DO(queue, type, ...)                            \
	({                                              \
		struct type c_ = {.head = __VA_ARGS__}; \
		conform_do(t, queue, &c_);              \
	})
#define POST(queue, type, ...)                          \
	({                                              \
		struct type c_ = {.head = __VA_ARGS__}; \
		conform_post(t, queue, &c_);            \
	})

int conform_has(const struct conform *t, uint32_t opcode);
void conform_need(struct conform *t, uint32_t opcode); /* skips where the device lacks it */
void conform_need_feature(struct conform *t, uint32_t feature);
void conform_need_log(struct conform *t, uint32_t log);
uint32_t conform_log(struct conform *t, uint32_t log, void *out, uint32_t bytes);
struct mr_lpu_counters conform_counters(struct conform *t);
int conform_feature(struct conform *t, uint32_t feature, uint32_t queue, uint32_t value); /* SET */
uint32_t conform_feature_get(struct conform *t, uint32_t feature, uint32_t queue);
int conform_fence(struct conform *t, uint32_t queue);
int conform_irq(struct conform *t, uint32_t vector); /* eventfd, emptied */
/* How often the vector was raised by now; waits @ms for the first. */
uint64_t conform_raised(int fd, uint64_t ms);

/* Slots: greedy, owner 7 */
struct mr_lpu_slot_param *conform_param(struct conform *t, uint32_t positions);
int conform_slot(struct conform *t, uint32_t queue, uint32_t slot, uint32_t generation,
		 uint32_t positions);
int conform_slot_with(struct conform *t, uint32_t slot, uint32_t generation,
		      const struct mr_lpu_slot_param *param);
int conform_free(struct conform *t, uint32_t slot, uint32_t generation);
struct mr_lpu_decode_entry *conform_entries(struct conform *t, uint32_t count);
uint32_t conform_decode_post(struct conform *t, uint32_t queue,
			     const struct mr_lpu_decode_entry *entries, uint32_t count,
			     uint32_t steps);
/* Decodes @steps for one slot on queue 1 and takes its records to @out (may be NULL); the status. */
int conform_decode(struct conform *t, uint32_t slot, uint32_t generation, uint32_t position,
		   uint32_t token, uint32_t steps, struct mr_lpu_record *out);
/* KV for positions below @n of a slot, by DECODEs of forced tokens 20, 21, ... */
void conform_fill(struct conform *t, uint32_t slot, uint32_t generation, uint32_t n);
uint32_t conform_vocab(const struct conform *t);
uint64_t conform_claim(const struct conform *t, const uint32_t *positions, uint32_t n);

#endif /* MR_TOOLS_CONFORM_CONFORM_H */
