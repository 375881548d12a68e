// SPDX-License-Identifier: Apache-2.0
/*
 * The LPU makes the tokens that the model makes: DECODE on the simulated device against a forward pass
 * written here over the kernels, bit for bit, logits too; and the pass is the same for every company.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/sample.h"
#include "support/lpu_rig.h"
#include "userlib/spec/crc32c.h"

#define STEPS   40u
#define CONTEXT 128u

/* The model over plain memory: no device, no SRAM, no queue. */
struct reference {
	const struct mr_model *model;
	const struct mr_kernels *kern;
	struct mr_layer *layers;
	struct mr_matrix embd, head;
	struct mr_workspace *ws;
	uint8_t *kv[CONTEXT / 16];
};

static struct mr_matrix packed(const struct mr_tensor *t)
{
	enum mr_packing p = t->type == MR_TENSOR_Q4_1 ? MR_PACK_Q4_1X16 : MR_PACK_Q8_0X16;
	void *data = aligned_alloc(64, (mr_pack_bytes(p, t->rows, t->cols) + 63) / 64 * 64);

	mr_pack(p, t->data, t->rows, t->cols, data);
	return (struct mr_matrix){data, t->rows, t->cols, p};
}

static void reference_open(struct reference *r, const struct mr_model *m)
{
	size_t block = m->shape.layers * mr_kv_layer_bytes(&m->shape);

	mr_numerics_enter();
	r->model = m;
	r->kern = mr_kernels_select("scalar");
	r->layers = calloc(m->shape.layers, sizeof(*r->layers));
	for (uint32_t l = 0; l < m->shape.layers; l++) {
		const struct mr_model_layer *t = &m->layers[l];
		r->layers[l] = (struct mr_layer){
			t->attn_norm.data, packed(&t->q),  packed(&t->k),
			packed(&t->v),     packed(&t->o),  t->ffn_norm.data,
			packed(&t->gate),  packed(&t->up), packed(&t->down),
		};
	}
	r->embd = packed(&m->token_embd);
	r->head = packed(&m->output);
	for (uint32_t b = 0; b < CONTEXT / 16; b++)
		r->kv[b] = aligned_alloc(64, (block + 63) / 64 * 64);
	assert_int_equal(mr_workspace_create(&m->shape, 4, CONTEXT, &r->ws), 0);
}

static void reference_close(struct reference *r)
{
	for (uint32_t l = 0; l < r->model->shape.layers; l++) {
		struct mr_layer *y = &r->layers[l];
		const struct mr_matrix *all[] = {&y->q,    &y->k,  &y->v,   &y->o,
						 &y->gate, &y->up, &y->down};
		for (size_t i = 0; i < 7; i++)
			free((void *)(uintptr_t)all[i]->data);
	}
	free(r->layers);
	free((void *)(uintptr_t)r->embd.data);
	free((void *)(uintptr_t)r->head.data);
	for (uint32_t b = 0; b < CONTEXT / 16; b++)
		free(r->kv[b]);
	mr_workspace_destroy(r->ws);
}

static void reference_step(struct reference *r, uint32_t token, uint32_t position, float *logits)
{
	const struct mr_shape *s = &r->model->shape;
	struct mr_row row = {r->kv, position};
	float *x = aligned_alloc(64, (s->width * sizeof(float) + 63) / 64 * 64);

	mr_embed(r->kern, &r->embd, &token, 1, x);
	for (uint32_t l = 0; l < s->layers; l++)
		mr_layer_forward(r->kern, s, &r->layers[l], &row, 1, l * mr_kv_layer_bytes(s), x,
				 r->ws);
	mr_head_forward(r->kern, s, r->model->output_norm.data, &r->head, x, 1, logits, r->ws);
	free(x);
}

static uint32_t best(const float *logits, uint32_t vocab)
{
	uint32_t id = 0;

	for (uint32_t i = 1; i < vocab; i++)
		if (logits[i] > logits[id])
			id = i;
	return id;
}

static const uint32_t prompt[] = {1, 5, 300, 17, 42, 260, 33, 90, 91, 92, 93, 200,
				  7, 8, 9,   10, 11, 12,  13, 14, 15, 16, 17, 18};
#define PROMPT (sizeof(prompt) / sizeof(prompt[0]))

