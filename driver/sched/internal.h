/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of driver/sched share: the orchestrator, its requests and sequences, and the calls between
 * its stages. Nobody outside this folder includes it.
 *
 *   sched.c     making and ending it, the turn, devices that are lost
 *   admit.c     a request is checked and made into a sequence, or refused
 *   request.c   pool and index of requests; the one place where a request ends
 *   sequence.c  pool, index and states of sequences; pausing, releasing
 *   queue.c     clients' accounts: who prefills next
 *   due.c       deadlines: what can be promised, and whose is the earliest
 *   prefill.c   slots and KV for a sequence's start, chunks
 *   handover.c  KV from the prefill device to the decode device
 *   decode.c    batches of sequences, tokens
 *   stops.c     stop strings, looked for in an answer's bytes
 *   score.c     continuations weighed on a sequence of their own
 *   kv.c        slots and their KV: held, kept for others, given up by cost
 *   trie.c      which KV holds which tokens
 *   prefix.c    named prefixes
 *   check.c     the invariants of all of it, for tests
 *
 * A sequence is on at most one list by `link`:
 *   QUEUED, PREFILLING   s->due, with a deadline; else its account's queue (queue.c)
 *   HANDOVER             none
 *   DECODING             s->decoding of its class
 *   SCORING              s->scoring
 *   PAUSED               none; found by its key
 *   ENDING               s->ending, once no posted work names it
 * and, between two devices, on s->joining or s->handing by `hand_link` until its KV is handed over.
 * Fronts are called from mr_sched_poll only, so they may submit and cancel from inside.
 */
#ifndef MR_DRIVER_SCHED_INTERNAL_H
#define MR_DRIVER_SCHED_INTERNAL_H

#include <sys/queue.h>

#include "driver/counters.h"
#include "driver/mem/copy.h"
#include "driver/model/model.h"
#include "driver/sched/sched.h"
#include "driver/trace.h"

#define IMPORTS_MAX   2u /* of one sequence under way: the next is described while one arrives */
#define HANDOVERS_MAX 2u /* the first and one retry, into a fresh slot */
#define AGAIN_MAX     4u /* times that a device may fail a sequence between two of its tokens */
#define NONE          UINT32_MAX

/* Which of the two devices. Where one does both stages, only DEC is used. */
enum pool_id { PRE, DEC, POOLS };

enum state {
	FREE = MR_SEQUENCE_ENDED,
	QUEUED = MR_SEQUENCE_QUEUED,
	PREFILLING = MR_SEQUENCE_PREFILLING,
	HANDOVER = MR_SEQUENCE_HANDOVER,
	DECODING = MR_SEQUENCE_DECODING,
	PAUSED = MR_SEQUENCE_PAUSED,
	SCORING = MR_SEQUENCE_STATES, /* of a SCORE: no client ever names it */
	ENDING,
};

struct account;
struct sequence;

/* A slot of a device and the KV in it. Held by a sequence, kept in the trie for others, or both. */
struct kv {
	struct mr_slot slot;
	uint8_t pool; /* enum pool_id */
	uint8_t open;
	struct sequence *seq; /* who holds it; NULL = only kept */
	uint32_t positions;   /* reserved */
	uint32_t start;       /* of those, shared with the KV that it was forked from */
	uint32_t blocks;      /* reserved and not shared so: what the holder's client is charged */
	uint64_t space;       /* whose prompts may share it */
	uint32_t leaf;        /* its deepest node in the trie; NONE = not in it */
	uint32_t depth;       /* blocks on the path to that node */
	uint64_t weight;      /* the least goes first when room is needed */
	TAILQ_ENTRY(kv) idle_link; /* of pool->idle: may be given up */
	uint8_t idle;
	TAILQ_ENTRY(kv) leaf_link; /* of the node's leaves */
};
TAILQ_HEAD(kv_list, kv);

/* A block of 16 tokens at its place in a prompt. */
struct node {
	uint32_t tokens[MR_KV_BLOCK_TOKENS];
	uint64_t space;  /* of its path: a client, or a named prefix */
	uint32_t parent; /* NONE = the first block */
	uint32_t child;  /* one of its children; the others by sibling */
	uint32_t sibling, sibling_before;
	uint32_t hash_next; /* or the next free one */
	uint32_t bucket;
	uint32_t refs;         /* KVs whose path goes through it */
	struct kv *holder;     /* one of them */
	struct kv_list leaves; /* those whose path ends here */
};

