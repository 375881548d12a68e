// SPDX-License-Identifier: Apache-2.0
/* Chip files, the compiler's placement, and containers: made right, refused when changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/compile/compile.h"
#include "firmware-sim/chips.h"
#include "firmware-sim/clock.h"
#include "support/lpu_rig.h"
#include "userlib/spec/container.h"

static struct mr_model *model;

static struct mr_chip chip_with(const char *name, const char *key, const char *value)
{
	const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(name);
	struct mr_chip chip;
	char text[8192], why[128] = "";
	size_t n = 0;

	/* The line of @key is left out and said anew. */
	for (const char *p = b->text; p < b->end;) {
		const char *eol = memchr(p, '\n', (size_t)(b->end - p));
		eol++;
		if (!key || strncmp(p, key, strlen(key))) {
			memcpy(text + n, p, (size_t)(eol - p));
			n += (size_t)(eol - p);
		}
		p = eol;
	}
	if (key)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s %s assumed\n", key, value);
	if (mr_chip_parse(text, n, &chip, why, sizeof(why)))
		fail_msg("%s: %s", name, why);
	return chip;
}

static int compile_for(const struct mr_chip *chip, uint32_t chips, struct mr_program *program,
		       char *why)
{
	struct mr_compile_options o = {.chip = chip, .chips = chips, .batch = 8, .context = 128};

	return mr_compile(model, &o, program, why, 256);
}

static void a_chip_file_says_all_once(void **state)
{
	static const struct {
		const char *text;
		int want;
	} bad[] = {
		{"", MR_E_FORMAT},
		{"name x\n", MR_E_FORMAT},
		{"name x assumed\nname x assumed\n", MR_E_FORMAT},
		{"nonsense 1 assumed\n", MR_E_FORMAT},
		{"cycle_ps 0 assumed\n", MR_E_RANGE},
		{"cycle_ps 99999999999999999999 assumed\n", MR_E_RANGE},
		{"cycle_ps -1 assumed\n", MR_E_FORMAT},
		{"types q4_1xq8,fp8 assumed\n", MR_E_FORMAT},
		{"name a/b assumed\n", MR_E_FORMAT},
		{"name aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa assumed\n", MR_E_RANGE},
	};
	struct mr_chip mr1 = chip_with("mr1", NULL, NULL),
		       same = chip_with("mr1", "price_cents", "2000000");
	struct mr_chip other = chip_with("mr1", "price_cents", "2000001"), chip;
	char why[128];

	assert_int_equal(mr1.sram_bytes, 256 << 20);
	assert_string_equal(mr1.classes, "D");
	assert_memory_equal(mr1.hash, same.hash, 32);
	assert_memory_not_equal(mr1.hash, other.hash, 32);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int got = mr_chip_parse(bad[i].text, strlen(bad[i].text), &chip, why, sizeof(why));
		if (got != bad[i].want)
			fail_msg("\"%s\": %d", bad[i].text, got);
		assert_string_not_equal(why, "");
	}
}

static void what_does_not_fit_is_told_in_numbers(void **state)
{
	struct mr_chip small = chip_with("tiny", "sram_bytes", "98304");
	struct mr_program program, again;
	char why[256] = "", bytes[32];

	assert_int_equal(compile_for(&small, 1, &program, why), MR_E_SRAM_FULL);
	assert_null(program.container);
	assert_true(program.fit.matrices + program.fit.vectors + program.fit.kv_least >
		    program.fit.sram);
	assert_int_equal(program.fit.sram, 98304);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)program.fit.matrices);
	assert_non_null(strstr(why, bytes));
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)program.fit.kv_least);
	assert_non_null(strstr(why, bytes));
	/* The number of chips that it names is true: that many do, one fewer does not. */
	uint32_t n = program.fit.chips_least;
	if (n) {
		assert_true(n > 1);
		assert_int_equal(compile_for(&small, n, &again, why), 0);
		mr_program_free(&again);
		if (n > 2)
			assert_int_equal(compile_for(&small, n - 1, &again, why), MR_E_SRAM_FULL);
	}
	struct mr_chip hopeless = chip_with("tiny", "sram_bytes", "65536");
	struct mr_compile_options o = {.chip = &hopeless, .chips = 1, .batch = 1};
	assert_int_equal(mr_compile(model, &o, &program, why, sizeof(why)), MR_E_SRAM_FULL);
	struct mr_chip q8 = chip_with("tiny", "types", "q8_0xq8");
	assert_int_equal(compile_for(&q8, 1, &program, why), MR_E_NOT_SUPPORTED);
}