/* Feeds the prompt, then greedy tokens: ids[i] and row i of logits are of position PROMPT + i. */
static void reference_run(struct reference *r, uint32_t *ids, float *logits)
{
	uint32_t vocab = r->model->shape.vocab;

	for (uint32_t i = 0; i < PROMPT; i++)
		reference_step(r, prompt[i], i, logits);
	for (uint32_t i = 0; i < STEPS; i++) {
		ids[i] = best(logits + (size_t)i * vocab, vocab);
		if (i + 1 < STEPS)
			reference_step(r, ids[i], PROMPT + i, logits + (size_t)(i + 1) * vocab);
	}
}

/* KV of the prompt's positions but the last, as prefill would describe it. */
static uint32_t describe(struct reference *r, const struct mr_region *region, struct mr_slot slot,
			 uint32_t positions, struct mr_kv_desc *descs)
{
	const struct mr_shape *s = &r->model->shape;
	size_t bytes = mr_kv_layer_bytes(s);
	uint32_t n = 0;

	for (uint32_t l = 0; l < s->layers; l++) {
		for (uint32_t b = 0; b * 16 < positions; b++, n++) {
			uint8_t *to = (uint8_t *)region->base + n * bytes;
			memcpy(to, r->kv[b] + l * bytes, bytes);
			descs[n] = (struct mr_kv_desc){
				.iova = mr_region_iova(region, to),
				.block = b,
				.layer = (uint16_t)l,
				.length = (uint16_t)(positions - b * 16 < 16 ? positions - b * 16
									     : 16),
				.owner = 7,
				.generation = slot.generation,
				.crc32c = mr_crc32c(0, to, bytes),
			};
		}
	}
	return n;
}

struct fixture {
	struct lpu_rig rig;
	struct reference ref;
	uint32_t ids[STEPS];
	float *logits;
	uint32_t vocab;
};

static void open_all(struct fixture *f, const char *chip, uint32_t chips)
{
	lpu_rig_open(&f->rig, &(struct lpu_rig_options){.chip = chip, .chips = chips});
	reference_open(&f->ref, f->rig.model);
	f->vocab = f->rig.model->shape.vocab;
	f->logits = calloc((size_t)STEPS * f->vocab, sizeof(float));
	reference_run(&f->ref, f->ids, f->logits);
}

static void close_all(struct fixture *f)
{
	reference_close(&f->ref);
	free(f->logits);
	lpu_rig_close(&f->rig);
}

/* Takes STEPS tokens of @slot by DECODEs of @steps each, from @position on; compares ids and logits. */
static void decode_and_compare(struct fixture *f, struct mr_slot slot, uint32_t steps)
{
	struct mr_device *dev = f->rig.dev;
	uint32_t token = prompt[PROMPT - 1], position = PROMPT - 1, done = 0;

	while (done < STEPS) {
		uint32_t n = STEPS - done < steps ? STEPS - done : steps, seen = 0;
		struct mr_decode_entry entry = {slot, position, token, NULL, 0, MR_DECODE_LOGITS};
		struct mr_event event;
		/* The step attends to the position that it is at, too. */
		const uint32_t attends = position + 1;
		uint64_t claimed = mr_cycles_of_steps(&dev->caps.cycles, &attends, 1, n),
			 cycles = 0;
		assert_int_equal(dev->work->decode(dev, &entry, 1, n, 77), 0);
		do {
			int got = dev->work->poll(dev, &event, 1);
			assert_true(got >= 0);
			if (!got || event.type == MR_EVENT_DONE) {
				event.type = got ? event.type : MR_EVENT_TOKEN;
				continue;
			}
			assert_int_equal(event.position, PROMPT + done + seen);
			assert_int_equal(event.token, f->ids[done + seen]);
			assert_memory_equal(event.logits,
					    f->logits + (size_t)(done + seen) * f->vocab,
					    f->vocab * sizeof(float));
			assert_true(event.cycles > 0);
			assert_int_equal(event.predicted, event.cycles);
			cycles += event.cycles;
			seen++;
		} while (event.type != MR_EVENT_DONE);
		assert_int_equal(event.status, 0);
		assert_int_equal(seen, n);
		assert_int_equal(cycles, claimed);
		done += n;
		token = f->ids[done - 1];
		position += n;
	}
}

