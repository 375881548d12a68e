// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/kv.h"

#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"
#include "kernels/cpu/sample.h"
#include "userlib/spec/crc32c.h"

_Static_assert(MR_LPU_HISTORY_MAX == MR_SAMPLE_HISTORY, "penalties look back alike on all devices");

int mr_sim_kv_create(struct sim *sim)
{
	const struct mr_ref_header *r = sim->program.c.ref;
	struct sim_kv *kv = &sim->kv;

	memset(kv, 0, sizeof(*kv));
	kv->slots = sim->slots_max;
	kv->chips = r->chips;
	kv->layers = r->layers;
	kv->blocks = r->kv_blocks;
	kv->blocks_max = (r->context + MR_KV_BLOCK_TOKENS - 1) / MR_KV_BLOCK_TOKENS;
	kv->layer_bytes = 2ull * r->kv_heads * MR_KV_BLOCK_TOKENS * r->head_dim * 2;
	kv->slot = calloc(kv->slots, sizeof(*kv->slot));
	kv->free_ids = calloc(kv->blocks, sizeof(*kv->free_ids));
	kv->refs = calloc(kv->blocks, sizeof(*kv->refs));
	kv->piece = malloc(kv->layer_bytes);
	if (!kv->slot || !kv->free_ids || !kv->refs || !kv->piece)
		return MR_E_NO_MEMORY;
	for (uint32_t i = 0; i < kv->blocks; i++)
		kv->free_ids[i] = kv->blocks - 1 - i;
	kv->free_count = kv->blocks;
	for (uint32_t i = 0; i < kv->slots; i++) {
		struct sim_slot *s = &kv->slot[i];
		s->block = calloc(kv->blocks_max, sizeof(*s->block));
		s->kv = calloc((size_t)kv->chips * kv->blocks_max, sizeof(*s->kv));
		s->length = calloc((size_t)kv->layers * kv->blocks_max, 1);
		s->filled = calloc(kv->layers, sizeof(*s->filled));
		if (!s->block || !s->kv || !s->length || !s->filled)
			return MR_E_NO_MEMORY;
	}
	return 0;
}

void mr_sim_kv_destroy(struct sim_kv *kv)
{
	for (uint32_t i = 0; kv->slot && i < kv->slots; i++) {
		free(kv->slot[i].block);
		free(kv->slot[i].kv);
		free(kv->slot[i].length);
		free(kv->slot[i].filled);
	}
	free(kv->slot);
	free(kv->free_ids);
	free(kv->refs);
	free(kv->piece);
	memset(kv, 0, sizeof(*kv));
}

static void close_slot(struct sim_kv *kv, struct sim_slot *s)
{
	for (uint32_t b = 0; b < s->blocks; b++) {
		if (MUTANT(S_16) && b == 0)
			continue;
		uint32_t left = --kv->refs[s->block[b]];

		kv->shared -= left == 1;
		if (MUTANT(F_12) && left == 1)
			kv->refs[s->block[b]] = 2;
		if (!left && !MUTANT(F_13))
			kv->free_ids[kv->free_count++] = s->block[b];
	}
	s->open = 0;
	s->blocks = 0;
	s->user = 0;
	kv->open--;
}

void mr_sim_kv_forget(struct sim_kv *kv)
{
	for (uint32_t i = 0; kv->slot && i < kv->slots; i++)
		if (kv->slot[i].open)
			close_slot(kv, &kv->slot[i]);
}

struct sim_slot *mr_sim_slot_get(struct sim *sim, uint32_t slot, uint32_t generation, int *status)
{
	struct sim_kv *kv = &sim->kv;

	*status = sim->program.state != SIM_PROGRAM_ACTIVE ? MR_E_NOT_ACTIVE
		  : slot >= kv->slots                      ? MR_E_RANGE
							   : MR_E_STALE;
	if (*status != MR_E_STALE || !kv->slot[slot].open ||
	    (kv->slot[slot].generation != generation && !MUTANT(S_4)))
		return NULL;
	*status = 0;
	return &kv->slot[slot];
}

