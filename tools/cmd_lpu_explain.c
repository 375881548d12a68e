// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu explain`: where a step's cycles go, by unit, by part of the model, along the critical path; the SRAM map. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "tools/lpu.h"
#include "tools/lpu_program.h"

static const char usage[] =
	"usage: millrace lpu explain [FILE | -m FILE] [options]\n\n"
	"Tables about one step of a program: how busy each unit is, what bounds each part, the "
	"critical\n"
	"path, and a map of each chip's SRAM.\n\n" LPU_HELP LPU_STEP_HELP "  --help\n\n"
	"examples:\n"
	"  millrace lpu explain --position 255\n"
	"  millrace lpu explain model.lpu --slots 8 --position 1000\n";

/* What cycles are counted by. */
enum { INSTALL, MULTIPLY, VECTOR, READS, WRITES, LINKS, HOST, KINDS };
static const char *const kinds[KINDS] = {"weights in", "multiply", "vector", "SRAM read",
					 "SRAM write", "links",    "host"};

struct part {
	char first[48], last[48]; /* tensors installed, first and last */
	uint64_t cycles, times, busy[KINDS];
	uint32_t chip;
};

struct explain {
	const struct lpu_program *p;
	struct part *part; /* [bodies] */
	uint64_t busy[64][KINDS];
	uint64_t total;
	struct lpu_span *span; /* of the body under way, for its critical path */
	uint32_t spans, room;
	uint64_t body_start;
	uint64_t path[256], waits; /* cycles of the critical path by opcode, and those of nobody */
};

static int kind_of(const struct mr_isa *i)
{
	switch (mr_isa_queue(i)) {
	case MR_ISA_MXM:
		return i->op == MR_I_LOADW ? INSTALL : MULTIPLY;
	case MR_ISA_VXM:
		return VECTOR;
	case MR_ISA_MEM:
		return READS;
	case MR_ISA_WRITES:
		return WRITES;
	case MR_ISA_C2C:
		return LINKS;
	default:
		return HOST;
	}
}

static const char *tensor_at(const struct mr_container *c, const struct mr_isa *i)
{
	for (uint32_t k = 0; k < c->header->segments; k++) {
		const struct mr_prog_segment *s = &c->segments[k];

		if (s->chip == i->chip && 8ull * i->address >= s->address &&
		    8ull * i->address < s->address + s->bytes)
			return s->tensor;
	}
	return "";
}

