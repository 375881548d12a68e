// SPDX-License-Identifier: Apache-2.0
/*
 * The CPU backend on the real model against tests/vectors/logits.json, within the tolerances that
 * tests/vectors/README.md states. Skipped aloud where the model is not on this machine.
 */
#include <json-c/json.h>
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "support/real_model.h"
#include "support/tile_emulated.h"

#define MAX_DLOGIT 1.2
#define MAX_DNLL   0.04
#define MIN_MARGIN 0.5
/* Tokens of a prompt that the emulated tile unit is given. */
#define P_PROMPT_MAX 30u

static struct mr_device *dev;
static uint64_t tags;

struct totals {
	uint32_t prompts, top1, forced, forced_ok;
	double dlogit, nll, nll_want, nll_tokens;
};

static struct mr_event next(void)
{
	struct mr_event e;

	while (!dev->work->poll(dev, &e, 1)) {
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};

		if (!dev->work->arm(dev))
			assert_int_equal(poll(&p, 1, 60000), 1);
	}
	return e;
}

static uint32_t argmax(const float *x, uint32_t n)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

static double nll_of(const float *logits, uint32_t n, uint32_t token)
{
	double max = logits[argmax(logits, n)], sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += exp(logits[i] - max);
	return log(sum) + max - logits[token];
}

static uint32_t id_at(struct json_object *list, size_t i)
{
	return (uint32_t)json_object_get_int(json_object_array_get_idx(list, i));
}

/* The last prompt position: top 20 and the best one. */
static void check_top(struct json_object *top, const float *logits, struct totals *t)
{
	t->prompts++;
	t->top1 += argmax(logits, dev->caps.vocab) == id_at(json_object_array_get_idx(top, 0), 0);
	for (size_t i = 0; i < json_object_array_length(top); i++) {
		struct json_object *pair = json_object_array_get_idx(top, i);
		double want = json_object_get_double(json_object_array_get_idx(pair, 1));

		t->dlogit = fmax(t->dlogit, fabs(logits[id_at(pair, 0)] - want));
	}
}

/* Prefills the prompt but its last token, or nothing where the NLL is judged; then forced decode. */
static void run_prompt(struct json_object *item, int judge_nll, struct totals *t)
{
	struct json_object *prompt = json_object_object_get(item, "tokens");
	struct json_object *greedy = json_object_object_get(item, "greedy");
	struct json_object *margin = json_object_object_get(item, "margin");
	struct json_object *nll = judge_nll ? json_object_object_get(item, "nll") : NULL;
	uint32_t n = (uint32_t)json_object_array_length(prompt), all = n + 32;
	uint32_t *ids = calloc(all, sizeof(*ids)), at = 0;
	struct mr_slot_config config = {.positions = all};
	struct mr_slot slot;

	for (uint32_t i = 0; i < all; i++)
		ids[i] = i < n ? id_at(prompt, i) : id_at(greedy, i - n);
	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	for (uint32_t c; !nll && at < n - 1; at += c) {
		c = n - 1 - at < dev->caps.chunk_max ? n - 1 - at : dev->caps.chunk_max;
		assert_int_equal(dev->work->prefill(dev, slot, ids + at, c, at, ++tags), 0);
		assert_int_equal(next().status, 0);
	}
	for (; at < all - 1; at++) {
		struct mr_decode_entry e = {
			.slot = slot,
			.position = at,
			.token = ids[at],
			.flags = MR_DECODE_LOGITS,
		};
		struct mr_event ev;

		assert_int_equal(dev->work->decode(dev, &e, 1, 1, ++tags), 0);
		ev = next();
		assert_non_null(ev.logits);
		assert_int_equal(ev.token, argmax(ev.logits, dev->caps.vocab));
		assert_true(fabs(-ev.logprob - nll_of(ev.logits, dev->caps.vocab, ev.token)) <
			    1e-4);
		if (at < n - 1)
			t->nll += nll_of(ev.logits, dev->caps.vocab, ids[at + 1]);
		if (at == n - 1)
			check_top(json_object_object_get(item, "top"), ev.logits, t);
		if (at >= n - 1 && json_object_get_double(json_object_array_get_idx(
					   margin, at - n + 1)) >= MIN_MARGIN) {
			t->forced++;
			t->forced_ok += ev.token == id_at(greedy, at - n + 1);
		}
		assert_int_equal(next().type, MR_EVENT_DONE);
	}
	if (nll) {
		t->nll_want += json_object_get_double(nll) * (n - 1);
		t->nll_tokens += n - 1;
	}
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
	free(ids);
}

/* The vectors on kernels @table (NULL = the default), class D throughout or prompts in class P. */
static struct totals judge(const struct mr_kernels *table, enum mr_numerics numerics)
{
	struct mr_arena_options arena_options = {.node = -1};
	struct mr_cpu_options options = {
		.slots = 1, .kv_tokens = 8192, .table = table, .numerics = numerics, .cpu = -1};
	int strict = numerics == MR_NUMERICS_STRICT;
	struct json_object *list;
	struct mr_model *model;
	struct totals t = {0};

	assert_int_equal(mr_model_open(real_model_path(), &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&arena_options, &options.arena), 0);
	assert_int_equal(mr_cpu_open(&options, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	list = json_object_from_file("tests/vectors/logits.json");
	assert_non_null(list);
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		size_t n = json_object_array_length(json_object_object_get(item, "tokens"));

		if (strict || (n > 8 && n <= P_PROMPT_MAX))
			run_prompt(item, strict, &t);
	}
	json_object_put(list);
	dev->admin->close(dev);
	mr_arena_destroy(options.arena);
	mr_model_close(model);
	return t;
}

static void need_model(void)
{
#ifdef MR_ASAN
	printf("skipped: the sanitizers run on tests/tiny.gguf\n");
	skip();
#endif
	if (!real_model_path()) {
		printf("skipped: the real model is not here (make model fetches it)\n");
		skip();
	}
}

static void vectors(void **state)
{
	struct totals t;
	double dnll;

	need_model();
	t = judge(NULL, MR_NUMERICS_STRICT);
	dnll = (t.nll - t.nll_want) / t.nll_tokens;
	print_message("top-1 %u/%u, largest difference of a logit %.3f, forced %u/%u, dNLL %+.4f\n",
		      t.top1, t.prompts, t.dlogit, t.forced_ok, t.forced, dnll);
	assert_true(t.prompts == 8 && t.top1 + 1 >= t.prompts);
	assert_true(t.dlogit <= MAX_DLOGIT);
	assert_true(t.forced > 100 && t.forced_ok >= 0.99 * t.forced);
	assert_true(fabs(dnll) <= MAX_DNLL);
}

/* Answers to prompts in class P, over the emulated tile unit: the same limits. */
static void class_p(void **state)
{
	struct totals t;

	need_model();
	if (!kernels_emulated_runnable()) {
		printf("skipped: the emulated tile unit needs AVX-512 with VNNI\n");
		skip();
	}
	t = judge(&kernels_emulated, MR_NUMERICS_EXACT);
	print_message("class P: top-1 %u/%u, largest difference of a logit %.3f, forced %u/%u\n",
		      t.top1, t.prompts, t.dlogit, t.forced_ok, t.forced);
	assert_true(t.prompts >= 2 && t.top1 == t.prompts);
	assert_true(t.dlogit <= MAX_DLOGIT);
	assert_true(t.forced_ok >= 0.97 * t.forced);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(vectors), cmocka_unit_test(class_p)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