static void kv_gets_what_is_left(void **state)
{
	struct mr_chip chip = chip_with("tiny", NULL, NULL);
	struct mr_program one, two;
	char why[256];

	assert_int_equal(compile_for(&chip, 1, &one, why), 0);
	assert_int_equal(compile_for(&chip, 2, &two, why), 0);
	/* No chip has room for a block more than the container says. */
	for (int i = 0; i < 2; i++) {
		struct mr_container c;
		const struct mr_program *p = i ? &two : &one;
		int full = 0;
		assert_int_equal(mr_container_open(p->container, p->bytes, &c, why, 256), 0);
		assert_int_equal(mr_container_verify(&c, &chip, 2, why, 256), 0);
		for (uint32_t k = 0; k < c.ref->chips; k++)
			full |= c.chips[k].kv_address +
					c.chips[k].kv_block_bytes * (c.ref->kv_blocks + 1ull) >
				chip.sram_bytes;
		assert_true(full);
	}
	assert_true(two.fit.kv_blocks > one.fit.kv_blocks);
	mr_program_free(&one);
	mr_program_free(&two);
}

/* Two arithmetics of time: the compiler's prediction, and what the simulator's clock counts. */
static void the_claim_holds_for_any_batch(void **state)
{
	static const char *const names[] = {"tiny", "mr1"};
	char why[256];

	for (uint32_t i = 0; i < 6; i++) {
		struct mr_chip chip = chip_with(names[i % 2], NULL, NULL);
		struct mr_program program;
		struct mr_container c;
		assert_int_equal(compile_for(&chip, i / 2 + 1, &program, why), 0);
		assert_int_equal(mr_container_open(program.container, program.bytes, &c, why, 256),
				 0);
		for (uint32_t n = 1; n <= 40; n++) {
			uint32_t blocks[40];
			uint64_t want = c.claims->base;
			for (uint32_t k = 0; k < n; k++) {
				blocks[k] = 1 + (k * 37 + n * 11) % 512;
				want += c.claims->slot + c.claims->block * blocks[k] +
					c.claims->tile * ((blocks[k] + 15) / 16);
			}
			assert_int_equal(mr_clock_forward(&c, &chip, blocks, n) +
						 n * mr_clock_sample(&c, &chip),
					 want);
		}
		mr_program_free(&program);
	}
}

static int reader_says(const uint8_t *bytes, size_t n, const struct mr_chip *chip)
{
	struct mr_container c;
	char why[256];
	int status = mr_container_open(bytes, n, &c, why, sizeof(why));

	return status ? status : mr_container_verify(&c, chip, 2, why, sizeof(why));
}

static void every_changed_byte_of_metadata_is_seen(void **state)
{
	struct mr_chip chip = chip_with("tiny", NULL, NULL);
	struct mr_program program;
	char why[256];

	assert_int_equal(compile_for(&chip, 2, &program, why), 0);
	struct mr_prog_header *h = program.container;
	uint8_t *bytes = program.container;
	assert_int_equal(reader_says(bytes, program.bytes, &chip), 0);
	for (uint64_t i = 0; i < h->meta_bytes; i += i < 256 ? 1 : 13) {
		bytes[i] ^= 0x40;
		assert_true(reader_says(bytes, program.bytes, &chip) < 0);
		bytes[i] ^= 0x40;
	}
	assert_int_equal(reader_says(bytes, h->meta_bytes - 1, &chip), MR_E_TRUNCATED);
	assert_int_equal(reader_says(bytes, 255, &chip), MR_E_TRUNCATED);
	mr_program_free(&program);
}

