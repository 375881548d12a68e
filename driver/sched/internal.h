/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of driver/sched share: the orchestrator, a request's entry, and the calls between its
 * stages. Nobody outside this folder includes it.
 *
 * An entry is on at most one list, and goes from one stage to the next by mr_sched_move:
 *
 *   free -> filling -> waiting -> (prefilling) -> joining -> (handover) -> decoding -> ending -> free
 *          front's     admit.c     prefill.c     handover.c               decode.c    request.c
 *
 * Where one device does both stages, its slot is shared and an entry goes from prefilling to decoding.
 * Any stage may call mr_sched_end; the entry is then finished by mr_sched_reap once no posted work names
 * it any more. Fronts are called from mr_sched_poll only, so they may submit and cancel from inside.
 */
#ifndef MR_DRIVER_SCHED_INTERNAL_H
#define MR_DRIVER_SCHED_INTERNAL_H

#include <sys/queue.h>

#include "driver/model/model.h"
#include "driver/sched/sched.h"

enum stage {
	STAGE_FREE,
	STAGE_FILLING,
	STAGE_WAITING,
	STAGE_PREFILLING,
	STAGE_JOINING,
	STAGE_HANDOVER,
	STAGE_DECODING,
	STAGE_ENDING,
};

struct entry {
	struct mr_request request; /* first: a struct mr_request * is a struct entry * */
	TAILQ_ENTRY(entry) link;
	struct entry_list *on;   /* the list that holds it, or NULL */
	struct entry *hash_next; /* of the same bucket */
	enum stage stage;
	uint32_t index; /* in the pool */
	uint32_t owner; /* the sequence's id: fresh for each request */

	struct mr_slot prefill_slot, decode_slot;
	uint8_t prefill_open, decode_open; /* the slots above are held */
	uint8_t starved;                   /* left out of the last DECODE for want of credit */
	uint8_t ending;                    /* status and finish below hold */
	uint8_t handovers;                 /* started so far */
	uint8_t decoding;                  /* in the DECODE under way */
	uint32_t inflight;                 /* posted work that names this entry */

	uint32_t prompt;       /* tokens */
	uint32_t answered;     /* tokens given to the front */
	uint32_t prefilled;    /* positions whose KV is written, from 0 */
	uint32_t chunk;        /* tokens of the prefill call under way */
	uint32_t layer, block; /* hand-over: the first block not yet posted */
	int32_t refused;       /* hand-over: what the receiver said first, 0 = nothing */
	uint32_t credit;       /* at the last look, in tokens */
	uint32_t got;          /* tokens of the DECODE under way */

	int32_t status;
	enum mr_finish finish;
	uint64_t submit_ns, start_ns, prefilled_ns, first_ns;
	uint64_t cycles;
};
TAILQ_HEAD(entry_list, entry);

struct mr_sched {
	const struct mr_model *model;
	struct mr_device *prefill, *decode;
	struct mr_clock clock;
	struct mr_token_work *work; /* NULL where the model has no tokeniser */
	uint32_t context, batch_max, chunk, steps;
	uint32_t layers;
	int shared;   /* one device does both stages */
	int dirty;    /* submitted or cancelled since the last poll */
	int draining; /* nothing more is accepted */
	int32_t dead; /* a device was lost and did not come back: why */

	struct entry *entries;
	uint32_t requests;
	char *texts;
	uint32_t *tokens;
	struct entry **buckets; /* by (client, key) */
	uint32_t bucket_mask;
	uint32_t next_owner;
	uint32_t active; /* accepted and not ended */

	struct entry_list free, waiting, joining, handover, decoding, ending;
	struct entry *prefilling;             /* the one sequence that is being prefilled */
	uint32_t prefill_slots, decode_slots; /* held by entries */

	struct entry **by_slot; /* decode slot index -> entry */
	struct entry **batch;   /* of the DECODE under way */
	struct mr_decode_entry *decode_entries;
	uint32_t batch_count; /* 0 = no DECODE under way */
	uint32_t batch_steps;
};

/* A tag names the stage and the entry; a DECODE's names the stage alone. */
enum tag_kind { TAG_PREFILL = 1, TAG_IMPORT = 2, TAG_DECODE = 3 };
static inline uint64_t tag_of(enum tag_kind kind, uint32_t index)
{
	return (uint64_t)kind << 32 | index;
}

static inline uint64_t now_ns(const struct mr_sched *s)
{
	return s->clock.now_ns(s->clock.arg);
}

/* request.c */
struct entry *mr_sched_find(const struct mr_sched *s, uint64_t client, uint64_t key);
void mr_sched_hash_add(struct mr_sched *s, struct entry *e);
/* Takes the entry off its list and puts it on @list (NULL = on none), at its tail. */
void mr_sched_move(struct entry *e, enum stage stage, struct entry_list *list);
/* Begins the end. The first call counts; the front hears of it from mr_sched_reap. */
void mr_sched_end(struct mr_sched *s, struct entry *e, int32_t status, enum mr_finish finish);
/* One posted work of @e has ended. Returns 1 where the entry is ending and wants no more. */
int mr_sched_work_done(struct mr_sched *s, struct entry *e);
/* Finishes what is ending and named by no work; returns how many. */
int mr_sched_reap(struct mr_sched *s);
void mr_sched_pool_put(struct mr_sched *s, struct entry *e);

/* prefill.c, handover.c, decode.c: a turn posts what can be posted and returns how much that was */
int mr_sched_prefill_turn(struct mr_sched *s);
void mr_sched_prefill_done(struct mr_sched *s, struct entry *e, int32_t status);
int mr_sched_handover_turn(struct mr_sched *s);
void mr_sched_import_done(struct mr_sched *s, struct entry *e, int32_t status);
int mr_sched_decode_turn(struct mr_sched *s);
void mr_sched_decode_token(struct mr_sched *s, const struct mr_event *event);
void mr_sched_decode_done(struct mr_sched *s, int32_t status);
/*
 * Opens the decode slot. 1 = open; 0 = none free, wait (others will free one); else @e is ending.
 */
int mr_sched_open_decode(struct mr_sched *s, struct entry *e);
void mr_sched_close_decode(struct mr_sched *s, struct entry *e);
void mr_sched_close_prefill(struct mr_sched *s, struct entry *e);

#endif /* MR_DRIVER_SCHED_INTERNAL_H */