static void feed_prompt(struct mr_device *dev, struct mr_slot slot)
{
	struct mr_decode_entry entry = {slot, 0, prompt[0], prompt + 1, PROMPT - 2, 0};
	struct mr_event events[PROMPT + 1];

	assert_int_equal(dev->work->decode(dev, &entry, 1, PROMPT - 1, 5), 0);
	uint32_t n = lpu_rig_wait(dev, 5, events, PROMPT + 1);
	assert_int_equal(n, PROMPT);
	assert_int_equal(events[n - 1].status, 0);
}

static void from_an_empty_slot(void **state)
{
	static const struct {
		const char *chip;
		uint32_t chips, steps;
	} cases[] = {{"tiny", 1, 1}, {"tiny", 2, 7}, {"tiny", 5, STEPS}, {"mr1", 2, 16}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture f;
		open_all(&f, cases[i].chip, cases[i].chips);
		struct mr_slot slot = lpu_rig_slot(f.rig.dev, CONTEXT);
		feed_prompt(f.rig.dev, slot);
		decode_and_compare(&f, slot, cases[i].steps);
		assert_int_equal(f.rig.dev->mem->slot_close(f.rig.dev, slot), 0);
		close_all(&f);
	}
}

static int import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		  uint32_t n)
{
	struct mr_event event;

	assert_int_equal(dev->mem->kv_import(dev, slot, descs, n, 3), 0);
	assert_int_equal(lpu_rig_wait(dev, 3, &event, 1), 1);
	return event.status;
}

static void from_kv_handed_over(void **state)
{
	const struct mr_region *region;
	struct mr_kv_desc descs[MR_KV_DESCS_MAX];
	struct fixture f;

	open_all(&f, "tiny", 2);
	assert_int_equal(mr_arena_region(f.rig.arena, MR_REGION_KV, 1 << 20, &region), 0);
	struct mr_slot slot = lpu_rig_slot(f.rig.dev, CONTEXT);
	uint32_t n = describe(&f.ref, region, slot, PROMPT - 1, descs);
	assert_int_equal(import(f.rig.dev, slot, descs, n), 0);
	decode_and_compare(&f, slot, 4);
	/* The slot goes back to an earlier position and makes the same again. */
	decode_and_compare(&f, slot, STEPS);
	close_all(&f);
}

static void kv_that_is_not_right_is_refused(void **state)
{
	const struct mr_region *region;
	struct mr_kv_desc good[MR_KV_DESCS_MAX], bad;
	struct fixture f;

	open_all(&f, "tiny", 2);
	struct mr_device *dev = f.rig.dev;
	assert_int_equal(mr_arena_region(f.rig.arena, MR_REGION_KV, 1 << 20, &region), 0);
	struct mr_slot slot = lpu_rig_slot(dev, 64);
	uint32_t n = describe(&f.ref, region, slot, PROMPT - 1, good);
#define REFUSED(field, value, want)                                 \
	do {                                                        \
		bad = good[0];                                      \
		bad.field = (value);                                \
		assert_int_equal(import(dev, slot, &bad, 1), want); \
	} while (0)
	REFUSED(generation, slot.generation - 1, MR_E_STALE);
	REFUSED(owner, 8, MR_E_STALE);
	REFUSED(crc32c, good[0].crc32c ^ 1, MR_E_CHECKSUM);
	REFUSED(length, 0, MR_E_RANGE);
	REFUSED(length, 17, MR_E_RANGE);
	REFUSED(layer, 2, MR_E_RANGE);
	REFUSED(block, 4, MR_E_RANGE);
	REFUSED(reserved, 1, MR_E_INVALID);
	REFUSED(iova, 0x1000, MR_E_DMA_FAULT);
	assert_int_equal(import(dev, slot, good, n), 0);
	REFUSED(length, 15, MR_E_TRUNCATED); /* it held 16 */
	/* A block that came in corrupt is missing until it comes again. */
	REFUSED(crc32c, good[0].crc32c ^ 1, MR_E_CHECKSUM);
	struct mr_decode_entry entry = {slot, PROMPT - 1, 5, NULL, 0, 0};
	struct mr_event event;
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 4), 0);
	assert_int_equal(lpu_rig_wait(dev, 4, &event, 1), 1);
	assert_int_equal(event.status, MR_E_TRUNCATED);
	assert_int_equal(import(dev, slot, good, 1), 0);
	decode_and_compare(&f, slot, STEPS);
	close_all(&f);
}

