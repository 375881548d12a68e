// SPDX-License-Identifier: Apache-2.0
/* PROGRAM, the container that it takes, and FIRMWARE. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"

static const struct mr_prog_header *header(const struct conform *t)
{
	return t->program;
}

SCENARIO(program_states, CONFORM_PROGRAM | CONFORM_QUEUE, "P-1 P-2 P-3 P-4 P-5 P-8")
{
	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	STATUS("P-5", conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes), MR_E_BUSY);
	STATUS("P-5", conform_decode(t, 0, 5, 0, 20, 1, NULL), 0);
	MUST(conform_free(t, 0, 5) == 0);
	t->loaded = 0;
	STATUS("P-4", conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes), 0);
	STATUS("P-4", conform_slot(t, 1, 0, 5, 16), MR_E_NOT_ACTIVE);
	STATUS("P-3", conform_program_step(t, MR_LPU_PROGRAM_ACTIVATE, 0), MR_E_NOT_ACTIVE);
	/* Some of it, then a gap. */
	MUST(conform_program_write(t, t->program, 0, 64) == 0);
	STATUS("P-1", conform_program_write(t, (uint8_t *)t->program + 128, 128, 64), MR_E_RANGE);
	STATUS("P-8", conform_program_write(t, (uint8_t *)t->program + 64, 64, 64),
	       MR_E_NOT_ACTIVE);
	STATUS("P-3", conform_program_step(t, MR_LPU_PROGRAM_VERIFY, 0), MR_E_NOT_ACTIVE);
	MUST(conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes) == 0);
	MUST(conform_program_write(t, t->program, 0, 64) == 0);
	STATUS("P-1", conform_program_write(t, t->program, 0, 64), MR_E_RANGE);
	/* All but the end. */
	MUST(conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes) == 0);
	MUST(conform_program_write(t, t->program, 0, t->program_bytes - 64) == 0);
	STATUS("P-2", conform_program_step(t, MR_LPU_PROGRAM_VERIFY, 0), MR_E_TRUNCATED);
	STATUS("P-8", conform_program_step(t, MR_LPU_PROGRAM_VERIFY, 0), MR_E_NOT_ACTIVE);
	/* Out of order after VERIFY. */
	MUST(conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes) == 0);
	MUST(conform_program_write(t, t->program, 0, t->program_bytes) == 0);
	MUST(conform_program_step(t, MR_LPU_PROGRAM_VERIFY, 0) == 0);
	STATUS("P-3", conform_program_write(t, t->program, 0, 64), MR_E_NOT_ACTIVE);
	STATUS("P-3", conform_slot(t, 1, 0, 5, 16), MR_E_NOT_ACTIVE);
	STATUS("P-3", conform_program_step(t, 9, 0), MR_E_RANGE);
	MUST(conform_load(t) == 0);
	STATUS("P-4", conform_slot(t, 1, 0, 5, 16), 0);
}

/* A copy of the metadata with the hash set right again. */
static struct mr_prog_header *copy_meta(struct conform *t)
{
	size_t bytes = header(t)->meta_bytes;
	uint8_t *copy = conform_take(t, bytes);

	memcpy(copy, t->program, bytes);
	return (void *)copy;
}

static void seal_meta(struct mr_prog_header *h)
{
	crypto_hash_sha256(h->sha256, (const uint8_t *)h + 48, h->meta_bytes - 48);
}

/* What the device says of this metadata, before a byte of a segment. */
static int offer(struct conform *t, const struct mr_prog_header *h)
{
	t->loaded = 0;
	int status = conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes);

	return status ? status : conform_program_write(t, h, 0, header(t)->meta_bytes);
}

