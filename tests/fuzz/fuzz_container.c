// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes userlib/spec. Input that starts with the container's magic is metadata, once as it is and once with
 * the right hash put in, so that the verifier is reached; what the verifier lets pass is then followed the
 * way that a device does, every index and address. Any other input is a chip file.
 */
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware-sim/chips.h"
#include "firmware-sim/clock.h"
#include "firmware-sim/exec.h"
#include "kernels/cpu/kernels.h"
#include "userlib/spec/container.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_container: %s\n", what);
	abort();
}

/* What a walker relies on: each tensor inside its chip's SRAM, KV too, names that end. */
static void follow(const struct mr_container *c, const struct mr_chip *chip)
{
	uint32_t blocks[2] = {1, 40};

	for (uint32_t i = 0; i < c->ref->ops; i++) {
		for (int k = 0; k < MR_REF_TENSORS; k++) {
			if (c->ops[i].segment[k] == MR_REF_NONE)
				continue;
			const struct mr_prog_segment *s = &c->segments[c->ops[i].segment[k]];
			check(s->chip == c->ops[i].chip, "a tensor of another chip");
			check(s->address <= chip->sram_bytes &&
				      s->bytes <= chip->sram_bytes - s->address,
			      "a tensor outside SRAM");
			check(s->address + s->bytes <= c->chips[s->chip].kv_address,
			      "KV over a tensor");
			check(strlen(s->tensor) < sizeof(s->tensor), "a name without an end");
		}
	}
	for (uint32_t k = 0; k < c->ref->chips; k++)
		check(c->chips[k].kv_address + c->chips[k].kv_block_bytes * c->ref->kv_blocks <=
			      chip->sram_bytes,
		      "KV outside SRAM");
	check(mr_clock_forward(c, chip, blocks, 2) > 0, "a step without cycles");
}

/* A schedule that the verifier passed is run: whatever it does, it does in its own SRAM. */
static void execute(const struct mr_container *c, const struct mr_chip *chip)
{
	static const uint32_t blocks[1] = {0};
	const struct exec_slot slot = {c->ref->vocab - 1, 0, blocks};
	struct exec_chip place[SIM_CHIPS_MAX];
	struct exec_program p = {
		.icu = c->icu,
		.inst = c->instructions,
		.icu_count = c->sched->icu,
		.inst_count = c->sched->instructions,
		.chips = c->sched->chips,
		.slots = 1,
		.chip = place,
		.timing = chip,
	};
	struct sim_sram sram;
	struct exec *exec;
	const float *logits;
	uint64_t record, cycles;
	uint32_t one = 1;

	for (uint32_t k = 0; k < p.chips; k++)
		place[k] = (struct exec_chip){c->sched_chips[k].table_address,
					      c->sched_chips[k].table_stride,
					      c->chips[k].kv_address, c->chips[k].kv_block_bytes};
	check(!mr_sim_sram_init(&sram, p.chips, chip->sram_bytes), "memory");
	check(!mr_exec_create(&p, &sram, mr_kernels_select("scalar"), &exec), "memory");
	check(!mr_exec_step(exec, &slot, 1, &record, &logits, &cycles), "a violation");
	check(cycles == mr_claim_cycles(c->claims, &one, 1) && record == cycles,
	      "cycles that are not the claim");
	mr_exec_destroy(exec);
	mr_sim_sram_fini(&sram);
}

static int read_container(const void *bytes, size_t size, const struct mr_chip *chip)
{
	struct mr_container c;
	char why[64];
	int status = mr_container_open(bytes, size, &c, why, sizeof(why));

	if (!status)
		status = mr_container_verify(&c, chip, 2, why, sizeof(why));
	if (!status && c.sched)
		execute(&c, chip);
	else if (!status)
		follow(&c, chip);
	return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t magic = MR_PROG_MAGIC;
	const struct mr_sim_builtin_chip *tiny = mr_sim_builtin_chip("tiny");
	struct mr_chip chip;
	char why[32];

	if (size < sizeof(magic) || memcmp(data, &magic, sizeof(magic))) {
		int status = mr_chip_parse((const char *)data, size, &chip, why, sizeof(why));
		check(status || strlen(chip.name) < sizeof(chip.name), "a name without an end");
		return 0;
	}
	check(!mr_chip_parse(tiny->text, (size_t)(tiny->end - tiny->text), &chip, NULL, 0), "chip");
	struct mr_prog_header *copy = malloc(size);
	check(copy != NULL, "memory");
	memcpy(copy, data, size);
	read_container(copy, size, &chip);
	const size_t from = offsetof(struct mr_prog_header, data_sha256);
	if (size >= sizeof(*copy) && copy->meta_bytes <= size && copy->meta_bytes > from) {
		crypto_hash_sha256(copy->sha256, (const uint8_t *)copy + from,
				   copy->meta_bytes - from);
		read_container(copy, size, &chip);
	}
	/* And with the sizes that its counts need, where the input has them. */
	if (size >= sizeof(*copy)) {
		mr_container_layout(copy);
		copy->total_bytes = size;
		if (copy->meta_bytes <= size && copy->meta_bytes > from) {
			mr_container_seal(copy);
			read_container(copy, size, &chip);
		}
	}
	free(copy);
	return 0;
}
