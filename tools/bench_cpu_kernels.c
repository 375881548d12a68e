// SPDX-License-Identifier: Apache-2.0
/*
 * Each kernel by itself on one thread: products of a lone row as a fraction of the read roof, products of many
 * rows and attention as a fraction of peak arithmetic, the rest in nanoseconds a decoded token.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/sample.h"
#include "tools/bench_cpu.h"

#define COLD_BYTES (96u << 20) /* larger than any cache that matters, about the model's size */
#define ROWS_MAX   64u
#define POSITIONS  1024u
#define OTHER_COLS 1024u

struct bench {
	const struct bench_cpu_options *o;
	const struct mr_kernels *kern;
	const struct mr_shape *s;
	const struct bench_roofs *one;
	char *cold;   /* COLD_BYTES of weights or KV */
	float *x, *y; /* (ROWS_MAX, the widest) */
	struct mr_q8 q8;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Median seconds of @call over the runs. */
#define TIME(b, call)                                               \
	({                                                          \
		double took[BENCH_RUNS_MAX];                        \
		call;                                               \
		for (uint32_t run = 0; run < (b)->o->runs; run++) { \
			double start = now_s();                     \
			call;                                       \
			took[run] = now_s() - start;                \
		}                                                   \
		bench_median(took, (b)->o->runs);                   \
	})

static void row_of(const struct bench *b, const char *class, const char *name, const char *unit,
		   double value, double scale, double of_roof, const char *roof)
{
	bench_cpu_csv(b->o, "kernels", name, b->kern->name, 1, 0, unit, value, of_roof, class);
	printf("  %-28s %8.1f %s", name, value * scale, unit);
	if (roof)
		printf(" = %.0f%% of %s", 100 * of_roof, roof);
	putchar('\n');
}

static void row(const struct bench *b, const char *name, const char *unit, double value,
		double scale, double of_roof, const char *roof)
{
	row_of(b, b->kern->numerics, name, unit, value, scale, of_roof, roof);
}

/* The product of prompts in class P, of tiles. The weights' bits do not matter to its speed. */
static void product_p(const struct bench *b, uint32_t n)
{
	const struct mr_kernels *p = b->kern->prompt;
	uint32_t cols = b->s->width;
	uint32_t rows = (uint32_t)((2u << 20) / mr_pack_bytes(MR_PACK_BF16_TILES, 16, cols)) * 16;
	struct mr_matrix m = {b->cold, rows, cols, MR_PACK_BF16_TILES};
	struct mr_q8 q = b->q8;
	char name[64];
	double s;

	q.rows = n;
	q.cols = cols;
	p->quantize(b->x, &q);
	s = TIME(b, p->matmul(&m, &q, b->y, rows, 0, rows, NULL));
	snprintf(name, sizeof(name), "product %s, %u rows", p->numerics, n);
	row_of(b, p->numerics, name, "GMAC/s", (double)n * rows * cols / s, 1e-9, 0, NULL);
}

/* @n rows times a matrix in the class of @kern; one row streams, many compute. */
static void product(const struct bench *b, const struct mr_kernels *kern, enum mr_packing packing,
		    const char *format, uint32_t cols, uint32_t n)
{
	size_t group = mr_pack_bytes(packing, 16, cols);
	uint32_t rows = (uint32_t)((n == 1 ? COLD_BYTES : 1u << 20) / group) * 16;
	struct mr_matrix m = {b->cold, rows, cols, packing};
	struct mr_q8 q = b->q8;
	char name[64];
	double s;

	q.rows = n;
	q.cols = cols;
	kern->quantize(b->x, &q);
	q.x = b->x; /* as float weights take it */
	s = TIME(b, kern->matmul(&m, &q, b->y, rows, 0, rows, NULL));
	snprintf(name, sizeof(name), "product %s%s%s, %u row%s",
		 kern == b->kern ? "" : kern->numerics, kern == b->kern ? "" : " ", format, n,
		 n > 1 ? "s" : "");
	if (n == 1)
		row_of(b, kern->numerics, name, "GB/s",
		       (double)mr_pack_bytes(packing, rows, cols) / s, 1e-9,
		       (double)mr_pack_bytes(packing, rows, cols) / s / b->one->read_bytes_s,
		       "the read roof");
	else
		row_of(b, kern->numerics, name, "GMAC/s", (double)n * rows * cols / s, 1e-9,
		       (double)n * rows * cols / s / b->one->int8_macs_s, "int8 peak");
}

/* KV of POSITIONS positions, as a pool of blocks has it. */
static uint8_t **kv_of(const struct bench *b)
{
	size_t layer = mr_kv_layer_bytes(b->s);
	uint8_t **kv = calloc(POSITIONS / 16, sizeof(*kv));

	for (uint32_t i = 0; kv && i < POSITIONS / 16; i++)
		kv[i] = (uint8_t *)b->cold + i * layer;
	return kv;
}

/* The last rows of a prompt, in class P: as many as the backend takes at a time, and all of what they see. */
static void attention_rows(const struct bench *b)
{
	const struct mr_kernels *p = b->kern->prompt;
	const struct mr_shape *s = b->s;
	uint32_t group = s->heads / s->kv_heads;
	float *scratch = aligned_alloc(64, MR_ATTENTION_ROWS_SCRATCH(s->head_dim) * sizeof(float));
	struct mr_attention_rows a = {
		.kv = kv_of(b),
		.v_offset = mr_kv_layer_bytes(s) / 2,
		.rows = MR_ATTENTION_ROWS_QUERIES / group,
		.queries = group,
		.head_dim = s->head_dim,
		.scale = 0.1f,
		.q = b->x,
		.y = b->y,
		.stride = (size_t)s->heads * s->head_dim,
	};
	double pairs, time;
	char name[64];

	if (a.rows > ROWS_MAX)
		a.rows = ROWS_MAX;
	a.position = POSITIONS - a.rows;
	pairs = (double)a.rows * (a.position + 1) + (double)a.rows * (a.rows - 1) / 2;
	if (a.kv && scratch) {
		time = TIME(b, p->attention_rows(&a, scratch));
		snprintf(name, sizeof(name), "attention %s, %u rows", p->numerics, a.rows);
		row_of(b, p->numerics, name, "GMAC/s", 2 * pairs * group * s->head_dim / time, 1e-9,
		       2 * pairs * group * s->head_dim / time / b->one->float_macs_s, "FP32 peak");
	}
	free((void *)a.kv);
	free(scratch);
}

static void attention(const struct bench *b)
{
	const struct mr_shape *s = b->s;
	uint32_t group = s->heads / s->kv_heads;
	uint8_t **kv = kv_of(b);
	float *scratch = aligned_alloc(64, MR_ATTENTION_SCRATCH(s->head_dim) * sizeof(float));
	struct mr_attention a = {
		.kv = kv,
		.v_offset = mr_kv_layer_bytes(s) / 2,
		.count = POSITIONS,
		.head_dim = s->head_dim,
		.queries = group < MR_ATTENTION_QUERIES ? group : MR_ATTENTION_QUERIES,
		.prefetch = 1,
		.scale = 0.1f,
	};
	double macs = 2.0 * a.queries * POSITIONS * s->head_dim, time;

	if (kv && scratch) {
		time = TIME(b, b->kern->attention(&a, b->x, b->y, scratch));
		row(b, "attention, 1024 positions", "GMAC/s", macs / time, 1e-9,
		    macs / time / b->one->float_macs_s, "FP32 peak");
	}
	free(kv);
	free(scratch);
}

/* What a token needs of the small kernels, in nanoseconds of one thread. */
static void small(const struct bench *b)
{
	const struct mr_shape *s = b->s;
	struct mr_q8 q = b->q8;
	void *scratch = aligned_alloc(64, (mr_sample_scratch(s->vocab) + 63) & ~63ul);
	struct mr_sampling greedy = {0};
	float logprob;
	double t;

	q.rows = 1;
	q.cols = s->width;
	t = TIME(b, b->kern->rmsnorm(b->x, b->x, s->width, 1e-5f, b->y));
	row(b, "norms of a token", "us", t * (2 * s->layers + 1), 1e6, 0, NULL);
	t = TIME(b, b->kern->quantize(b->x, &q)) * (3 * s->layers + 1);
	q.cols = s->ffn;
	t += TIME(b, b->kern->quantize(b->x, &q)) * s->layers;
	row(b, "quantising of a token", "us", t, 1e6, 0, NULL);
	t = TIME(b, b->kern->swiglu(b->x, b->x, s->ffn, b->y));
	row(b, "SwiGLU of a token", "us", t * s->layers, 1e6, 0, NULL);
	if (scratch)
		t = TIME(b, mr_sample(b->x, s->vocab, &greedy, 1, NULL, 0, scratch, &logprob));
	row(b, "sampling of a token, greedy", "us", t, 1e6, 0, NULL);
	free(scratch);
}

int bench_cpu_kernels(const struct bench_cpu_options *o, const struct mr_kernels *kern,
		      const struct mr_shape *shape, const struct bench_roofs *one)
{
	static const uint32_t counts[] = {1, 8, 16, 32, 64};
	static const struct {
		enum mr_packing packing;
		const char *name;
	} others[] = {{MR_PACK_Q4_0X16, "Q4_0"}, {MR_PACK_Q4_KX16, "Q4_K"},
		      {MR_PACK_Q5_KX16, "Q5_K"}, {MR_PACK_Q6_KX16, "Q6_K"},
		      {MR_PACK_F16X16, "F16"},   {MR_PACK_BF16X16, "BF16"},
		      {MR_PACK_F32X16, "F32"}};
	size_t width = shape->ffn > shape->width ? shape->ffn : shape->width;
	size_t widest = width > OTHER_COLS ? width : OTHER_COLS;
	size_t floats = COLD_BYTES / 8; /* rows of one product times ROWS_MAX, and the vocabulary */
	struct bench b = {.o = o, .kern = kern, .s = shape, .one = one};

	b.cold = aligned_alloc(2u << 20, COLD_BYTES);
	if (b.cold)
		madvise(b.cold, COLD_BYTES, MADV_HUGEPAGE); /* as the arena's, where granted */
	b.x = aligned_alloc(64, floats * sizeof(float));
	b.y = aligned_alloc(64, floats * sizeof(float));
	b.q8.q = aligned_alloc(64, ROWS_MAX * widest);
	b.q8.scale = aligned_alloc(64, ROWS_MAX * widest);
	b.q8.sum = aligned_alloc(64, ROWS_MAX * widest);
	b.q8.bf16 = aligned_alloc(64, ROWS_MAX * widest * sizeof(uint16_t));
	b.q8.scaled_sum = aligned_alloc(64, ROWS_MAX * widest);
	if (b.cold && b.x && b.y && b.q8.q && b.q8.scale && b.q8.sum && b.q8.bf16 &&
	    b.q8.scaled_sum) {
		memset(b.cold, 0x11, COLD_BYTES);
		for (size_t i = 0; i < floats; i++)
			b.x[i] = (float)(i * 2654435761u % 2001) / 1000.0f - 1.0f;
		for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
			product(&b, kern, MR_PACK_Q4_1X16, "Q4_1", shape->width, counts[i]);
			product(&b, kern, MR_PACK_Q8_0X16, "Q8_0", shape->width, counts[i]);
			if (kern->prompt && kern->prompt->tiles)
				product_p(&b, counts[i]);
			else if (kern->prompt && counts[i] > 1)
				product(&b, kern->prompt, MR_PACK_Q4_1X16, "Q4_1", shape->width,
					counts[i]);
		}
		/* The other types, whatever the model's: a lone row of 1,024 columns. */
		for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
			product(&b, kern, others[i].packing, others[i].name, OTHER_COLS, 1);
		attention(&b);
		if (kern->prompt && kern->prompt->attention_rows)
			attention_rows(&b);
		small(&b);
	}
	free(b.cold);
	free(b.x);
	free(b.y);
	free(b.q8.q);
	free(b.q8.scale);
	free(b.q8.sum);
	free(b.q8.bf16);
	free(b.q8.scaled_sum);
	return b.cold && b.x && b.y ? 0 : MR_E_NO_MEMORY;
}
