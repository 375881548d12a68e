/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring ABI: how a client process hands prompts to a millrace server and gets tokens back
 * through shared memory, with no system call on the way. This header is the specification;
 * libmillrace (millrace/millrace.h) is one client written from it, and nothing forbids another.
 *
 * CONCEPTS
 *
 *   ring memory   One memfd a client, made by the server in 4 KiB shmem pages, sealed against
 *                 shrinking, growing and further seals, mapped read-write by both, never seen by a
 *                 device. From offset 0: a header page, the submission queue, the completion queue,
 *                 the data area.
 *   SQE, CQE      Submission and completion queue entries, 64 bytes, one cache line each, in arrays
 *                 of a power of two. One thread of the client produces SQEs and consumes CQEs; one
 *                 thread of the server does the reverse.
 *   index         A free-running 32-bit count of entries; entry n lies in element n mod entries.
 *                 Rings start at the indices that sq_head and cq_head hold when the client gets the
 *                 memory (not zero: every ring passes 2^32 early in its life).
 *   published     The word inside an entry that says it is there: entry n is published by storing
 *                 (uint32_t)(n + 1) into its `published` with release order, after all else in it
 *                 is written. Until then the word holds n + 1 - entries. Any other value is a
 *                 broken peer. There is no tail word: the consumer polls the one line that it is
 *                 about to read.
 *   credit        A head word counts the entries that its consumer is done with; its only use is to
 *                 give their room back. sq_head says how far SQEs, and the bytes of the data area
 *                 that they name, may be reused: the server has copied what it needs before it
 *                 moves sq_head. cq_head says how many CQEs the client has room for.
 *   key           The client's 64-bit name for a request, any value, unique among its requests under
 *                 way and its sequences. A sequence goes by the key of the SUBMIT or FORK that made
 *                 it, a prefix by the key of its PREFIX: a name that all clients share.
 *   request       What one SQE asks. Each SQE that the server takes is answered by exactly one DONE
 *                 or ERROR with its key; SUBMIT, APPEND and FORK also by TOKENs before that, SCORE
 *                 by SCOREs. Room for the one DONE or ERROR is set aside when the SQE is taken, and
 *                 no TOKEN or SCORE is made without room, so a full completion queue delays SQEs
 *                 and answers, of this client alone, and loses nothing. With the room for its end
 *                 a request has room for the answer of the CANCEL or RELEASE that ends it: such an
 *                 SQE never waits for room, nor behind SQEs that do. All others are taken in order.
 *   sequence      The KV state of a prompt and its answers. It ends with the answer, unless the
 *                 request said MR_SUBMIT_KEEP: then it is paused, and APPEND goes on with it.
 *   prefix        The tokens that a sequence had when PREFIX named it. They go before a SUBMIT's
 *                 prompt, and share their KV, whoever's SUBMIT it is.
 *   data area     Bytes for prompts, continuations and parameter blocks, filled by the client as it
 *                 likes. Offsets count from the area's start. The server reads each byte once, into
 *                 private memory, before it looks at it.
 *   buffer        A memfd of the client's own that it has registered, from which data may come instead.
 *                 The server maps it read-only, and copies what an SQE names as from the data area.
 *   wake-up word  sq_need_wakeup and cq_need_wakeup, by which a side that wants to sleep asks to be
 *                 woken through its eventfd. The sleeper stores its bits, full fence, looks at the
 *                 ring again, and sleeps only when there is still nothing. The waker publishes,
 *                 full fence, reads the word; if it is set: clears it, then writes 1 to the
 *                 eventfd. Without either fence wake-ups are lost.
 *   heartbeat     CLOCK_MONOTONIC nanoseconds that the server stores some hundred times a second
 *                 while it polls; it stands still while sq_need_wakeup is not 0 (the server
 *                 sleeps).
 *   vocabulary    A read-only memfd of the model's tokens as bytes, the same for all clients, so
 *                 that a client turns tokens into text itself.
 *
 * ORDERING. Each shared word has one label for each side; the label names its partner.
 *
 *   label         side    operation                                   pairs with
 *   SQ_PUBLISH    client  store-release sqe.published                 SQ_TAKE
 *   SQ_TAKE       server  load-acquire  sqe.published                 SQ_PUBLISH
 *   SQ_CREDIT     server  store-release header.sq_head                SQ_ROOM
 *   SQ_ROOM       client  load-acquire  header.sq_head                SQ_CREDIT
 *   CQ_PUBLISH    server  store-release cqe.published                 CQ_TAKE
 *   CQ_TAKE       client  load-acquire  cqe.published                 CQ_PUBLISH
 *   CQ_CREDIT     client  store-release header.cq_head                CQ_ROOM
 *   CQ_ROOM       server  load-acquire  header.cq_head                CQ_CREDIT
 *   SQ_SLEEP      server  store sq_need_wakeup, fence, load ring      SQ_WAKE
 *   SQ_WAKE       client  SQ_PUBLISH or CQ_CREDIT, fence, load word   SQ_SLEEP
 *   CQ_SLEEP      client  store cq_need_wakeup, fence, load ring      CQ_WAKE
 *   CQ_WAKE       server  CQ_PUBLISH or SQ_CREDIT, fence, load word   CQ_SLEEP
 *   BEAT, HEARD   both    relaxed store, load of header.heartbeat     a time, orders nothing
 *
 * CONNECTING. Over a Unix socket of type SOCK_SEQPACKET the client sends one struct mr_hello; the
 * server answers with one struct mr_welcome and, where its status is 0, four file descriptors
 * (SCM_RIGHTS) in the order of enum mr_welcome_fd. With MR_FEATURE_BUFFERS the client may then send
 * struct mr_register at any time, each answered by one; else the socket carries nothing more. Its end is
 * the end of the connection for either side, and everything that the client had under way is
 * cancelled and freed. The server may refuse by the peer's credentials (MR_E_PERMISSION).
 *
 * GROWTH. Integers are little-endian and of fixed size; there are no unions, bit fields or enums in
 * shared structures. Sizes and offsets never change within a major version. Operations, types,
 * statuses and flags are append-only. What is reserved must be 0, is refused when it is not, and
 * may get a meaning under a feature bit; a client uses what a feature bit names only when the
 * welcome granted it. A reader ignores CQE flags that it does not know and treats an unknown CQE
 * type as not for it. Parameter blocks grow at their end: a longer block is taken when all that the
 * server does not know is 0.
 *
 * REFUSALS of an SQE come as ERROR with the status below and with `token` naming the field:
 * its offset in struct mr_sqe, MR_FIELD_PARAMS plus its offset in struct mr_params, or
 * MR_FIELD_CONTINUATIONS plus its offset in struct mr_continuations; 0 = no single field.
 *   MR_E_NOT_SUPPORTED  unknown operation; operation, flag or parameter that this server has not
 *                       built, or whose feature bit was not granted
 *   MR_E_VERSION        flag bits that are not the operation's, a block's version, or bytes after
 *                       the known ones of a block, unknown
 *   MR_E_INVALID        a reserved field, or one that the operation does not use, is not 0; no
 *                       prompt; a prefix named 0
 *   MR_E_DEADLINE       deadline_ns is before what can be promised
 *   MR_E_RANGE          offset and length leave the data area, or are not aligned; a token id
 *                       outside the vocabulary; a sampling value outside its range; stop strings
 *                       that are too many, too long or empty; an unknown priority; max_tokens is 0
 *                       without KEEP; continuations that are none, too many, empty or not all of
 *                       the data
 *   MR_E_TOO_LARGE      the data are longer than prompt_bytes_max, or a continuation is longer than
 *                       the device can score
 *   MR_E_TRUNCATED      a block is shorter than its version's
 *   MR_E_EXISTS         the key names a request under way or a sequence of this client; PREFIX: a
 *                       prefix has this name
 *   MR_E_QUOTA          requests_max requests of this client are under way, or it would have more KV,
 *                       more paused sequences or more prefixes than one client may
 *   MR_E_FULL           the server has no request entry, sequence or prefix free; try again
 *   MR_E_NOT_FOUND      the target is not a request under way (CANCEL), a sequence of this client
 *                       (APPEND, FORK, SCORE, PREFIX, QUERY), either or a prefix that it named
 *                       (RELEASE), or a prefix (SUBMIT); the buffer is not registered
 *   MR_E_BUSY           the target of APPEND is not paused; or the server takes no more requests
 * and what the orchestrator says: MR_E_CONTEXT_FULL, MR_E_MODEL, and so on. With MR_E_CONTEXT_FULL
 * `position` is how many tokens input and answer would take, and `index` how many there can be; with
 * MR_E_QUOTA for KV they are KV blocks, and so they are where a request that was taken ends with
 * MR_E_CONTEXT_FULL or MR_E_KV_EXHAUSTED. Where that is not known they are 0. MR_E_DEADLINE refuses a
 * deadline that cannot be promised: seen_ns is the earliest that could be, now; 0 = not known.
 */