int mr_sim_slot_missing(const struct sim_kv *kv, const struct sim_slot *s, uint32_t position)
{
	for (uint32_t l = 0; l < kv->layers; l++)
		if (s->filled[l] < position)
			return 1;
	return 0;
}

void mr_sim_slot_set_filled(const struct sim_kv *kv, struct sim_slot *s, uint32_t positions)
{
	uint32_t b = positions / MR_KV_BLOCK_TOKENS;

	for (uint32_t l = 0; l < kv->layers; l++) {
		if (MUTANT(T_3) && positions < s->filled[l])
			continue;
		uint8_t *length = s->length + (size_t)l * kv->blocks_max;
		/* One step on fills one more position; anything else is a jump back. */
		if (s->filled[l] + 1 != positions)
			memset(length + b, 0, s->blocks - b);
		if (b < s->blocks)
			length[b] = (uint8_t)(positions % MR_KV_BLOCK_TOKENS);
		if (b && positions % MR_KV_BLOCK_TOKENS == 0)
			length[b - 1] = MR_KV_BLOCK_TOKENS;
		s->filled[l] = positions;
	}
	s->kv_end = positions;
}

void mr_sim_slot_fed(struct sim_slot *s, uint32_t token)
{
	if (s->history_count == MR_LPU_HISTORY_MAX) {
		memmove(s->history, s->history + 1, sizeof(s->history) - sizeof(s->history[0]));
		s->history_count--;
	}
	s->history[s->history_count++] = token;
}

int mr_sim_slot_writable(const struct sim_kv *kv, const struct sim_slot *s,
			 const struct sim_queue *q, uint32_t position, uint32_t count)
{
	if (s->user)
		return s->user == q->index + 1 && !MUTANT(T_13) ? MR_E_INVALID : MR_E_BUSY;
	if ((position >= s->positions || count > s->positions - position) && !MUTANT(T_4) &&
	    !MUTANT(X_2))
		return MR_E_CONTEXT_FULL;
	if (mr_sim_slot_missing(kv, s, position) && !MUTANT(T_2) && !MUTANT(X_3))
		return MR_E_TRUNCATED;
	if (MUTANT(T_4) || MUTANT(X_2))
		return position + count > s->positions ? MR_E_RANGE : 0;
	return kv->refs[s->block[position / MR_KV_BLOCK_TOKENS]] > 1 && !MUTANT(F_11) ? MR_E_BUSY
										      : 0;
}

static void hold(struct sim *sim, struct sim_slot *s, uint32_t b, uint32_t id)
{
	struct sim_kv *kv = &sim->kv;

	s->block[b] = id;
	kv->shared += ++kv->refs[id] == 2;
	for (uint32_t c = 0; c < kv->chips; c++) {
		const struct mr_ref_chip *part = &sim->program.c.chips[c];
		s->kv[(size_t)c * kv->blocks_max + b] =
			sim_sram_at(&sim->sram, c, part->kv_address + id * part->kv_block_bytes);
	}
}

/* What SLOT_SET and KV_FORK are given for the slot that they open. */
struct opening {
	struct mr_lpu_slot_param param;
	uint32_t history[MR_LPU_HISTORY_MAX];
};

static int read_opening(struct sim *sim, uint64_t iova, uint32_t bytes, struct opening *o)
{
	struct mr_lpu_slot_param *p = &o->param;
	uint32_t vocab = sim->program.c.ref->vocab;
	int status;

	if (bytes != sizeof(*p))
		return MR_E_RANGE;
	status = mr_sim_dma_read(&sim->dma, iova, p, sizeof(*p));
	if (status)
		return status;
	if (p->reserved0 || !mr_sim_zero(p->reserved, sizeof(p->reserved)) ||
	    (!p->history_count && p->history_iova))
		return MR_E_INVALID;
	if ((!p->positions && !MUTANT(F_1)) || p->history_count > MR_LPU_HISTORY_MAX ||
	    mr_sampling_check(&p->sampling, vocab))
		return MR_E_RANGE;
	if (p->positions > sim->program.c.header->context)
		return MUTANT(S_2) ? MR_E_RANGE : MR_E_CONTEXT_FULL;
	if (MUTANT(S_6))
		p->history_count = 0;
	status = p->history_count ? mr_sim_dma_read(&sim->dma, p->history_iova, o->history,
						    p->history_count * sizeof(o->history[0]))
				  : 0;
	for (uint32_t i = 0; !status && i < p->history_count; i++)
		status = o->history[i] < vocab ? 0 : MR_E_RANGE;
	return status;
}

