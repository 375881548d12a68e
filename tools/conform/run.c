// SPDX-License-Identifier: Apache-2.0
/* Opens the device, runs scenarios one after the other, keeps what was seen of each rule. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "driver/bus/bus.h"
#include "driver/compile/compile.h"
#include "driver/mem/arena.h"
#include "tools/conform/conform.h"

extern const struct conform_scenario *const __start_conform_scenarios[];
extern const struct conform_scenario *const __stop_conform_scenarios[];

static void fail(struct conform_rule *r, const char *scenario, const char *why)
{
	if (r->state == CONFORM_FAIL)
		return; /* the first reason stands */
	r->state = CONFORM_FAIL;
	snprintf(r->why, sizeof(r->why), "%s: %.200s", scenario, why);
}

void conform_expect(struct conform *t, const char *rule, int holds, const char *format, ...)
{
	struct conform_rule *r = conform_rule_of(rule);
	char why[200];
	va_list ap;

	t->observations++;
	if (!r) {
		fprintf(stderr, "millrace: lpu conform: the page has no rule LPU-%s\n", rule);
		return;
	}
	if (holds) {
		if (r->state < CONFORM_PASS || r->state == CONFORM_SKIP)
			r->state = CONFORM_PASS;
		return;
	}
	va_start(ap, format);
	vsnprintf(why, sizeof(why), format, ap);
	va_end(ap);
	fail(r, t->now ? t->now->name : "start", why);
}

void conform_status(struct conform *t, const char *rule, int got, int want, const char *what)
{
	char line[120];
	size_t n = 0;

	/* The text of a call may go over lines: one line of it. */
	for (; *what && n + 1 < sizeof(line); what++)
		if (*what != '\n' && (*what != ' ' || (n && line[n - 1] != ' ')))
			line[n++] = *what;
	line[n] = 0;
	conform_expect(t, rule, got == want, "%s is %s, not %s", line, mr_status_name(got),
		       mr_status_name(want));
}

void conform_lacks(struct conform *t, const char *rule, const char *why)
{
	struct conform_rule *r = conform_rule_of(rule);

	if (!r || r->state != CONFORM_NONE)
		return;
	r->state = CONFORM_SKIP;
	snprintf(r->why, sizeof(r->why), "%s", why);
}

void conform_stuck(struct conform *t, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(t->why, sizeof(t->why), format, ap);
	va_end(ap);
	longjmp(t->broken, 1);
}

void conform_skip(struct conform *t, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(t->why, sizeof(t->why), format, ap);
	va_end(ap);
	longjmp(t->broken, 2);
}

