// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace bench`: figures with what they need to be read: the machine's facts before, the host's hiccups
 * beside, the roof that bounds them measured in the same run. `decode` is here and in bench_decode.c; `ring` is
 * in bench_ring.c, `sched` in bench_sched*.c, `lpu` in bench_lpu*.c, `cpu` in bench_cpu.c.
 */
#include <getopt.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench.h"
#include "tools/bench_cpu.h"
#include "tools/bench_lpu.h"
#include "tools/bench_ring.h"
#include "tools/bench_sched.h"

#define RUNS_MAX 100u
#define BATCHES  2u

struct bench_options {
	const char *model;
	struct tool_devices_options devices;
	uint32_t runs, prompt, answer;
	int json;
	struct bench_cpu_options cpu;
	const char *csv;
};

struct spread {
	double min, median, max;
};

/* What one `bench decode` found. */
struct decode_figures {
	char device[32], class_prefill[16], class_decode[16];
	uint64_t weight_bytes, cycle_ps;
	uint32_t latency_exact, reads_weights; /* nil reads none: no roof is its */
	struct spread roof, prefill;           /* bytes/s, tokens/s */
	struct {
		uint32_t batch;
		struct spread rate;    /* tokens/s */
		struct spread of_roof; /* of each run: its rate by the roof just before it */
		uint64_t cycles;       /* a token */
	} decode[BATCHES];
	uint64_t hiccup_p99_ns, hiccup_max_ns;
};

static const uint32_t batches[BATCHES] = {1, 8};

static const char usage[] =
	"usage: millrace bench [decode|ring|sched|lpu|cpu] [options]      (default: all but lpu "
	"and cpu)\n\n"
	"decode  tokens/s of prefill and of decode through the orchestrator, at batch 1 and 8, "
	"beside\n"
	"        the read roof: one thread streaming as many bytes as the model's weights\n"
	"ring    the round trip of a NOP through a client's ring, beside that of one cache line\n"
	"sched   the scheduler's figures, each with its target: CPU time, allocations and system "
	"calls\n"
	"        of a decode step, forks and prefixes, ITL beside a long prompt, hand-over\n"
	"lpu     what the LPU driver and the way to the device cost, in this process and over "
	"vfio-user,\n"
	"        beside the round trip of one cache line\n"
	"cpu     the CPU backend against the machine's roofs, kernel by kernel and end to end, on "
	"1\n"
	"        and on --threads threads, beside other engines where --peer names some\n\n"
	"  -m, --model FILE  GGUF (default: $MR_MODEL, then what `make model` fetched)\n"
	"  --runs N          runs of each figure; minimum, median and maximum are printed "
	"(default: 5)\n"
	"  --prompt N        tokens of a prompt (default: 96)\n"
	"  --answer N        tokens of an answer (default: 64: the context is 128 half-way)\n"
	"  --json            one JSON object instead of tables (not of cpu)\n"
	"  --peer COMMAND    cpu: an engine beside it, as scripts/peer.py speaks; up to 4 times\n"
	"  --csv FILE        cpu: every raw sample; lpu: percentiles\n"
	"  --only TABLE      cpu: one of roofs, load, kernels, ends\n"
	"  --row NAME        cpu: one row of ends, such as decode-empty\n" TOOL_DEVICE_HELP;

