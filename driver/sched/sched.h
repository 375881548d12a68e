/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The orchestrator: takes requests from its fronts (driver/ring, driver/net, a tool in the same process),
 * tokenises, prefills in chunks on the prefill device, hands KV over with checked descriptors, decodes in
 * continuous batches on the decode device, and gives every token to the front it came from. It knows devices
 * only by driver/device.h and time only by struct mr_clock.
 *
 * A request is what a front asks for, a sequence the KV state that it works on.
 *
 * Life of a request
 *   mr_sched_request      the front takes an entry from a fixed pool and fills it in (one counted copy of
 *                         the prompt's text, straight into request->text)
 *   mr_sched_submit       the orchestrator owns it; it is accepted or refused at once
 *   front->token ...      once a token, in order of position, only while front->credit says there is room
 *   front->end            exactly once for each accepted request; the entry is the pool's again when it returns
 *
 * Life of a sequence, and what may be asked of it in each state
 *
 *       SUBMIT, FORK, SCORE                             APPEND
 *               |            +-----------------------------------------------------+
 *               v            v                                                     |
 *            queued --> prefilling --> hand-over --> decoding --> paused ----------+
 *               |            |             |            |   KEEP    |
 *               +------------+-------------+------------+-----------+--> ended
 *                  CANCEL, RELEASE, an error, or the answer's end without KEEP
 *
 *               queued  prefilling  hand-over  decoding  paused  ended or unknown
 *     SUBMIT    EXISTS  EXISTS      EXISTS     EXISTS    EXISTS  makes it
 *     APPEND    BUSY    BUSY        BUSY       BUSY      goes on NOT_FOUND
 *     FORK      yes     yes         yes        yes       yes     NOT_FOUND
 *     SCORE     yes     yes         yes        yes       yes     NOT_FOUND
 *     PREFIX    yes     yes         yes        yes       yes     NOT_FOUND
 *     CANCEL    ends it ends it     ends it    ends it   NOT_FOUND (no request)
 *     RELEASE   ends it ends it     ends it    ends it   ends it NOT_FOUND
 *
 * FORK and SCORE work on the tokens that the sequence has at that moment, and share its KV blocks as far
 * as there are any; where there are none yet, or they were given up for others, they are computed.
 *
 * Threads: everything here is called by the one thread that runs the loop. Nothing allocates after
 * mr_sched_create.
 */
#ifndef MR_DRIVER_SCHED_SCHED_H
#define MR_DRIVER_SCHED_SCHED_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/sampling.h>
#include <millrace/status.h>

#include "driver/device.h"
#include "driver/mem/copy.h"

struct mr_model;
struct mr_sched;
struct mr_request;

struct mr_clock {
	uint64_t (*now_ns)(void *arg); /* monotonic */
	void *arg;
};
extern const struct mr_clock mr_clock_monotonic;

#define MR_PROMPT_BYTES_MAX (64u << 10)

#define MR_REQUEST_CHAT       1u  /* text is a user's message: the chat template goes round it */
#define MR_REQUEST_TOKENS     2u  /* the prompt is request->tokens already, not text */
#define MR_REQUEST_IGNORE_EOS 4u  /* only max_tokens, stop tokens and the context end it */
#define MR_REQUEST_KEEP       8u  /* the sequence is paused after its answer, until RELEASE */
#define MR_REQUEST_LOGPROBS   16u /* SCORE: each continuation's tokens too, by ops->token */

enum mr_request_op {
	MR_REQUEST_SUBMIT, /* a prompt: makes a sequence, named by the request's key */
	MR_REQUEST_APPEND, /* more input to the paused sequence @target, then an answer */
	MR_REQUEST_FORK,  /* no input: a second sequence over what @target is now, then an answer */
	MR_REQUEST_SCORE, /* log-probabilities of continuations of @target, which stays as it is */
};
#define MR_SCORE_MAX 64u /* continuations of one SCORE */

/* Which of a client's own prompts goes first; other clients' turns are not touched by it. */
enum mr_rank {
	MR_RANK_NORMAL,
	MR_RANK_HIGH,
	MR_RANK_LOW,
	MR_RANKS,
};

enum mr_sequence_state {
	MR_SEQUENCE_ENDED, /* or never was */
	MR_SEQUENCE_QUEUED,
	MR_SEQUENCE_PREFILLING,
	MR_SEQUENCE_HANDOVER,
	MR_SEQUENCE_DECODING,
	MR_SEQUENCE_PAUSED,
	MR_SEQUENCE_STATES,
};

enum mr_finish {
	MR_FINISH_STOP,   /* EOS, a stop token or a stop string */
	MR_FINISH_LENGTH, /* max_tokens made, or the context is full */
	MR_FINISH_CANCEL,
	MR_FINISH_ERROR,
};

struct mr_token {
	uint32_t token;
	uint32_t position; /* in the sequence, prompt included */
	uint32_t index;    /* of the answer, from 0 */
	float logprob;
	uint64_t cycles;  /* the device's, for this step; 0 = unknown */
	uint64_t seen_ns; /* when the driver saw the device's record */
	uint32_t late;    /* 1 = the answer's first, and after its deadline */
};

struct mr_end {
	int32_t status; /* 0, or why it failed */
	enum mr_finish finish;
	uint32_t prompt_tokens; /* of the sequence before the answer: history and input */
	uint32_t reused;        /* of those, how many had KV already: shared, not computed */
	uint32_t tokens;        /* of the answer */
	uint32_t stop_string;   /* which one ended it, from 1; 0 = none */
	uint32_t late;          /* 1 = its first token came after its deadline, or never */
	/* by the clock; 0 = not reached */
	uint64_t submit_ns, start_ns, prefilled_ns, joined_ns, first_ns, end_ns;
	uint64_t cycles;    /* the device's, all steps */
	uint64_t predicted; /* what its program claims of them before they run; 0 = no claim */
	/* with MR_E_KV_EXHAUSTED or MR_E_CONTEXT_FULL: KV blocks that it wanted, and the device's in all */
	uint64_t blocks_wanted, blocks_there;
	/* payload bytes of this request by site, from MR_COPY_SITES_FIRST */
	uint64_t copies[MR_COPY_SITES];
};

/* One continuation of a SCORE. */
struct mr_score {
	uint32_t index;        /* of the continuation, in order from 0 */
	uint32_t tokens;       /* of it */
	double logprob;        /* the sum over its tokens of ln p(token) */
	const float *logprobs; /* of each token; until the call returns */
};

struct mr_front_ops {
	/*
	 * How many more tokens of @request can be taken now. It is this request's own room: a front
	 * whose requests share a ring gives each its part, and keeps room for every end.
	 */
	uint32_t (*credit)(void *front, const struct mr_request *request);
	void (*token)(void *front, struct mr_request *request, const struct mr_token *token);
	void (*end)(void *front, struct mr_request *request, const struct mr_end *end);
	/*
	 * One continuation of a SCORE, which takes the credit of one token. NULL = SCORE is refused.
	 * With MR_REQUEST_LOGPROBS its tokens come before it by token(), index counted within it.
	 */
	void (*score)(void *front, struct mr_request *request, const struct mr_score *score);
};

/* An entry of the pool. The front fills the first part; the rest is the orchestrator's. */
struct mr_request {
	const struct mr_front_ops *ops;
	void *front;            /* passed to ops */
	uint64_t front_word[4]; /* the front's own, zero at first */
	uint64_t client;        /* who: a ring connection or a wire key id */
	uint64_t key;           /* the client's name for it, and for the sequence that it makes */
	uint64_t target;        /* APPEND, FORK, SCORE: the key of a sequence of this client */
	uint64_t prefix; /* SUBMIT: the name of a prefix that goes before the prompt; 0 = none */
	uint64_t itl_ns; /* bound between tokens; 0 = none: background, served with what is left */
	uint64_t due_ns; /* by the clock: its first token is promised until then; 0 = no deadline */
	uint32_t priority; /* enum mr_rank */
	enum mr_request_op op;
	uint32_t flags;      /* MR_REQUEST_* */
	uint32_t max_tokens; /* of the answer; 0 only with KEEP: the prompt's KV and no token */
	struct mr_sampling sampling;
	struct mr_stops stops;
	uint32_t score_count;              /* SCORE: continuations, 1 to MR_SCORE_MAX */
	uint32_t score_ends[MR_SCORE_MAX]; /* where each ends in text (bytes) or tokens */
	char *text;                        /* MR_PROMPT_BYTES_MAX bytes, the pool's */
	uint32_t text_bytes;               /* of the prompt */
	uint32_t *tokens;                  /* context entries; once accepted, the sequence's */
	uint32_t token_count;              /* with MR_REQUEST_TOKENS: of the input */
	uint64_t copies[MR_COPY_SITES];    /* what the front copied for it, by site */
	uint64_t arrival_ns; /* when the front took its first input; 0 = with submit */
	uint32_t owner; /* the orchestrator's: the sequence's id, in the trace and on devices */
};

struct mr_sched_options {
	const struct mr_model *model;
	struct mr_device *prefill; /* may be the same device as decode */
	struct mr_device *decode;
	const struct mr_clock *clock; /* NULL = mr_clock_monotonic */
	uint32_t requests;            /* entries of the pool; 0 = 256 */
	uint32_t sequences;           /* live and paused ones; 0 = twice the requests */
	uint32_t prefixes;            /* named prefixes; 0 = 16 */
	uint32_t batch_max;           /* sequences in a DECODE; 0 = the device's */
	uint32_t chunk;               /* tokens a prefill call; 0 = 128 */
	uint32_t steps;               /* steps a DECODE when nobody waits to join; 0 = 1 */
	uint64_t itl_ns; /* bound that prefill on the decode device keeps for everybody; 0 = none */
	uint64_t client_blocks; /* KV blocks that one client's sequences may hold; 0 = all */
	int no_cache;           /* KV of ended sequences is not kept for prompts that begin alike */
};

int mr_sched_create(const struct mr_sched_options *options, struct mr_sched **sched);
/* Ends every request with MR_E_CANCELLED, waits for the devices' events (at most 5 s), frees. */
void mr_sched_destroy(struct mr_sched *sched);

/* An empty entry, or NULL when the pool is empty. Give it back by submit or abandon. */
struct mr_request *mr_sched_request(struct mr_sched *sched);
void mr_sched_abandon(struct mr_sched *sched, struct mr_request *request);

/*
 * Queues the request. Clients take turns by tokens of prefill; a client's own go by priority, then first come,
 * first served, those with an ITL bound before background. One with a deadline is accepted only when it can be
 * met; the earliest deadline goes before all of these. Returns 0, or a status and then the entry is the pool's again
 * and front->end is not called: MR_E_INVALID (no ops, no token, unknown flags, max_tokens 0 without KEEP, a
 * field that the operation does not use), MR_E_RANGE (sampling, stops, token ids, score_ends), MR_E_EXISTS (a live
 * request or sequence of this client has this key), MR_E_NOT_FOUND (target, prefix), MR_E_BUSY (APPEND to a
 * sequence that is not paused; draining), MR_E_TOO_LARGE (text_bytes), MR_E_CONTEXT_FULL (with the answer it
 * does not fit), MR_E_QUOTA (more KV than the client may hold, or three
 * quarters of the places for paused sequences are its own), MR_E_FULL (no sequence free), MR_E_MODEL (no
 * tokeniser or chat template), MR_E_DEADLINE (it cannot be promised), MR_E_NOT_SUPPORTED (SCORE on a device or front without), or why a device was
 * lost for good.
 */
int mr_sched_submit(struct mr_sched *sched, struct mr_request *request);
/*
 * The numbers behind the last refusal with MR_E_CONTEXT_FULL (tokens of input and answer, and the context),
 * MR_E_QUOTA (KV blocks, and what the client may hold) or MR_E_DEADLINE (the deadline, and the earliest that
 * could be promised; 0 = not known, since somebody waits for KV).
 */
void mr_sched_refusal(const struct mr_sched *sched, uint64_t *wanted, uint64_t *there);

/* Ends the request named by (client, key); front->end follows with MR_E_CANCELLED. 0 or MR_E_NOT_FOUND. */
int mr_sched_cancel(struct mr_sched *sched, uint64_t client, uint64_t key);
/*
 * The request under way that mr_sched_cancel, or with @release mr_sched_release, of (@client, @key) would end;
 * NULL = none.
 */
const struct mr_request *mr_sched_ends(const struct mr_sched *sched, uint64_t client, uint64_t key,
				       int release);
/*
 * Ends the sequence that @key's request made, paused or under way (as CANCEL then), or the request of that
 * key, or the prefix of that name, if the client named it. 0 or MR_E_NOT_FOUND.
 */
int mr_sched_release(struct mr_sched *sched, uint64_t client, uint64_t key);
/*
 * Names what sequence @target of @client is now, server-wide: any client may put it before a prompt, and
 * shares its KV then. The sequence may go on or end. MR_E_NOT_FOUND, MR_E_EXISTS (the name), MR_E_INVALID
 * (name 0), MR_E_FULL (prefixes), MR_E_QUOTA (three quarters of them are the client's).
 */
int mr_sched_prefix(struct mr_sched *sched, uint64_t client, uint64_t target, uint64_t name);
/*
 * Ends all of a client's requests, sequences and prefixes; returns how many requests. front->end is called
 * from mr_sched_poll, never from here: fronts may cancel and submit from inside token and end.
 */
int mr_sched_cancel_client(struct mr_sched *sched, uint64_t client);

struct mr_sequence_info {
	enum mr_sequence_state state;
	uint32_t tokens;    /* prompt and answers so far */
	uint32_t positions; /* of those, with KV on the decode device */
	uint32_t blocks;    /* KV blocks that it holds and shares with nobody it was forked from */
	uint32_t owner;     /* its id on devices */
};
/* State and counters of a sequence. 0, or MR_E_NOT_FOUND and state ENDED. */
int mr_sched_query(const struct mr_sched *sched, uint64_t client, uint64_t key,
		   struct mr_sequence_info *info);
/* KV blocks that a client's sequences hold, on both devices together. */
uint64_t mr_sched_client_blocks(const struct mr_sched *sched, uint64_t client);

/* One turn: takes device events, posts what can be posted. Returns how much was done, 0 = idle. */
int mr_sched_poll(struct mr_sched *sched);
/* Whether the decode device can SCORE. */
int mr_sched_scores(const struct mr_sched *sched);
/* Entries of mr_request.tokens: what a prompt and its answer may have together. */
uint32_t mr_sched_context(const struct mr_sched *sched);
/* From now on submit answers MR_E_BUSY, so that what is under way can end and nothing follows it. */
void mr_sched_drain(struct mr_sched *sched);

/* Requests accepted and not ended. */
uint32_t mr_sched_active(const struct mr_sched *sched);
/* Before the loop sleeps: arms the devices. 0 = may sleep on the devices' wait_fd, 1 = do not sleep. */
int mr_sched_arm(struct mr_sched *sched);

/* Gives up all KV that no sequence needs. For tests and for an operator short of memory. */
void mr_sched_drop_cache(struct mr_sched *sched);
/*
 * Looks at every list, count and reference; 0, or MR_E_INTERNAL with the first that is wrong in *why
 * (static storage). For tests: it takes time in proportion to all there is.
 */
int mr_sched_check(const struct mr_sched *sched, const char **why);

#endif /* MR_DRIVER_SCHED_SCHED_H */