/* Calls @fn for each rule that a scenario cites. */
static void each_rule(const struct conform_scenario *s,
		      void (*fn)(struct conform *t, struct conform_rule *r), struct conform *t)
{
	char list[256], *save, *word;

	snprintf(list, sizeof(list), "%s", s->rules);
	for (word = strtok_r(list, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		struct conform_rule *r = conform_rule_of(word);
		if (r)
			fn(t, r);
		else
			fprintf(stderr,
				"millrace: lpu conform: %s cites LPU-%s, which is no rule\n",
				s->name, word);
	}
}

static void not_reached(struct conform *t, struct conform_rule *r)
{
	/* Also where something was seen before: not all of it was. */
	fail(r, t->now->name, t->why);
}

static void skipped(struct conform *t, struct conform_rule *r)
{
	if (r->state != CONFORM_NONE)
		return;
	r->state = CONFORM_SKIP;
	snprintf(r->why, sizeof(r->why), "%.200s", t->why);
}

/* A rule that other scenarios looked at is theirs to say. */
static void no_program(struct conform *t, struct conform_rule *r)
{
	if (r->state == CONFORM_NONE)
		fail(r, t->now->name, t->no_program);
}

static void unlooked(struct conform *t, struct conform_rule *r)
{
	if (r->state == CONFORM_NONE)
		fail(r, t->now->name, "was not looked at");
}

static int cites;
static void is_only(struct conform *t, struct conform_rule *r)
{
	cites |= !strcmp(r->id, t->only);
}

static int wanted(struct conform *t, const struct conform_scenario *s)
{
	cites = 0;
	if (t->only)
		each_rule(s, is_only, t);
	return !t->only || cites;
}

/* A device that does not come up by ENABLE is reset; one that does not even then is dead. */
static void bring_up(struct conform *t)
{
	if (conform_disable(t) && conform_enable(t, 16))
		return;
	t->dead = t->bus->ops->reset(t->bus) != 0;
	t->loaded = 0;
	if (!t->dead && !conform_enable(t, 16))
		t->dead = 1;
	if (t->dead)
		conform_stuck(t, "the device does not come up, not even after a reset");
}

static void prepare(struct conform *t, uint32_t needs)
{
	int status;

	bring_up(t);
	if (needs & CONFORM_PROGRAM) {
		status = t->loaded ? 0 : conform_load(t);
		if (status)
			conform_stuck(t, "PROGRAM: %s", mr_status_name(status));
	}
	if (needs & CONFORM_QUEUE) {
		status = conform_queue(t, 1, 8, 8);
		if (status)
			conform_stuck(t, "QUEUE_CREATE: %s", mr_status_name(status));
	}
}

static void run_one(struct conform *t)
{
	if (t->dead) {
		each_rule(t->now, not_reached, t);
		return;
	}
	switch (setjmp(t->broken)) {
	case 0:
		prepare(t, t->now->needs);
		t->now->run(t);
		each_rule(t->now, unlooked, t);
		break;
	case 1:
		each_rule(t->now, not_reached, t);
		t->loaded = 0; /* a device in this state is reset before the next one */
		if (!t->dead)
			t->bus->ops->reset(t->bus);
		break;
	default:
		each_rule(t->now, skipped, t);
		break;
	}
}

static int lacks_program(const struct conform *t)
{
	return t->no_program[0] && t->now->needs & CONFORM_PROGRAM;
}

void conform_run(struct conform *t)
{
	const struct conform_scenario *const *s;

	for (s = __start_conform_scenarios; s < __stop_conform_scenarios; s++) {
		t->now = *s;
		if (lacks_program(t) || !wanted(t, *s))
			continue;
		t->started_us = conform_now_us();
		run_one(t);
		if (t->verbose)
			fprintf(stderr, "millrace: lpu conform: %-24s %6.1f ms\n", (*s)->name,
				(double)(conform_now_us() - t->started_us) / 1000);
	}
	for (s = __start_conform_scenarios; s < __stop_conform_scenarios; s++) {
		t->now = *s;
		if (lacks_program(t) && wanted(t, *s))
			each_rule(*s, no_program, t);
	}
	t->now = NULL;
	t->started_us = 0;
}

/* ---- opening ------------------------------------------------------------------------------------- */

static int region(struct conform *t, enum mr_region_role role, size_t bytes, uint32_t access,
		  uint8_t **base, uint64_t *iova)
{
	const struct mr_region *r;
	int status = mr_arena_region(t->arena, role, bytes, &r);

	if (!status)
		status = t->bus->ops->dma_map(t->bus, r->iova, r->base, r->bytes, access);
	if (status) {
		fprintf(stderr, "millrace: lpu conform: memory: %s (%s)\n", mr_strerror(status),
			mr_status_name(status));
		return status;
	}
	*base = r->base;
	*iova = r->iova;
	return 0;
}

static int open_memory(struct conform *t)
{
	const struct mr_arena_options options = {.node = -1, .no_huge = 1, .shareable = 1};
	int status = mr_arena_create(&options, &t->arena);

	/* The suite maps by itself, with the access that it wants to see refused. */
	if (!status)
		status = region(t, MR_REGION_RECORDS, CONFORM_MEM_BYTES, MR_DMA_READ | MR_DMA_WRITE,
				&t->mem, &t->iova);
	if (!status)
		status = region(t, MR_REGION_COMMANDS, CONFORM_SIDE, MR_DMA_READ, &t->ro,
				&t->ro_iova);
	if (!status)
		status = region(t, MR_REGION_READBACK, CONFORM_SIDE, MR_DMA_WRITE, &t->wo,
				&t->wo_iova);
	if (!status)
		status = region(t, MR_REGION_WEIGHTS, CONFORM_SIDE, MR_DMA_READ, &t->load,
				&t->load_iova);
	return status;
}

static void ask_identity(struct conform *t)
{
	struct mr_lpu_identify *id = conform_take(t, sizeof(*id));
	int status = DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = conform_iova(t, id),
			.bytes = sizeof(*id));

	if (status)
		conform_stuck(t, "IDENTIFY: %s", mr_status_name(status));
	t->id = *id;
	if (t->id.queues_max >= CONFORM_QUEUES)
		t->id.queues_max = CONFORM_QUEUES - 1;
	if (!t->id.queues_max || t->id.chip_bytes > CONFORM_MEM_BYTES / 2)
		conform_stuck(t, "IDENTIFY says %u queues and a chip file of %u bytes",
			      t->id.queues_max, t->id.chip_bytes);
	if (t->id.logs >> MR_LPU_LOG_CRASH & 1)
		t->crash_bytes_at_start = conform_log(t, MR_LPU_LOG_CRASH, &t->crash_at_start,
						      sizeof(t->crash_at_start));
}