struct pool {
	struct mr_device *dev;
	struct kv *kv; /* by slot index */
	struct kv_list idle;
	uint32_t held;   /* slots open */
	uint32_t busy;   /* of those, held by sequences that will give them back by themselves */
	uint32_t moved;  /* counts what was given back: who waits looks again when it changed */
	uint64_t weight; /* of what was given up last: newcomers start from there */
	uint8_t no_fork; /* the device has none: nothing is shared, nothing kept */
	/* the trie over what is in this pool */
	struct node *nodes;
	uint32_t node_count, free_node, nodes_used;
	uint32_t *buckets;
	uint32_t bucket_mask;
};

TAILQ_HEAD(sequence_list, sequence);

/* A client, while anything of it is here. */
struct account {
	TAILQ_ENTRY(account) ring[2]; /* by class: those with work in queue[] */
	struct account *hash_next;
	uint64_t client;
	uint32_t refs;          /* its sequences */
	uint32_t kept;          /* of those, paused or to be */
	uint64_t blocks[POOLS]; /* that they hold */
	int64_t deficit[2];     /* tokens of prefill that it may still post in this round */
	uint8_t in_ring[2];
	struct sequence_list queue[2]; /* by class: FOREGROUND, BACKGROUND */
};
TAILQ_HEAD(account_list, account);

enum { FOREGROUND, BACKGROUND };

/* A request: front's part first, so that a struct mr_request * is a struct entry *. */
struct entry {
	struct mr_request request;
	TAILQ_ENTRY(entry) link; /* of s->free */
	struct entry *hash_next;
	uint32_t index;
	uint8_t filling;                      /* the front has it */
	uint8_t live;                         /* accepted, not ended */
	uint32_t *own;                        /* its buffer of tokens while it fills */
	struct sequence *seq;                 /* that it works on, while live */
	uint32_t input;                       /* tokens of the sequence before the answer */
	uint32_t reused;                      /* of those, with KV when it started */
	uint32_t answered;                    /* tokens given to the front */
	uint32_t scored;                      /* continuations given to the front */
	double logprob;                       /* of the continuation under way */
	uint32_t score_tokens;                /* events of it so far */
	uint8_t giving;                       /* its tokens are being given to the front, */
	uint8_t late;                         /* its first token was not there by its deadline */
	uint32_t given;                       /* and so many were */
	uint32_t stop_string;                 /* that ended the answer, from 1 */
	uint8_t stop_at[MR_STOP_STRINGS_MAX]; /* bytes of each that the answer's last ones match */
	uint8_t stop_fail[MR_STOP_BYTES_MAX]; /* of each, by bytes matched: how many still do */
	uint64_t submit_ns, start_ns, prefilled_ns, joined_ns, first_ns, last_ns;
	uint64_t cycles, predicted;
};

struct sequence {
	TAILQ_ENTRY(sequence) link, hand_link;
	struct sequence_list *on, *hand_on;
	struct sequence *hash_next;
	uint64_t client, key;
	uint32_t index;
	uint32_t owner; /* fresh for each life */
	enum state state;
	struct account *account;
	struct entry *entry; /* the request that it works for; NULL = paused */
	struct kv *kv[POOLS];
	uint32_t *tokens;
	uint32_t count;     /* tokens known */
	uint32_t positions; /* that its KV may come to, with what its request asks for */
	uint32_t written;   /* positions with KV where prefill writes */
	uint32_t fed;       /* positions with KV on the decode device */
	uint32_t decoded;   /* the first position whose KV DECODE made; NONE = it made none */
	uint32_t
		history; /* the answer's first token that DECODE is fed: penalties look back to it */
	uint64_t prefix; /* name, and its length in tokens */
	uint32_t prefix_count;

	uint64_t due_ns;   /* the request's */
	uint64_t due_work; /* tokens that prefill had to compute when it was accepted */
	uint8_t rank;      /* of its priority: the least goes first */

