// SPDX-License-Identifier: Apache-2.0
/*
 * oneDNN's matrix product beside ours, at a prompt's shapes, on one thread: built and run by
 * scripts/try-onednn.sh alone, against oneDNN 2 (Debian 12). By turns in one run: our product of Q4_1 weights
 * in class D, our class P where this CPU has one, oneDNN's of the same weights in FP32 and in BF16, each with
 * the making of its input. Then whether oneDNN's result for a row depends on how many rows there are.
 */
#include <dnnl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"

#define RUNS   9
#define SHAPES 7
#define M_MAX  512u

/* Output rows and columns of one layer of SmolLM2-135M: q, k, v, o, gate, up, down. */
static const struct {
	uint32_t n, k;
} shapes[SHAPES] = {{576, 576},  {192, 576},  {192, 576}, {576, 576},
		    {1536, 576}, {1536, 576}, {576, 1536}};

enum { OURS_D, OURS_P, DNNL_F32, DNNL_BF16, ENGINES };
static const char *const names[ENGINES] = {"millrace D", "millrace P", "oneDNN f32", "oneDNN bf16"};

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void *alloc(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	if (!p)
		exit(1);
	return p;
}

static void check(dnnl_status_t status, const char *what)
{
	if (status == dnnl_success)
		return;
	fprintf(stderr, "try-onednn: %s: status %d\n", what, (int)status);
	exit(1);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float rndf(void)
{
	static uint64_t seed = 1;

	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (float)(seed >> 33) / (float)(1u << 30) - 1;
}

/* ---- oneDNN ---- */

static dnnl_memory_t memory(const dnnl_memory_desc_t *md, void *data)
{
	dnnl_memory_t m;

	check(dnnl_memory_create(&m, md, engine, data), "a memory");
	return m;
}

static void run(dnnl_primitive_t p, int n, const dnnl_exec_arg_t *args)
{
	check(dnnl_primitive_execute(p, stream, n, args), "to execute");
	check(dnnl_stream_wait(stream), "to wait");
}

static dnnl_primitive_t reorder_of(const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to)
{
	dnnl_primitive_desc_t pd;
	dnnl_primitive_t p;

	check(dnnl_reorder_primitive_desc_create(&pd, from, engine, to, engine, NULL), "a reorder");
	check(dnnl_primitive_create(&p, pd), "a reorder");
	dnnl_primitive_desc_destroy(pd);
	return p;
}

/* y (m, n) = x (m, k) * w (k, n), x and w in @type, in the weights' layout that oneDNN likes best. */
struct product {
	dnnl_primitive_t matmul, convert; /* convert: of x to @type; NULL = it is FP32 already */
	dnnl_memory_t x, x_typed, w, y;
};

static struct product product_of(dnnl_data_type_t type, uint32_t m, uint32_t n, uint32_t k,
				 float *x, float *w, float *y)
{
	const dnnl_dims_t dx = {m, k}, dw = {k, n}, dy = {m, n};
	dnnl_memory_desc_t mx, mt, mw, my, given;
	const dnnl_memory_desc_t *best;
	dnnl_matmul_desc_t desc;
	dnnl_primitive_desc_t pd;
	struct product p = {0};
	dnnl_memory_t from;
	dnnl_primitive_t r;

	check(dnnl_memory_desc_init_by_tag(&mx, 2, dx, dnnl_f32, dnnl_ab), "x");
	check(dnnl_memory_desc_init_by_tag(&mt, 2, dx, type, dnnl_ab), "x");
	check(dnnl_memory_desc_init_by_tag(&mw, 2, dw, type, dnnl_format_tag_any), "w");
	check(dnnl_memory_desc_init_by_tag(&given, 2, dw, dnnl_f32, dnnl_ba), "w");
	check(dnnl_memory_desc_init_by_tag(&my, 2, dy, dnnl_f32, dnnl_ab), "y");
	check(dnnl_matmul_desc_init(&desc, &mt, &mw, NULL, &my), "a product");
	check(dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL), "a product");
	check(dnnl_primitive_create(&p.matmul, pd), "a product");
	best = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
	from = memory(&given, w);
	p.w = memory(best, DNNL_MEMORY_ALLOCATE);
	r = reorder_of(&given, best);
	run(r, 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p.w}});
	dnnl_primitive_destroy(r);
	dnnl_memory_destroy(from);
	p.x = memory(&mx, x);
	p.y = memory(&my, y);
	if (type != dnnl_f32) {
		p.x_typed = memory(&mt, DNNL_MEMORY_ALLOCATE);
		p.convert = reorder_of(&mx, &mt);
	}
	dnnl_primitive_desc_destroy(pd);
	return p;
}