/* What a forger who can hash may change; the verifier must see it. */
static void the_verifier_needs_no_hash(void **state)
{
	struct mr_chip chip = chip_with("tiny", NULL, NULL), mr1 = chip_with("mr1", NULL, NULL);
	struct mr_program program;
	struct mr_container c;
	char why[256];

	assert_int_equal(compile_for(&chip, 2, &program, why), 0);
	uint8_t *keep = malloc(program.bytes);
	memcpy(keep, program.container, program.bytes);
	assert_int_equal(mr_container_open(program.container, program.bytes, &c, why, 256), 0);
	/* The view's pointers are into our own copy: written through on purpose. */
	struct mr_prog_header *h = program.container;
	struct mr_prog_segment *s = (void *)(uintptr_t)c.segments;
	struct mr_prog_epoch *epoch = (void *)(uintptr_t)c.epochs;
	struct mr_prog_claim *claim = (void *)(uintptr_t)c.claims;
	struct mr_prog_io *io = (void *)(uintptr_t)c.ios;
	struct mr_ref_header *ref = (void *)(uintptr_t)c.ref;
	struct mr_ref_chip *part = (void *)(uintptr_t)c.chips;
	struct mr_ref_op *op = (void *)(uintptr_t)c.ops;
	uint32_t last = ref->ops - 1;
#define FORGED(change, want)                                                     \
	do {                                                                     \
		change;                                                          \
		mr_container_seal(program.container);                            \
		int got = reader_says(program.container, program.bytes, &chip);  \
		if (got != (want))                                               \
			fail_msg("%s: %s, not %s", #change, mr_status_name(got), \
				 mr_status_name(want));                          \
		memcpy(program.container, keep, program.bytes);                  \
	} while (0)
	FORGED(memcpy(h->chip_hash, mr1.hash, 32), MR_E_NOT_SUPPORTED);
	FORGED(h->numeric_class[0] = 'E', MR_E_NOT_SUPPORTED);
	FORGED(h->payload_kind = 9, MR_E_NOT_SUPPORTED);
	FORGED(h->chips = 3, MR_E_NOT_SUPPORTED);
	FORGED(h->chips = 1, MR_E_FORMAT);
	FORGED(h->batch = 0, MR_E_RANGE);
	FORGED(h->reserved[1] = 1, MR_E_FORMAT);
	FORGED(h->context++, MR_E_RANGE);
	FORGED(s[3].address = chip.sram_bytes, MR_E_SRAM_FULL);
	FORGED(s[3].address = UINT64_MAX - 63, MR_E_SRAM_FULL);
	FORGED(s[3].address = s[2].address, MR_E_FORMAT);
	FORGED(s[3].address += 1, MR_E_SRAM_FULL);
	FORGED(s[3].bytes += 64, MR_E_FORMAT);
	FORGED(s[3].rows *= 2, MR_E_FORMAT);
	FORGED(s[3].chip = 2, MR_E_FORMAT);
	FORGED(s[3].layout = 4, MR_E_FORMAT);
	FORGED(s[3].offset += 64, MR_E_FORMAT);
	FORGED(s[3].offset = h->total_bytes, MR_E_FORMAT);
	FORGED(s[3].slice++, MR_E_FORMAT);
	FORGED(s[3].reserved[0] = 1, MR_E_FORMAT);
	FORGED(memset(s[3].tensor, 'x', 48), MR_E_FORMAT);
	FORGED(ref->width += 32, MR_E_FORMAT);
	FORGED(ref->width = 0, MR_E_RANGE);
	FORGED(ref->heads = 7, MR_E_RANGE);
	FORGED(ref->layers++, MR_E_FORMAT);
	FORGED(ref->kv_blocks *= 2, MR_E_SRAM_FULL);
	FORGED(ref->kv_blocks = 0, MR_E_RANGE);
	FORGED(part[0].kv_address = 0, MR_E_SRAM_FULL);
	FORGED(part[1].first_layer = 0, MR_E_FORMAT);
	FORGED(part[1].kv_block_bytes = 0, MR_E_FORMAT);
	FORGED(op[1].segment[MR_REF_Q] = 1000000, MR_E_FORMAT);
	FORGED(op[1].segment[MR_REF_Q] = op[1].segment[MR_REF_K], MR_E_FORMAT);
	FORGED(op[1].chip = 1, MR_E_FORMAT);
	FORGED(op[1].layer = 1, MR_E_FORMAT);
	FORGED(op[0].kind = MR_REF_LAYER, MR_E_FORMAT);
	FORGED(op[0].segment[5] = 0, MR_E_FORMAT);
	FORGED(op[last].segment[0] = op[last].segment[1], MR_E_FORMAT);
	FORGED(epoch->ops--, MR_E_FORMAT);
	FORGED(claim->tile_blocks = 8, MR_E_FORMAT);
	FORGED(io->kind = 0, MR_E_FORMAT);
	FORGED((void)0, 0);
	free(keep);
	mr_program_free(&program);
}