/* Opens @s, which is free, over the first @shared blocks of @from (NULL where there are none). */
static int open_slot(struct sim *sim, struct sim_slot *s, uint32_t generation,
		     const struct opening *o, const struct sim_slot *from, uint32_t shared)
{
	struct sim_kv *kv = &sim->kv;
	uint32_t blocks = (o->param.positions + MR_KV_BLOCK_TOKENS - 1) / MR_KV_BLOCK_TOKENS;

	if (MUTANT(F_6))
		shared = 0;
	if (MUTANT(F_8) && from)
		blocks = shared + 1;
	if (blocks - shared > kv->free_count)
		return MUTANT(S_1) ? MR_E_FULL : MR_E_KV_EXHAUSTED;
	for (uint32_t b = 0; b < blocks; b++)
		hold(sim, s, b, b < shared ? from->block[b] : kv->free_ids[--kv->free_count]);
	s->blocks = blocks;
	s->open = 1;
	s->generation = generation;
	s->owner = o->param.owner;
	s->positions = o->param.positions;
	s->kv_end = 0;
	s->sampling = MUTANT(F_10) && from ? from->sampling : o->param.sampling;
	s->history_count = o->param.history_count;
	memcpy(s->history, o->history, o->param.history_count * sizeof(o->history[0]));
	memset(s->length, 0, (size_t)kv->layers * kv->blocks_max);
	memset(s->filled, 0, kv->layers * sizeof(*s->filled));
	kv->open++;
	return 0;
}