static int parse(int argc, char **argv, struct bench_options *o)
{
	enum {
		OPT_RUNS = TOOL_OPT_OWN,
		OPT_PROMPT,
		OPT_ANSWER,
		OPT_JSON,
		OPT_PEER,
		OPT_CSV,
		OPT_ONLY,
		OPT_ROW
	};
	static const struct option table[] = {
		{"model", required_argument, NULL, 'm'},
		{"runs", required_argument, NULL, OPT_RUNS},
		{"prompt", required_argument, NULL, OPT_PROMPT},
		{"answer", required_argument, NULL, OPT_ANSWER},
		{"json", no_argument, NULL, OPT_JSON},
		{"peer", required_argument, NULL, OPT_PEER},
		{"csv", required_argument, NULL, OPT_CSV},
		{"only", required_argument, NULL, OPT_ONLY},
		{"row", required_argument, NULL, OPT_ROW},
		{"help", no_argument, NULL, 'h'},
		TOOL_DEVICE_LONG_OPTIONS,
		{0},
	};
	int c;

	argv[0] = (char *)"millrace bench"; /* the name that getopt complains under */
	while ((c = getopt_long(argc, argv, "m:h", table, NULL)) != -1) {
		int taken = tool_device_option(c, optarg, &o->devices);
		uint64_t n = 0;

		if (taken < 0)
			return TOOL_USAGE;
		if (taken)
			continue;
		switch (c) {
		case 'm':
			o->model = optarg;
			break;
		case OPT_RUNS:
			if (tool_parse_number("--runs", optarg, 1, RUNS_MAX, &n))
				return TOOL_USAGE;
			o->runs = (uint32_t)n;
			break;
		case OPT_PROMPT:
			if (tool_parse_number("--prompt", optarg, 2, 4096, &n))
				return TOOL_USAGE;
			o->prompt = (uint32_t)n;
			break;
		case OPT_ANSWER:
			if (tool_parse_number("--answer", optarg, 8, 4096, &n))
				return TOOL_USAGE;
			o->answer = (uint32_t)n;
			break;
		case OPT_JSON:
			o->json = 1;
			break;
		case OPT_PEER:
			if (o->cpu.peer_count == BENCH_PEERS_MAX) {
				fprintf(stderr, "millrace: bench: at most %u peers\n",
					BENCH_PEERS_MAX);
				return TOOL_USAGE;
			}
			o->cpu.peers[o->cpu.peer_count++] = optarg;
			break;
		case OPT_CSV:
			o->csv = optarg;
			break;
		case OPT_ONLY:
			o->cpu.only = optarg;
			break;
		case OPT_ROW:
			o->cpu.row = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return -1;
		default:
			return TOOL_USAGE;
		}
	}
	return TOOL_OK;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct spread spread_of(double *values, uint32_t n)
{
	qsort(values, n, sizeof(*values), ascending);
	return (struct spread){values[0], (values[(n - 1) / 2] + values[n / 2]) / 2, values[n - 1]};
}

static int measure(const struct bench_options *o, const struct mr_model *model,
		   struct tool_devices *devices, struct decode_figures *f)
{
	double rate[RUNS_MAX], prefill[RUNS_MAX], ratio[RUNS_MAX], roof[BATCHES * RUNS_MAX];
	uint32_t roofs = 0;
	int status = 0;

	for (uint32_t b = 0; !status && b < BATCHES; b++) {
		struct bench_decode_options run = {batches[b], o->prompt, o->answer};
		struct bench_decode_result result = {0};

		/* The first run, not counted, brings caches and clock to where the others find them. */
		status = bench_decode_run(devices, model, &run, &result);
		for (uint32_t i = 0; !status && i < o->runs; i++) {
			/* On a shared host the roof moves too, so each run has its own. */
			status = bench_roof(f->weight_bytes, 1, &roof[roofs]);
			if (!status)
				status = bench_decode_run(devices, model, &run, &result);
			rate[i] = result.decode_tokens_s;
			prefill[i] = result.prefill_tokens_s;
			ratio[i] = rate[i] * (double)f->weight_bytes / (roof[roofs++] * run.batch);
		}
		if (status)
			break;
		f->decode[b].batch = batches[b];
		f->decode[b].rate = spread_of(rate, o->runs);
		f->decode[b].of_roof = spread_of(ratio, o->runs);
		f->decode[b].cycles = result.cycles_token;
		if (b == 0)
			f->prefill = spread_of(prefill, o->runs);
	}
	if (!status)
		f->roof = spread_of(roof, roofs);
	return status;
}

static int run_decode(const struct bench_options *o, const struct mr_model *model,
		      struct decode_figures *f)
{
	struct tool_devices_options options = o->devices;
	struct tool_devices devices;
	struct tool_hiccup *meter;
	int status;

	options.slots = batches[BATCHES - 1];
	options.context = o->prompt + o->answer + 1;
	if (options.context > model->shape.context) {
		fprintf(stderr,
			"millrace: prompt and answer do not fit the model's context of %u\n",
			model->shape.context);
		return TOOL_FAILED;
	}
	if (tool_devices_open(&options, model, &devices))
		return TOOL_FAILED;
	snprintf(f->device, sizeof(f->device), "%s", devices.decode->caps.name);
	snprintf(f->class_prefill, sizeof(f->class_prefill), "%s",
		 devices.prefill->caps.class_prefill);
	snprintf(f->class_decode, sizeof(f->class_decode), "%s", devices.decode->caps.class_decode);
	f->reads_weights = strcmp(f->class_decode, "nil") != 0;
	f->weight_bytes = bench_weight_bytes(model);
	f->cycle_ps = devices.decode->caps.cycle_ps;
	f->latency_exact = devices.decode->caps.latency_exact;
	meter = tool_hiccup_start();
	status = measure(o, model, &devices, f);
	tool_hiccup_stop(meter, &f->hiccup_p99_ns, &f->hiccup_max_ns);
	tool_devices_close(&devices);
	if (!status)
		return TOOL_OK;
	fprintf(stderr, "millrace: bench decode: %s (%s)\n", mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

/* Device time of a token at batch 1, microseconds; 0 = the device counts no cycles. */
static double device_us(const struct decode_figures *f, uint32_t b)
{
	return (double)f->decode[b].cycles * (double)f->cycle_ps / 1e6;
}

static void print_hiccups(uint64_t p99_ns, uint64_t max_ns)
{
	printf("  hiccups of the host: p99 %.1f us, max %.1f us\n", (double)p99_ns / 1e3,
	       (double)max_ns / 1e3);
}

static void print_table(const struct bench_options *o, const struct mr_model *model,
			const struct decode_figures *f)
{
	double roof = f->roof.median / (double)f->weight_bytes;

	printf("decode   %s on %s, prompts of %u, answers of %u, %u runs\n", model->name, f->device,
	       o->prompt, o->answer, o->runs);
	printf("  %-22s %9s %9s %9s  %s\n", "tokens/s", "min", "median", "max", "of the roof");
	printf("  %-22s %9.1f %9.1f %9.1f  class %s\n", "prefill, alone", f->prefill.min,
	       f->prefill.median, f->prefill.max, f->class_prefill);
	for (uint32_t b = 0; b < BATCHES; b++) {
		char name[32];

		snprintf(name, sizeof(name), "decode, batch %u", f->decode[b].batch);
		printf("  %-22s %9.1f %9.1f %9.1f  ", name, f->decode[b].rate.min,
		       f->decode[b].rate.median, f->decode[b].rate.max);
		if (f->reads_weights)
			printf("%.0f%%, ", 100 * f->decode[b].of_roof.median);
		printf("class %s", f->class_decode);
		if (f->decode[b].cycles)
			printf(", %llu device cycles a step = %.1f us%s",
			       (unsigned long long)f->decode[b].cycles, device_us(f, b),
			       f->latency_exact ? "" : " (estimated)");
		putchar('\n');
	}
	if (f->reads_weights)
		printf("  %-22s %9.1f %9.1f %9.1f  %.1f MB a token at %.1f GB/s, one thread\n",
		       "read roof, batch 1", f->roof.min / (double)f->weight_bytes, roof,
		       f->roof.max / (double)f->weight_bytes, (double)f->weight_bytes / 1e6,
		       f->roof.median / 1e9);
	print_hiccups(f->hiccup_p99_ns, f->hiccup_max_ns);
}

static struct json_object *spread_json(struct spread s)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "min", tool_json_number(s.min));
	json_object_object_add(o, "median", tool_json_number(s.median));
	json_object_object_add(o, "max", tool_json_number(s.max));
	return o;
}

static struct json_object *figures_json(const struct bench_options *o, const struct mr_model *model,
					const struct decode_figures *f)
{
	struct json_object *out = json_object_new_object(), *list = json_object_new_array();

	json_object_object_add(out, "model", json_object_new_string(model->name));
	json_object_object_add(out, "device", json_object_new_string(f->device));
	json_object_object_add(out, "class_prefill", json_object_new_string(f->class_prefill));
	json_object_object_add(out, "class_decode", json_object_new_string(f->class_decode));
	json_object_object_add(out, "prompt", json_object_new_uint64(o->prompt));
	json_object_object_add(out, "answer", json_object_new_uint64(o->answer));
	json_object_object_add(out, "runs", json_object_new_uint64(o->runs));
	json_object_object_add(out, "prefill_tokens_s", spread_json(f->prefill));
	for (uint32_t b = 0; b < BATCHES; b++) {
		struct json_object *row = json_object_new_object();

		json_object_object_add(row, "batch", json_object_new_uint64(f->decode[b].batch));
		json_object_object_add(row, "tokens_s", spread_json(f->decode[b].rate));
		if (f->reads_weights)
			json_object_object_add(row, "of_roof", spread_json(f->decode[b].of_roof));
		json_object_object_add(row, "device_cycles",
				       json_object_new_uint64(f->decode[b].cycles));
		json_object_array_add(list, row);
	}
	json_object_object_add(out, "decode", list);
	json_object_object_add(out, "cycle_ps", json_object_new_uint64(f->cycle_ps));
	json_object_object_add(out, "weight_bytes", json_object_new_uint64(f->weight_bytes));
	json_object_object_add(out, "roof_bytes_s", spread_json(f->roof));
	json_object_object_add(out, "hiccup_p99_ns", json_object_new_uint64(f->hiccup_p99_ns));
	json_object_object_add(out, "hiccup_max_ns", json_object_new_uint64(f->hiccup_max_ns));
	return out;
}

static int bench_decode(const struct bench_options *o, struct json_object *out)
{
	struct mr_model *model = tool_model_open(o->model);
	struct decode_figures f = {0};
	int status;

	if (!model)
		return TOOL_FAILED;
	status = run_decode(o, model, &f);
	if (!status && out)
		json_object_object_add(out, "decode", figures_json(o, model, &f));
	else if (!status)
		print_table(o, model, &f);
	mr_model_close(model);
	return status;
}

static int bench_nop(struct json_object *out)
{
	struct tool_hiccup *meter = tool_hiccup_start();
	struct bench_ring_options options = {0};
	struct bench_ring_result result;
	uint64_t p99, max;
	int status = bench_ring(&options, &result);

	tool_hiccup_stop(meter, &p99, &max);
	if (status) {
		fprintf(stderr, "millrace: bench ring: %s (%s)\n", mr_strerror(status),
			mr_status_name(status));
		return TOOL_FAILED;
	}
	if (out) {
		struct json_object *ring = bench_ring_json(&result);

		json_object_object_add(ring, "hiccup_p99_ns", json_object_new_uint64(p99));
		json_object_object_add(ring, "hiccup_max_ns", json_object_new_uint64(max));
		json_object_object_add(out, "ring", ring);
		return TOOL_OK;
	}
	bench_ring_print(stdout, &result);
	print_hiccups(p99, max);
	return TOOL_OK;
}

/* --csv's file, opened; or after a line on stderr MR_E_IO. */
static int open_csv(const char *path, FILE **csv)
{
	*csv = path ? fopen(path, "we") : NULL;
	if (!path || *csv)
		return 0;
	perror(path);
	return MR_E_IO;
}

static int run_cpu(struct bench_options *o)
{
	struct bench_cpu_options *c = &o->cpu;
	uint32_t cores = tool_threads_default();
	int status;

	c->model_path = o->model ? o->model : getenv("MR_MODEL");
	if (c->peer_count && !c->model_path) {
		fputs("millrace: bench cpu: with --peer name the model, by -m or MR_MODEL\n",
		      stderr);
		return TOOL_USAGE;
	}
	c->kernels = o->devices.kernels;
	c->numerics = o->devices.numerics;
	c->no_huge = o->devices.no_huge;
	c->runs = o->runs;
	c->threads[0] = 1;
	c->threads[1] = o->devices.threads ? o->devices.threads : cores;
	if (c->threads[1] == 1)
		c->threads[1] = 0;
	if (open_csv(o->csv, &c->csv))
		return TOOL_FAILED;
	status = bench_cpu(c);
	if (c->csv && fclose(c->csv)) {
		perror(o->csv);
		return TOOL_FAILED;
	}
	return status;
}

static int bench_scheduler(const struct bench_options *o, struct json_object *out)
{
	const struct bench_sched_options options = {
		.model = o->model, .devices = o->devices, .runs = o->runs};
	struct bench_rows *result = calloc(1, sizeof(*result));
	int status = result ? bench_sched(&options, result) : TOOL_FAILED;

	if (!status && out) {
		json_object_object_add(out, "sched", bench_rows_json(result));
	} else if (!status) {
		bench_rows_print(stdout, "sched", result);
		print_hiccups(result->hiccup_p99_ns, result->hiccup_max_ns);
	}
	free(result);
	return status;
}

static int bench_driver(const struct bench_options *o, struct json_object *out)
{
	struct bench_lpu_options options = {
		.model = o->model, .devices = o->devices, .runs = o->runs};
	struct bench_rows *rows = calloc(1, sizeof(*rows));
	int status =
		rows && !open_csv(o->csv, &options.csv) ? bench_lpu(&options, rows) : TOOL_FAILED;

	if (options.csv && fclose(options.csv)) {
		perror(o->csv);
		status = TOOL_FAILED;
	}
	if (!status && out) {
		json_object_object_add(out, "lpu", bench_rows_json(rows));
	} else if (!status) {
		bench_rows_print(stdout, "lpu", rows);
		print_hiccups(rows->hiccup_p99_ns, rows->hiccup_max_ns);
	}
	free(rows);
	return status;
}

static int bench(int argc, char **argv)
{
	struct bench_options o = {.runs = 5, .prompt = 96, .answer = 64};
	const char *which = NULL;
	struct json_object *out;
	int status = parse(argc, argv, &o);

	if (status)
		return status < 0 ? TOOL_OK : status;
	if (optind < argc)
		which = argv[optind++];
	if (optind < argc ||
	    (which && strcmp(which, "decode") && strcmp(which, "ring") && strcmp(which, "sched") &&
	     strcmp(which, "lpu") && strcmp(which, "cpu"))) {
		fprintf(stderr, "millrace: no benchmark '%s' (--help lists them)\n",
			argv[argc - 1]);
		return TOOL_USAGE;
	}
	tool_catch_signals();
	if (o.json && which && !strcmp(which, "cpu")) {
		fputs("millrace: bench cpu writes --csv, not --json\n", stderr);
		return TOOL_USAGE;
	}
	out = o.json ? json_object_new_object() : NULL;
	if (out)
		json_object_object_add(out, "machine", tool_facts_json());
	else
		tool_facts_print(stdout);
	fflush(stdout); /* the figures take a while */
	if (which && !strcmp(which, "cpu"))
		return run_cpu(&o);
	if (!which || !strcmp(which, "decode"))
		status = bench_decode(&o, out);
	if (!status && (!which || !strcmp(which, "ring")))
		status = bench_nop(out);
	if (!status && (!which || !strcmp(which, "sched")))
		status = bench_scheduler(&o, out);
	if (which && !strcmp(which, "lpu"))
		status = bench_driver(&o, out);
	if (out && !status)
		puts(json_object_to_json_string_ext(out, JSON_C_TO_STRING_PLAIN));
	json_object_put(out);
	return status;
}

TOOL_COMMAND(bench,
	     "measure decode, the ring, the scheduler, the LPU driver and the CPU, with the "
	     "machine's facts beside",
	     bench);
