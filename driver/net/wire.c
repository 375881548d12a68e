// SPDX-License-Identifier: Apache-2.0
/*
 * See wire.h. The host is little-endian as the wire is, so a fixed part is one unaligned load: a
 * datagram lies 42 bytes into its frame. Nothing of a body is read before the tag was found right.
 */
#include "driver/net/wire.h"

#include <sodium.h>

#include <millrace/status.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are loaded as they lie");
_Static_assert(crypto_generichash_BYTES_MIN <= MR_WIRE_TAG_BYTES, "BLAKE2b-128");

/* A value at any address, of any declared type. */
#define UNALIGNED(type, p) \
	(((struct { type v; } __attribute__((packed, may_alias)) *)(uintptr_t)(p))->v)

static void make_tag(const struct mr_wire_key *key, const void *data, size_t bytes, uint8_t *tag)
{
	crypto_generichash(tag, MR_WIRE_TAG_BYTES, data, bytes, key->bytes, sizeof(key->bytes));
}

void mr_wire_key_id(struct mr_wire_key *key)
{
	uint8_t hash[MR_WIRE_TAG_BYTES];

	make_tag(key, MR_WIRE_KEY_ID_TEXT, sizeof(MR_WIRE_KEY_ID_TEXT) - 1, hash);
	key->id = UNALIGNED(uint64_t, hash);
}

static int parse_submit(struct mr_wire_in *in, const uint8_t *body, size_t bytes)
{
	uint32_t rest;

	if (bytes < sizeof(in->submit))
		return MR_E_FORMAT;
	in->submit = UNALIGNED(struct mr_wire_submit, body);
	if (in->submit.total == 0 || in->submit.offset >= in->submit.total ||
	    in->submit.offset % MR_WIRE_FRAGMENT || (in->submit.flags & ~MR_WIRE_FLAGS) ||
	    in->submit.max_tokens == 0)
		return MR_E_FORMAT;
	rest = in->submit.total - in->submit.offset;
	in->fragment_bytes = rest < MR_WIRE_FRAGMENT ? rest : MR_WIRE_FRAGMENT;
	if (bytes - sizeof(in->submit) != in->fragment_bytes)
		return MR_E_FORMAT;
	if (in->submit.total > MR_WIRE_PROMPT_MAX)
		return MR_E_TOO_LARGE;
	in->tail = body + sizeof(in->submit);
	return 0;
}

static int parse_tokens(struct mr_wire_in *in, const uint8_t *body, size_t bytes)
{
	if (bytes < sizeof(in->tokens))
		return MR_E_FORMAT;
	in->tokens = UNALIGNED(struct mr_wire_tokens, body);
	if (in->tokens.count == 0 || in->tokens.count > MR_WIRE_TOKENS_MAX ||
	    in->tokens.first > UINT32_MAX - in->tokens.count ||
	    bytes != sizeof(in->tokens) + in->tokens.count * sizeof(struct mr_wire_token))
		return MR_E_FORMAT;
	in->tail = body + sizeof(in->tokens);
	return 0;
}

static int parse_done(struct mr_wire_in *in, const uint8_t *body, size_t bytes)
{
	if (bytes < sizeof(in->done))
		return MR_E_FORMAT;
	in->done = UNALIGNED(struct mr_wire_done, body);
	if (in->done.status > 0 || in->done.finish > MR_WIRE_FINISH_ERROR ||
	    in->done.copy_sites > MR_WIRE_COPY_SITES_MAX ||
	    bytes != sizeof(in->done) + in->done.copy_sites * sizeof(uint64_t))
		return MR_E_FORMAT;
	in->tail = body + sizeof(in->done);
	return 0;
}

static int parse_body(struct mr_wire_in *in, const uint8_t *body, size_t bytes)
{
	switch (in->type) {
	case MR_WIRE_SUBMIT:
		return parse_submit(in, body, bytes);
	case MR_WIRE_CANCEL:
		return bytes ? MR_E_FORMAT : 0;
	case MR_WIRE_RESEND:
		if (bytes != sizeof(in->resend))
			return MR_E_FORMAT;
		in->resend = UNALIGNED(struct mr_wire_resend, body);
		return 0;
	case MR_WIRE_TOKENS:
		return parse_tokens(in, body, bytes);
	case MR_WIRE_DONE:
		return parse_done(in, body, bytes);
	case MR_WIRE_ERROR:
		if (bytes != sizeof(in->error))
			return MR_E_FORMAT;
		in->error = UNALIGNED(struct mr_wire_error, body);
		return in->error.status < 0 ? 0 : MR_E_FORMAT;
	case MR_WIRE_WANT:
		if (bytes != sizeof(in->want))
			return MR_E_FORMAT;
		in->want = UNALIGNED(struct mr_wire_want, body);
		return in->want.reserved0 ? MR_E_FORMAT : 0;
	}
	return MR_E_FORMAT;
}

