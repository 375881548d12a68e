/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire: prompts and tokens as UDP datagrams, for hosts where prompts come off the network.
 * Documentation/wire.rst tells the same with a worked example.
 *
 * Concepts
 *
 * - datagram: one UDP payload: header (32 bytes), body (0 to MR_WIRE_BODY_MAX bytes), tag (16 bytes), nothing
 *   after it; at most MR_WIRE_DATAGRAM_MAX bytes. Its length must be exactly what the header says.
 * - key: 32 secret bytes that client and server share. Its id, which is no secret, says which key made a tag.
 *   One key id is one client to accounts and quotas.
 * - request: a prompt and its answer, named by 64 bits that the client chooses. A name is used once for as long
 *   as the server may remember it; a counter that starts at a clock or at random does well.
 * - fragment: MR_WIRE_FRAGMENT bytes of a prompt; the last one what remains. Every SUBMIT carries one, and the
 *   parameters, which must be the same in all fragments of a request.
 * - index: of a token in the answer, from 0.
 *
 * Conversation
 *
 * 1. Client: SUBMIT, fragments 0 to n-1. They are put together in any order; the whole prompt starts the request.
 * 2. Server: TOKENS, as they are made; several tokens may share a datagram.
 * 3. Server: DONE, once, after the last token.
 *
 * Nothing is acknowledged. The client alone asks again: RESEND, when an index is missing or nothing came for a
 * while, is answered by the TOKENS asked for (and DONE where the answer has ended), by WANT while no token is
 * there, or by ERROR where the request is not known (any more). An answer is kept for some seconds after its end.
 * SUBMIT of a fragment that has come already is dropped, so sending a prompt again never starts it twice.
 * CANCEL ends a request early: DONE with MR_E_CANCELLED follows, or ERROR where the prompt was not whole yet;
 * CANCEL of a request that is not known is dropped. ERROR ends a request that was never started. Answers go to
 * the address and port that the request's first fragment came from; datagrams about it from elsewhere are dropped.
 *
 * Authentication
 *
 * tag = BLAKE2b, 16 bytes, keyed with the key, over header and body (libsodium: crypto_generichash; Python:
 * hashlib.blake2b(data, key=key, digest_size=16)). Compare it in constant time. key id = the first 8 bytes, as a
 * little-endian number, of that hash over the 15 bytes MR_WIRE_KEY_ID_TEXT. Header and body are authentic, not
 * secret, and a recorded SUBMIT can be played again once the server has forgotten its request: where others can
 * reach the network, put the wire inside MACsec or IPsec. Whatever fails a check is counted (metrics wire_*) and
 * dropped. The server answers nothing that is not authenticated.
 *
 * Growth: little-endian, fixed-size integers, version in the header; a receiver drops versions, types and non-zero
 * reserved fields that it does not know. Types and flags are append-only. All-zero sampling means greedy.
 */
#ifndef MILLRACE_WIRE_H
#define MILLRACE_WIRE_H

#include <stdint.h>

#include <millrace/sampling.h>

#define MR_WIRE_MAGIC   0x5752u /* "RW" in the datagram's first two bytes */
#define MR_WIRE_VERSION 1
#define MR_WIRE_PORT    7878 /* where the server listens unless told otherwise */
#define MR_WIRE_DATAGRAM_MAX \
	1472 /* fills an Ethernet frame of 1500 bytes with IPv4 and UDP headers */
#define MR_WIRE_TAG_BYTES   16
#define MR_WIRE_KEY_BYTES   32
#define MR_WIRE_KEY_ID_TEXT "millrace key id"
#define MR_WIRE_FRAGMENT    1024 /* prompt bytes in every fragment of a prompt but its last */
#define MR_WIRE_PROMPT_MAX  (64 * MR_WIRE_FRAGMENT)

/* Type of a datagram; which way it may go is part of the type. */
enum mr_wire_type {
	MR_WIRE_SUBMIT = 1, /* to the server: struct mr_wire_submit, then the fragment's bytes */
	MR_WIRE_CANCEL = 2, /* to the server: no body */
	MR_WIRE_RESEND = 3, /* to the server: struct mr_wire_resend */
	MR_WIRE_TOKENS = 4, /* to the client: struct mr_wire_tokens, then struct mr_wire_token[] */
	MR_WIRE_DONE = 5,   /* to the client: struct mr_wire_done, then copies[] */
	MR_WIRE_ERROR = 6,  /* to the client: struct mr_wire_error */
	MR_WIRE_WANT = 7,   /* to the client: struct mr_wire_want */
};

enum mr_wire_direction {
	MR_WIRE_TO_SERVER = 0,
	MR_WIRE_TO_CLIENT = 1,
};

struct mr_wire_header {
	uint16_t magic;    /* MR_WIRE_MAGIC */
	uint8_t version;   /* MR_WIRE_VERSION */
	uint8_t type;      /* enum mr_wire_type */
	uint8_t direction; /* enum mr_wire_direction: a datagram sent back to its sender is refused
			    */
	uint8_t reserved0; /* 0 */
	uint16_t body_bytes; /* between header and tag */
	uint64_t key_id;     /* of the key that made the tag */
	uint64_t request;    /* the client's name for the request */
	uint64_t reserved1;  /* 0 */
};

/* Flags of SUBMIT. */
#define MR_WIRE_CHAT \
	1u /* the text is a user's message: the server puts it into the model's chat template */
