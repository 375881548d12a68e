/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See bench_ring.h. The server's thread turns what `millrace serve` turns, the ring server and the
 * orchestrator, over the nil device. Kinds alternate in slices, so that a neighbour on the host disturbs
 * both alike. One time stamp a round: the end of one is the start of the next.
 */
#include "tools/bench_ring.h"

#include <json-c/json.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <millrace/millrace.h>

#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "driver/ring/server.h"
#include "driver/sched/sched.h"
#include "tools/bench_line.h"

#define SLICES 10u

enum kind { KIND_NOP, KIND_BARE, KIND_STOP };

struct bench {
	struct bench_lines lines;
	struct bench_line kind; /* enum kind: what the server's thread does */
	struct mr_model model;
	struct mr_device *device;
	struct mr_sched *sched;
	struct mr_ring_server *server;
	struct mr_ring *ring;
	pthread_t thread;
	int server_cpu;
	int running;
	char path[108];
};

static uint32_t kind(const struct bench *b)
{
	return __atomic_load_n(&b->kind.word, __ATOMIC_ACQUIRE);
}

static void *serve(void *arg)
{
	struct bench *b = arg;
	struct mr_front front = mr_ring_server_front(b->server);

	bench_pin(b->server_cpu);
	while (kind(b) != KIND_STOP) {
		if (kind(b) == KIND_BARE)
			bench_line_echo(&b->lines, &b->kind, KIND_BARE);
		front.poll(front.ctx);
		mr_sched_poll(b->sched);
	}
	return NULL;
}

static int start(struct bench *b)
{
	const struct mr_nil_options nil = {0};
	struct mr_sched_options sched = {.model = &b->model, .requests = 16};
	struct mr_ring_server_options ring = {.socket_path = b->path};
	struct mr_ring_options options = {.path = b->path};
	int rc;

	b->model.shape.layers = 1; /* the nil device looks at no weights */
	snprintf(b->path, sizeof(b->path), "/tmp/millrace-bench-%d.sock", (int)getpid());
	rc = mr_nil_open(&nil, &b->device);
	if (rc)
		return rc;
	sched.prefill = sched.decode = b->device;
	rc = mr_sched_create(&sched, &b->sched);
	if (rc)
		return rc;
	ring.sched = b->sched;
	rc = mr_ring_server_create(&ring, &b->server);
	if (rc)
		return rc;
	if (pthread_create(&b->thread, NULL, serve, b))
		return MR_E_NO_MEMORY;
	b->running = 1;
	return mr_ring_connect(&options, &b->ring);
}

static void stop(struct bench *b)
{
	__atomic_store_n(&b->kind.word, KIND_STOP, __ATOMIC_RELEASE);
	if (b->running)
		pthread_join(b->thread, NULL);
	mr_ring_disconnect(b->ring);
	mr_sched_destroy(b->sched);
	mr_ring_server_destroy(b->server);
	if (b->device)
		b->device->admin->close(b->device);
}

/* Each writes @count round trips in ticks of the time stamp counter. */
static void measure_bare(struct bench *b, uint64_t *ticks, uint64_t count)
{
	__atomic_store_n(&b->kind.word, KIND_BARE, __ATOMIC_RELEASE);
	bench_line_round(&b->lines, ticks, count);
}