static void multiply(const struct product *p)
{
	dnnl_memory_t x = p->convert ? p->x_typed : p->x;

	if (p->convert)
		run(p->convert, 2,
		    (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, p->x}, {DNNL_ARG_TO, p->x_typed}});
	run(p->matmul, 3,
	    (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, p->w}, {DNNL_ARG_DST, p->y}});
}

static void product_end(struct product *p)
{
	dnnl_primitive_destroy(p->matmul);
	dnnl_memory_destroy(p->x);
	dnnl_memory_destroy(p->w);
	dnnl_memory_destroy(p->y);
	if (!p->convert)
		return;
	dnnl_primitive_destroy(p->convert);
	dnnl_memory_destroy(p->x_typed);
}

/* ---- one matrix in all its forms ---- */

struct matrix {
	struct mr_matrix q4, tiles; /* tiles.data NULL = no class P here */
	float *w;                   /* (n, k) */
};

static struct matrix matrix_of(uint32_t n, uint32_t k, int with_tiles)
{
	size_t blocks = (size_t)n * k / 32;
	uint8_t *raw = alloc(20 * blocks);
	void *data = alloc(mr_pack_bytes(MR_PACK_Q4_1X16, n, k));
	struct matrix m = {.q4 = {data, n, k, MR_PACK_Q4_1X16}, .w = alloc(4 * (size_t)n * k)};

	for (size_t i = 0; i < blocks; i++) {
		uint16_t d = mr_float_to_half(0.01f + 0.005f * rndf());
		uint16_t min = mr_float_to_half(-0.075f + 0.02f * rndf());

		memcpy(raw + 20 * i, &d, 2);
		memcpy(raw + 20 * i + 2, &min, 2);
		for (int b = 4; b < 20; b++)
			raw[20 * i + b] = (uint8_t)(128 + 127 * rndf());
	}
	mr_pack(MR_PACK_Q4_1X16, raw, n, k, data);
	free(raw);
	for (uint32_t r = 0; r < n; r++)
		mr_unpack_row(&m.q4, r, m.w + (size_t)r * k);
	if (with_tiles) {
		void *tiles = alloc(mr_pack_bytes(MR_PACK_BF16_TILES, n, k));

		mr_pack_tiles(&m.q4, 0, n, tiles);
		m.tiles = (struct mr_matrix){tiles, n, k, MR_PACK_BF16_TILES};
	}
	return m;
}

/* ---- the tables ---- */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void sane(const float *a, const float *b, size_t n)
{
	double d = 0, size = 0;

	for (size_t i = 0; i < n; i++) {
		d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		size += (double)b[i] * b[i];
	}
	if (d <= 1e-3 * size)
		return;
	fprintf(stderr, "try-onednn: results differ by %.2g of themselves\n", sqrt(d / size));
	exit(1);
}

