// SPDX-License-Identifier: Apache-2.0
/*
 * The compute team: its barrier orders what it should and outlives a thread that is taken away, and a layer
 * and a head over random shapes have the bits of one scalar thread on every path, for any number of threads
 * and any batch.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include <millrace/status.h>

#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/team.h"

#define THREADS_MAX 4u
#define ROWS_MAX    7u
#define POSITIONS   600u /* three tiles of attention */

static uint64_t seed = 11;

static uint32_t rnd(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(seed >> 33);
}

static float rndf(void)
{
	return (float)rnd() / (float)(1u << 30) - 1;
}

static void *alloc(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	assert_non_null(p);
	return p;
}

/* ---- the team alone ---- */

struct rounds {
	struct mr_team *team;
	uint32_t threads, alone; /* runs in which rank 0 was alone */
	uint32_t slow;           /* rank that sleeps, or no rank */
	uint32_t seen[THREADS_MAX];
	uint32_t wrong;
};

static void nap(long ns)
{
	const struct timespec t = {.tv_nsec = ns};

	nanosleep(&t, NULL);
}

/* Everyone writes its own word, waits, and reads all of them, three times. */
static void rounds_rank(void *arg, uint32_t rank)
{
	struct rounds *r = arg;

	for (uint32_t i = 0; i < 3; i++) {
		uint32_t want = r->seen[0] + 1;

		mr_team_barrier(r->team);
		if (!rank) /* alone may write it */
			r->alone += mr_team_active(r->team) == 1;
		if (rank == r->slow)
			nap(3000000);
		r->seen[rank] = want;
		mr_team_barrier(r->team);
		for (uint32_t t = 0; t < mr_team_active(r->team); t++)
			if (r->seen[t] != want)
				__atomic_fetch_add(&r->wrong, 1, __ATOMIC_RELAXED);
		mr_team_barrier(r->team);
	}
}

static void barrier(void **state)
{
	for (uint32_t threads = 1; threads <= THREADS_MAX; threads++) {
		struct rounds r = {.threads = threads, .slow = UINT32_MAX};

		assert_int_equal(mr_team_create(threads, NULL, &r.team), 0);
		assert_int_equal(mr_team_threads(r.team), threads);
		for (uint32_t i = 0; i < 300; i++)
			mr_team_run(r.team, rounds_rank, &r);
		assert_int_equal(r.wrong, 0);
		assert_int_equal(r.seen[0], 900);
		mr_team_destroy(r.team);
	}
	assert_int_equal(mr_team_threads(NULL), 1);
}

/*
 * Whoever waits for a thread that was taken away sleeps, and wakes when it comes; rank 0 then goes on alone,
 * and later tries again.
 */
static void taken_away(void **state)
{
	for (uint32_t slow = 0; slow < 3; slow++) {
		struct rounds r = {.threads = 3, .slow = slow};
		uint64_t parks;

		assert_int_equal(mr_team_create(3, NULL, &r.team), 0);
		parks = mr_team_parks(r.team);
		mr_team_run(r.team, rounds_rank, &r);
		assert_int_equal(r.wrong, 0);
		assert_true(mr_team_parks(r.team) > parks);
		if (slow) {
			assert_int_equal(mr_team_solos(r.team), 1);
			mr_team_run(r.team, rounds_rank, &r);
			assert_int_equal(r.alone, 3);
			nap(50000000);
			mr_team_run(r.team, rounds_rank, &r);
			assert_int_equal(r.alone, 3);
			assert_int_equal(mr_team_solos(r.team), 2);
		}
		mr_team_destroy(r.team);
	}
}

static void refused(void **state)
{
	static const int nowhere[2] = {-1, 1 << 20};
	struct mr_team *team = NULL;

	assert_int_equal(mr_team_create(0, NULL, &team), MR_E_INVALID);
	assert_int_equal(mr_team_create(MR_TEAM_THREADS_MAX + 1, NULL, &team), MR_E_INVALID);
	assert_int_equal(mr_team_create(2, nowhere, &team), MR_E_INVALID);
	assert_null(team);
	mr_team_destroy(NULL);
}

static void parts(void **state)
{
	for (uint32_t units = 0; units < 40; units++)
		for (uint32_t threads = 1; threads < 9; threads++) {
			uint32_t at = 0, first, end;

			for (uint32_t t = 0; t < threads; t++, at = end) {
				mr_team_part(units, t, threads, &first, &end);
				assert_int_equal(first, at);
				assert_true(end - first <= units / threads + 1);
			}
			assert_int_equal(at, units);
		}
}

