// SPDX-License-Identifier: Apache-2.0
/*
 * The orchestrator in virtual time: random clients by seed on modelled devices, every operation, and what
 * must hold whatever happens. Tokens come in order and are the right ones, each request ends once, a
 * client's requests start in the order in which they came, nobody waits for ever, no block is left behind.
 * The same code runs in `millrace serve`; only clock and devices differ.
 *
 * The seed also draws the world: devices, sizes, costs, how many of which operation. A failure prints it.
 * MR_SEED and MR_REQUESTS choose one run (make soak-sched SEED=... REQUESTS=...).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "driver/metrics.h"
#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "driver/sched/sched.h"
#include "support/wrap_device.h"

#define CLIENTS   8u
#define CONTEXT   512u
#define VOCAB     4096u
#define LAYERS    3u
#define POOL      256u
#define BUSY_SEED 5ull /* a world with every operation */
#define LANES     6u   /* classes times priorities */
#define KEPT      64u  /* names of paused sequences that may be asked for again */

struct draw {
	uint64_t seed;
};

static uint64_t any(struct draw *d)
{
	return wrap_random(&d->seed);
}
static uint32_t below(struct draw *d, uint32_t n)
{
	return (uint32_t)((any(d) >> 20) % n);
}

/* What the front knows of one request under way; its place is front_word[0]. */
struct ask {
	int asked;
	uint64_t number; /* of all requests, from 0 */
	enum mr_request_op op;
	uint32_t client, class;
	int due;        /* it has a deadline, so its start is in no order of arrival */
	uint32_t last;  /* the token that the next one follows */
	uint32_t count; /* tokens or scores so far */
	uint32_t credit;
	uint32_t keep;
	uint32_t cancelled;
	float want[MR_SCORE_MAX];
};

struct record {
	uint64_t start_ns; /* 0 = it never started, or is no SUBMIT */
	uint8_t lane;      /* client, class and priority */
};

struct world {
	struct draw draw;
	uint64_t now;
	struct mr_model model;
	struct mr_device *nil[2];
	struct mr_sched *sched;
	int shared;
	uint32_t keep, odd, slow; /* in 1/256: KEEP, other operations, clients short of credit */
	uint32_t longest;         /* prompt */
	uint64_t gap_ns;          /* between arrivals, mean */
	uint64_t hurry_ns;        /* deadlines are drawn from so long; 0 = none */

	struct ask asks[POOL];
	uint32_t free_asks[POOL], free_count;
	uint64_t accepted, ended, refused, cancelled, tokens, scores;
	uint64_t longest_wait_ns;
	struct record *records;
	struct {
		uint64_t key;
		uint32_t client, last, tokens;
	} kept[KEPT];
	const char *broken; /* the first rule that was */
};

static uint64_t world_now(void *arg)
{
	return ((struct world *)arg)->now;
}

static void demand(struct world *w, int condition, const char *rule)
{
	if (!condition && !w->broken)
		w->broken = rule;
}

/* ---- the front ---- */

static uint32_t on_credit(void *front, const struct mr_request *r)
{
	struct world *w = front;
	struct ask *a = &w->asks[r->front_word[0]];

	/* A slow client has room now and then. */
	if (a->credit == 0 && below(&w->draw, 256) >= w->slow)
		a->credit = 1 + below(&w->draw, 8);
	return a->credit;
}

static void on_token(void *front, struct mr_request *r, const struct mr_token *t)
{
	struct world *w = front;
	struct ask *a = &w->asks[r->front_word[0]];

	demand(w, a->credit > 0, "a token without credit");
	demand(w, t->token == (a->last + 1) % VOCAB, "the wrong token");
	demand(w, t->index == a->count, "tokens out of order");
	demand(w, r->tokens[t->position] == t->token, "a token at the wrong place");
	a->credit--;
	a->count++;
	a->last = t->token;
	w->tokens++;
}

static void on_score(void *front, struct mr_request *r, const struct mr_score *score)
{
	struct world *w = front;
	struct ask *a = &w->asks[r->front_word[0]];

	demand(w, a->credit > 0, "a score without credit");
	demand(w, score->index == a->count, "scores out of order");
	demand(w, score->logprob == (double)a->want[score->index], "the wrong score");
	a->credit--;
	a->count++;
	w->scores++;
}

