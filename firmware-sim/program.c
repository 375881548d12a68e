// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/program.h"

#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/fault.h"
#include "firmware-sim/mutant.h"
#include "kernels/cpu/sample.h"

#define PIECE_MAX (1ull << 30)

void mr_sim_program_drop(struct sim *sim)
{
	struct sim_program *p = &sim->program;

	mr_sim_pass_destroy(sim);
	mr_sim_kv_destroy(&sim->kv);
	mr_sim_choice_destroy(&p->choice);
	free(p->sample_scratch);
	free(p->meta);
	p->sample_scratch = NULL;
	p->meta = NULL;
	p->state = SIM_PROGRAM_NONE;
}

/* A container that is refused is gone: the host begins again. */
static int drop_bad(struct sim *sim, int status)
{
	sim->counters.bad_container++;
	if (!MUTANT(P_8))
		mr_sim_program_drop(sim);
	return status;
}

static int begin(struct sim *sim, uint64_t bytes)
{
	struct sim_program *p = &sim->program;

	if (MUTANT(P_4) && sim->program.state == SIM_PROGRAM_ACTIVE && !sim->kv.open)
		return 0;
	if (sim->kv.open && !MUTANT(P_5))
		return MR_E_BUSY;
	if (MUTANT(P_5))
		mr_sim_kv_forget(&sim->kv);
	if (bytes < MR_PROG_DATA_ALIGN)
		return MR_E_RANGE;
	mr_sim_program_drop(sim);
	p->meta = malloc(MR_PROG_DATA_ALIGN);
	if (!p->meta)
		return MR_E_NO_MEMORY;
	p->meta_room = MR_PROG_DATA_ALIGN;
	p->total = bytes;
	p->received = 0;
	p->segment = 0;
	crypto_hash_sha256_init(&p->hash);
	p->state = SIM_PROGRAM_META;
	return 0;
}

/* The header is there: how much metadata follows? */
static int grow_meta(struct sim_program *p)
{
	const struct mr_prog_header *h = (const struct mr_prog_header *)p->meta;
	uint64_t want = h->meta_bytes;

	if (h->magic != MR_PROG_MAGIC)
		return MUTANT(P_15) ? MR_E_INVALID : MR_E_FORMAT;
	if (want > MR_PROG_META_BYTES_MAX)
		return MUTANT(P_14) ? MR_E_FORMAT : MR_E_TOO_LARGE;
	if (want < MR_PROG_DATA_ALIGN || want > p->total)
		return MR_E_FORMAT;
	uint8_t *meta = realloc(p->meta, want);
	if (!meta)
		return MR_E_NO_MEMORY;
	p->meta = meta;
	p->meta_room = want;
	return 0;
}

static int open_meta(struct sim *sim)
{
	struct sim_program *p = &sim->program;
	int status = mr_container_open(p->meta, p->meta_room, &p->c, NULL, 0);

	if (MUTANT(P_6) && status == MR_E_CHECKSUM) {
		p->state = SIM_PROGRAM_NONE; /* it says so later */
		return 0;
	}
	if ((MUTANT(P_11) && status == MR_E_VERSION) ||
	    (MUTANT(P_12) && status == MR_E_NOT_SUPPORTED) ||
	    (MUTANT(P_13) && status == MR_E_CHECKSUM))
		return MR_E_FORMAT;
	if (!status)
		status = mr_container_verify(&p->c, &sim->chip, sim->chips, NULL, 0);
	if ((MUTANT(P_9) && status == MR_E_NOT_SUPPORTED) ||
	    (MUTANT(P_10) && status == MR_E_SRAM_FULL))
		return MR_E_FORMAT;
	if (status)
		return status;
	if (p->c.header->total_bytes != p->total)
		return MR_E_FORMAT;
	if (p->c.header->batch > SIM_BATCH_MAX || p->c.header->context > SIM_CONTEXT_MAX)
		return MR_E_RANGE;
	p->state = SIM_PROGRAM_DATA;
	return 0;
}

/* Up to @bytes of metadata; returns how many were taken, or a status. */
static int64_t take_meta(struct sim *sim, uint64_t iova, uint64_t bytes)
{
	struct sim_program *p = &sim->program;
	uint64_t stop = p->received < sizeof(struct mr_prog_header) ? sizeof(struct mr_prog_header)
								    : p->meta_room;
	uint64_t n = stop - p->received;
	int status;

	if (n > bytes)
		n = bytes;
	status = mr_sim_dma_read(&sim->dma, iova, p->meta + p->received, n);
	if (status)
		return status;
	p->received += n;
	if (p->received == sizeof(struct mr_prog_header))
		status = grow_meta(p);
	else if (p->received == p->meta_room)
		status = open_meta(sim);
	return status ? status : (int64_t)n;
}