/* ---- layers ---- */

struct model {
	struct mr_shape s;
	struct mr_layer layer;
	struct mr_matrix head;
	uint16_t *kv; /* (ROWS_MAX sequences, POSITIONS / 16 blocks, a layer's block) */
	size_t kv_bytes;
};

static const float *vector_new(uint32_t n)
{
	float *p = alloc(n * sizeof(float));

	for (uint32_t i = 0; i < n; i++)
		p[i] = rndf();
	return p;
}

/* Any bytes are valid weights; the scales (or float weights) are made small and finite. */
static struct mr_matrix matrix_new(uint32_t rows, uint32_t cols)
{
	static const enum mr_packing some[] = {MR_PACK_Q4_1X16, MR_PACK_Q8_0X16, MR_PACK_Q4_0X16,
					       MR_PACK_F32X16};
	enum mr_packing packing = some[rnd() % 4];
	size_t bytes = mr_pack_bytes(packing, rows, cols), block = mr_pack_bytes(packing, 16, 32);
	uint8_t *p = alloc(bytes);

	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)rnd();
	for (size_t b = 0; b < bytes; b += block) {
		uint16_t *half = (uint16_t *)(p + b + (packing == MR_PACK_Q8_0X16 ? 512 : 256));

		for (size_t i = 0; packing == MR_PACK_F32X16 && i < block / 4; i++)
			((float *)(p + b))[i] = rndf() * 0.1f;
		if (packing == MR_PACK_F32X16)
			continue;
		for (int i = 0; i < (packing == MR_PACK_Q4_1X16 ? 32 : 16); i++)
			half[i] = mr_float_to_half(rndf() * 0.01f);
	}
	return (struct mr_matrix){p, rows, cols, packing};
}

static struct model model_new(void)
{
	static const uint32_t dims[] = {16, 32, 64, 80, 128};
	struct model m = {0};
	struct mr_shape *s = &m.s;
	uint32_t attn, kv;

	s->layers = 1;
	s->head_dim = dims[rnd() % 5];
	s->kv_heads = 1 + rnd() % 3;
	s->heads = s->kv_heads * (1 + rnd() % 6);
	if (s->heads * s->head_dim % 32)
		s->kv_heads *= 2, s->heads *= 2;
	s->width = 32 * (1 + rnd() % 6);
	s->ffn = 32 * (1 + rnd() % 9);
	s->vocab = 1 + rnd() % 300;
	s->context = POSITIONS;
	s->rms_eps = 1e-5f;
	s->rope_base = 10000;
	s->float_weights = 1;
	attn = s->heads * s->head_dim;
	kv = s->kv_heads * s->head_dim;
	m.layer = (struct mr_layer){
		.attn_norm = vector_new(s->width),
		.q = matrix_new(attn, s->width),
		.k = matrix_new(kv, s->width),
		.v = matrix_new(kv, s->width),
		.o = matrix_new(s->width, attn),
		.ffn_norm = vector_new(s->width),
		.gate = matrix_new(s->ffn, s->width),
		.up = matrix_new(s->ffn, s->width),
		.down = matrix_new(s->width, s->ffn),
	};
	if (rnd() % 2) {
		m.layer.q_bias = vector_new(attn);
		m.layer.k_bias = vector_new(kv);
		m.layer.v_bias = vector_new(kv);
	}
	if (rnd() % 2) {
		m.layer.q_norm = vector_new(s->head_dim);
		m.layer.k_norm = vector_new(s->head_dim);
	}
	m.head = matrix_new(s->vocab, s->width);
	m.kv_bytes = (size_t)ROWS_MAX * (POSITIONS / 16 + 1) * mr_kv_layer_bytes(s);
	m.kv = alloc(m.kv_bytes);
	for (size_t i = 0; i < m.kv_bytes / 2; i++)
		m.kv[i] = mr_float_to_half(rndf());
	return m;
}

static void model_free(struct model *m)
{
	const struct mr_layer *l = &m->layer;
	const void *all[] = {l->attn_norm, l->q.data,    l->k.data,  l->v.data,    l->o.data,
			     l->ffn_norm,  l->gate.data, l->up.data, l->down.data, m->head.data,
			     l->q_bias,    l->k_bias,    l->v_bias,  l->q_norm,    l->k_norm};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		free((void *)all[i]);
	free(m->kv);
}

