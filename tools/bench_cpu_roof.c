// SPDX-License-Identifier: Apache-2.0
/*
 * What the machine can do at best: how fast a team of threads streams as many bytes as the model's weights,
 * and how many multiply-adds a second its instructions make when nothing but registers feeds them.
 */
#include <immintrin.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "driver/mem/topology.h"
#include "kernels/cpu/team.h"
#include "tools/bench_cpu.h"

#define HUGE_BYTES (2u << 20)
#define STREAMS    8u
#define ROUNDS     2000000

struct bench_buffer {
	char *p;
	uint64_t bytes;
	struct mr_team *team;
	uint64_t sink; /* the compiler must believe that the sums are wanted */
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int bench_buffer_create(uint64_t bytes, struct bench_buffer **out)
{
	struct bench_buffer *b = calloc(1, sizeof(*b));
	uint64_t mapped = (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;

	if (b)
		b->p = aligned_alloc(HUGE_BYTES, mapped);
	if (!b || !b->p) {
		free(b);
		return MR_E_NO_MEMORY;
	}
	madvise(b->p, mapped, MADV_HUGEPAGE); /* advice: without it the figure is a little lower */
	memset(b->p, 1, mapped);
	b->bytes = bytes;
	*out = b;
	return 0;
}

void bench_buffer_destroy(struct bench_buffer *b)
{
	if (b)
		free(b->p);
	free(b);
}

static void read_rank(void *arg, uint32_t rank)
{
	struct bench_buffer *b = arg;
	uint32_t lines = (uint32_t)(b->bytes / (STREAMS * sizeof(__m256i))), first, end;
	__m256i sum[STREAMS] = {{0}};

	mr_team_part(lines, rank, mr_team_threads(b->team), &first, &end);
	for (uint32_t l = first; l < end; l++) {
		const char *p = b->p + (uint64_t)l * sizeof(sum);

		for (unsigned i = 0; i < STREAMS; i++)
			sum[i] =
				_mm256_add_epi64(sum[i], _mm256_load_si256((const __m256i *)p + i));
	}
	for (unsigned i = 1; i < STREAMS; i++)
		sum[0] = _mm256_add_epi64(sum[0], sum[i]);
	__atomic_fetch_add(&b->sink, (uint64_t)_mm256_extract_epi64(sum[0], 0), __ATOMIC_RELAXED);
}

int bench_team(uint32_t threads, struct mr_team **team)
{
	int cpus[MR_TEAM_THREADS_MAX];
	cpu_set_t set;
	unsigned n;

	*team = NULL;
	if (threads == 1)
		return 0;
	n = mr_topology_cores(-1, cpus, MR_TEAM_THREADS_MAX);
	if (n < threads)
		return mr_team_create(threads, NULL, team);
	CPU_ZERO(&set);
	CPU_SET(cpus[0], &set);
	sched_setaffinity(0, sizeof(set), &set);
	return mr_team_create(threads, cpus, team);
}

void bench_team_end(struct mr_team *team)
{
	cpu_set_t set;

	if (!team)
		return;
	mr_team_destroy(team);
	memset(&set, 0xff, sizeof(set)); /* what the process may not have is left out */
	sched_setaffinity(0, sizeof(set), &set);
}

double bench_buffer_read(struct bench_buffer *b, struct mr_team *team)
{
	double start = now_s();

	b->team = team;
	mr_team_run(team, read_rank, b);
	return (double)b->bytes / (now_s() - start);
}

/*
 * Seconds of the best of three of ROUNDS rounds of @step on each of CHAINS registers. The empty assembly
 * keeps each step where it is; the names keep the sums in registers.
 */
#define CHAIN(step) step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9)
#define CHAINS      10
#define TIME_CHAINS(vector, zero, step)                                    \
	({                                                                 \
		double best = 1e9;                                         \
		for (int run = 0; run < 3; run++) {                        \
			vector s0 = zero, s1 = zero, s2 = zero, s3 = zero; \
			vector s4 = zero, s5 = zero, s6 = zero, s7 = zero; \
			vector s8 = zero, s9 = zero;                       \
			double start = now_s(), took;                      \
			for (int r = 0; r < ROUNDS; r++) {                 \
				CHAIN(step)                                \
			}                                                  \
			took = now_s() - start;                            \
			best = took < best ? took : best;                  \
		}                                                          \
		best;                                                      \
	})

#define DOT_512(n)                                  \
	s##n = _mm512_dpbusd_epi32(s##n, one, one); \
	__asm__ __volatile__("" : "+v"(s##n));
#define FMA_512(n)                          \
	s##n = _mm512_fmadd_ps(x, x, s##n); \
	__asm__ __volatile__("" : "+v"(s##n));
#define DOT_256(n)                                                      \
	s##n = _mm256_add_epi16(s##n, _mm256_maddubs_epi16(one, s##n)); \
	__asm__ __volatile__("" : "+x"(s##n));
#define FMA_256(n)                          \
	s##n = _mm256_fmadd_ps(x, x, s##n); \
	__asm__ __volatile__("" : "+x"(s##n));

__attribute__((target("avx512f,avx512vnni"))) static void arithmetic_512(double *i8, double *f32)
{
	__m512i one = _mm512_set1_epi8(1);
	__m512 x = _mm512_set1_ps(1e-3f);
	double macs = (double)CHAINS * ROUNDS;

	*i8 = macs * 64 / TIME_CHAINS(__m512i, _mm512_setzero_si512(), DOT_512);
	*f32 = macs * 16 / TIME_CHAINS(__m512, _mm512_setzero_ps(), FMA_512);
}

/* What a class P in BF16 would have; 32 multiply-adds an instruction. */
#define BF16_512(n)                                \
	s##n = _mm512_dpbf16_ps(s##n, pair, pair); \
	__asm__ __volatile__("" : "+v"(s##n));

__attribute__((target("avx512f,avx512bf16"))) double bench_arithmetic_bf16(void)
{
	__m512bh pair = (__m512bh)_mm512_setzero_si512();

	if (!__builtin_cpu_supports("avx512bf16"))
		return 0;
	return (double)CHAINS * ROUNDS * 32 / TIME_CHAINS(__m512, _mm512_setzero_ps(), BF16_512);
}

/* Without VNNI a multiply-add of bytes is VPMADDUBSW and VPADDW. */
static void arithmetic_256(double *i8, double *f32)
{
	__m256i one = _mm256_set1_epi8(1);
	__m256 x = _mm256_set1_ps(1e-3f);
	double macs = (double)CHAINS * ROUNDS;

	*i8 = macs * 32 / TIME_CHAINS(__m256i, _mm256_setzero_si256(), DOT_256);
	*f32 = macs * 8 / TIME_CHAINS(__m256, _mm256_setzero_ps(), FMA_256);
}

void bench_arithmetic(const struct mr_kernels *kern, double *int8_macs_s, double *float_macs_s)
{
	if (strcmp(kern->name, "scalar") && strcmp(kern->name, "avx2"))
		arithmetic_512(int8_macs_s, float_macs_s);
	else
		arithmetic_256(int8_macs_s, float_macs_s);
}