static void on_end(void *front, struct mr_request *r, const struct mr_end *end)
{
	struct world *w = front;
	uint32_t index = (uint32_t)r->front_word[0];
	struct ask *a = &w->asks[index];
	uint64_t wait = end->start_ns ? end->start_ns - end->submit_ns : 0;

	if (end->status == MR_E_CANCELLED)
		demand(w, a->cancelled, "cancelled by nobody");
	else
		demand(w, end->status == 0, mr_status_name(end->status));
	if (end->status == 0 && a->op != MR_REQUEST_SCORE)
		demand(w, end->tokens == a->count, "an end with other tokens");
	if (end->status == 0 && a->op == MR_REQUEST_SCORE)
		demand(w, a->count == r->score_count, "an end without all scores");
	if (a->op == MR_REQUEST_SUBMIT && !a->due)
		w->records[a->number].start_ns = end->start_ns;
	demand(w, a->due || !end->late, "late without a deadline");
	if (wait > w->longest_wait_ns)
		w->longest_wait_ns = wait;
	if (a->keep && end->status == 0) {
		uint32_t k = (uint32_t)(r->key % KEPT);

		/* Who was there must go: names are few, and so are slots. */
		if (w->kept[k].key)
			mr_sched_release(w->sched, w->kept[k].client, w->kept[k].key);
		w->kept[k].key = a->op == MR_REQUEST_APPEND ? r->target : r->key;
		w->kept[k].client = a->client;
		w->kept[k].last = a->last;
		w->kept[k].tokens = end->prompt_tokens + end->tokens;
	}
	w->ended++;
	w->free_asks[w->free_count++] = index;
}

static const struct mr_front_ops ops = {on_credit, on_token, on_end, on_score};

/* ---- what clients do ---- */

static void fill_prompt(struct world *w, struct mr_request *r, struct ask *a)
{
	uint32_t count = 1 + below(&w->draw, below(&w->draw, 64) ? 48 : w->longest);
	uint32_t common = below(&w->draw, 4) * 24, of = below(&w->draw, 3);

	/* Some begin alike, so that KV is shared: within a client only, unless it is a named prefix. */
	for (uint32_t i = 0; i < count; i++)
		r->tokens[i] = i < common ? (i * 7 + of * 100 + a->client) % VOCAB
					  : below(&w->draw, VOCAB);
	r->token_count = count;
	a->last = r->tokens[count - 1];
}

static void fill_score(struct world *w, struct mr_request *r, struct ask *a)
{
	uint32_t at = 0;

	r->score_count = 1 + below(&w->draw, 5);
	for (uint32_t i = 0; i < r->score_count; i++) {
		uint32_t n = 1 + below(&w->draw, 9);

		a->want[i] = 0;
		for (uint32_t t = 0; t < n; t++, at++) {
			r->tokens[at] = below(&w->draw, VOCAB);
			a->want[i] += mr_nil_logprob(r->tokens[at]);
		}
		r->score_ends[i] = at;
	}
	r->token_count = at;
}

/* A request on a sequence that somebody kept; 0 = there is none. */
static int aim(struct world *w, struct mr_request *r, struct ask *a)
{
	uint32_t k = below(&w->draw, KEPT);

	if (!w->kept[k].key || w->kept[k].tokens > CONTEXT - 80)
		return 0;
	a->client = w->kept[k].client;
	a->op = r->op = MR_REQUEST_APPEND + below(&w->draw, 3);
	r->target = w->kept[k].key;
	a->last = w->kept[k].last;
	if (r->op == MR_REQUEST_APPEND) {
		r->token_count = 1 + below(&w->draw, 20);
		for (uint32_t i = 0; i < r->token_count; i++)
			r->tokens[i] = a->last = below(&w->draw, VOCAB);
		w->kept[k].key = 0; /* until its end names it again */
	} else if (r->op == MR_REQUEST_SCORE) {
		fill_score(w, r, a);
	}
	return 1;
}