static void a_row_does_not_see_its_company(void **state)
{
	struct mr_decode_entry entry[9];
	struct mr_slot slot[9];
	struct fixture f;
	uint32_t n = 0;

	open_all(&f, "tiny", 2);
	struct mr_device *dev = f.rig.dev;
	for (uint32_t i = 0; i < 9; i++) {
		slot[i] = lpu_rig_slot(dev, 64);
		if (i % 3 == 0)
			feed_prompt(dev, slot[i]);
		entry[i] = (struct mr_decode_entry){slot[i],
						    i % 3 ? 0 : PROMPT - 1,
						    i % 3 ? 20 + i : prompt[PROMPT - 1],
						    NULL,
						    0,
						    i % 2 ? 0 : MR_DECODE_LOGITS};
	}
	assert_int_equal(dev->work->decode(dev, entry, 9, 4, 6), 0);
	for (struct mr_event event = {0}; event.type != MR_EVENT_DONE;) {
		int got = dev->work->poll(dev, &event, 1);
		assert_true(got >= 0);
		if (!got || event.type == MR_EVENT_DONE) {
			event.type = got ? event.type : MR_EVENT_TOKEN;
			continue;
		}
		uint32_t i = n % 9, step = n++ / 9;
		assert_int_equal(event.slot.index, slot[i].index);
		assert_int_equal(event.logits != NULL, i % 2 == 0);
		assert_int_equal(event.predicted, event.cycles);
		if (i % 3)
			continue;
		assert_int_equal(event.token, f.ids[step]);
		if (event.logits)
			assert_memory_equal(event.logits, f.logits + (size_t)step * f.vocab,
					    f.vocab * sizeof(float));
	}
	assert_int_equal(n, 9 * 4);
	close_all(&f);
}

/* A DECODE at an earlier position forgets what came after it. */
static void going_back_forgets(void **state)
{
	struct fixture f;
	struct mr_event events[3];

	open_all(&f, "tiny", 2);
	struct mr_device *dev = f.rig.dev;
	struct mr_slot slot = lpu_rig_slot(dev, CONTEXT);
	feed_prompt(dev, slot);
	struct mr_decode_entry entry = {slot, 5, 20};
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 1), 0);
	assert_int_equal(lpu_rig_wait(dev, 1, events, 3), 2);
	entry.position = PROMPT - 1;
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 2), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, events, 3), 1);
	assert_int_equal(events[0].status, MR_E_TRUNCATED);
	feed_prompt(dev, slot);
	decode_and_compare(&f, slot, STEPS);
	/* Block 2 lies behind a hole when position 16 is fed, and so is not there once the hole is filled. */
	const struct mr_region *region;
	struct mr_kv_desc descs[MR_KV_DESCS_MAX];
	assert_int_equal(mr_arena_region(f.rig.arena, MR_REGION_KV, 1 << 20, &region), 0);
	for (int scored = 0; scored < 2; scored++) {
		slot = lpu_rig_slot(dev, CONTEXT);
		uint32_t n = describe(&f.ref, region, slot, 16, descs);
		assert_int_equal(import(dev, slot, descs, n), 0);
		for (uint32_t i = 0; i < n; i++)
			descs[i].block = 2;
		assert_int_equal(import(dev, slot, descs, n), 0);
		entry = (struct mr_decode_entry){slot, 16, 20};
		if (scored)
			assert_int_equal(dev->work->score(dev, slot, prompt, 2, 16, 3), 0);
		else
			assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 3), 0);
		assert_int_equal(lpu_rig_wait(dev, 3, events, 3), 2);
		for (uint32_t i = 0; i < n; i++)
			descs[i].block = 1;
		assert_int_equal(import(dev, slot, descs, n), 0);
		entry.position = 48;
		assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 4), 0);
		assert_int_equal(lpu_rig_wait(dev, 4, events, 3), 1);
		assert_int_equal(events[0].status, MR_E_TRUNCATED);
		entry.position = 32;
		assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 5), 0);
		assert_int_equal(lpu_rig_wait(dev, 5, events, 3), 2);
	}
	close_all(&f);
}

