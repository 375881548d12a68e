// SPDX-License-Identifier: Apache-2.0
/*
 * What comes off the wire: frames, datagrams, and fragments put together, against a second assembly that is too
 * simple to be wrong. An input is a list of records: length (2 bytes, little-endian), control, bytes.
 *   control bit 0: the bytes are a frame; else a UDP payload
 *   control bit 1: make it authentic (magic, version, direction, key, length, tag), so that bodies are reached
 *   control bit 2: sent to the client
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "driver/net/assemble.h"
#include "driver/net/frame.h"
#include "driver/net/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
	if (!truth)
		abort();
}

/* The model: a flag a byte. */
static char real_text[MR_WIRE_PROMPT_MAX], text[MR_WIRE_PROMPT_MAX], have[MR_WIRE_PROMPT_MAX];
static struct assembly assembly;
static int started;

static void assemble(const struct mr_wire_in *in)
{
	uint32_t at = in->submit.offset, n = in->fragment_bytes, total, missing = 0;
	enum assembly_result result;

	must(n >= 1 && n <= MR_WIRE_FRAGMENT && at + n <= in->submit.total &&
	     in->submit.total <= MR_WIRE_PROMPT_MAX);
	if (!started) {
		mr_assembly_start(&assembly, real_text, in);
		memset(have, 0, sizeof(have));
		started = 1;
	}
	total = assembly.params.total;
	result = mr_assembly_add(&assembly, in);
	if (result == ASSEMBLY_CONTRADICTS) {
		must(memcmp(&assembly.params.total, &in->submit.total,
			    sizeof(in->submit) - sizeof(in->submit.offset)) != 0);
		return;
	}
	must((result == ASSEMBLY_DUPLICATE) == have[at]);
	if (result != ASSEMBLY_DUPLICATE) {
		memcpy(text + at, in->tail, n);
		memset(have + at, 1, n);
	}
	for (uint32_t i = 0; i < total; i++)
		missing += !have[i];
	if (result != ASSEMBLY_DUPLICATE)
		must((result == ASSEMBLY_COMPLETE) == (missing == 0));
	if (missing == 0) {
		must(memcmp(text, real_text, total) == 0);
		started = 0;
	}
}

/* What was taken, written anew and taken again, is the same. */
static void rewrite(const struct mr_wire_key *key, enum mr_wire_direction way,
		    const struct mr_wire_in *in)
{
	uint8_t out[MR_WIRE_DATAGRAM_MAX];
	uint64_t copies[256];
	uint8_t *body = mr_wire_begin(key, in->type, in->request, out);
	size_t bytes = 0;
	struct mr_wire_in again;

	switch (in->type) {
	case MR_WIRE_SUBMIT:
		mr_wire_put_submit(body, &in->submit);
		memcpy(body + sizeof(in->submit), in->tail, in->fragment_bytes);
		bytes = sizeof(in->submit) + in->fragment_bytes;
		break;
	case MR_WIRE_RESEND:
		mr_wire_put_resend(body, &in->resend);
		bytes = sizeof(in->resend);
		break;
	case MR_WIRE_TOKENS:
		mr_wire_put_tokens(body, &in->tokens);
		bytes = in->tokens.count * sizeof(struct mr_wire_token);
		memcpy(body + sizeof(in->tokens), in->tail, bytes);
		bytes += sizeof(in->tokens);
		break;
	case MR_WIRE_DONE:
		must(in->done.copy_sites <= 256);
		for (uint32_t i = 0; i < in->done.copy_sites; i++)
			copies[i] = mr_wire_copies_at(in, i);
		mr_wire_put_done(body, &in->done, copies);
		bytes = sizeof(in->done) + in->done.copy_sites * sizeof(copies[0]);
		break;
	case MR_WIRE_ERROR:
		mr_wire_put_error(body, &in->error);
		bytes = sizeof(in->error);
		break;
	case MR_WIRE_WANT:
		mr_wire_put_want(body, &in->want);
		bytes = sizeof(in->want);
		break;
	default:
		break;
	}
	bytes = mr_wire_seal(key, out, bytes);
	must(mr_wire_parse(key, way, out, bytes, &again) == 0 && again.type == in->type &&
	     again.request == in->request && again.fragment_bytes == in->fragment_bytes);
}