static enum mr_wire_direction direction_of(unsigned type)
{
	return type <= MR_WIRE_RESEND ? MR_WIRE_TO_SERVER : MR_WIRE_TO_CLIENT;
}

int mr_wire_parse(const struct mr_wire_key *key, enum mr_wire_direction direction,
		  const void *datagram, size_t bytes, struct mr_wire_in *in)
{
	const uint8_t *data = datagram;
	struct mr_wire_header h;
	uint8_t tag[MR_WIRE_TAG_BYTES];

	if (bytes < sizeof(h) + sizeof(tag))
		return MR_E_TRUNCATED;
	if (bytes > MR_WIRE_DATAGRAM_MAX)
		return MR_E_FORMAT;
	h = UNALIGNED(struct mr_wire_header, data);
	if (h.magic != MR_WIRE_MAGIC)
		return MR_E_FORMAT;
	if (h.version != MR_WIRE_VERSION)
		return MR_E_VERSION;
	if (bytes < sizeof(h) + h.body_bytes + sizeof(tag))
		return MR_E_TRUNCATED;
	if (bytes != sizeof(h) + h.body_bytes + sizeof(tag) || h.reserved0 || h.reserved1 ||
	    h.type < MR_WIRE_SUBMIT || h.type > MR_WIRE_WANT || h.direction != direction ||
	    direction_of(h.type) != direction)
		return MR_E_FORMAT;
	if (h.key_id != key->id)
		return MR_E_CHECKSUM;
	make_tag(key, data, bytes - sizeof(tag), tag);
	if (sodium_memcmp(tag, data + bytes - sizeof(tag), sizeof(tag)) != 0)
		return MR_E_CHECKSUM;

	in->type = (enum mr_wire_type)h.type;
	in->request = h.request;
	in->fragment_bytes = 0;
	in->tail = NULL;
	return parse_body(in, data + sizeof(h), h.body_bytes);
}

enum mr_metric mr_wire_drop_metric(int status)
{
	switch (status) {
	case MR_E_VERSION:
		return MR_M_wire_bad_version;
	case MR_E_CHECKSUM:
		return MR_M_wire_bad_tag;
	case MR_E_TOO_LARGE:
		return MR_M_wire_too_large;
	default:
		return MR_M_wire_bad_format;
	}
}

struct mr_wire_token mr_wire_token_at(const struct mr_wire_in *in, uint32_t i)
{
	return UNALIGNED(struct mr_wire_token, in->tail + i * sizeof(struct mr_wire_token));
}

uint64_t mr_wire_copies_at(const struct mr_wire_in *in, uint32_t i)
{
	return UNALIGNED(uint64_t, in->tail + i * sizeof(uint64_t));
}

void *mr_wire_begin(const struct mr_wire_key *key, enum mr_wire_type type, uint64_t request,
		    void *datagram)
{
	UNALIGNED(struct mr_wire_header, datagram) = (struct mr_wire_header){
		.magic = MR_WIRE_MAGIC,
		.version = MR_WIRE_VERSION,
		.type = (uint8_t)type,
		.direction = (uint8_t)direction_of(type),
		.key_id = key->id,
		.request = request,
	};
	return (uint8_t *)datagram + sizeof(struct mr_wire_header);
}

size_t mr_wire_seal(const struct mr_wire_key *key, void *datagram, size_t body_bytes)
{
	size_t bytes = sizeof(struct mr_wire_header) + body_bytes;
	uint8_t *data = datagram;

	UNALIGNED(uint16_t, data + offsetof(struct mr_wire_header, body_bytes)) =
		(uint16_t)body_bytes;
	make_tag(key, data, bytes, data + bytes);
	return bytes + MR_WIRE_TAG_BYTES;
}

void mr_wire_put_submit(void *body, const struct mr_wire_submit *v)
{
	UNALIGNED(struct mr_wire_submit, body) = *v;
}

void mr_wire_put_resend(void *body, const struct mr_wire_resend *v)
{
	UNALIGNED(struct mr_wire_resend, body) = *v;
}

void mr_wire_put_tokens(void *body, const struct mr_wire_tokens *v)
{
	UNALIGNED(struct mr_wire_tokens, body) = *v;
}

void mr_wire_put_done(void *body, const struct mr_wire_done *v, const uint64_t *copies)
{
	uint8_t *at = (uint8_t *)body + sizeof(*v);

	UNALIGNED(struct mr_wire_done, body) = *v;
	for (uint32_t i = 0; i < v->copy_sites; i++)
		UNALIGNED(uint64_t, at + i * sizeof(uint64_t)) = copies[i];
}

void mr_wire_put_error(void *body, const struct mr_wire_error *v)
{
	UNALIGNED(struct mr_wire_error, body) = *v;
}

void mr_wire_put_want(void *body, const struct mr_wire_want *v)
{
	UNALIGNED(struct mr_wire_want, body) = *v;
}