static void the_device_refuses_what_the_reader_refuses(void **state)
{
	struct mr_chip tiny = chip_with("tiny", NULL, NULL), mr1 = chip_with("mr1", NULL, NULL);
	struct mr_program program, foreign;
	struct raw_host h;
	uint32_t action;
	char why[256];

	assert_int_equal(compile_for(&tiny, 2, &program, why), 0);
	assert_int_equal(compile_for(&mr1, 2, &foreign, why), 0);
	uint8_t *bytes = program.container;
	struct mr_prog_header *head = program.container;
	raw_open(&h, &(struct mr_sim_options){.chip_path = "tiny"}, 1);
	/* by header */
	bytes[0] ^= 1;
	assert_int_equal(raw_program(&h, bytes, program.bytes, &action), MR_E_FORMAT);
	assert_int_equal(action, MR_LPU_PROGRAM_WRITE);
	bytes[0] ^= 1;
	assert_int_equal(raw_program(&h, foreign.container, foreign.bytes, &action),
			 MR_E_NOT_SUPPORTED);
	/* by hash of the metadata, of the weights' last byte */
	bytes[head->meta_bytes - 1] ^= 1;
	assert_int_equal(raw_program(&h, bytes, program.bytes, &action), MR_E_CHECKSUM);
	assert_int_equal(action, MR_LPU_PROGRAM_WRITE);
	bytes[head->meta_bytes - 1] ^= 1;
	bytes[program.bytes - 1] ^= 1;
	assert_int_equal(raw_program(&h, bytes, program.bytes, &action), MR_E_CHECKSUM);
	assert_int_equal(action, MR_LPU_PROGRAM_VERIFY);
	bytes[program.bytes - 1] ^= 1;
	/* cut short, and said to be longer */
	assert_int_equal(raw_program(&h, bytes, program.bytes - 64, &action), MR_E_FORMAT);
	/* nothing of it stays: a slot needs an active program */
	struct mr_lpu_cmd_slot_set set = {.head = {MR_LPU_SLOT_SET, 0, 4}, .param_bytes = 128};
	assert_int_equal(raw_do(&h, 1, &set, NULL), MR_E_NOT_ACTIVE);
	assert_int_equal(raw_counters(&h).bad_container, 5);
	/* by the verifier, the hash being right */
	struct mr_container c;
	assert_int_equal(mr_container_open(bytes, program.bytes, &c, NULL, 0), 0);
	((struct mr_prog_segment *)(uintptr_t)c.segments)[0].address = 1ull << 40;
	mr_container_seal(bytes);
	assert_int_equal(raw_program(&h, bytes, program.bytes, &action), MR_E_SRAM_FULL);
	((struct mr_prog_segment *)(uintptr_t)c.segments)[0].address = 0;
	mr_container_seal(bytes);
	assert_int_equal(raw_program(&h, bytes, program.bytes, &action), 0);
	assert_int_equal(action, MR_LPU_PROGRAM_ACTIVATE);
	raw_close(&h);
	mr_program_free(&program);
	mr_program_free(&foreign);
}

static int open_model(void **state)
{
	return mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0);
}

static int close_model(void **state)
{
	mr_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_chip_file_says_all_once),
		cmocka_unit_test(what_does_not_fit_is_told_in_numbers),
		cmocka_unit_test(kv_gets_what_is_left),
		cmocka_unit_test(the_claim_holds_for_any_batch),
		cmocka_unit_test(every_changed_byte_of_metadata_is_seen),
		cmocka_unit_test(the_verifier_needs_no_hash),
		cmocka_unit_test(the_device_refuses_what_the_reader_refuses),
	};

	return cmocka_run_group_tests(tests, open_model, close_model);
}
