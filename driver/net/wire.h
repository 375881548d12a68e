/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire protocol's codec (<millrace/wire.h> is the protocol): checks and builds datagrams in
 * memory, without a network, a clock or state. Used by the server's front (intake.c, egress.c), by
 * the client (client.c), by `millrace keys` and by the fuzz target.
 */
#ifndef MR_DRIVER_NET_WIRE_H
#define MR_DRIVER_NET_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/wire.h>

#include "driver/metrics.h"

struct mr_wire_key {
	uint8_t bytes[MR_WIRE_KEY_BYTES];
	uint64_t id;
};

/* A datagram that was authenticated and checked; pointers are into it. */
struct mr_wire_in {
	enum mr_wire_type type;
	uint32_t fragment_bytes; /* SUBMIT */
	uint64_t request;
	union {
		struct mr_wire_submit submit;
		struct mr_wire_resend resend;
		struct mr_wire_tokens tokens;
		struct mr_wire_done done;
		struct mr_wire_error error;
		struct mr_wire_want want;
	};
	const uint8_t
		*tail; /* SUBMIT: the fragment; TOKENS: records; DONE: counts. May be unaligned */
};

/* Fills in @key->id from @key->bytes. */
void mr_wire_key_id(struct mr_wire_key *key);

/*
 * Checks @bytes bytes at @datagram, sent in @direction. Returns 0, or why to drop it:
 *   MR_E_TRUNCATED  shorter than it says, or than any datagram
 *   MR_E_FORMAT     magic, length, type, direction, reserved field or body
 *   MR_E_VERSION    another version
 *   MR_E_CHECKSUM   another key, or the tag does not match
 *   MR_E_TOO_LARGE  authentic SUBMIT with total above MR_WIRE_PROMPT_MAX: @in is filled, but tail
 * is NULL With any other error nothing but the error may be believed. Takes time that does not
 * depend on where a wrong tag differs.
 */
int mr_wire_parse(const struct mr_wire_key *key, enum mr_wire_direction direction,
		  const void *datagram, size_t bytes, struct mr_wire_in *in);
/* The metric that counts a drop for @status. */
enum mr_metric mr_wire_drop_metric(int status);

/* Entry @i of a checked TOKENS or DONE. */
struct mr_wire_token mr_wire_token_at(const struct mr_wire_in *in, uint32_t i);
uint64_t mr_wire_copies_at(const struct mr_wire_in *in, uint32_t i);

/*
 * Building: mr_wire_begin writes the header at @datagram (MR_WIRE_DATAGRAM_MAX bytes) and returns
 * where the body goes; mr_wire_seal sets the body's length, writes the tag, and returns the
 * datagram's length. Bodies are written by the caller; mr_wire_put_* write the fixed parts to any
 * alignment.
 */
void *mr_wire_begin(const struct mr_wire_key *key, enum mr_wire_type type, uint64_t request,
		    void *datagram);
size_t mr_wire_seal(const struct mr_wire_key *key, void *datagram, size_t body_bytes);
void mr_wire_put_submit(void *body, const struct mr_wire_submit *v);
void mr_wire_put_resend(void *body, const struct mr_wire_resend *v);
void mr_wire_put_tokens(void *body, const struct mr_wire_tokens *v);
void mr_wire_put_done(void *body, const struct mr_wire_done *v, const uint64_t *copies);
void mr_wire_put_error(void *body, const struct mr_wire_error *v);
void mr_wire_put_want(void *body, const struct mr_wire_want *v);

#endif /* MR_DRIVER_NET_WIRE_H */