#define OFFER(rule, want, seal, change)                              \
	do {                                                         \
		size_t mark_ = t->used;                              \
		struct mr_prog_header *h = copy_meta(t);             \
		change;                                              \
		if (seal)                                            \
			seal_meta(h);                                \
		conform_status(t, rule, offer(t, h), want, #change); \
		t->used = mark_;                                     \
	} while (0)

SCENARIO(containers, CONFORM_PROGRAM, "P-6 P-7 P-8 P-9 P-10 P-11 P-12 P-13 P-14 P-15")
{
	OFFER("P-6", 0, 1, (void)0);
	OFFER("P-11", MR_E_VERSION, 1, h->version = 99);
	OFFER("P-12", MR_E_NOT_SUPPORTED, 1, h->payload_kind = 77);
	OFFER("P-13", MR_E_CHECKSUM, 0, h->sha256[3] ^= 1);
	OFFER("P-13", MR_E_CHECKSUM, 0, ((uint8_t *)h)[h->meta_bytes - 1] ^= 1);
	OFFER("P-6", MR_E_CHECKSUM, 0, h->context++);
	OFFER("P-14", MR_E_TOO_LARGE, 0, h->meta_bytes = MR_PROG_META_BYTES_MAX + 4096);
	OFFER("P-15", MR_E_FORMAT, 0, h->magic++);
	OFFER("P-15", MR_E_FORMAT, 1, h->total_bytes += 64);
	OFFER("P-15", MR_E_FORMAT, 1, h->reserved[0] = 1);
	struct mr_prog_segment *first;
	OFFER("P-15", MR_E_FORMAT, 1,
	      (first = (void *)(h + 1), first[1].address = first[0].address));
	OFFER("P-9", MR_E_NOT_SUPPORTED, 1, h->chip_hash[0] ^= 1);
	OFFER("P-9", MR_E_NOT_SUPPORTED, 1, h->numeric_class[0] = 'Z');
	OFFER("P-10", MR_E_SRAM_FULL, 1,
	      (first = (void *)(h + 1),
	       first[h->segments - 1].address = (t->id.sram_bytes + 4095) / 4096 * 4096));
	STATUS("P-8", conform_program_write(t, t->program, 64, 64), MR_E_NOT_ACTIVE);

	/* One bit of the weights. */
	uint64_t at = header(t)->meta_bytes, left = t->program_bytes - at;
	size_t last = left < 4096 ? left : 4096;
	uint8_t *piece = conform_take(t, 4096);
	MUST(conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes) == 0);
	MUST(conform_program_write(t, t->program, 0, t->program_bytes - last) == 0);
	memcpy(piece, (uint8_t *)t->program + t->program_bytes - last, last);
	piece[last - 1] ^= 0x10;
	MUST(conform_program_write(t, piece, t->program_bytes - last, last) == 0);
	STATUS("P-7", conform_program_step(t, MR_LPU_PROGRAM_VERIFY, 0), MR_E_CHECKSUM);
	STATUS("P-8", conform_program_step(t, MR_LPU_PROGRAM_ACTIVATE, 0), MR_E_NOT_ACTIVE);
}

/* ---- firmware ------------------------------------------------------------------------------------- */

#define CODE 300u

static struct mr_lpu_firmware_image *image(struct conform *t, const char *version)
{
	struct mr_lpu_firmware_image *h = conform_take(t, sizeof(*h) + CODE);
	uint8_t *code = (uint8_t *)(h + 1);

	*h = (struct mr_lpu_firmware_image){
		.magic = MR_LPU_FIRMWARE_MAGIC, .format = MR_LPU_FIRMWARE_FORMAT, .bytes = CODE};
	memcpy(h->product, t->id.product, sizeof(h->product));
	snprintf(h->version, sizeof(h->version), "%s", version);
	for (uint32_t i = 0; i < CODE; i++)
		code[i] = (uint8_t)(i * 7);
	crypto_hash_sha256(h->sha256, code, CODE);
	return h;
}

static int download(struct conform *t, const void *from, uint64_t offset, uint64_t bytes)
{
	return DO(0, mr_lpu_cmd_firmware, {MR_LPU_FIRMWARE}, .action = MR_LPU_FIRMWARE_DOWNLOAD,
		  .iova = conform_iova(t, from), .offset = offset, .bytes = bytes);
}

static int slot_action(struct conform *t, uint32_t action, uint32_t slot)
{
	return DO(0, mr_lpu_cmd_firmware, {MR_LPU_FIRMWARE}, .action = action, .slot = slot);
}

static int verify(struct conform *t, uint32_t slot)
{
	return slot_action(t, MR_LPU_FIRMWARE_VERIFY, slot);
}

static struct mr_lpu_firmware_log firmware_log(struct conform *t)
{
	struct mr_lpu_firmware_log log;

	conform_log(t, MR_LPU_LOG_FIRMWARE, &log, sizeof(log));
	return log;
}