static void make_program(struct conform *t)
{
	struct mr_compile_options o = {
		.chip = &t->chip, .batch = CONFORM_BATCH, .context = CONFORM_CONTEXT};
	char *text = conform_take(t, t->id.chip_bytes + 1);
	struct mr_program program;

	o.chips = t->id.chips;
	conform_log(t, MR_LPU_LOG_CHIP, text, t->id.chip_bytes);
	if (mr_chip_parse(text, t->id.chip_bytes, &t->chip, t->why, sizeof(t->why)))
		longjmp(t->broken, 1);
	if (!t->program) {
		if (mr_compile(t->model, &o, &program, t->why, sizeof(t->why)))
			longjmp(t->broken, 1);
		t->program = program.container;
		t->program_bytes = program.bytes;
		t->owns_program = 1;
	}
	if (mr_container_open(t->program, t->program_bytes, &t->c, t->why, sizeof(t->why)))
		longjmp(t->broken, 1);
	if (t->c.header->batch < CONFORM_BATCH || t->c.header->context < CONFORM_CONTEXT)
		conform_stuck(t, "the suite needs a program with a batch of %u and a context of %u",
			      CONFORM_BATCH, CONFORM_CONTEXT);
}

int conform_open(struct conform *t)
{
	int status = open_memory(t);

	if (status)
		return status;
	t->timeout_ms = 5000;
	if (conform_reg(t, MR_LPU_REG_MAGIC) != MR_LPU_MAGIC ||
	    conform_reg(t, MR_LPU_REG_VERSION) >> 16 != MR_LPU_VERSION >> 16) {
		fprintf(stderr,
			"millrace: lpu conform: no LPU of this page: MAGIC %#x, VERSION %#x\n",
			conform_reg(t, MR_LPU_REG_MAGIC), conform_reg(t, MR_LPU_REG_VERSION));
		return MR_E_VERSION;
	}
	t->timeout_ms = conform_reg(t, MR_LPU_REG_TIMEOUT_MS);
	if (!t->timeout_ms || t->timeout_ms > 60000)
		t->timeout_ms = 60000;
	if (setjmp(t->broken)) {
		fprintf(stderr, "millrace: lpu conform: %s\n", t->why);
		return MR_E_DEVICE;
	}
	bring_up(t);
	ask_identity(t);
	/* A device that is not that far yet is asked what needs no program. */
	if (setjmp(t->broken))
		snprintf(t->no_program, sizeof(t->no_program), "no program for it: %.200s", t->why);
	else
		make_program(t);
	return 0;
}

void conform_close(struct conform *t)
{
	if (t->bus) {
		conform_reg_set(t, MR_LPU_REG_CONTROL, 0);
		t->bus->ops->close(t->bus);
	}
	mr_arena_destroy(t->arena);
	if (t->owns_program)
		mr_program_free(&(struct mr_program){.container = t->program});
}