/* What one batch makes: the residual stream, the KV memory after it, the logits. */
struct made {
	float *x, *logits;
	uint16_t *kv;
};

static struct made made_new(const struct model *m)
{
	return (struct made){alloc(ROWS_MAX * m->s.width * 4), alloc(ROWS_MAX * m->s.vocab * 4),
			     alloc(m->kv_bytes)};
}

static void made_free(struct made *d)
{
	free(d->x);
	free(d->logits);
	free(d->kv);
}

/* Rows [i] of sequence sequence[i] at position[i]. */
static void forward(const struct mr_kernels *k, struct mr_team *team, const struct model *m,
		    const uint32_t *sequence, const uint32_t *position, uint32_t n, const float *x,
		    struct made *out)
{
	uint32_t blocks = POSITIONS / 16 + 1;
	uint8_t *tables[ROWS_MAX][POSITIONS / 16 + 1];
	struct mr_row rows[ROWS_MAX];
	struct mr_workspace *ws;

	memcpy(out->kv, m->kv, m->kv_bytes);
	memcpy(out->x, x, n * m->s.width * 4);
	for (uint32_t i = 0; i < ROWS_MAX; i++)
		for (uint32_t b = 0; b < blocks; b++)
			tables[i][b] = (uint8_t *)out->kv +
				       ((size_t)i * blocks + b) * mr_kv_layer_bytes(&m->s);
	for (uint32_t i = 0; i < n; i++)
		rows[i] = (struct mr_row){tables[sequence[i]], position[i]};
	assert_int_equal(mr_workspace_create_team(&m->s, ROWS_MAX, POSITIONS, team, &ws), 0);
	mr_layer_forward(k, &m->s, &m->layer, rows, n, 0, out->x, ws);
	mr_head_forward(k, &m->s, m->layer.ffn_norm, &m->head, out->x, n, out->logits, ws);
	mr_layer_kv_only(k, &m->s, &m->layer, rows, n, 0, out->x, ws);
	mr_workspace_destroy(ws);
}

static void same_bits(struct mr_team *const *teams)
{
	struct model m = model_new();
	struct made want = made_new(&m), got = made_new(&m);
	uint32_t n = 1 + rnd() % ROWS_MAX, sequence[ROWS_MAX], position[ROWS_MAX];
	const float *x = vector_new(n * m.s.width);
	int together = rnd() % 2; /* rows of one sequence, as a prompt's, or each of its own */

	for (uint32_t i = 0; i < n; i++) {
		sequence[i] = together ? 0 : i;
		position[i] = together && i ? position[0] + i : rnd() % (POSITIONS - ROWS_MAX);
	}
	forward(mr_kernels_all[0], NULL, &m, sequence, position, n, x, &want);
	for (int k = 0; mr_kernels_all[k]; k++)
		for (uint32_t t = 1; t <= THREADS_MAX && mr_kernels_runnable(mr_kernels_all[k]);
		     t++) {
			forward(mr_kernels_all[k], teams[t], &m, sequence, position, n, x, &got);
			assert_memory_equal(got.kv, want.kv, m.kv_bytes);
			assert_memory_equal(got.x, want.x, n * m.s.width * 4);
			assert_memory_equal(got.logits, want.logits, n * m.s.vocab * 4);
		}
	free((void *)x);
	made_free(&want);
	made_free(&got);
	model_free(&m);
}

static void layers(void **state)
{
	struct mr_team *teams[THREADS_MAX + 1] = {NULL};

	for (uint32_t t = 2; t <= THREADS_MAX; t++)
		assert_int_equal(mr_team_create(t, NULL, &teams[t]), 0);
	for (int i = 0; i < 12; i++)
		same_bits(teams);
	for (uint32_t t = 2; t <= THREADS_MAX; t++)
		mr_team_destroy(teams[t]);
	for (int k = 0; mr_kernels_all[k]; k++)
		if (!mr_kernels_runnable(mr_kernels_all[k]))
			print_message("SKIPPED: this CPU cannot run %s\n", mr_kernels_all[k]->name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(barrier), cmocka_unit_test(taken_away), cmocka_unit_test(refused),
		cmocka_unit_test(parts),   cmocka_unit_test(layers),
	};

	mr_numerics_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