/* Up to @bytes of segments, or of the gaps between them, hashed where they came to lie. */
static int64_t take_data(struct sim *sim, uint64_t iova, uint64_t bytes)
{
	struct sim_program *p = &sim->program;
	const struct mr_prog_segment *s =
		p->segment < p->c.header->segments ? &p->c.segments[p->segment] : NULL;
	uint8_t gap[MR_PROG_DATA_ALIGN], *to = gap;
	uint64_t n = bytes;
	int status;

	if (s && p->received >= s->offset) {
		uint64_t done = p->received - s->offset;
		to = sim_sram_at(&sim->sram, s->chip, s->address) + done;
		if (n > s->bytes - done)
			n = s->bytes - done;
	} else {
		if (s && n > s->offset - p->received)
			n = s->offset - p->received;
		if (n > sizeof(gap))
			n = sizeof(gap);
	}
	status = mr_sim_dma_read(&sim->dma, iova, to, n);
	if (status)
		return status;
	crypto_hash_sha256_update(&p->hash, to, n);
	p->received += n;
	if (s && p->received == s->offset + s->bytes)
		p->segment++;
	return (int64_t)n;
}

static int write_piece(struct sim *sim, uint64_t iova, uint64_t offset, uint64_t bytes)
{
	struct sim_program *p = &sim->program;

	if (p->state != SIM_PROGRAM_META && p->state != SIM_PROGRAM_DATA)
		return MR_E_NOT_ACTIVE;
	if (MUTANT(P_1))
		offset = p->received;
	if (!bytes || bytes > PIECE_MAX || offset != p->received || bytes > p->total - offset)
		return drop_bad(sim, MR_E_RANGE);
	while (bytes) {
		int64_t n = p->state == SIM_PROGRAM_META ? take_meta(sim, iova, bytes)
							 : take_data(sim, iova, bytes);
		if (n < 0)
			return drop_bad(sim, (int)n);
		iova += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

static int verify(struct sim *sim)
{
	struct sim_program *p = &sim->program;
	unsigned char digest[32];

	if (p->state != SIM_PROGRAM_DATA)
		return MR_E_NOT_ACTIVE;
	if (p->received != p->total)
		return drop_bad(sim, MUTANT(P_2) ? MR_E_CHECKSUM : MR_E_TRUNCATED);
	crypto_hash_sha256_final(&p->hash, digest);
	if (memcmp(digest, p->c.header->data_sha256, sizeof(digest)) && !MUTANT(P_7))
		return drop_bad(sim, MR_E_CHECKSUM);
	p->state = SIM_PROGRAM_VERIFIED;
	return 0;
}

static int activate(struct sim *sim)
{
	struct sim_program *p = &sim->program;
	size_t scratch;
	int status;

	if (p->state != SIM_PROGRAM_VERIFIED)
		return MUTANT(P_3) ? MR_E_INVALID : MR_E_NOT_ACTIVE;
	if (p->fault && mr_sim_fault_apply(p->fault, &p->c, &sim->sram))
		return MR_E_NOT_FOUND;
	status = mr_sim_kv_create(sim);
	if (!status)
		status = mr_sim_pass_create(sim);
	if (!status)
		status = mr_sim_choice_create(&p->choice, p->c.ref->vocab);
	scratch = (mr_sample_scratch(p->c.ref->vocab) + 63) / 64 * 64;
	p->sample_scratch = aligned_alloc(64, scratch ? scratch : 64);
	if (!status && !p->sample_scratch)
		status = MR_E_NO_MEMORY;
	if (status) {
		mr_sim_program_drop(sim);
		return status;
	}
	p->state = SIM_PROGRAM_ACTIVE;
	return 0;
}

int mr_sim_program_command(struct sim *sim, const struct mr_lpu_cmd_program *cmd)
{
	int is_write = cmd->action == MR_LPU_PROGRAM_WRITE;
	int is_begin = cmd->action == MR_LPU_PROGRAM_BEGIN;

	if (cmd->reserved0 || !mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)) ||
	    (!is_write && (cmd->iova || cmd->offset)) || (!is_write && !is_begin && cmd->bytes))
		return MR_E_INVALID;
	switch (cmd->action) {
	case MR_LPU_PROGRAM_BEGIN:
		return begin(sim, cmd->bytes);
	case MR_LPU_PROGRAM_WRITE:
		return write_piece(sim, cmd->iova, cmd->offset, cmd->bytes);
	case MR_LPU_PROGRAM_VERIFY:
		return verify(sim);
	case MR_LPU_PROGRAM_ACTIVATE:
		return activate(sim);
	default:
		return MR_E_RANGE;
	}
}