static void take(const struct mr_wire_key *key, int to_client, const uint8_t *p, size_t n)
{
	enum mr_wire_direction way = to_client ? MR_WIRE_TO_CLIENT : MR_WIRE_TO_SERVER;
	struct mr_wire_in in;
	uint64_t sum = 0;
	int status = mr_wire_parse(key, way, p, n, &in);

	must(status <= 0);
	if (status != 0) {
		mr_wire_drop_metric(status);
		return;
	}
	must((in.type >= MR_WIRE_TOKENS) == to_client);
	rewrite(key, way, &in);
	if (in.type == MR_WIRE_SUBMIT)
		assemble(&in);
	if (in.type == MR_WIRE_TOKENS)
		for (uint32_t i = 0; i < in.tokens.count; i++)
			sum += mr_wire_token_at(&in, i).cycles;
	if (in.type == MR_WIRE_DONE)
		for (uint32_t i = 0; i < in.done.copy_sites; i++)
			sum += mr_wire_copies_at(&in, i);
	/* Used, so that the reads stay. */
	__asm__ volatile("" : : "r"(sum));
}

static size_t authenticate(const struct mr_wire_key *key, int to_client, uint8_t *p, size_t n)
{
	size_t body = n - sizeof(struct mr_wire_header) - MR_WIRE_TAG_BYTES;

	p[0] = MR_WIRE_MAGIC & 0xff;
	p[1] = MR_WIRE_MAGIC >> 8;
	p[2] = MR_WIRE_VERSION;
	p[4] = (uint8_t)to_client;
	p[5] = 0;
	memcpy(p + 8, &key->id, sizeof(key->id));
	memset(p + 24, 0, 8);
	return mr_wire_seal(key, p, body);
}

/* What is sent back is taken at the other end, which has @in's address. */
static void reply(const struct frame_end *self, const struct frame_in *in)
{
	static uint8_t frame[FRAME_UDP_BYTES + 65536];
	struct frame_in back;
	size_t n;

	if (in->kind == FRAME_UDP) {
		memcpy(frame + FRAME_UDP_BYTES, in->payload, in->payload_bytes);
		n = mr_frame_udp(self, &in->from, 7, frame, in->payload_bytes);
		mr_frame_parse(&in->from, frame, n, &back);
		must(back.kind == FRAME_UDP && back.payload_bytes == in->payload_bytes);
	} else if (in->kind == FRAME_ARP_REQUEST) {
		n = mr_frame_arp_reply(self, &in->from, frame);
		mr_frame_parse(&in->from, frame, n, &back);
		must(back.kind == FRAME_ARP_REPLY && back.from.ip == self->ip);
	} else if (in->kind == FRAME_ARP_REPLY) {
		n = mr_frame_arp_request(self, in->from.ip, frame);
		mr_frame_parse(&in->from, frame, n, &back);
		must(back.kind == FRAME_ARP_REQUEST && back.from.ip == self->ip);
	}
}

static void one(const struct mr_wire_key *key, unsigned control, const uint8_t *data, size_t n)
{
	static const struct frame_end self = {{2, 0, 0, 0, 0, 1}, 7878, 0x0a4d0001};
	/* An allocation of just the size, so that a read beyond the end is seen. */
	uint8_t *p = malloc(n ? n : 1);
	struct frame_in in;

	memcpy(p, data, n);
	if (control & 1) {
		mr_frame_parse(&self, p, n, &in);
		reply(&self, &in);
		if (in.kind == FRAME_UDP)
			take(key, control >> 2 & 1, in.payload, in.payload_bytes);
	} else {
		if ((control & 2) && n >= sizeof(struct mr_wire_header) + MR_WIRE_TAG_BYTES &&
		    n <= MR_WIRE_DATAGRAM_MAX)
			n = authenticate(key, control >> 2 & 1, p, n);
		take(key, control >> 2 & 1, p, n);
	}
	free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mr_wire_key key = {.bytes = "a key that is no secret at all!"};

	mr_wire_key_id(&key);
	started = 0;
	while (size >= 3) {
		size_t n = (size_t)data[0] | (size_t)data[1] << 8;
		unsigned control = data[2];

		data += 3;
		size -= 3;
		if (n > size)
			n = size;
		one(&key, control, data, n);
		data += n;
		size -= n;
	}
	return 0;
}