static int by_start(const void *a, const void *b)
{
	const struct lpu_span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Back from the end of the body: each time to the instruction whose result came last before this one began. */
static void close_body(struct explain *e)
{
	const struct lpu_span *at = NULL;

	for (uint32_t k = 0; k < e->spans; k++)
		if (!at || e->span[k].done > at->done)
			at = &e->span[k];
	while (at) {
		const struct lpu_span *before = NULL;

		e->path[at->inst->op] += at->done - at->start;
		for (uint32_t k = 0; k < e->spans; k++)
			if (e->span[k].start < at->start && e->span[k].done <= at->start &&
			    (!before || e->span[k].done > before->done))
				before = &e->span[k];
		e->waits += at->start - (before ? before->done : at->body_start);
		at = before;
	}
	e->spans = 0;
}

static void each(void *arg, const struct lpu_span *s)
{
	struct explain *e = arg;
	struct part *part = &e->part[s->inst->body];
	int kind = kind_of(s->inst);

	if (e->spans && s->body_start != e->body_start)
		close_body(e);
	if (!e->spans || s->body_start != e->body_start) {
		part->cycles += s->body_end - s->body_start;
		part->times++;
	}
	e->body_start = s->body_start;
	if (e->spans == e->room) {
		uint32_t room = e->room ? 2 * e->room : 1024;
		struct lpu_span *more = realloc(e->span, room * sizeof(*more));

		if (!more)
			return;
		e->span = more;
		e->room = room;
	}
	e->span[e->spans++] = *s;
	e->total = s->body_end > e->total ? s->body_end : e->total;
	e->busy[s->inst->chip][kind] += s->end - s->start;
	part->busy[kind] += s->end - s->start;
	part->chip = s->inst->chip;
	if (s->inst->op == MR_I_LOADW) {
		const char *name = tensor_at(&e->p->c, s->inst);

		if (!part->first[0])
			snprintf(part->first, sizeof(part->first), "%s", name);
		snprintf(part->last, sizeof(part->last), "%s", name);
	}
}

static void print_units(const struct explain *e)
{
	printf("\nbusy cycles of each unit, in %% of the step's %llu\n  chip",
	       (unsigned long long)e->total);
	for (int k = 0; k < KINDS; k++)
		printf(" %11s", kinds[k]);
	putchar('\n');
	for (uint32_t c = 0; c < e->p->c.header->chips; c++) {
		printf("  %4u", c);
		for (int k = 0; k < KINDS; k++)
			printf(" %11.1f", 100.0 * (double)e->busy[c][k] / (double)e->total);
		putchar('\n');
	}
}

static const char *name_of(const struct part *p)
{
	static char name[112];

	if (!p->first[0])
		return p->busy[HOST] ? "sampling" : "attention";
	snprintf(name, sizeof(name), "%.40s .. %.40s", p->first, p->last);
	return name;
}

static void print_parts(const struct explain *e, uint32_t bodies)
{
	printf("\nparts of the step\n  %9s %6s  %-13s %s\n", "cycles", "times", "bound by", "what");
	for (uint32_t b = 0; b < bodies; b++) {
		const struct part *p = &e->part[b];
		int most = 0;

		for (int k = 1; k < KINDS; k++)
			most = p->busy[k] > p->busy[most] ? k : most;
		/* Where no unit is busy for half of the time, it is the way through them that takes it. */
		if (p->times)
			printf("  %9llu %6llu  %-13s chip %u: %s\n", (unsigned long long)p->cycles,
			       (unsigned long long)p->times,
			       2 * p->busy[most] >= p->cycles ? kinds[most] : "fill and drain",
			       p->chip, name_of(p));
	}
}

static void print_path(const struct explain *e)
{
	uint64_t sum = e->waits;

	for (int op = 0; op < 256; op++)
		sum += e->path[op];
	printf("\ncritical path, latencies included\n");
	for (int op = 0; op < 256; op++)
		if (e->path[op])
			printf("  %-8s %5.1f%%\n", mr_isa_name((uint8_t)op),
			       100.0 * (double)e->path[op] / (double)sum);
	printf("  %-8s %5.1f%%\n", "waiting", 100.0 * (double)e->waits / (double)sum);
}

static void print_map(const struct lpu_program *p)
{
	const struct mr_container *c = &p->c;
	uint64_t bank = p->chip.sram_bytes / (p->chip.sram_slices * p->chip.sram_banks);

	for (uint32_t k = 0; k < c->header->chips; k++) {
		uint64_t weights = 0, kv = c->chips[k].kv_block_bytes * c->ref->kv_blocks;
		uint64_t end = c->chips[k].kv_address + kv;

		for (uint32_t i = 0; i < c->header->segments; i++)
			if (c->segments[i].chip == k)
				weights = c->segments[i].address + c->segments[i].bytes;
		printf("\nSRAM of chip %u: %llu bytes in %llu banks\n", k,
		       (unsigned long long)p->chip.sram_bytes,
		       (unsigned long long)(p->chip.sram_slices * p->chip.sram_banks));
#define ROW(name, from, to)                                                  \
	printf("  %12llu .. %12llu  %5.1f%%  banks %4llu .. %4llu  %s\n",    \
	       (unsigned long long)(from), (unsigned long long)(to),         \
	       100.0 * (double)((to) - (from)) / (double)p->chip.sram_bytes, \
	       (unsigned long long)((from) / bank), (unsigned long long)(((to)-1) / bank), name)
		ROW("weights and tables", 0ull, weights);
		for (uint32_t a = 0; a < c->sched->areas; a++)
			if (c->areas[a].chip == k && c->areas[a].bytes * 1000 > p->chip.sram_bytes)
				ROW(c->areas[a].name, c->areas[a].address,
				    c->areas[a].address + c->areas[a].bytes);
		ROW("work area in all", c->sched_chips[k].work_address,
		    c->sched_chips[k].work_address + c->sched_chips[k].work_bytes);
		if (kv)
			ROW("KV blocks", c->chips[k].kv_address, end);
		if (p->chip.sram_bytes > end)
			ROW("free", end, p->chip.sram_bytes);
#undef ROW
	}
}

static int explain(const struct lpu_program *p, const struct lpu_options *o)
{
	uint32_t bodies = p->c.sched->instructions
				  ? p->c.instructions[p->c.sched->instructions - 1].body + 1
				  : 0;
	struct explain e = {.p = p, .part = calloc(bodies + 1, sizeof(*e.part))};

	if (!e.part)
		return TOOL_FAILED;
	lpu_walk(p, o, each, &e);
	qsort(e.span, e.spans, sizeof(*e.span), by_start);
	close_body(&e);
	printf("%u x %s, a step of %u slots at position %u: %llu cycles, %.1f us\n",
	       p->c.header->chips, p->chip.name, o->slots ? o->slots : 1, o->position,
	       (unsigned long long)e.total, (double)e.total * (double)p->chip.cycle_ps / 1e6);
	print_units(&e);
	print_parts(&e, bodies);
	print_path(&e);
	print_map(p);
	free(e.part);
	free(e.span);
	return TOOL_OK;
}

static int cmd_lpu_explain(int argc, char **argv)
{
	static const struct option table[] = {
		LPU_LONG_OPTIONS,
		{"slots", required_argument, NULL, LPU_OPT_SLOTS},
		{"position", required_argument, NULL, LPU_OPT_POSITION},
		{"help", no_argument, NULL, 'h'},
		{0}};
	struct lpu_options o = {0};
	struct lpu_program p;
	int opt, status;

	while ((opt = getopt_long(argc, argv, "m:h", table, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		if (lpu_option(opt, optarg, &o) <= 0)
			return TOOL_USAGE;
	}
	if (optind + 1 < argc)
		return TOOL_USAGE;
	o.file = argv[optind];
	if (lpu_open(&o, &p))
		return TOOL_FAILED;
	if (!p.c.sched || o.position >= p.c.header->context ||
	    mr_container_verify(&p.c, &p.chip, p.c.header->chips, NULL, 0)) {
		fprintf(stderr,
			"millrace lpu explain: not a schedule for chip %s that the verifier "
			"passes, or a position beyond its context\n",
			p.chip.name);
		status = TOOL_FAILED;
	} else {
		status = explain(&p, &o);
	}
	lpu_close(&p);
	return status;
}

TOOL_LPU_COMMAND(explain, "where a step's cycles and a chip's SRAM go", cmd_lpu_explain);