static void a_stop_token_stops(void **state)
{
	struct fixture f;

	open_all(&f, "tiny", 2);
	struct mr_device *dev = f.rig.dev;
	struct mr_slot_config config = {.owner = 7, .positions = 64};
	uint32_t at = 0;
	/* The first token that the run has not made before: a stop after at + 1 tokens. */
	for (at = 3; at < STEPS; at++) {
		uint32_t k = 0;
		while (k < at && f.ids[k] != f.ids[at])
			k++;
		if (k == at)
			break;
	}
	if (at == STEPS)
		at = 0;
	config.sampling.stop_count = 1;
	config.sampling.stop[0] = f.ids[at];
	struct mr_slot slot, other = lpu_rig_slot(dev, 64);
	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	feed_prompt(dev, other);
	config.sampling.stop_count = 0;
	struct mr_event events[2 * STEPS + 1];
	struct mr_decode_entry first = {slot, 0, prompt[0], prompt + 1, PROMPT - 2, 0};
	assert_int_equal(dev->work->decode(dev, &first, 1, PROMPT - 1, 5), 0);
	uint32_t n = lpu_rig_wait(dev, 5, events, PROMPT);
	if (n < PROMPT) { /* the stop token also came while the prompt was fed */
		printf("skipped: the stop token also came while the prompt was fed\n");
		close_all(&f);
		skip();
	}
	struct mr_decode_entry entry[2] = {{slot, PROMPT - 1, prompt[PROMPT - 1]},
					   {other, PROMPT - 1, prompt[PROMPT - 1]}};
	assert_int_equal(dev->work->decode(dev, entry, 2, STEPS, 6), 0);
	n = lpu_rig_wait(dev, 6, events, 2 * STEPS + 1);
	assert_int_equal(n, at + 1 + STEPS + 1);
	uint32_t of_slot = 0, of_other = 0;
	uint64_t cycles = 0;
	for (uint32_t i = 0; i < n - 1; i++) {
		int mine = events[i].slot.index == slot.index;
		uint32_t k = mine ? of_slot++ : of_other++;
		assert_int_equal(events[i].token, f.ids[k]);
		assert_int_equal(events[i].stopped, mine && k == at);
		assert_int_equal(events[i].predicted, events[i].cycles);
		/* The stopped slot keeps its cycles: a step costs no less without it. */
		if (!mine && k)
			assert_true(events[i].cycles >= cycles);
		if (!mine)
			cycles = k ? events[i].cycles : 0;
	}
	assert_int_equal(of_slot, at + 1);
	close_all(&f);
}

/* FNV over the logits of a fixed run. */
static uint64_t digest(const char *fault, int *status)
{
	struct lpu_rig rig;
	uint64_t h = 14695981039346656037ull;

	lpu_rig_open(&rig, &(struct lpu_rig_options){.fault = fault, .no_load = 1});
	*status = rig.dev->work->load(rig.dev, rig.model, NULL, NULL);
	if (!*status) {
		struct mr_slot slot = lpu_rig_slot(rig.dev, 64);
		struct mr_decode_entry entry = {slot,       0,          prompt[0],
						prompt + 1, PROMPT - 1, MR_DECODE_LOGITS};
		struct mr_event event = {.type = MR_EVENT_TOKEN};
		assert_int_equal(rig.dev->work->decode(rig.dev, &entry, 1, PROMPT, 1), 0);
		while (event.type != MR_EVENT_DONE) {
			int got = rig.dev->work->poll(rig.dev, &event, 1);
			assert_true(got >= 0);
			if (!got)
				event.type = MR_EVENT_TOKEN;
			for (size_t i = 0; got && event.type == MR_EVENT_TOKEN &&
					   i < rig.dev->caps.vocab * sizeof(float);
			     i++)
				h = (h ^ ((const uint8_t *)event.logits)[i]) * 1099511628211ull;
		}
		assert_int_equal(event.status, 0);
	}
	lpu_rig_close(&rig);
	return h;
}

static void one_flipped_bit_shows(void **state)
{
	int status;
	uint64_t clean = digest(NULL, &status);

	assert_int_equal(status, 0);
	assert_true(clean == digest(NULL, &status));
	assert_true(clean != digest("sram-flip=blk.1.ffn_down:100", &status));
	assert_int_equal(status, 0);
	assert_true(clean != digest("sram-zero=blk.0.attn_v.weight", &status));
	assert_int_equal(status, 0);
	digest("sram-zero=blk.9.ffn_down", &status);
	assert_int_equal(status, MR_E_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(from_an_empty_slot),
		cmocka_unit_test(from_kv_handed_over),
		cmocka_unit_test(kv_that_is_not_right_is_refused),
		cmocka_unit_test(a_row_does_not_see_its_company),
		cmocka_unit_test(going_back_forgets),
		cmocka_unit_test(a_stop_token_stops),
		cmocka_unit_test(one_flipped_bit_shows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