/* One layer's products at @m rows, by turns. */
static void compare(const struct mr_kernels *kern, const struct matrix *w, uint32_t m)
{
	static double took[ENGINES][RUNS];
	float *x = alloc(4 * M_MAX * 1536), *y[ENGINES];
	struct mr_q8 q = {
		alloc(M_MAX * 1536),    alloc(M_MAX * 1536), alloc(M_MAX * 1536), m, 0, NULL,
		alloc(2 * M_MAX * 1536)};
	struct product dnnl[2][SHAPES];
	double macs = 0;

	for (uint32_t i = 0; i < m * 1536; i++)
		x[i] = rndf();
	for (int e = 0; e < ENGINES; e++)
		y[e] = alloc(4 * M_MAX * 1536);
	for (int s = 0; s < SHAPES; s++) {
		macs += (double)m * shapes[s].n * shapes[s].k;
		for (int b = 0; b < 2; b++)
			dnnl[b][s] = product_of(b ? dnnl_bf16 : dnnl_f32, m, shapes[s].n,
						shapes[s].k, x, w[s].w, y[DNNL_F32 + b]);
	}
	for (int r = -1; r < RUNS; r++) /* the first is for the caches, and is checked */
		for (int e = 0; e < ENGINES; e++) {
			const struct mr_kernels *k = e == OURS_P ? kern->prompt : kern;
			double start = now_s();

			if (!k)
				continue;
			for (int s = 0; s < SHAPES; s++) {
				if (e >= DNNL_F32) {
					multiply(&dnnl[e - DNNL_F32][s]);
					continue;
				}
				q.cols = shapes[s].k;
				k->quantize(x, &q);
				k->matmul(e == OURS_P ? &w[s].tiles : &w[s].q4, &q, y[e],
					  shapes[s].n, 0, shapes[s].n, NULL);
			}
			if (r >= 0)
				took[e][r] = now_s() - start;
			else if (e)
				sane(y[e], y[0], (size_t)m * shapes[SHAPES - 1].n);
		}
	for (int e = 0; e < ENGINES; e++) {
		if (e == OURS_P && !kern->prompt)
			continue;
		qsort(took[e], RUNS, sizeof(double), ascending);
		printf("  %4u rows  %-12s %8.1f GMAC/s  %5.2fx of millrace D\n", m, names[e],
		       macs / took[e][RUNS / 2] / 1e9, took[OURS_D][RUNS / 2] / took[e][RUNS / 2]);
	}
	for (int s = 0; s < SHAPES; s++)
		for (int b = 0; b < 2; b++)
			product_end(&dnnl[b][s]);
	for (int e = 0; e < ENGINES; e++)
		free(y[e]);
	free(x);
	free(q.q);
	free(q.scale);
	free(q.sum);
	free(q.bf16);
}

/* Rows of a product of @m rows that differ from the same rows in one of 512. */
static uint32_t differing(const struct matrix *w, int shape, dnnl_data_type_t type, uint32_t m,
			  float *x)
{
	size_t n = shapes[shape].n;
	float *a = alloc(4 * M_MAX * n), *b = alloc(4 * M_MAX * n);
	struct product few = product_of(type, m, shapes[shape].n, shapes[shape].k, x, w->w, a);
	struct product many = product_of(type, M_MAX, shapes[shape].n, shapes[shape].k, x, w->w, b);
	uint32_t count = 0;

	multiply(&few);
	multiply(&many);
	for (uint32_t i = 0; i < m; i++)
		count += memcmp(a + i * n, b + i * n, 4 * n) != 0;
	product_end(&few);
	product_end(&many);
	free(a);
	free(b);
	return count;
}

static void batches(const struct matrix *w)
{
	static const uint32_t counts[] = {1, 7, 64};
	float *x = alloc(4 * M_MAX * 1536);

	for (uint32_t i = 0; i < M_MAX * 1536; i++)
		x[i] = rndf();
	for (int t = 0; t < 2; t++)
		for (int i = 0; i < 3; i++) {
			uint32_t count = 0;

			for (int s = 0; s < SHAPES; s++)
				count +=
					differing(&w[s], s, t ? dnnl_bf16 : dnnl_f32, counts[i], x);
			printf("  %-12s %u of %u rows have other bits in %u rows than in %u\n",
			       names[DNNL_F32 + t], count, SHAPES * counts[i], counts[i], M_MAX);
		}
	free(x);
}

int main(void)
{
	const struct mr_kernels *kern = mr_kernels_select(NULL);
	const dnnl_version_t *v = dnnl_version();
	struct matrix w[SHAPES];

	if (!kern) {
		fputs("try-onednn: MR_CPU names kernels that this CPU lacks\n", stderr);
		return 1;
	}
	mr_numerics_enter();
	check(dnnl_engine_create(&engine, dnnl_cpu, 0), "an engine");
	check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "a stream");
	printf("oneDNN %d.%d.%d beside kernels %s: one layer's products, one thread, median of %d, "
	       "by turns\n",
	       v->major, v->minor, v->patch, kern->name, RUNS);
	for (int s = 0; s < SHAPES; s++)
		w[s] = matrix_of(shapes[s].n, shapes[s].k, kern->prompt != NULL);
	compare(kern, w, 64);
	compare(kern, w, 512);
	batches(w);
	for (int s = 0; s < SHAPES; s++) {
		free((void *)w[s].q4.data);
		free((void *)w[s].tiles.data);
		free(w[s].w);
	}
	dnnl_stream_destroy(stream);
	dnnl_engine_destroy(engine);
	return 0;
}
