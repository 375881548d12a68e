// SPDX-License-Identifier: Apache-2.0
/* The container's header, tables and hashes: opening what others made, and sealing what we made. */
#include "userlib/spec/container.h"

#include <sodium.h>
#include <string.h>

#include <millrace/status.h>

#include "userlib/spec/why.h"

#define HASHED_FROM offsetof(struct mr_prog_header, data_sha256)

uint64_t mr_layout_bytes(uint32_t layout, uint32_t rows, uint32_t cols)
{
	uint64_t groups = ((uint64_t)rows + 15) / 16 * (cols / 32);

	if (!rows || !cols)
		return 0;
	switch (layout) {
	case MR_LAYOUT_F32:
		return (uint64_t)rows * cols > UINT32_MAX ? 0 : (uint64_t)rows * cols * 4;
	case MR_LAYOUT_F16:
		return (uint64_t)rows * cols > UINT32_MAX ? 0 : (uint64_t)rows * cols * 2;
	case MR_LAYOUT_Q4_1X16:
		return cols % 32 || groups > UINT32_MAX ? 0 : groups * 320;
	case MR_LAYOUT_Q8_0X16:
		return cols % 32 || groups > UINT32_MAX ? 0 : groups * 544;
	default:
		return 0;
	}
}

/* Table sizes fit 64 bits easily: each count is 32 bits, each entry at most 128 bytes. */
static uint64_t tables_bytes(const struct mr_prog_header *h)
{
	return (uint64_t)h->segments * sizeof(struct mr_prog_segment) +
	       (uint64_t)h->params * sizeof(struct mr_prog_param) +
	       (uint64_t)h->ios * sizeof(struct mr_prog_io) +
	       (uint64_t)h->epochs * sizeof(struct mr_prog_epoch) +
	       (uint64_t)h->claims * sizeof(struct mr_prog_claim);
}

void mr_container_layout(struct mr_prog_header *h)
{
	h->magic = MR_PROG_MAGIC;
	h->version = MR_PROG_VERSION;
	h->header_bytes = sizeof(*h);
	h->payload_offset = sizeof(*h) + tables_bytes(h);
	h->meta_bytes = (h->payload_offset + h->payload_bytes + MR_PROG_DATA_ALIGN - 1) /
			MR_PROG_DATA_ALIGN * MR_PROG_DATA_ALIGN;
}

void mr_container_seal(void *container)
{
	struct mr_prog_header *h = container;
	const unsigned char *bytes = container;

	crypto_hash_sha256(h->data_sha256, bytes + h->meta_bytes, h->total_bytes - h->meta_bytes);
	crypto_hash_sha256(h->sha256, bytes + HASHED_FROM, h->meta_bytes - HASHED_FROM);
}

static int check_header(const struct mr_prog_header *h, size_t bytes, struct mr_spec_why *why)
{
	if (h->magic != MR_PROG_MAGIC)
		return mr_spec_why(why, MR_E_FORMAT, "no program container: wrong magic");
	if (h->version != MR_PROG_VERSION)
		return mr_spec_why(why, MR_E_VERSION, "container version %u, this reader knows %u",
				   h->version, MR_PROG_VERSION);
	if (h->header_bytes != sizeof(*h) || h->reserved0 || h->reserved[0] || h->reserved[1] ||
	    h->reserved[2])
		return mr_spec_why(why, MR_E_FORMAT, "header size or reserved fields");
	if (h->meta_bytes > MR_PROG_META_BYTES_MAX)
		return mr_spec_why(why, MR_E_TOO_LARGE, "metadata of %llu bytes",
				   (unsigned long long)h->meta_bytes);
	if (h->meta_bytes > bytes)
		return mr_spec_why(why, MR_E_TRUNCATED, "metadata of %llu bytes, %zu are there",
				   (unsigned long long)h->meta_bytes, bytes);
	if (h->payload_offset != sizeof(*h) + tables_bytes(h) ||
	    h->payload_bytes > MR_PROG_META_BYTES_MAX ||
	    h->meta_bytes < h->payload_offset + h->payload_bytes ||
	    h->meta_bytes % MR_PROG_DATA_ALIGN || h->total_bytes < h->meta_bytes)
		return mr_spec_why(why, MR_E_FORMAT, "sizes in the header contradict each other");
	if (!memchr(h->numeric_class, 0, sizeof(h->numeric_class)) ||
	    !memchr(h->model, 0, sizeof(h->model)))
		return mr_spec_why(why, MR_E_FORMAT, "text in the header without an end");
	return 0;
}