#define MR_WIRE_IGNORE_EOS 2u /* only max_tokens, stop tokens and the context end the answer */
#define MR_WIRE_FLAGS      (MR_WIRE_CHAT | MR_WIRE_IGNORE_EOS)

struct mr_wire_submit {
	uint32_t offset; /* of this fragment in the prompt: a multiple of MR_WIRE_FRAGMENT, below
			    total */
	uint32_t
		total; /* bytes of the prompt, 1 to MR_WIRE_PROMPT_MAX; more is ERROR E_TOO_LARGE */
	uint32_t max_tokens; /* of the answer, 1 or more; above the server's limit is ERROR
				E_TOO_LARGE */
	uint32_t flags;      /* MR_WIRE_*; unknown bits are refused */
	struct mr_sampling sampling;
	/* then min(MR_WIRE_FRAGMENT, total - offset) bytes of text, UTF-8 */
};

struct mr_wire_resend {
	uint32_t first; /* index of the first token wanted */
	uint32_t count; /* how many; 0 = all from first on. The server may send fewer: ask again */
};

struct mr_wire_token {
	uint32_t id;
	float logprob;   /* ln p(id) before penalties and temperature */
	uint64_t cycles; /* device cycles of this token's step; 0 = unknown */
};

struct mr_wire_tokens {
	uint32_t first; /* index of token[0] */
	uint32_t count; /* 1 to MR_WIRE_TOKENS_MAX; the body's length must agree */
};

/* Why an answer ended. */
enum mr_wire_finish {
	MR_WIRE_FINISH_STOP = 0,   /* EOS or a stop token */
	MR_WIRE_FINISH_LENGTH = 1, /* max_tokens made, or the context is full */
	MR_WIRE_FINISH_CANCEL = 2,
	MR_WIRE_FINISH_ERROR = 3, /* status says why */
};

/* Times are the server's, in nanoseconds, measured from the last fragment's arrival; 0 = not
 * reached. */
struct mr_wire_done {
	int32_t status;  /* 0, or a negative enum mr_status */
	uint32_t finish; /* enum mr_wire_finish */
	uint32_t prompt_tokens;
	uint32_t tokens;     /* of the answer: indexes 0 to tokens - 1 were sent */
	uint64_t queue_ns;   /* waited for a place */
	uint64_t prefill_ns; /* then from its start until the prompt was prefilled */
	uint64_t first_ns;   /* arrival to first token */
	uint64_t total_ns;   /* arrival to end */
	uint64_t cycles;     /* device cycles of all steps */
	uint32_t copy_sites; /* how many counts follow; names in the order of metrics copy_* */
	int32_t cycles_off; /* cycles, less those that the device's program claimed before; 0 where it claims none */
	/* then uint64_t copies[copy_sites]: payload bytes copied for this request, by site */
};

struct mr_wire_error {
	int32_t status; /* negative enum mr_status */
	uint32_t limit; /* with E_TOO_LARGE: the limit that was passed; else 0 */
};

struct mr_wire_want {
	uint64_t have;      /* bit k = fragment k has come */
	uint32_t total;     /* bytes of the prompt. All fragments there: the request waits or is in
			       prefill */
	uint32_t reserved0; /* 0 */
};

#define MR_WIRE_BODY_MAX (MR_WIRE_DATAGRAM_MAX - 32 - MR_WIRE_TAG_BYTES)
#define MR_WIRE_TOKENS_MAX                                         \
	((MR_WIRE_BODY_MAX - (int)sizeof(struct mr_wire_tokens)) / \
	 (int)sizeof(struct mr_wire_token))
#define MR_WIRE_COPY_SITES_MAX 32 /* counts that a receiver of DONE must have room for */

#ifdef __cplusplus
#define MR_WIRE_ASSERT(cond, text) static_assert(cond, text)
#else
#define MR_WIRE_ASSERT(cond, text) _Static_assert(cond, text)
#endif
MR_WIRE_ASSERT(sizeof(struct mr_wire_header) == 32, "the header is 32 bytes");
MR_WIRE_ASSERT(sizeof(struct mr_wire_submit) == 80, "SUBMIT is 80 bytes before its text");
MR_WIRE_ASSERT(sizeof(struct mr_wire_resend) == 8, "RESEND is 8 bytes");
MR_WIRE_ASSERT(sizeof(struct mr_wire_tokens) == 8, "TOKENS is 8 bytes before its tokens");
MR_WIRE_ASSERT(sizeof(struct mr_wire_token) == 16, "a token is 16 bytes");
MR_WIRE_ASSERT(sizeof(struct mr_wire_done) == 64, "DONE is 64 bytes before its counts");
MR_WIRE_ASSERT(sizeof(struct mr_wire_error) == 8, "ERROR is 8 bytes");
MR_WIRE_ASSERT(sizeof(struct mr_wire_want) == 16, "WANT is 16 bytes");
MR_WIRE_ASSERT(sizeof(struct mr_wire_submit) + MR_WIRE_FRAGMENT <= MR_WIRE_BODY_MAX,
	       "a full fragment fits a datagram");
MR_WIRE_ASSERT(sizeof(struct mr_wire_done) + 8 * MR_WIRE_COPY_SITES_MAX <= MR_WIRE_BODY_MAX,
	       "DONE fits a datagram");

#endif /* MILLRACE_WIRE_H */
