// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu compile` and `millrace lpu verify`. */
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <time.h>

#include <millrace/status.h>

#include "tools/lpu.h"
#include "tools/lpu_program.h"

static const char compile_usage[] =
	"usage: millrace lpu compile [-m FILE] [options]\n\n"
	"Compiles a model to a schedule for a group of chips, verifies it and says what a step "
	"takes.\n\n"
	"  -o, --output FILE write the program\n" LPU_HELP
	"  --split HOW       pipeline, columns or best (default): over the chips\n"
	"  --reference       payload reference: no schedule, the device walks the layers\n"
	"  --help\n\n"
	"example:\n"
	"  millrace lpu compile --chips 4 --batch 8 -o model.lpu\n";

static const char verify_usage[] =
	"usage: millrace lpu verify FILE [--chip FILE] [--chips N]\n\n"
	"Replays a program as a device does before it activates it: exit status 1 where it is "
	"refused.\n\n"
	"  --chip FILE       a chip file, mr1 (default), tsp1, lp30 or tiny\n"
	"  --chips N         of the device (default: as many as the program needs)\n"
	"  --help\n\n"
	"example:\n"
	"  millrace lpu verify model.lpu --chip mr1\n";

static int wrong(const char *command)
{
	fprintf(stderr, "millrace lpu %s: wrong arguments ('millrace lpu %s --help')\n", command,
		command);
	return TOOL_USAGE;
}

static int verify(const struct lpu_program *p, uint32_t chips)
{
	char why[256] = "";
	struct timespec a, b;
	int status;

	clock_gettime(CLOCK_MONOTONIC, &a);
	status = mr_container_verify(&p->c, &p->chip, chips, why, sizeof(why));
	clock_gettime(CLOCK_MONOTONIC, &b);
	if (status) {
		fprintf(stderr, "millrace lpu: refused: %s (%s)\n", why, mr_status_name(status));
		return -1;
	}
	printf("verified in %.2f s\n",
	       (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
	return 0;
}

static void print_claim(const struct lpu_program *p)
{
	const struct mr_prog_claim *c = p->c.claims;
	const struct mr_prog_header *h = p->c.header;

	printf("%s for %u x %s: batch %u, context %u\n", h->model[0] ? h->model : "a program",
	       h->chips, p->chip.name, h->batch, h->context);
	if (p->c.sched)
		printf("%u instructions, %u bodies\n", p->c.sched->instructions,
		       p->c.sched->instructions
			       ? p->c.instructions[p->c.sched->instructions - 1].body + 1
			       : 0);
	printf("cycles of a step: %llu + for each slot (%llu + %llu a KV block + %llu a tile of "
	       "16)\n",
	       (unsigned long long)c->base, (unsigned long long)c->slot,
	       (unsigned long long)c->block, (unsigned long long)c->tile);
	for (uint32_t n = 1; n <= h->batch; n *= 8) {
		const struct lpu_options o = {.slots = n, .position = 255};
		double us = (double)lpu_step_cycles(p, &o) * (double)p->chip.cycle_ps / 1e6;

		printf("  %3u slots at position 255: %llu cycles, %.1f us, %.0f tokens/s\n", n,
		       (unsigned long long)lpu_step_cycles(p, &o), us, n / us * 1e6);
	}
}

static int cmd_lpu_compile(int argc, char **argv)
{
	enum { SPLIT = LPU_OPT_OWN, REFERENCE };
	static const char *const splits[] = {"best", "pipeline", "columns"};
	static const struct option table[] = {LPU_LONG_OPTIONS,
					      {"output", required_argument, NULL, 'o'},
					      {"split", required_argument, NULL, SPLIT},
					      {"reference", no_argument, NULL, REFERENCE},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	struct lpu_options o = {0};
	const char *output = NULL;
	struct lpu_program p;
	int opt, status = TOOL_FAILED;

	while ((opt = getopt_long(argc, argv, "m:o:h", table, NULL)) != -1) {
		if (opt == 'h')
			return fputs(compile_usage, stdout) < 0;
		if (opt == 'o')
			output = optarg;
		else if (opt == REFERENCE)
			o.reference = 1;
		else if (opt == SPLIT) {
			for (o.split = 0; o.split < 3 && strcmp(optarg, splits[o.split]); o.split++)
				;
			if (o.split == 3)
				return wrong("compile");
		} else if (lpu_option(opt, optarg, &o) <= 0)
			return opt == '?' ? wrong("compile") : TOOL_USAGE;
	}
	if (optind != argc)
		return wrong("compile");
	if (lpu_open(&o, &p))
		return TOOL_FAILED;
	print_claim(&p);
	printf("compiled in %.2f s, cut %s: %llu bytes of matrices, %llu of norms and tables, %llu "
	       "of work "
	       "area, room for %u KV blocks\n",
	       p.compile_s,
	       p.program.fit.split == MR_SPLIT_COLUMNS ? "by columns" : "as a pipeline",
	       (unsigned long long)p.program.fit.matrices,
	       (unsigned long long)p.program.fit.vectors, (unsigned long long)p.program.fit.work,
	       p.program.fit.kv_blocks);
	if (!verify(&p, p.c.header->chips))
		status = TOOL_OK;
	if (!status && output) {
		FILE *f = fopen(output, "wbe");
		int bad =
			!f || fwrite(p.program.container, 1, p.program.bytes, f) != p.program.bytes;

		if (f && fclose(f))
			bad = 1;
		if (bad) {
			fprintf(stderr, "millrace lpu: %s: %s\n", output, strerror(errno));
			status = TOOL_FAILED;
		}
	}
	lpu_close(&p);
	return status;
}

static int cmd_lpu_verify(int argc, char **argv)
{
	static const struct option table[] = {{"chip", required_argument, NULL, LPU_OPT_CHIP},
					      {"chips", required_argument, NULL, LPU_OPT_CHIPS},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	struct lpu_options o = {0};
	struct lpu_program p;
	int opt, bad;

	while ((opt = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (opt == 'h')
			return fputs(verify_usage, stdout) < 0;
		if (lpu_option(opt, optarg, &o) <= 0)
			return opt == '?' ? wrong("verify") : TOOL_USAGE;
	}
	if (optind + 1 != argc)
		return wrong("verify");
	o.file = argv[optind];
	if (lpu_open(&o, &p))
		return TOOL_FAILED;
	print_claim(&p);
	bad = verify(&p, o.chips ? o.chips : p.c.header->chips);
	lpu_close(&p);
	return bad ? TOOL_FAILED : TOOL_OK;
}

TOOL_LPU_COMMAND(compile, "a model to a program, with its predicted cycles", cmd_lpu_compile);

TOOL_LPU_COMMAND(verify, "check a program as a device does before it runs it", cmd_lpu_verify);