	uint8_t kept;     /* counted as such by its account */
	uint8_t named;    /* in the index by (client, key) */
	uint8_t class;    /* FOREGROUND, BACKGROUND */
	uint8_t ending;   /* status and finish below hold */
	uint8_t starved;  /* left out of the last DECODE for want of credit */
	uint8_t decoding; /* in the DECODE under way */
	uint8_t stopped;  /* the device made it no more of its steps */
	uint8_t handovers;
	uint8_t again;     /* times that a device failed it since its last token */
	uint32_t inflight; /* posted work that names it */

	uint32_t chunk; /* tokens of the prefill under way, 0 = none */
	uint32_t *ready,
		*sent;    /* by layer: positions written, positions posted to the decode device */
	uint32_t layer;   /* where to look for something to send */
	uint32_t imports; /* under way */
	int32_t refused;  /* what the receiver said first, 0 = nothing */
	uint64_t waited[POOLS]; /* pool->moved + 1 when it last asked in vain */
	uint32_t credit, got;   /* of the DECODE under way */
	int32_t status;
	enum mr_finish finish;
	uint64_t blocks_wanted, blocks_there; /* with a status for want of KV */
};

struct prefix {
	uint64_t name; /* 0 = free */
	uint64_t client;
	uint32_t *tokens;
	uint32_t count;
};

struct mr_sched {
	const struct mr_model *model;
	struct pool pool[POOLS];
	struct mr_device *prefill, *decode;
	struct mr_clock clock;
	struct mr_token_work *work; /* NULL where the model has no tokeniser */
	uint32_t context, batch_max, chunk, steps, layers;
	uint64_t itl_ns, client_blocks;
	int no_cache;
	int shared;             /* one device does both stages */
	int one_class;          /* prefill and DECODE make the same bits */
	int dirty;              /* submitted or cancelled since the last poll */
	int draining;           /* nothing more is accepted */
	uint64_t wanted, there; /* of the last refusal for want of room */
	int32_t dead;           /* a device was lost and did not come back: why */

	struct entry *entries;
	uint32_t requests;
	TAILQ_HEAD(, entry) free;
	struct entry **request_buckets;
	uint32_t active; /* requests accepted and not ended */

	struct sequence *sequences;
	uint32_t sequence_count;
	struct sequence_list free_sequences;
	struct sequence **sequence_buckets;
	uint32_t next_owner;
	uint32_t live; /* not free */
	uint32_t in_state[ENDING + 1];

	struct account *accounts;
	uint32_t account_count;
	struct account *free_accounts; /* by hash_next */
	struct account **account_buckets;
	uint32_t bucket_mask; /* of the three indices */
	struct account_list ring[2];
	struct sequence_list due;  /* with a deadline, not prefilled: the earliest first */
	uint64_t due_tokens;       /* of these, posted; others' take DUE_RUN times as many back */
	uint32_t in_a_row;         /* chunks of the foreground while background waited */
	struct sequence *claim[2]; /* by class: waits for KV; until it has it, no other starts */

	uint32_t chunks;             /* under way, of as many sequences */
	uint64_t events_ns;          /* when the events that are being taken were read */
	uint64_t chunk_ns, batch_ns; /* when chunks and DECODE under way were posted */
	uint64_t free_ns[POOLS];     /* when the device's last work ended */
	struct sequence_list joining, handing, decoding[2], scoring, ending;
	uint64_t prefill_token_ns; /* a moving average, of one token of a chunk, times 16 */
	uint64_t step_ns;          /* the same, of a DECODE's step */
	uint64_t handover_ns;      /* the same, from a prompt's last chunk until it can decode */
	uint64_t round_ns, round_tokens, round_steps; /* see mr_sched_learn */
	uint32_t background_max;                      /* sequences of background in a DECODE */
	uint32_t background_turn;

	struct sequence **by_slot; /* decode slot index -> its sequence */
	struct sequence **batch;   /* of the DECODE under way */
	struct mr_decode_entry *decode_entries;
	uint32_t batch_count; /* 0 = no DECODE under way */
	uint32_t batch_steps;
	int batch_fresh; /* it was posted in this turn */

	struct prefix *prefixes;
	uint32_t prefix_count;

	char *texts;
	uint32_t *ids, *progress; /* all buffers of tokens; all ready and sent */
};

