// SPDX-License-Identifier: Apache-2.0
/*
 * Which numeric class makes which rows, and class P's weights: the layers of class D once more, as tiles of
 * BF16 in a region of their own, packed by all threads. Made only where the kernels have a class P that reads
 * such tiles and the caller did not ask for class D throughout.
 */
#include "driver/cpu/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/mem/arena.h"
#include "kernels/cpu/pack.h"

#define MATRICES_LAYER 7u
#define PACK_ROWS      256u /* rows a thread takes at a time, a multiple of 16 */

static const struct mr_kernels *prompt_kernels(const struct cpu *cpu)
{
	return cpu->options.numerics == MR_NUMERICS_STRICT ? NULL : cpu->kern->prompt;
}

void cpu_classes_name(struct cpu *cpu)
{
	const struct mr_kernels *p = prompt_kernels(cpu);
	struct mr_caps *caps = &cpu->dev.caps;
	const char *d = cpu->kern->numerics;

	if (p && p->tiles && cpu->options.numerics == MR_NUMERICS_FAST)
		cpu->fast_rows = CPU_FAST_ROWS;
	snprintf(caps->class_prefill, sizeof(caps->class_prefill), "%s", p ? p->numerics : d);
	snprintf(caps->class_decode, sizeof(caps->class_decode), "%s%s%s", d,
		 cpu->fast_rows ? "|" : "", cpu->fast_rows ? p->numerics : "");
}

/* The matrices of a layer that rows are multiplied by. */
static void matrices(struct mr_layer *l, struct mr_matrix *m[MATRICES_LAYER])
{
	struct mr_matrix *all[MATRICES_LAYER] = {&l->q,    &l->k,  &l->v,   &l->o,
						 &l->gate, &l->up, &l->down};

	memcpy(m, all, sizeof(all));
}

/* One matrix: from class D's to its place. */
struct pair {
	const struct mr_matrix *from;
	const struct mr_matrix *to;
};

struct packing {
	const struct pair *pairs;
	uint32_t total, next; /* runs of PACK_ROWS rows; next is taken by atomic addition */
};

static uint32_t runs_of(const struct pair *p)
{
	return (p->to->rows + PACK_ROWS - 1) / PACK_ROWS;
}

static void pack_rank(void *arg, uint32_t rank)
{
	struct packing *k = arg;
	const struct pair *p = k->pairs;
	uint32_t first = 0, run;

	while ((run = __atomic_fetch_add(&k->next, 1, __ATOMIC_RELAXED)) < k->total) {
		uint32_t row, end;

		for (; run - first >= runs_of(p); p++)
			first += runs_of(p);
		row = (run - first) * PACK_ROWS;
		end = row + PACK_ROWS < p->to->rows ? row + PACK_ROWS : p->to->rows;
		mr_pack_tiles(p->from, row, end, (void *)p->to->data);
	}
}

/* Gives @to its place at @used of @base (NULL = only adds up), and notes what it is made from. */
static size_t place(char *base, size_t used, const struct mr_matrix *from, struct mr_matrix *to,
		    struct pair *pair)
{
	*to = (struct mr_matrix){base ? base + used : NULL, from->rows, from->cols,
				 MR_PACK_BF16_TILES};
	*pair = (struct pair){from, to};
	return used + mr_pack_bytes(MR_PACK_BF16_TILES, from->rows, from->cols);
}

/* All layers, and the output where decode batches are computed so. Returns the bytes; *count: matrices. */
static size_t place_all(struct cpu *cpu, char *base, struct pair *pairs, uint32_t *count)
{
	size_t used = 0;

	*count = 0;
	for (uint32_t l = 0; l < cpu->shape.layers; l++) {
		struct mr_matrix *from[MATRICES_LAYER], *to[MATRICES_LAYER];

		matrices(&cpu->layers[l], from);
		matrices(&cpu->prompt.layers[l], to);
		for (uint32_t i = 0; i < MATRICES_LAYER; i++, ++*count)
			used = place(base, used, from[i], to[i], &pairs[*count]);
	}
	if (cpu->fast_rows) {
		used = place(base, used, &cpu->output, &cpu->prompt.output, &pairs[*count]);
		++*count;
	}
	return used;
}

static int load(struct cpu *cpu, struct pair *pairs)
{
	struct packing k = {.pairs = pairs};
	const struct mr_region *region;
	uint32_t count;
	size_t bytes = place_all(cpu, NULL, pairs, &count);
	int status = mr_arena_region(cpu->arena, MR_REGION_WEIGHTS, bytes, &region);

	if (status)
		return status;
	place_all(cpu, region->base, pairs, &count);
	for (uint32_t i = 0; i < count; i++)
		k.total += runs_of(&pairs[i]);
	mr_team_run(cpu->team, pack_rank, &k);
	cpu->dev.caps.class_bytes = bytes;
	return 0;
}

int cpu_classes_load(struct cpu *cpu)
{
	const struct mr_kernels *p = prompt_kernels(cpu);
	size_t layers = cpu->shape.layers;
	struct pair *pairs;
	int status;

	cpu->prompt = (struct cpu_class){cpu->kern, cpu->layers, cpu->output};
	if (!p)
		return 0;
	cpu->prompt.kern = p;
	if (!p->tiles)
		return 0;
	cpu->prompt.layers = malloc(layers * sizeof(*cpu->layers));
	pairs = calloc(layers * MATRICES_LAYER + 1, sizeof(*pairs));
	if (!cpu->prompt.layers || !pairs) {
		free(pairs);
		return MR_E_NO_MEMORY;
	}
	/* Norms and biases are shared. */
	memcpy(cpu->prompt.layers, cpu->layers, layers * sizeof(*cpu->layers));
	cpu->shape.bf16_inputs = 1;
	status = load(cpu, pairs);
	free(pairs);
	return status;
}