static void measure_nop(struct bench *b, uint64_t *ticks, uint64_t count)
{
	const struct mr_sqe nop = {.op = MR_OP_NOP};
	struct mr_ring *ring = b->ring;
	uint64_t before;

	__atomic_store_n(&b->kind.word, KIND_NOP, __ATOMIC_RELEASE);
	before = __rdtsc();
	for (uint64_t i = 0; i < count; i++) {
		uint64_t now;

		mr_ring_push(ring, &nop);
		while (!mr_ring_peek(ring))
			;
		mr_ring_consume(ring);
		now = __rdtsc();
		ticks[i] = now - before;
		before = now;
	}
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct tool_summary summarise(uint64_t *ticks, uint64_t count, double ns_per_tick)
{
	for (uint64_t i = 0; i < count; i++)
		ticks[i] = (uint64_t)((double)ticks[i] * ns_per_tick + 0.5);
	return tool_summarise(ticks, count);
}

static void measure(struct bench *b, uint64_t *nop, uint64_t *bare, uint64_t slice,
		    struct bench_ring_result *result)
{
	uint64_t warm = slice < 1000 ? slice : 1000;
	uint64_t ticks, ns;
	double ns_per_tick;

	measure_bare(b, bare, warm);
	measure_nop(b, nop, warm);
	ns = now_ns();
	ticks = __rdtsc();
	for (unsigned i = 0; i < SLICES; i++) {
		measure_bare(b, bare + i * slice, slice);
		measure_nop(b, nop + i * slice, slice);
	}
	ns_per_tick = (double)(now_ns() - ns) / (double)(__rdtsc() - ticks);
	result->nop = summarise(nop, SLICES * slice, ns_per_tick);
	result->bare = summarise(bare, SLICES * slice, ns_per_tick);
	result->ratio = (double)result->nop.p50 / (double)result->bare.p50;
}

int bench_ring(const struct bench_ring_options *options, struct bench_ring_result *result)
{
	uint64_t slice = (options->rounds ? options->rounds : 200000) / SLICES + 1;
	uint64_t *nop = malloc(SLICES * slice * sizeof(*nop));
	uint64_t *bare = malloc(SLICES * slice * sizeof(*bare));
	struct bench *b = aligned_alloc(128, (sizeof(*b) + 127) & ~(size_t)127);
	cpu_set_t allowed;
	int cpus[2];
	int rc = b && nop && bare ? 0 : MR_E_NO_MEMORY;

	memset(result, 0, sizeof(*result));
	if (!rc) {
		/* Touched, so that no round pays for a page. */
		memset(nop, 0, SLICES * slice * sizeof(*nop));
		memset(bare, 0, SLICES * slice * sizeof(*bare));
		memset(b, 0, sizeof(*b));
		pthread_getaffinity_np(pthread_self(), sizeof(allowed), &allowed);
		rc = bench_two_cpus(&allowed, cpus);
	}
	if (!rc) {
		result->client_cpu = cpus[0];
		result->server_cpu = b->server_cpu = cpus[1];
		rc = start(b);
		if (!rc) {
			bench_pin(cpus[0]);
			measure(b, nop, bare, slice, result);
		}
		stop(b);
		pthread_setaffinity_np(pthread_self(), sizeof(allowed), &allowed);
	}
	free(b);
	free(nop);
	free(bare);
	return rc;
}

void bench_ring_print(FILE *out, const struct bench_ring_result *r)
{
	const struct {
		const char *name;
		const struct tool_summary *s;
	} rows[] = {{"ring NOP", &r->nop}, {"bare cache line", &r->bare}};

	fprintf(out, "%-24s %9s %9s %9s %9s %9s\n", "round trip, ns", "n", "min", "p50", "p99",
		"max");
	for (unsigned i = 0; i < 2; i++)
		fprintf(out, "%-24s %9llu %9llu %9llu %9llu %9llu\n", rows[i].name,
			(unsigned long long)rows[i].s->n, (unsigned long long)rows[i].s->min,
			(unsigned long long)rows[i].s->p50, (unsigned long long)rows[i].s->p99,
			(unsigned long long)rows[i].s->max);
	fprintf(out, "ring NOP / bare, p50: %.2f (client on CPU %d, server on CPU %d)\n", r->ratio,
		r->client_cpu, r->server_cpu);
}

static struct json_object *summary_json(const struct tool_summary *s)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "n", json_object_new_uint64(s->n));
	json_object_object_add(o, "min_ns", json_object_new_uint64(s->min));
	json_object_object_add(o, "p50_ns", json_object_new_uint64(s->p50));
	json_object_object_add(o, "p99_ns", json_object_new_uint64(s->p99));
	json_object_object_add(o, "max_ns", json_object_new_uint64(s->max));
	return o;
}

struct json_object *bench_ring_json(const struct bench_ring_result *r)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "nop", summary_json(&r->nop));
	json_object_object_add(o, "bare", summary_json(&r->bare));
	json_object_object_add(o, "ratio_p50", json_object_new_double(r->ratio));
	json_object_object_add(o, "client_cpu", json_object_new_int(r->client_cpu));
	json_object_object_add(o, "server_cpu", json_object_new_int(r->server_cpu));
	return o;
}