/* A tag names the stage and the sequence; a DECODE's names the stage alone. */
enum tag_kind { TAG_PREFILL = 1, TAG_IMPORT, TAG_DECODE, TAG_SCORE };
static inline uint64_t tag_of(enum tag_kind kind, uint32_t index)
{
	return (uint64_t)kind << 32 | index;
}

static inline uint64_t now_ns(const struct mr_sched *s)
{
	return s->clock.now_ns(s->clock.arg);
}

static inline uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t blocks_of(uint32_t positions)
{
	return (positions + MR_KV_BLOCK_TOKENS - 1) / MR_KV_BLOCK_TOKENS;
}

/*
 * How many of the first @count positions of @q other prompts may share: theirs are in prefill's numeric
 * class, so where DECODE's is another one, what it made is its own sequence's alone.
 */
static inline uint32_t shareable(const struct mr_sched *s, const struct sequence *q, uint32_t count)
{
	return s->one_class ? count : least(count, q->decoded);
}

/* Where prefill writes. */
static inline enum pool_id prefill_pool(const struct mr_sched *s)
{
	return s->shared ? DEC : PRE;
}

/* Places in the counters' device table: prefill's first, and only one where they are the same. */
#define PREFILL_ROW 0u
static inline uint32_t decode_row(const struct mr_sched *s)
{
	return s->shared ? 0 : 1;
}

/* Rows of a pass of a shared device that takes a DECODE's and prompts' together; 0 = it does not. */
static inline uint32_t mixing_rows(const struct mr_sched *s)
{
	return s->shared ? s->decode->caps.pass_rows : 0;
}

/* Sequences that have prompt to be prefilled. */
static inline uint32_t waiting(const struct mr_sched *s)
{
	return s->in_state[QUEUED] + s->in_state[PREFILLING];
}

/* What the work took: from its post, or from the end of the one before it on the same device. */
static inline uint64_t took_ns(struct mr_sched *s, enum pool_id id, uint64_t posted_ns,
			       uint64_t now)
{
	uint64_t from = posted_ns > s->free_ns[id] ? posted_ns : s->free_ns[id];

	s->free_ns[id] = now;
	return now - from;
}

static inline void mr_sched_set_state(struct mr_sched *s, struct sequence *q, enum state state)
{
	s->in_state[q->state]--;
	s->in_state[state]++;
	q->state = state;
}

/* A hash of two words for the indices, whose low bits are good. */
static inline uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ (b * 0x9e3779b97f4a7c15u)) * 0xd6e8feb86659fd93u;

	return h ^ h >> 32;
}

/* Ids within the process, of a fork, an append or a prefix; counted, as all copies on the path. */
static inline void copy_ids(uint32_t *to, const uint32_t *from, uint32_t count)
{
	mr_copy(MR_COPY_IDS_SCHED, to, from, count * sizeof(*to));
}

/* A moving average over about eight values. */
static inline void average(uint64_t *mean, uint64_t value)
{
	*mean = *mean ? *mean - *mean / 8 + value / 8 : value;
}

/* request.c */
struct entry *mr_sched_find(const struct mr_sched *s, uint64_t client, uint64_t key);
void mr_sched_accept(struct mr_sched *s, struct entry *e, struct sequence *q);
void mr_sched_put(struct mr_sched *s, struct entry *e);
/* Tells the front of the end of @e, with what its sequence says, and gives the entry back. */
void mr_sched_finish(struct mr_sched *s, struct entry *e);

/* sequence.c */
struct sequence *mr_sched_sequence(const struct mr_sched *s, uint64_t client, uint64_t key);
/* A fresh one for @client, not named yet, or NULL. */
struct sequence *mr_sched_sequence_new(struct mr_sched *s, uint64_t client);
void mr_sched_sequence_name(struct mr_sched *s, struct sequence *q, uint64_t key);
/* Its key may be used anew. */
void mr_sched_sequence_unname(struct mr_sched *s, struct sequence *q);
void mr_sched_sequence_free(struct mr_sched *s, struct sequence *q);
/* Takes it off its list and puts it on @list (NULL = on none), at its tail. */
void mr_sched_move(struct mr_sched *s, struct sequence *q, enum state state,
		   struct sequence_list *list);