static int open_reference(struct mr_container *c, struct mr_spec_why *why)
{
	const struct mr_prog_header *h = c->header;
	const unsigned char *payload = (const unsigned char *)h + h->payload_offset;

	c->ref = (const struct mr_ref_header *)payload;
	if (h->payload_bytes < sizeof(*c->ref) || c->ref->version != 1)
		return mr_spec_why(why, MR_E_FORMAT, "payload's header");
	uint64_t bytes = sizeof(*c->ref) + (uint64_t)c->ref->chips * sizeof(*c->chips) +
			 (uint64_t)c->ref->ops * sizeof(*c->ops);
	if (h->payload_kind == MR_PAYLOAD_REFERENCE ? h->payload_bytes != bytes
						    : h->payload_bytes < bytes || c->ref->ops)
		return mr_spec_why(why, MR_E_FORMAT, "payload's size and its counts");
	c->chips = (const struct mr_ref_chip *)(c->ref + 1);
	c->ops = (const struct mr_ref_op *)(c->chips + c->ref->chips);
	return 0;
}

static int open_schedule(struct mr_container *c, struct mr_spec_why *why)
{
	const struct mr_prog_header *h = c->header;
	uint64_t before = sizeof(*c->ref) + (uint64_t)c->ref->chips * sizeof(*c->chips);
	const struct mr_sched_header *s =
		(const struct mr_sched_header *)(c->chips + c->ref->chips);

	if (h->payload_bytes < before + sizeof(*s) || s->version != 1 ||
	    s->chips != c->ref->chips ||
	    h->payload_bytes != before + sizeof(*s) + s->chips * sizeof(*c->sched_chips) +
					(uint64_t)s->areas * sizeof(*c->areas) +
					((uint64_t)s->icu + s->instructions) * sizeof(*c->icu))
		return mr_spec_why(why, MR_E_FORMAT, "schedule's size and its counts");
	c->sched = s;
	c->sched_chips = (const struct mr_sched_chip *)(s + 1);
	c->areas = (const struct mr_sched_area *)(c->sched_chips + s->chips);
	c->icu = (const struct mr_isa *)(c->areas + s->areas);
	c->instructions = c->icu + s->icu;
	return 0;
}

uint64_t mr_claim_cycles(const struct mr_prog_claim *claim, const uint32_t *blocks, uint32_t n)
{
	uint64_t cycles = claim->base;

	for (uint32_t i = 0; i < n; i++)
		cycles += claim->slot + claim->block * blocks[i] +
			  claim->tile * (((uint64_t)blocks[i] + claim->tile_blocks - 1) /
					 claim->tile_blocks);
	return cycles;
}

int mr_container_open(const void *meta, size_t bytes, struct mr_container *c, char *text,
		      size_t text_bytes)
{
	struct mr_spec_why why = {text, text_bytes};
	const struct mr_prog_header *h = meta;
	unsigned char digest[32];
	int status;

	memset(c, 0, sizeof(*c));
	if (bytes < sizeof(*h))
		return mr_spec_why(&why, MR_E_TRUNCATED, "shorter than a header");
	status = check_header(h, bytes, &why);
	if (status)
		return status;
	crypto_hash_sha256(digest, (const unsigned char *)meta + HASHED_FROM,
			   h->meta_bytes - HASHED_FROM);
	if (memcmp(digest, h->sha256, sizeof(digest)))
		return mr_spec_why(&why, MR_E_CHECKSUM,
				   "the metadata does not have the header's SHA-256");
	if (h->payload_kind != MR_PAYLOAD_REFERENCE && h->payload_kind != MR_PAYLOAD_SCHEDULE)
		return mr_spec_why(&why, MR_E_NOT_SUPPORTED, "payload kind %u", h->payload_kind);
	c->header = h;
	c->segments = (const struct mr_prog_segment *)(h + 1);
	c->params = (const struct mr_prog_param *)(c->segments + h->segments);
	c->ios = (const struct mr_prog_io *)(c->params + h->params);
	c->epochs = (const struct mr_prog_epoch *)(c->ios + h->ios);
	c->claims = (const struct mr_prog_claim *)(c->epochs + h->epochs);
	status = open_reference(c, &why);
	return status || h->payload_kind == MR_PAYLOAD_REFERENCE ? status : open_schedule(c, &why);
}