static void arrive(struct world *w, uint64_t number)
{
	struct mr_request *r = w->free_count ? mr_sched_request(w->sched) : NULL;
	uint32_t index;
	uint64_t target;
	struct ask *a;
	int status;

	if (!r) {
		w->refused++;
		return;
	}
	index = w->free_asks[--w->free_count];
	a = &w->asks[index];
	*a = (struct ask){.asked = 1, .number = number, .client = below(&w->draw, CLIENTS)};
	r->front_word[0] = index;
	r->ops = &ops;
	r->front = w;
	r->key = number + 1;
	r->flags = MR_REQUEST_TOKENS | MR_REQUEST_IGNORE_EOS;
	if (below(&w->draw, 256) >= w->odd || !aim(w, r, a))
		fill_prompt(w, r, a);
	a->class = below(&w->draw, 4) == 0;
	r->client = a->client;
	r->itl_ns = a->class ? 0 : 50000000;
	r->max_tokens = r->op == MR_REQUEST_SCORE ? 0 : 1 + below(&w->draw, 16);
	a->keep = r->op != MR_REQUEST_SCORE && below(&w->draw, 256) < w->keep;
	if (a->keep)
		r->flags |= MR_REQUEST_KEEP;
	if (a->keep && below(&w->draw, 4) == 0)
		r->max_tokens = 0;
	if (r->op == MR_REQUEST_FORK)
		r->flags &= ~MR_REQUEST_TOKENS;
	if (r->op == MR_REQUEST_SCORE)
		r->flags = MR_REQUEST_TOKENS;
	r->priority = below(&w->draw, 8) ? 0 : 1 + below(&w->draw, 2);
	if (w->hurry_ns && r->max_tokens && below(&w->draw, 3) == 0) {
		a->due = 1;
		r->due_ns = w->now + 1 + any(&w->draw) % w->hurry_ns;
	}
	if (a->op == MR_REQUEST_SUBMIT)
		w->records[number].lane = (uint8_t)(LANES * a->client + 3 * a->class + r->priority);
	target = r->target;
	status = mr_sched_submit(w->sched, r);
	if (status == MR_E_DEADLINE && a->op == MR_REQUEST_APPEND)
		mr_sched_release(w->sched, a->client, target); /* nobody else knows its name */
	if (status == 0) {
		w->accepted++;
		return;
	}
	w->free_asks[w->free_count++] = index;
	w->refused++;
	demand(w,
	       status == MR_E_NOT_FOUND || (status == MR_E_DEADLINE && a->due) ||
		       status == MR_E_FULL || status == MR_E_CONTEXT_FULL ||
		       (status == MR_E_BUSY && a->op == MR_REQUEST_APPEND),
	       mr_status_name(status));
}

/* Somebody thinks better of it, names a prefix, or gives one up. */
static void whim(struct world *w)
{
	uint32_t i = below(&w->draw, POOL), k = below(&w->draw, KEPT), name;

	switch (below(&w->draw, 4)) {
	case 0:
		/* One that was never asked looks like the first of all. */
		if (w->asks[i].asked &&
		    mr_sched_cancel(w->sched, w->asks[i].client, w->asks[i].number + 1) == 0) {
			w->asks[i].cancelled = 1;
			w->cancelled++;
		}
		break;
	case 1:
		if (w->kept[k].key)
			mr_sched_release(w->sched, w->kept[k].client, w->kept[k].key);
		w->kept[k].key = 0;
		break;
	case 2:
		name = 1 + below(&w->draw, 8);
		if (w->kept[k].key)
			mr_sched_prefix(w->sched, w->kept[k].client, w->kept[k].key,
					name + (1ull << 40));
		break;
	default:
		mr_sched_release(w->sched, below(&w->draw, CLIENTS),
				 1 + below(&w->draw, 8) + (1ull << 40));
	}
}

/* ---- the world ---- */