void mr_sched_hand_move(struct sequence *q, struct sequence_list *list);
/* Begins the end of what it does. The first call counts; the front hears of it from mr_sched_reap. */
void mr_sched_end(struct mr_sched *s, struct sequence *q, int32_t status, enum mr_finish finish);
/* One posted work has ended. Returns 1 where the sequence is ending and wants no more. */
int mr_sched_work_done(struct mr_sched *s, struct sequence *q);
/* Finishes what is ending and named by no work; returns how many. */
int mr_sched_reap(struct mr_sched *s);

/* queue.c */
struct account *mr_sched_account(struct mr_sched *s,
				 uint64_t client); /* a reference; NULL = full */
struct account *mr_sched_account_find(const struct mr_sched *s, uint64_t client);
void mr_sched_account_put(struct mr_sched *s, struct account *a);
void mr_sched_enqueue(struct mr_sched *s, struct sequence *q);
void mr_sched_dequeue(struct mr_sched *s, struct sequence *q);
/* Whose chunk is next, or NULL. mr_sched_charge afterwards says what it took. */
struct sequence *mr_sched_next(struct mr_sched *s);
void mr_sched_charge(struct mr_sched *s, struct sequence *q, uint32_t tokens);

/* due.c */
/*
 * Whether the first token of @q, which has its tokens, can be there by @due_ns (0 = always); @computed: all
 * but the last have KV. 0 or MR_E_DEADLINE.
 */
int mr_sched_promise(struct mr_sched *s, struct sequence *q, uint64_t due_ns, int computed);
/* Onto s->due, from no list. */
void mr_sched_due_insert(struct mr_sched *s, struct sequence *q);
/* Whether those with a deadline go first now. */
int mr_sched_due_turn(const struct mr_sched *s);
/* A chunk of @q's was posted. */
void mr_sched_due_charge(struct mr_sched *s, const struct sequence *q, uint32_t tokens);
/* Marks and counts a first token that was not there by its deadline. */
void mr_sched_note_late(struct entry *e, uint64_t now);

/* prefill.c, handover.c, decode.c: a turn posts what can be posted, returns how much that was */
int mr_sched_prefill_turn(struct mr_sched *s);
/* Tokens that chunks may have until the next DECODE, at least one. */
uint32_t mr_sched_round_tokens(const struct mr_sched *s);
void mr_sched_prefill_done(struct mr_sched *s, struct sequence *q, int32_t status);
/* A chunk of so many tokens has ended, or a DECODE, which matters where it shares passes with chunks. */
void mr_sched_learn(struct mr_sched *s, uint64_t ns, uint32_t tokens, uint32_t steps);
void mr_sched_kv_event(struct mr_sched *s, struct sequence *q, const struct mr_event *event);
/* KV is where DECODE or SCORE wants it. */
void mr_sched_ready(struct mr_sched *s, struct sequence *q);
int mr_sched_handover_turn(struct mr_sched *s);
void mr_sched_import_done(struct mr_sched *s, struct sequence *q, int32_t status);
int mr_sched_decode_turn(struct mr_sched *s);
void mr_sched_decode_token(struct mr_sched *s, const struct mr_event *event);
void mr_sched_decode_done(struct mr_sched *s, int32_t status);
/* stops.c */
/* 0 or MR_E_RANGE. */
int mr_stops_check(const struct mr_stops *stops);
/* Of a fresh entry, whose request holds the strings. */
void mr_stops_begin(struct entry *e);
/* The answer's next bytes. Returns the string that they complete, from 1, or 0. */
uint32_t mr_stops_feed(struct entry *e, const char *bytes, size_t count);

/* score.c */
int mr_sched_score_turn(struct mr_sched *s);
void mr_sched_score_token(struct mr_sched *s, struct sequence *q, const struct mr_event *event);
void mr_sched_score_done(struct mr_sched *s, struct sequence *q, int32_t status);

/* kv.c */
int mr_kv_create(struct mr_sched *s, enum pool_id id, struct mr_device *dev);
void mr_kv_destroy(struct pool *pool);
/* What @q wants of a slot on @id. */
void mr_kv_config(const struct mr_sched *s, const struct sequence *q, enum pool_id id,
		  uint32_t positions, struct mr_slot_config *config);