#ifndef MILLRACE_RING_H
#define MILLRACE_RING_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/sampling.h>
#include <millrace/status.h>

#ifdef __cplusplus
#define MR_RING_ASSERT(condition, text) static_assert(condition, text)
#else
#define MR_RING_ASSERT(condition, text) _Static_assert(condition, text)
#endif
#define MR_RING_AT(type, field, offset)                                                  \
	MR_RING_ASSERT(offsetof(struct type, field) == (offset), #type "." #field " is " \
								       "at " #offset)

#define MR_RING_VERSION 1u

#define MR_RING_MAGIC     0x474e49524c4c494dull /* "MILLRING" */
#define MR_HELLO_MAGIC    0x4f4c45484c4c494dull /* "MILLHELO" */
#define MR_WELCOME_MAGIC  0x434c45574c4c494dull /* "MILLWELC" */
#define MR_REGISTER_MAGIC 0x464642554c4c494dull /* "MILLUBFF" */
#define MR_VOCAB_MAGIC    0x42434f564c4c494dull /* "MILLVOCB" */

/* Limits of this version; the server rounds queue sizes up to powers of two within them. */
#define MR_SQ_ENTRIES_MIN   4u
#define MR_SQ_ENTRIES_MAX   4096u
#define MR_CQ_ENTRIES_MIN   8u
#define MR_CQ_ENTRIES_MAX   65536u
#define MR_DATA_BYTES_MIN   4096ull
#define MR_DATA_BYTES_MAX   (16ull << 20)
#define MR_BUFFERS_MAX      4u            /* registered buffers of a client: numbers 1 to this */
#define MR_BUFFER_BYTES_MAX (16ull << 20) /* of one */

/*
 * Feature bits: what a server may have beyond NOP, SUBMIT, CANCEL and RELEASE. The welcome's
 * `supported` says what this one has, with the devices that it runs on.
 */
#define MR_FEATURE_APPEND    (1ull << 0)
#define MR_FEATURE_FORK      (1ull << 1)
#define MR_FEATURE_SCORE     (1ull << 2)
#define MR_FEATURE_PREFIX    (1ull << 3) /* and the target of SUBMIT */
#define MR_FEATURE_QUERY     (1ull << 4)
#define MR_FEATURE_DEADLINE  (1ull << 5) /* mr_params.deadline_ns */
#define MR_FEATURE_TOOL_CALL (1ull << 6)
#define MR_FEATURE_KEEP      (1ull << 7)  /* MR_SUBMIT_KEEP */
#define MR_FEATURE_ITL       (1ull << 8)  /* mr_params.itl_ns */
#define MR_FEATURE_STOPS     (1ull << 9)  /* struct mr_stops after struct mr_params */
#define MR_FEATURE_LOGPROBS  (1ull << 10) /* MR_SCORE_LOGPROBS */
#define MR_FEATURE_PRIORITY  (1ull << 11) /* mr_params.priority */
#define MR_FEATURE_BUFFERS   (1ull << 12) /* struct mr_register, mr_sqe.buffer */

/*
 * Operations. "data" is data_offset and data_bytes, "params" params_offset and params_bytes; what
 * an operation does not name must be 0. Those with a feature bit need it.
 */
enum mr_op {
	MR_OP_NOP = 0,     /* an entry comes back: DONE */
	MR_OP_SUBMIT = 1,  /* data = prompt, params, target = prefix or 0: makes a sequence */
	MR_OP_APPEND = 2,  /* data, params, target = paused sequence: more input, another answer */
	MR_OP_FORK = 3,    /* params, target = sequence: a second one from what it is now on */
	MR_OP_SCORE = 4,   /* data, params, target = sequence: ln p of given continuations */
	MR_OP_PREFIX = 5,  /* target = sequence: keeps its tokens for sharing, under this key */
	MR_OP_CANCEL = 6,  /* target = request: ends it and its sequence with MR_E_CANCELLED */
	MR_OP_RELEASE = 7, /* target = sequence, request or prefix: ends it, frees its KV */
	MR_OP_QUERY = 8,   /* target = sequence, or 0 = the server: state and counters */
	MR_OP_COUNT
};

/*
 * Flags of SUBMIT and APPEND. FORK takes IGNORE_EOS and KEEP, SCORE takes TOKENS and its own one, others
 * none.
 */
#define MR_SUBMIT_CHAT       1u /* the text is a user's message: render the model's chat template */
#define MR_SUBMIT_TOKENS     2u /* data holds uint32_t token ids, not text; excludes CHAT */
#define MR_SUBMIT_IGNORE_EOS 4u /* only max_tokens, stop tokens and the context end the answer */
#define MR_SUBMIT_KEEP       8u /* pause the sequence at DONE, until RELEASE (MR_FEATURE_KEEP) */
#define MR_SUBMIT_KNOWN      15u
#define MR_SCORE_LOGPROBS    16u /* a TOKEN for each token before each SCORE (MR_FEATURE_LOGPROBS) */

/* A submission queue entry. The client writes all of it; the server reads it once. */
struct mr_sqe {
	uint32_t published;     /* n + 1, stored last, release */
	uint16_t op;            /* enum mr_op */
	uint16_t flags;         /* of the operation; unknown bits are refused */
	uint64_t key;           /* comes back in every CQE of this request */
	uint64_t data_offset;   /* bytes from the start of the data area or buffer; see below */
	uint32_t data_bytes;    /* 1..prompt_bytes_max; for token ids a multiple of 4 */
	uint32_t params_bytes;  /* 0 = the defaults; else at least sizeof(struct mr_params) */
	uint64_t params_offset; /* bytes from the data area's start, a multiple of 8 */
	uint64_t target;        /* the key of what the operation acts on */
	uint64_t buffer;   /* which the data are in: 0 = the data area, else MR_FEATURE_BUFFERS */
	uint64_t reserved; /* 0 */
};
/* data_offset is a multiple of 8 for SCORE, else of 4 for token ids, else any. */
MR_RING_ASSERT(sizeof(struct mr_sqe) == 64, "an SQE is one cache line");
MR_RING_AT(mr_sqe, op, 4);
MR_RING_AT(mr_sqe, key, 8);
MR_RING_AT(mr_sqe, data_offset, 16);
MR_RING_AT(mr_sqe, params_offset, 32);
MR_RING_AT(mr_sqe, target, 40);
MR_RING_AT(mr_sqe, buffer, 48);
MR_RING_AT(mr_sqe, reserved, 56);

#define MR_PARAMS_VERSION   1u
#define MR_PARAMS_BYTES_MAX 4096u
#define MR_MAX_TOKENS       256u /* what params_bytes = 0 asks for, with greedy sampling */

/* Whose prompt is taken in first, of this client's; other clients' turns stay as they are. */
#define MR_PRIORITY_NORMAL 0u
#define MR_PRIORITY_HIGH   1u
#define MR_PRIORITY_LOW    2u

/*
 * The parameter block of SUBMIT, APPEND, FORK and SCORE, in the data area. All-zero but version and
 * max_tokens: greedy. For SCORE max_tokens, deadline_ns and sampling must be 0: it makes no tokens; nor
 * is there a deadline where max_tokens is 0. A block of
 * MR_PARAMS_STOPS_BYTES or more goes on with a struct mr_stops (millrace/sampling.h) where
 * MR_FEATURE_STOPS was granted; its fields count from MR_FIELD_PARAMS like those before them. SCORE
 * has none.
 */
struct mr_params {
	uint32_t version;    /* MR_PARAMS_VERSION */
	uint32_t max_tokens; /* of the answer, 1 or more; with KEEP also 0: input alone, no TOKEN */
	uint64_t deadline_ns; /* first token, CLOCK_MONOTONIC; 0 = none; MR_FEATURE_DEADLINE */
	uint64_t itl_ns;      /* bound between tokens; 0 = none: background; MR_FEATURE_ITL */
	uint32_t priority;    /* MR_PRIORITY_*, among this client's own; MR_FEATURE_PRIORITY */
	uint32_t reserved0;   /* 0 */
	struct mr_sampling sampling; /* ranges in millrace/sampling.h */
	uint64_t reserved[4];        /* 0 */
};
MR_RING_ASSERT(sizeof(struct mr_params) == 128, "version 1 of the parameter block is 128 bytes");
MR_RING_AT(mr_params, deadline_ns, 8);
MR_RING_AT(mr_params, priority, 24);
MR_RING_AT(mr_params, sampling, 32);
MR_RING_AT(mr_params, reserved, 96);

#define MR_PARAMS_STOPS_BYTES (sizeof(struct mr_params) + sizeof(struct mr_stops))

#define MR_CONTINUATIONS_VERSION 1u
#define MR_CONTINUATIONS_MAX     64u

/*
 * What SCORE's data begin with. The continuations follow it, one directly after the other, each
 * beginning where the one before it ends: in bytes of text, or with MR_SUBMIT_TOKENS in token ids,
 * counted from the first one's start. The last ends where the data end.
 */
struct mr_continuations {
	uint32_t version;  /* MR_CONTINUATIONS_VERSION */
	uint32_t bytes;    /* of this block: sizeof or, where it has grown, more; a multiple of 8 */
	uint32_t count;    /* 1..MR_CONTINUATIONS_MAX */
	uint32_t reserved; /* 0 */
	uint32_t ends[MR_CONTINUATIONS_MAX]; /* strictly ascending; 0 from [count] on */
};
MR_RING_ASSERT(sizeof(struct mr_continuations) == 272, "version 1 of SCORE's block is 272 bytes");
MR_RING_AT(mr_continuations, count, 8);
MR_RING_AT(mr_continuations, ends, 16);

/* Flag of an answer's first TOKEN and of its end: that TOKEN came after deadline_ns, or never. */
#define MR_CQE_LATE 1u

enum mr_cqe_type {
	MR_CQE_TOKEN = 1,     /* one token of an answer, in order of position */
	MR_CQE_TOOL_CALL = 2, /* the answer asks for a tool (MR_FEATURE_TOOL_CALL) */
	MR_CQE_DONE = 3,      /* the request ended well; its last CQE */
	MR_CQE_ERROR = 4,     /* the request ended with status; its last CQE */
	MR_CQE_SCORE = 5,     /* one continuation of a SCORE, in order (MR_FEATURE_SCORE) */
};

/* Why a SUBMIT, APPEND, FORK or SCORE ended, in its DONE or ERROR; 0 in all others. */
enum mr_ended {
	MR_ENDED_STOP = 1,   /* the model's end token or a stop token */
	MR_ENDED_LENGTH = 2, /* max_tokens made, the context is full, or all is scored */
	MR_ENDED_CANCEL = 3,
	MR_ENDED_ERROR = 4,
	MR_ENDED_STOP_STRING = 5, /* a stop string; token says which one, from 0 */
};

/* What a sequence does, as QUERY tells it. Append-only. */
enum mr_state {
	MR_STATE_QUEUED = 1,     /* waits for its turn */
	MR_STATE_PREFILLING = 2, /* its input is taken in */
	MR_STATE_HANDOVER = 3,   /* its KV goes to the decode device */
	MR_STATE_DECODING = 4,   /* its answer is made */
	MR_STATE_PAUSED = 5,     /* kept; APPEND may go on with it */
};

/* Added to an offset in the block where ERROR's token names a field of it. */
#define MR_FIELD_PARAMS        64u   /* struct mr_params */
#define MR_FIELD_CONTINUATIONS 8192u /* struct mr_continuations */

/*
 * A completion queue entry. The server writes all of it; the client only reads. "End" is the DONE
 * or ERROR of a SUBMIT, APPEND, FORK or SCORE that was taken; what a field does not name is 0.
 *
 * A SCORE has index = the continuation's, from 0, token = its tokens, position = where it begins in
 * the sequence, logprob = the sum over its tokens of ln p(token). With MR_SCORE_LOGPROBS its tokens
 * come before it as TOKENs with op = MR_OP_SCORE: index = in the continuation, position = in the
 * sequence, logprob = ln p(token).
 *
 * The DONE of a QUERY has fields of its own: of a sequence, token = enum mr_state, position = its
 * tokens, prompts and answers, index = positions with KV on the decode device, cycles = KV blocks
 * that it holds and does not share with what it was forked from; of the server (target 0), position
 * = requests under way of all clients, index = of this client, cycles = KV blocks that this client's
 * sequences under way hold. Paused ones are not counted there: their KV gives way to others, and is
 * computed again when it is asked for.
 */
struct mr_cqe {
	uint32_t published;  /* n + 1, stored last, release */
	uint16_t type;       /* enum mr_cqe_type */
	uint16_t flags;      /* MR_CQE_*; ignore what you do not know */
	uint64_t key;        /* the SQE's */
	int32_t status;      /* ERROR: enum mr_status, negative; else 0 */
	uint32_t sequence;   /* the server's number for the sequence, from 1; 0 = none */
	uint32_t generation; /* count of that number's reuse, from 1 */
	uint32_t position;   /* TOKEN: in its sequence, prompt included; end: prompt + answer */
	uint32_t
		token; /* TOKEN: its id; ERROR that refuses: the field; STOP_STRING: which; else 0 */
	float logprob;    /* TOKEN: ln p(token) before penalties and temperature; else 0 */
	uint32_t index;   /* TOKEN: of the answer, from 0; end: tokens of it, or SCOREs given */
	uint8_t op;       /* of the SQE */
	uint8_t ended;    /* enum mr_ended */
	uint16_t device;  /* the server's number for the decode device, from 0 */
	uint64_t seen_ns; /* CLOCK_MONOTONIC; TOKEN: when seen; end: when; E_DEADLINE: see above */
	uint64_t cycles;  /* the device's; TOKEN: of this step, end: of all; 0 = unknown */
};
MR_RING_ASSERT(sizeof(struct mr_cqe) == 64, "a CQE is one cache line");
MR_RING_AT(mr_cqe, type, 4);
MR_RING_AT(mr_cqe, key, 8);
MR_RING_AT(mr_cqe, status, 16);
MR_RING_AT(mr_cqe, position, 28);
MR_RING_AT(mr_cqe, token, 32);
MR_RING_AT(mr_cqe, op, 44);
MR_RING_AT(mr_cqe, seen_ns, 48);

/* Bits of the wake-up words: what the sleeper wants to be woken for. */
#define MR_WAKEUP_ENTRY  1u /* an entry published for it */
#define MR_WAKEUP_CREDIT 2u /* room in the queue that it produces into */

/*
 * The first page of the ring memory. Constants are written by the server before the client gets it,
 * and never read by the server again. Each shared word has a pair of cache lines of its own,
 * because the adjacent line is prefetched with its neighbour.
 */
struct mr_ring_header {
	uint64_t magic;        /* MR_RING_MAGIC */
	uint32_t version;      /* MR_RING_VERSION */
	uint32_t header_bytes; /* sizeof(struct mr_ring_header) */
	uint64_t features;     /* granted MR_FEATURE_* */
	uint64_t memory_bytes; /* of the whole memfd */
	uint32_t sq_entries;   /* a power of two */
	uint32_t cq_entries;   /* a power of two */
	uint64_t sq_offset;    /* of the SQE array, from the start of the memory, as all below */
	uint64_t cq_offset;    /* of the CQE array */
	uint64_t data_offset;  /* of the data area */
	uint64_t data_bytes;   /* of the data area */
	uint32_t requests_max; /* SUBMITs, APPENDs, FORKs and SCOREs under way at a time */
	uint32_t prompt_bytes_max; /* of one prompt, or of a SCORE's data */
	uint32_t context;      /* tokens a sequence can hold, prompt and answer; 0 = not known */
	uint32_t vocab;        /* token ids are below this */
	uint64_t client;       /* the server's number for this connection */
	uint64_t reserved0[4]; /* 0 */

	uint32_t sq_head; /* server writes: SQEs it is done with */
	uint32_t reserved1[31];
	uint32_t cq_head; /* client writes: CQEs it is done with */
	uint32_t reserved2[31];
	uint32_t sq_need_wakeup; /* MR_WAKEUP_*; server sets, either clears */
	uint32_t reserved3[31];
	uint32_t cq_need_wakeup; /* MR_WAKEUP_*; client sets, either clears */
	uint32_t reserved4[31];
	uint64_t heartbeat; /* server writes: CLOCK_MONOTONIC, ns */
	uint64_t reserved5[15];
	uint64_t reserved6[416]; /* 0 */
};
MR_RING_ASSERT(sizeof(struct mr_ring_header) == 4096, "the header is one page");
MR_RING_AT(mr_ring_header, sq_entries, 32);
MR_RING_AT(mr_ring_header, data_offset, 56);
MR_RING_AT(mr_ring_header, client, 88);
MR_RING_AT(mr_ring_header, sq_head, 128);
MR_RING_AT(mr_ring_header, cq_head, 256);
MR_RING_AT(mr_ring_header, sq_need_wakeup, 384);
MR_RING_AT(mr_ring_header, cq_need_wakeup, 512);
MR_RING_AT(mr_ring_header, heartbeat, 640);

/* What a client sends first. Sizes are wishes: 0 = the server's default. */
struct mr_hello {
	uint64_t magic;      /* MR_HELLO_MAGIC */
	uint32_t version;    /* MR_RING_VERSION */
	uint32_t bytes;      /* sizeof(struct mr_hello) */
	uint64_t features;   /* MR_FEATURE_* that the client would use */
	uint64_t required;   /* of those, the ones without which MR_E_VERSION is the right answer */
	uint32_t sq_entries; /* at most MR_SQ_ENTRIES_MAX, else MR_E_RANGE */
	uint32_t cq_entries; /* at most MR_CQ_ENTRIES_MAX, else MR_E_RANGE */
	uint64_t data_bytes; /* at most MR_DATA_BYTES_MAX, else MR_E_RANGE */
	uint64_t reserved[2]; /* 0, else MR_E_INVALID */
};
MR_RING_ASSERT(sizeof(struct mr_hello) == 64, "mr_hello is 64 bytes");
MR_RING_AT(mr_hello, features, 16);
MR_RING_AT(mr_hello, sq_entries, 32);
MR_RING_AT(mr_hello, data_bytes, 40);

/* What the server answers. With a status below 0 no descriptors come and the socket is closed. */
struct mr_welcome {
	uint64_t magic;        /* MR_WELCOME_MAGIC */
	uint32_t version;      /* the server's MR_RING_VERSION */
	int32_t status;        /* 0 or enum mr_status */
	uint64_t features;     /* granted: wished for and there */
	uint64_t supported;    /* all that the server has */
	uint64_t memory_bytes; /* of the ring memory */
	uint64_t vocab_bytes;  /* of the vocabulary */
	uint64_t client;       /* the server's number for this connection */
	uint64_t reserved;     /* 0 */
};
MR_RING_ASSERT(sizeof(struct mr_welcome) == 64, "mr_welcome is 64 bytes");
MR_RING_AT(mr_welcome, status, 12);
MR_RING_AT(mr_welcome, memory_bytes, 32);

enum mr_welcome_fd {
	MR_FD_MEMORY = 0, /* ring memory: map read-write, shared */
	MR_FD_SQ = 1,     /* eventfd: the client writes it to wake the server */
	MR_FD_CQ = 2,     /* eventfd: readable when the server has woken the client */
	MR_FD_VOCAB = 3,  /* vocabulary, sealed against writing: map read-only, private */
	MR_FD_COUNT = 4
};

/*
 * Registers a buffer, or gives it up; the server answers with the same, status and bytes filled in.
 * With ADD one descriptor comes along (SCM_RIGHTS), which the client may close once it is answered. It
 * must be a memfd of 4 KiB pages, sealed against shrinking (F_SEAL_SHRINK), of 1 to MR_BUFFER_BYTES_MAX
 * bytes. What the client punches out of it reads as zeros. SQEs that the server took before are not
 * touched by DROP: it has copied what they name. Statuses:
 *   MR_E_PERMISSION     not sealed against shrinking
 *   MR_E_FORMAT         no memfd
 *   MR_E_NOT_SUPPORTED  a memfd on huge pages; an unknown op
 *   MR_E_RANGE          the buffer's number, or its size
 *   MR_E_EXISTS         ADD: the number is in use
 *   MR_E_NOT_FOUND      DROP: it is not
 *   MR_E_PROTOCOL       the message's size or magic; no descriptor with ADD
 *   MR_E_VERSION, MR_E_INVALID (status, bytes or reserved is not 0), MR_E_NO_MEMORY
 */
struct mr_register {
	uint64_t magic;   /* MR_REGISTER_MAGIC */
	uint32_t version; /* MR_RING_VERSION */
	uint32_t op;      /* MR_REGISTER_* */
	uint32_t buffer;  /* 1..MR_BUFFERS_MAX */
	int32_t status;   /* client: 0 */
	uint64_t bytes;   /* of the buffer, as the server found it; client: 0 */
	uint64_t reserved[4];
};
MR_RING_ASSERT(sizeof(struct mr_register) == 64, "mr_register is 64 bytes");
MR_RING_AT(mr_register, buffer, 16);
MR_RING_AT(mr_register, bytes, 24);
#define MR_REGISTER_ADD  1u
#define MR_REGISTER_DROP 2u

/* The vocabulary: this header, then `count` entries, then `bytes` bytes of text. */
struct mr_vocab_header {
	uint64_t magic;    /* MR_VOCAB_MAGIC */
	uint32_t version;  /* MR_RING_VERSION */
	uint32_t count;    /* entries; entry i is token i */
	uint64_t bytes;    /* of text after the entries */
	uint64_t reserved; /* 0 */
};
MR_RING_ASSERT(sizeof(struct mr_vocab_header) == 32, "mr_vocab_header is 32 bytes");

#define MR_VOCAB_CONTROL 1u /* a control token: not part of an answer's text */

struct mr_vocab_entry {
	uint32_t offset; /* of the token's bytes in the text */
	uint16_t bytes;  /* may be 0, and may be a part of a UTF-8 character */
	uint16_t flags;  /* MR_VOCAB_* */
};
MR_RING_ASSERT(sizeof(struct mr_vocab_entry) == 8, "mr_vocab_entry is 8 bytes");

#endif /* MILLRACE_RING_H */