int mr_sim_slot_set(struct sim *sim, const struct mr_lpu_cmd_slot_set *cmd)
{
	struct opening o;

	if (cmd->reserved0 || !mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	if (sim->program.state != SIM_PROGRAM_ACTIVE)
		return MR_E_NOT_ACTIVE;
	if (cmd->slot >= sim->kv.slots)
		return MR_E_RANGE;
	if (MUTANT(S_3) && sim->kv.slot[cmd->slot].open)
		close_slot(&sim->kv, &sim->kv.slot[cmd->slot]);
	if (MUTANT(M_6))
		mr_sim_mutant_word = cmd->param_iova;
	if (sim->kv.slot[cmd->slot].open)
		return MR_E_EXISTS;
	int status = read_opening(sim, cmd->param_iova, cmd->param_bytes, &o);
	if (status)
		return status;
	return open_slot(sim, &sim->kv.slot[cmd->slot], cmd->generation, &o, NULL, 0);
}

/* Block @b of @from to the same place of @s, all layers, on every chip. */
static void copy_block(struct sim *sim, struct sim_slot *s, const struct sim_slot *from, uint32_t b)
{
	for (uint32_t c = 0; c < sim->kv.chips; c++) {
		size_t at = (size_t)c * sim->kv.blocks_max + b;
		memcpy(s->kv[at], from->kv[at], sim->program.c.chips[c].kv_block_bytes);
	}
	sim->counters.fork_copies++;
}

int mr_sim_kv_fork(struct sim *sim, const struct mr_lpu_cmd_kv_fork *cmd)
{
	struct sim_kv *kv = &sim->kv;
	uint32_t whole = cmd->positions / MR_KV_BLOCK_TOKENS;
	struct opening o;
	int status;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	struct sim_slot *from = mr_sim_slot_get(sim, cmd->from, cmd->from_generation, &status);
	if (!from)
		return MUTANT(F_2) ? MR_E_NOT_FOUND : status;
	if (from->user)
		return MR_E_BUSY;
	if (cmd->slot >= kv->slots)
		return MR_E_RANGE;
	struct sim_slot *s = &kv->slot[cmd->slot];
	if (s->open)
		return MUTANT(F_3) ? MR_E_BUSY : MR_E_EXISTS;
	status = read_opening(sim, cmd->param_iova, cmd->param_bytes, &o);
	if (status)
		return status;
	if (cmd->positions > o.param.positions)
		return MUTANT(F_5) ? MR_E_RANGE : MR_E_CONTEXT_FULL;
	if (mr_sim_slot_missing(kv, from, cmd->positions))
		return MUTANT(F_4) ? MR_E_RANGE : MR_E_TRUNCATED;
	status = open_slot(sim, s, cmd->generation, &o, from, whole);
	if (status)
		return status;
	if (cmd->positions % MR_KV_BLOCK_TOKENS && !MUTANT(F_7))
		copy_block(sim, s, from, whole);
	for (uint32_t l = 0; l < kv->layers; l++)
		memset(s->length + (size_t)l * kv->blocks_max, MR_KV_BLOCK_TOKENS, whole);
	mr_sim_slot_set_filled(kv, s, cmd->positions + MUTANT(F_9));
	sim->counters.forks += !MUTANT(L_8);
	return 0;
}

/* Where @layer of block @b of @s lies. */
static uint8_t *layer_at(struct sim *sim, const struct sim_slot *s, uint32_t layer, uint32_t b)
{
	const struct mr_ref_chip *part = sim->program.c.chips;
	uint32_t chip = 0;

	while (layer - part[chip].first_layer >= part[chip].layers)
		chip++; /* ends: the verifier saw every layer on a chip */
	return s->kv[(size_t)chip * sim->kv.blocks_max + b] +
	       (layer - part[chip].first_layer) * sim->kv.layer_bytes;
}

static int take_block(struct sim *sim, struct sim_slot *s, const struct mr_kv_desc *d)
{
	struct sim_kv *kv = &sim->kv;

	if (d->reserved)
		return MR_E_INVALID;
	if ((d->owner != s->owner && !MUTANT(S_8)) || d->generation != s->generation)
		return MR_E_STALE;
	if (d->layer >= kv->layers || d->block >= s->blocks || !d->length ||
	    d->length > MR_KV_BLOCK_TOKENS)
		return MR_E_RANGE;
	if (kv->refs[s->block[d->block]] > 1 && !MUTANT(F_11))
		return MR_E_BUSY;
	uint8_t *length = s->length + (size_t)d->layer * kv->blocks_max;
	if (d->length < length[d->block] && !MUTANT(S_9))
		return MR_E_TRUNCATED;

	uint8_t *to = layer_at(sim, s, d->layer, d->block);
	int status = mr_sim_dma_read(&sim->dma, d->iova, to, kv->layer_bytes);
	if (status)
		return status;
	/* Over what lies in SRAM now, not over what the host held. */
	if (mr_crc32c(0, to, kv->layer_bytes) != d->crc32c && !MUTANT(S_10)) {
		length[d->block] = 0;
		if (!MUTANT(S_11) && s->filled[d->layer] > d->block * MR_KV_BLOCK_TOKENS)
			s->filled[d->layer] = d->block * MR_KV_BLOCK_TOKENS;
		return MR_E_CHECKSUM;
	}
	length[d->block] = (uint8_t)d->length;
	if (s->kv_end < d->block * MR_KV_BLOCK_TOKENS + d->length)
		s->kv_end = d->block * MR_KV_BLOCK_TOKENS + d->length;
	for (uint32_t b = s->filled[d->layer] / MR_KV_BLOCK_TOKENS; b < s->blocks; b++) {
		s->filled[d->layer] = b * MR_KV_BLOCK_TOKENS + length[b];
		if (length[b] < MR_KV_BLOCK_TOKENS)
			break;
	}
	return 0;
}

int mr_sim_kv_write(struct sim *sim, struct sim_queue *q, const struct mr_lpu_cmd_kv_write *cmd,
		    uint32_t *result)
{
	struct mr_kv_desc descs[MR_KV_DESCS_MAX];
	struct sim_slot *s;
	int status;

	if (cmd->reserved0 || !mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	s = mr_sim_slot_get(sim, cmd->slot, cmd->generation, &status);
	if (!s)
		return status;
	if (s->user)
		return MR_E_BUSY;
	if (!cmd->count || cmd->count > MR_KV_DESCS_MAX)
		return MR_E_RANGE;
	status = mr_sim_dma_read(&sim->dma, cmd->descs_iova, descs, cmd->count * sizeof(descs[0]));
	for (uint32_t i = 0; !status && i < cmd->count; i++) {
		status = take_block(sim, s, &descs[i]);
		*result += !status || MUTANT(S_7);
	}
	if (status == MR_E_STALE || status == MR_E_TRUNCATED || status == MR_E_CHECKSUM)
		sim->counters.bad_kv++;
	return status;
}

/* Block @b of @layer of @s into kv.piece, with zeros where @length positions end. */
static void cut_block(struct sim *sim, const struct sim_slot *s, uint32_t layer, uint32_t b,
		      uint32_t length)
{
	const struct mr_ref_header *r = sim->program.c.ref;
	size_t row = r->head_dim * sizeof(uint16_t);

	memcpy(sim->kv.piece, layer_at(sim, s, layer, b), sim->kv.layer_bytes);
	for (uint32_t head = 0; head < 2 * r->kv_heads && !MUTANT(S_14); head++)
		memset(sim->kv.piece + (head * MR_KV_BLOCK_TOKENS + length) * row, 0,
		       (MR_KV_BLOCK_TOKENS - length) * row);
}

int mr_sim_kv_read(struct sim *sim, const struct mr_lpu_cmd_kv_read *cmd, uint32_t *result)
{
	struct sim_kv *kv = &sim->kv;
	int status;

	if (cmd->reserved0 || !mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	struct sim_slot *s = mr_sim_slot_get(sim, cmd->slot, cmd->generation, &status);
	if (!s)
		return status;
	if (s->user)
		return MR_E_BUSY;
	if (cmd->layer >= kv->layers || !cmd->count || cmd->count > MR_KV_DESCS_MAX ||
	    cmd->block >= s->blocks || (cmd->count > s->blocks - cmd->block && !MUTANT(S_12)) ||
	    cmd->iova % 64)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < cmd->count && !status; i++) {
		struct mr_kv_desc d = {
			.iova = cmd->iova + i * kv->layer_bytes,
			.block = cmd->block + i,
			.layer = (uint16_t)cmd->layer,
			.length = s->length[(size_t)cmd->layer * kv->blocks_max + cmd->block + i],
			.owner = cmd->owner,
			.generation = cmd->receiver,
		};
		if (!d.length)
			return MUTANT(S_13) ? 0 : MR_E_TRUNCATED;
		cut_block(sim, s, cmd->layer, d.block, d.length);
		d.crc32c = mr_crc32c(0, kv->piece, kv->layer_bytes) + MUTANT(S_15);
		status = mr_sim_dma_write(&sim->dma, d.iova, kv->piece, kv->layer_bytes);
		if (!status)
			status = mr_sim_dma_write(&sim->dma, cmd->descs_iova + i * sizeof(d), &d,
						  sizeof(d));
		*result += !status;
		sim->counters.kv_read_blocks += !status;
	}
	return status;
}

int mr_sim_kv_free(struct sim *sim, const struct mr_lpu_cmd_kv_free *cmd)
{
	struct sim_slot *s;
	int status;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)) && !MUTANT(C_9))
		return MR_E_INVALID;
	s = mr_sim_slot_get(sim, cmd->slot, cmd->generation, &status);
	if (!s)
		return status;
	if (s->user)
		return MUTANT(S_5) ? MR_E_STALE : MR_E_BUSY;
	close_slot(&sim->kv, s);
	if (MUTANT(C_9) && cmd->reserved[0])
		return MR_E_INVALID;
	return 0;
}