/*
 * Opens a slot for @q with room for @positions, over as much kept KV of its tokens as there is
 * (kv->start), @reuse = 0: over none. What is idle is given up for it, by cost. Returns 1, and q->kv[id]
 * is there; 0 = no room now, some will come; or a status, of which MR_E_QUOTA means: not while the client's
 * others hold what they hold.
 */
int mr_kv_acquire(struct mr_sched *s, struct sequence *q, enum pool_id id, uint32_t positions,
		  int reuse);
/* How many of @q's tokens have kept KV that mr_kv_acquire would share. */
uint32_t mr_kv_there(const struct mr_sched *s, const struct sequence *q, enum pool_id id);
/* The same over the first @at positions of @from, which may be @q's own: that one is then closed. */
int mr_kv_fork(struct mr_sched *s, struct sequence *q, struct kv *from, uint32_t at,
	       uint32_t positions);
/* @q has no more use for it: kept where it holds blocks that others may want, else closed. */
void mr_kv_release(struct mr_sched *s, struct sequence *q, enum pool_id id);
/* The same, never kept: what is in it is wrong, or nothing is. */
void mr_kv_drop(struct mr_sched *s, struct sequence *q, enum pool_id id);
/* A paused sequence's KV may be given up from now on (@idle = 1), or not any more. */
void mr_kv_idle(struct mr_sched *s, struct sequence *q, int idle);
/* Says that the first @count tokens of @q have their KV in q->kv[id]: others may share it. */
void mr_kv_publish(struct mr_sched *s, struct sequence *q, enum pool_id id, uint32_t count);
/* KV of @q's first @count tokens kept in @space, beside what @q goes on to do. */
void mr_kv_keep(struct mr_sched *s, struct sequence *q, enum pool_id id, uint64_t space,
		uint32_t count);
/* All that is kept in @space, or (space 0) all that is kept, is closed. */
void mr_kv_forget(struct mr_sched *s, enum pool_id id, uint64_t space);
/*
 * A device failed @q's work on the decode device with @status, or lost its KV there: it is computed again from
 * its tokens. 0 = not so: what @status says does not pass by itself, or it happened too often.
 */
int mr_sched_again(struct mr_sched *s, struct sequence *q, int32_t status);
/* Counts one of the times that a device may fail @q with @status; 0 = it may not. */
int mr_sched_may_go_on(struct sequence *q, int32_t status);
/* The decode device was reset with @status while @q was being handed over to it. */
void mr_sched_handover_lost(struct mr_sched *s, struct sequence *q, int32_t status);
/* The device was reset: none of its slots is open any more. */
void mr_kv_lost(struct mr_sched *s, enum pool_id id);

/* trie.c */
int mr_trie_create(struct pool *pool, uint32_t nodes);
void mr_trie_destroy(struct pool *pool);
/* The deepest node for the first @blocks blocks of @tokens in @space; NONE; *depth = its blocks. */
uint32_t mr_trie_match(const struct pool *pool, uint64_t space, const uint32_t *tokens,
		       uint32_t blocks, uint32_t *depth);
/* Puts @kv on the path of its first @blocks blocks; returns how many nodes are new. */
uint32_t mr_trie_insert(struct pool *pool, struct kv *kv, uint64_t space, const uint32_t *tokens,
			uint32_t blocks);
void mr_trie_remove(struct pool *pool, struct kv *kv);
/* @to takes @from's place. */
void mr_trie_replace(struct pool *pool, struct kv *from, struct kv *to);

/* prefix.c */
struct prefix *mr_sched_prefix_find(const struct mr_sched *s, uint64_t name);
int mr_sched_prefix_release(struct mr_sched *s, uint64_t client, uint64_t name);
void mr_sched_prefix_release_all(struct mr_sched *s, uint64_t client);
/* The space of a named prefix, apart from every client's. */
static inline uint64_t prefix_space(uint64_t name)
{
	return mix(name, 0x7072656669780000u) | 1u << 31;
}
static inline uint64_t client_space(uint64_t client)
{
	return mix(client, 0x636c69656e740000u) & ~(1ull << 31);
}

#endif /* MR_DRIVER_SCHED_INTERNAL_H */
