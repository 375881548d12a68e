// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu timeline`: a step's instructions, a track for each queue, as trace events or as a picture. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "tools/lpu.h"
#include "tools/lpu_program.h"

static const char usage[] =
	"usage: millrace lpu timeline [FILE | -m FILE] -o OUT [options]\n\n"
	"One step of a program, a track for each chip and queue.\n\n"
	"  -o, --output OUT  OUT.json: trace events for ui.perfetto.dev; OUT.png: a picture, by "
	"gnuplot\n"
	"  --from N          leave out what ends before this cycle (default: 0)\n"
	"  --to N            and what starts after this one (default: the step's end)\n" LPU_HELP
		LPU_STEP_HELP "  --help\n\n"
	"examples:\n"
	"  millrace lpu timeline -o step.json\n"
	"  millrace lpu timeline model.lpu --to 3000 -o step.png\n";

static const char *const queues[MR_ISA_QUEUES] = {"ICU", "MEM reads", "MXM",  "VXM",
						  "SXM", "C2C",       "HOST", "MEM writes"};

struct timeline {
	FILE *out;
	int json, first;
	uint64_t from, to;
};

static void each(void *arg, const struct lpu_span *s)
{
	struct timeline *t = arg;
	uint32_t queue = mr_isa_queue(s->inst);

	if (s->end < t->from || s->start > t->to || s->inst->op == MR_I_NOP)
		return;
	if (t->json) {
		/* A microsecond of the viewer is a cycle: its own unit is too coarse. */
		fprintf(t->out,
			"%s\n{\"name\":\"%s\",\"ph\":\"X\",\"pid\":%u,\"tid\":%u,\"ts\":%llu,"
			"\"dur\":%llu,\"args\":{\"body\":%u,\"rows\":%u,\"cols\":%u}}",
			t->first ? "" : ",", mr_isa_name(s->inst->op), s->inst->chip, queue,
			(unsigned long long)s->start, (unsigned long long)(s->end - s->start),
			s->inst->body, s->inst->rows, s->inst->cols);
	} else {
		/* a box: from, track, to, colour */
		fprintf(t->out, "%llu %.1f %llu %u\n", (unsigned long long)s->start,
			(double)s->inst->chip * (MR_ISA_QUEUES + 1) + queue,
			(unsigned long long)s->end, queue);
	}
	t->first = 0;
}

static int write_json(const struct lpu_program *p, const struct lpu_options *o, struct timeline *t)
{
	fprintf(t->out, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
	for (uint32_t c = 0; c < p->c.header->chips; c++) {
		fprintf(t->out,
			"%s\n{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%u,\"tid\":0,"
			"\"args\":{\"name\":\"chip %u\"}}",
			c ? "," : "", c, c);
		for (uint32_t q = 0; q < MR_ISA_QUEUES; q++)
			fprintf(t->out,
				",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%u,\"tid\":%u,"
				"\"args\":{\"name\":\"%s\"}}",
				c, q, queues[q]);
	}
	t->first = 0;
	lpu_walk(p, o, each, t);
	fprintf(t->out, "\n],\"otherData\":{\"unit\":\"1 us here is 1 cycle of %llu ps\"}}\n",
		(unsigned long long)p->chip.cycle_ps);
	return ferror(t->out);
}

static int write_picture(const struct lpu_program *p, const struct lpu_options *o,
			 struct timeline *t, const char *path)
{
	uint32_t chips = p->c.header->chips;

	t->out = popen("gnuplot", "we");
	if (!t->out)
		return -1;
	fprintf(t->out,
		"set terminal pngcairo size 1400,%u\nset output '%s'\nset xlabel 'cycle'\n"
		"set yrange [-1:%u]\nset xrange [%llu:%llu]\nunset key\nset ytics (",
		120 + 160 * chips, path, chips * (MR_ISA_QUEUES + 1), (unsigned long long)t->from,
		(unsigned long long)t->to);
	for (uint32_t c = 0; c < chips; c++)
		for (uint32_t q = 1; q < MR_ISA_QUEUES; q++)
			fprintf(t->out, "%s'%u %s' %u", c || q > 1 ? ", " : "", c, queues[q],
				c * (MR_ISA_QUEUES + 1) + q);
	fprintf(t->out, ")\nplot '-' using 1:2:1:3:($2-0.4):($2+0.4):4 with boxxyerror fs solid "
			"noborder lc variable\n");
	lpu_walk(p, o, each, t);
	fprintf(t->out, "e\n");
	return pclose(t->out) ? -1 : 0;
}

static int draw(const struct lpu_program *p, const struct lpu_options *o, struct timeline *t,
		const char *path)
{
	const char *dot = strrchr(path, '.');
	int bad;

	t->first = 1;
	t->json = !dot || strcmp(dot, ".png") != 0;
	if (!t->to)
		t->to = lpu_step_cycles(p, o);
	if (!t->json && (strchr(path, '\'') || write_picture(p, o, t, path))) {
		fprintf(stderr, "millrace lpu timeline: gnuplot could not draw %s\n", path);
		return TOOL_FAILED;
	}
	if (!t->json)
		return TOOL_OK;
	t->out = strcmp(path, "-") ? fopen(path, "we") : stdout;
	bad = !t->out || write_json(p, o, t);
	if (t->out && t->out != stdout)
		bad |= fclose(t->out);
	if (bad)
		fprintf(stderr, "millrace lpu timeline: %s: %s\n", path, strerror(errno));
	return bad ? TOOL_FAILED : TOOL_OK;
}

static int cmd_lpu_timeline(int argc, char **argv)
{
	enum { FROM = LPU_OPT_OWN, TO };
	static const struct option table[] = {
		LPU_LONG_OPTIONS,
		{"slots", required_argument, NULL, LPU_OPT_SLOTS},
		{"position", required_argument, NULL, LPU_OPT_POSITION},
		{"output", required_argument, NULL, 'o'},
		{"from", required_argument, NULL, FROM},
		{"to", required_argument, NULL, TO},
		{"help", no_argument, NULL, 'h'},
		{0}};
	struct timeline t = {0};
	struct lpu_options o = {0};
	const char *output = NULL;
	struct lpu_program p;
	int opt, status;

	while ((opt = getopt_long(argc, argv, "m:o:h", table, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		if (opt == 'o')
			output = optarg;
		else if (opt == FROM || opt == TO) {
			if (tool_parse_number(opt == TO ? "--to" : "--from", optarg, 0, UINT32_MAX,
					      opt == TO ? &t.to : &t.from))
				return TOOL_USAGE;
		} else if (lpu_option(opt, optarg, &o) <= 0) {
			return TOOL_USAGE;
		}
	}
	if (!output || optind + 1 < argc) {
		fprintf(stderr,
			"millrace lpu timeline: -o OUT is needed, and one program at most\n");
		return TOOL_USAGE;
	}
	o.file = argv[optind];
	if (lpu_open(&o, &p))
		return TOOL_FAILED;
	if (!p.c.sched || o.position >= p.c.header->context ||
	    mr_container_verify(&p.c, &p.chip, p.c.header->chips, NULL, 0)) {
		fprintf(stderr,
			"millrace lpu timeline: not a schedule for chip %s that the verifier "
			"passes, or a position beyond its context\n",
			p.chip.name);
		status = TOOL_FAILED;
	} else {
		status = draw(&p, &o, &t, output);
	}
	lpu_close(&p);
	return status;
}

TOOL_LPU_COMMAND(timeline, "a step as a picture, for Perfetto or as PNG", cmd_lpu_timeline);