static void world_open(struct world *w, uint64_t seed, uint64_t requests)
{
	struct draw *d = &w->draw;
	struct mr_clock clock = {world_now, w};
	struct mr_sched_options o = {.model = &w->model, .clock = &clock, .requests = POOL};

	memset(w, 0, sizeof(*w));
	d->seed = seed * 0x9e3779b97f4a7c15u + 1;
	for (int i = 0; i < 4; i++)
		any(d);
	w->model.shape.layers = LAYERS;
	w->model.shape.context = CONTEXT;
	w->shared = below(d, 2);
	w->keep = below(d, 2) * below(d, 64);
	w->odd = w->keep ? below(d, 128) : 0;
	w->slow = below(d, 2) * below(d, 250);
	w->longest = 49 + below(d, CONTEXT - 120);
	w->now = 1;
	for (int i = 0; i < 2 - w->shared; i++) {
		struct mr_nil_options nil = {
			.slots = 24 + below(d, 200),
			.context = CONTEXT,
			.vocab = VOCAB,
			.layers = LAYERS,
			.kv_tokens = 2048 + below(d, 1u << 15),
			.costs = {.chunk_ns = below(d, 20000),
				  .prompt_token_ns = 20 + below(d, 1000),
				  .step_ns = 1000 + below(d, 100000),
				  .entry_ns = below(d, 2000),
				  .import_block_ns = below(d, 500)},
			.jitter = below(d, 2) * 0.3,
			.seed = seed,
			.import_parallel = below(d, 2),
			.pass_rows = below(d, 2) * (1 + below(d, 64)),
			.now_ns = world_now,
			.arg = w,
		};

		assert_int_equal(mr_nil_open(&nil, &w->nil[i]), 0);
		/* About as much as the decode device can do, so that queues come and go. */
		if (i == 1 - w->shared)
			w->gap_ns = (nil.costs.step_ns + 16 * nil.costs.entry_ns) * 8 / 12 +
				    30 * nil.costs.prompt_token_ns + nil.costs.chunk_ns;
	}
	/* Some worlds are idle now and then, some never catch up. */
	w->gap_ns = w->gap_ns * (1 + below(d, 8)) / 5;
	o.prefill = w->nil[0];
	o.decode = w->nil[1 - w->shared];
	o.batch_max = below(d, 2) ? 0 : 4 + below(d, 28);
	o.chunk = 16 + below(d, 128);
	o.steps = 1 + below(d, 4);
	o.itl_ns = below(d, 2) * 3000000ull;
	o.no_cache = below(d, 4) == 0;
	w->hurry_ns = below(d, 2) * 400 * w->gap_ns;
	assert_int_equal(mr_sched_create(&o, &w->sched), 0);
	for (uint32_t i = 0; i < POOL; i++)
		w->free_asks[w->free_count++] = i;
	w->records = calloc(requests, sizeof(*w->records));
	assert_non_null(w->records);
}

static uint64_t next_event(const struct world *w)
{
	uint64_t a = mr_nil_next_ns(w->nil[0]);
	uint64_t b = w->shared ? UINT64_MAX : mr_nil_next_ns(w->nil[1]);

	return a < b ? a : b;
}

static void check_now(struct world *w, uint64_t turn, uint64_t every)
{
	const char *why = NULL;

	demand(w, mr_sched_active(w->sched) == w->accepted - w->ended, "a request is lost");
	if (turn % every == 0 && mr_sched_check(w->sched, &why))
		demand(w, 0, why);
}

/* A client's requests of a class and priority start in the order in which they came. */
static void check_order(struct world *w, uint64_t requests)
{
	uint64_t last[LANES * CLIENTS] = {0};

	for (uint64_t i = 0; i < requests; i++) {
		const struct record *r = &w->records[i];

		if (!r->start_ns)
			continue;
		demand(w, r->start_ns >= last[r->lane], "a request overtook an earlier one");
		last[r->lane] = r->start_ns;
	}
}

static void world_close(struct world *w)
{
	struct mr_telemetry t;

	for (uint32_t k = 0; k < KEPT; k++)
		if (w->kept[k].key)
			mr_sched_release(w->sched, w->kept[k].client, w->kept[k].key);
	for (uint64_t c = 0; c < CLIENTS; c++)
		mr_sched_cancel_client(w->sched, c);
	mr_sched_poll(w->sched);
	mr_sched_drop_cache(w->sched);
	for (int i = 0; i < 2 - w->shared; i++) {
		assert_int_equal(w->nil[i]->admin->telemetry(w->nil[i], &t), 0);
		demand(w, t.kv_blocks_used == 0, "KV blocks are left behind");
	}
	for (uint64_t c = 0; c < CLIENTS; c++)
		demand(w, mr_sched_client_blocks(w->sched, c) == 0,
		       "a client is charged for nothing");
	mr_sched_destroy(w->sched);
	for (int i = 0; i < 2 - w->shared; i++)
		w->nil[i]->admin->close(w->nil[i]);
	free(w->records);
}