static void identify_firmware(struct conform *t, char out[32])
{
	struct mr_lpu_identify *id = conform_take(t, sizeof(*id));

	MUST(DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = conform_iova(t, id),
		.bytes = 512) == 0);
	memcpy(out, id->firmware, 32);
}

SCENARIO(firmware, 0, "FW-1 FW-2 FW-3 FW-4 FW-5 FW-6 FW-7 FW-8 R-15")
{
	char runs[32];

	conform_need(t, MR_LPU_FIRMWARE);
	conform_need_log(t, MR_LPU_LOG_FIRMWARE);
	struct mr_lpu_firmware_log before = firmware_log(t), after;
	uint32_t other = before.running == 1 ? 2 : 1;
	struct mr_lpu_firmware_image *h;
	EXPECT("FW-8", before.slots == t->id.firmware_slots && before.running >= 1 &&
			       before.running <= before.slots);
	identify_firmware(t, runs);
	EXPECT("FW-8", !strncmp(runs, before.version[before.running - 1], 32));
	if (t->id.firmware_slots < 2)
		conform_skip(t, "the device has one firmware slot");

	h = image(t, "conform-1");
	MUST(download(t, h, 0, 100) == 0);
	STATUS("FW-1", download(t, h, 200, 100), MR_E_RANGE);
	STATUS("FW-2", verify(t, other), MR_E_NOT_ACTIVE);
	STATUS("FW-1", download(t, h, 0, t->id.firmware_max + 1), MR_E_RANGE);
	MUST(download(t, h, 0, sizeof(*h) + CODE) == 0);
	STATUS("FW-3", verify(t, before.running), MR_E_BUSY);
	STATUS("FW-2", verify(t, other), MR_E_NOT_ACTIVE);
#define IMAGE(want, change)                                                 \
	do {                                                                \
		h = image(t, "conform-2");                                  \
		change;                                                     \
		MUST(download(t, h, 0, sizeof(*h) + CODE) == 0);            \
		conform_status(t, "FW-4", verify(t, other), want, #change); \
	} while (0)
	IMAGE(MR_E_FORMAT, h->magic++);
	IMAGE(MR_E_FORMAT, h->version[0] = 0);
	IMAGE(MR_E_VERSION, h->format = 2);
	IMAGE(MR_E_TRUNCATED, h->bytes++);
	IMAGE(MR_E_NOT_SUPPORTED, h->product[0] ^= 1);
	IMAGE(MR_E_CHECKSUM, h->sha256[31] ^= 1);
	after = firmware_log(t);
	EXPECT("FW-5", !memcmp(after.version, before.version, sizeof(after.version)) &&
			       after.updates == before.updates);
	for (uint32_t s = 1; s <= before.slots; s++)
		if (!before.version[s - 1][0])
			STATUS("FW-6", slot_action(t, MR_LPU_FIRMWARE_ACTIVATE, s), MR_E_NOT_FOUND);
	h = image(t, "conform-3");
	MUST(download(t, h, 0, 64) == 0);
	MUST(download(t, (uint8_t *)h + 64, 64, sizeof(*h) + CODE - 64) == 0);
	STATUS("FW-7", verify(t, other), 0);
	STATUS("FW-7", slot_action(t, MR_LPU_FIRMWARE_ACTIVATE, other), 0);
	identify_firmware(t, runs);
	EXPECT("FW-7", !strncmp(runs, before.version[before.running - 1], 32));
	EXPECT("FW-7", firmware_log(t).running == before.running && firmware_log(t).next == other);
	conform_again(t);
	after = firmware_log(t);
	EXPECT("FW-7", after.running == other);
	EXPECT("R-15", !strcmp(after.version[other - 1], "conform-3") &&
			       after.updates == before.updates + 1);
	identify_firmware(t, runs);
	EXPECT("FW-8", !strcmp(runs, "conform-3"));
	/* Back to what ran. */
	MUST(slot_action(t, MR_LPU_FIRMWARE_ACTIVATE, before.running) == 0);
	conform_flr(t);
	after = firmware_log(t);
	EXPECT("FW-7", after.running == before.running);
	EXPECT("R-15", !strcmp(after.version[other - 1], "conform-3"));
	conform_lacks(t, "FW-6", "every firmware slot is taken");
}