/* Runs @requests; the invariants are looked at in full every @every turns. Returns what broke, or NULL. */
static const char *run(uint64_t seed, uint64_t requests, uint64_t every, struct world *w)
{
	uint64_t next = 1, number = 0, turn = 0;

	world_open(w, seed, requests);
	while (!w->broken && (number < requests || mr_sched_active(w->sched))) {
		uint64_t due;

		for (; number < requests && w->now >= next; number++) {
			arrive(w, number);
			next += 1 + (uint64_t)((double)w->gap_ns * 2 *
					       (double)below(&w->draw, 1000) / 1000);
			if (w->odd && below(&w->draw, 16) == 0)
				whim(w);
		}
		for (int did = 1; did > 0; turn++) {
			did = mr_sched_poll(w->sched);
			check_now(w, turn, every);
		}
		due = next_event(w);
		if (number < requests && next < due)
			due = next;
		/* Nothing is due: somebody has no credit, and gets some by and by. */
		demand(w, due != UINT64_MAX || mr_sched_active(w->sched) == 0 || w->slow,
		       "nothing is under way, and requests wait");
		if (due == UINT64_MAX)
			due = w->now + 1000;
		w->now = due > w->now ? due : w->now;
		demand(w, turn < requests * 2000, "requests do not come to an end");
	}
	if (!w->broken) {
		check_order(w, requests);
		/* The busiest hour apart, a request waits for as long as some hundreds take. */
		demand(w, w->longest_wait_ns < (uint64_t)POOL * 64 * (w->gap_ns + 100000),
		       "a request was starved");
	}
	world_close(w);
	return w->broken;
}

static void small_worlds(void **state)
{
	static struct world w;
	const char *fixed = getenv("MR_SEED"), *count = getenv("MR_REQUESTS");
	uint64_t from = fixed ? strtoull(fixed, NULL, 0) : 1, worlds = fixed ? 1 : 48;

	for (uint64_t seed = from; seed < from + worlds; seed++) {
		uint64_t requests = count ? strtoull(count, NULL, 0) : 600;
		const char *broken = run(seed, requests, 1 + requests / 1000, &w);

		if (broken)
			fail_msg("seed %llu: %s (at %llu ns, %llu accepted, %llu ended)",
				 (unsigned long long)seed, broken, (unsigned long long)w.now,
				 (unsigned long long)w.accepted, (unsigned long long)w.ended);
	}
}

/* A soak in which something never happened says nothing about it. */
static void all_happened(void **state)
{
	static const enum mr_metric must[] = {
		MR_M_sched_forks,
		MR_M_sched_appends,
		MR_M_sched_scores,
		MR_M_sched_cancelled,
		MR_M_sched_no_credit,
		MR_M_sched_handover_blocks,
		MR_M_sched_handover_hidden,
		MR_M_kv_shared_tokens,
		MR_M_kv_evicted_blocks,
		MR_M_kv_paused_evicted,
		MR_M_sched_done,
		MR_M_sched_deadlines,
		MR_M_sched_deadline_refused,
		MR_M_sched_overtakes,
	};

	if (getenv("MR_SEED"))
		return;
	for (size_t i = 0; i < sizeof(must) / sizeof(*must); i++) {
		printf("  %-24s %llu\n", mr_metric_info[must[i]].name,
		       (unsigned long long)mr_metric_read(must[i]));
		assert_true(mr_metric_read(must[i]) > 0);
	}
	assert_int_equal(mr_metric_read(MR_M_sched_bad_event), 0);
}

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void a_million_requests(void **state)
{
	static struct world w;
	uint64_t requests = 1000000;
	double start = cpu_seconds(), took;
	const char *broken;

#ifdef MR_ASAN
	requests = 20000;
#endif
	if (getenv("MR_SEED"))
		return;
	broken = run(BUSY_SEED, requests, 65536, &w);
	took = cpu_seconds() - start;
	printf("%llu requests (%llu accepted, %llu cancelled), %llu tokens, %llu scores in %.1f s "
	       "of "
	       "CPU, %.1f s of virtual time\n",
	       (unsigned long long)requests, (unsigned long long)w.accepted,
	       (unsigned long long)w.cancelled, (unsigned long long)w.tokens,
	       (unsigned long long)w.scores, took, (double)w.now / 1e9);
	if (broken)
		fail_msg("seed %llu: %s", BUSY_SEED, broken);
#ifndef MR_ASAN
	assert_true(took < 10);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_worlds),
		cmocka_unit_test(all_happened),
		cmocka_unit_test(a_million_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
