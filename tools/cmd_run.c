// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace run`: one prompt through the whole line in this process, its answer streamed to stdout. A
 * front of one request, as the ring server and the wire are fronts of many.
 */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/lpu_spec.h>

#include "driver/lpu/lpu.h"
#include "driver/metrics.h"
#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "tools/serve.h"
#include "tools/tools.h"

#define DEFAULT_TOKENS 128u

struct run_options {
	const char *model, *prompt;
	struct tool_devices_options devices;
	struct mr_sampling sampling;
	uint32_t tokens, chunk, steps;
	int raw, ids, json;
};

struct run {
	struct run_options options;
	struct mr_model *model;
	struct tool_devices devices;
	struct mr_sched *sched;
	struct serve_loop loop;
	struct mr_detok detok;
	uint32_t *answer;
	float *logprobs;
	uint32_t count;
	char *text; /* of the answer, for --json */
	size_t text_bytes;
	FILE *stream; /* where text goes: stdout, or memory for --json */
	struct mr_lpu_counters
		before; /* the LPU's, when it was opened: it may have served others */
	int ended;
	struct mr_end end;
};

static const char usage[] =
	"usage: millrace run [-m FILE] -p TEXT [options]\n\n"
	"Runs one prompt in this process and streams the answer to stdout; timings go to "
	"stderr.\n\n"
	"  -m, --model FILE  GGUF (default: $MR_MODEL, then what `make model` fetched)\n"
	"  -p, --prompt TEXT the user's message; - reads it from stdin\n"
	"  --raw             the text as it is, without the chat template\n"
	"  -n, --tokens N    most tokens of the answer (default: 128)\n"
	"  --temperature X   0 (default) = the likeliest token each time\n"
	"  --top-k N         only the N likeliest\n"
	"  --top-p X         only the likeliest with X of the probability together\n"
	"  --seed N          of the draws (default: 0)\n"
	"  --ids             token ids instead of text\n"
	"  --json            one JSON object: tokens, text, timings, cycles, copies, the device's\n"
	"                    own count of records and steps, machine\n"
	"  --chunk N         tokens of a prefill call (default: 128)\n"
	"  --steps N         steps of a DECODE (default: 1)\n"
	"  --context N       positions of a sequence (default: the model's)\n"
	"  --quiet           no timings, no progress\n" TOOL_DEVICE_HELP "\nexamples:\n"
	"  millrace run -p 'What does a mill race carry?'\n"
	"  millrace run --device cpu --temperature 0.8 --seed 7 --json -p - < question.txt\n";

enum {
	OPT_RAW = TOOL_OPT_OWN,
	OPT_TEMPERATURE,
	OPT_TOP_K,
	OPT_TOP_P,
	OPT_SEED,
	OPT_IDS,
	OPT_JSON,
	OPT_CHUNK,
	OPT_STEPS,
	OPT_CONTEXT,
	OPT_QUIET,
};

static const struct option table[] = {
	{"model", required_argument, NULL, 'm'},
	{"prompt", required_argument, NULL, 'p'},
	{"tokens", required_argument, NULL, 'n'},
	{"raw", no_argument, NULL, OPT_RAW},
	{"temperature", required_argument, NULL, OPT_TEMPERATURE},
	{"top-k", required_argument, NULL, OPT_TOP_K},
	{"top-p", required_argument, NULL, OPT_TOP_P},
	{"seed", required_argument, NULL, OPT_SEED},
	{"ids", no_argument, NULL, OPT_IDS},
	{"json", no_argument, NULL, OPT_JSON},
	{"chunk", required_argument, NULL, OPT_CHUNK},
	{"steps", required_argument, NULL, OPT_STEPS},
	{"context", required_argument, NULL, OPT_CONTEXT},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"help", no_argument, NULL, 'h'},
	TOOL_DEVICE_LONG_OPTIONS,
	{0},
};

static int complain(const char *text)
{
	fprintf(stderr, "millrace run: %s\n", text);
	return TOOL_USAGE;
}

static int failed(const char *what, int status)
{
	fprintf(stderr, "millrace run: %s: %s (%s)\n", what, mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

static int parse_count(const char *name, uint64_t max, uint32_t *out)
{
	uint64_t n;

	if (tool_parse_number(name, optarg, 1, max, &n))
		return -1;
	*out = (uint32_t)n;
	return 0;
}

static int parse_real(const char *name, double max, float *out)
{
	char *end;
	double value = strtod(optarg, &end);

	if (end == optarg || *end || !isfinite(value) || value < 0 || value > max) {
		fprintf(stderr, "millrace run: %s takes a number from 0 to %g, not '%s'\n", name,
			max, optarg);
		return -1;
	}
	*out = (float)value;
	return 0;
}

static int take_value(struct run_options *o, int c)
{
	switch (c) {
	case 'm':
		o->model = optarg;
		return 0;
	case 'p':
		o->prompt = optarg;
		return 0;
	case 'n':
		return parse_count("--tokens", 1u << 20, &o->tokens);
	case OPT_TEMPERATURE:
		return parse_real("--temperature", 100, &o->sampling.temperature);
	case OPT_TOP_P:
		return parse_real("--top-p", 1, &o->sampling.top_p);
	case OPT_TOP_K:
		return parse_count("--top-k", 1u << 20, &o->sampling.top_k);
	case OPT_SEED:
		return tool_parse_number("--seed", optarg, 0, UINT64_MAX, &o->sampling.seed);
	case OPT_CHUNK:
		return parse_count("--chunk", 1u << 20, &o->chunk);
	case OPT_STEPS:
		return parse_count("--steps", 1u << 20, &o->steps);
	case OPT_CONTEXT:
		return parse_count("--context", 1u << 20, &o->devices.context);
	default:
		return -1;
	}
}

static int take_option(struct run_options *o, int c)
{
	int taken = tool_device_option(c, optarg, &o->devices);

	if (taken)
		return taken > 0 ? 0 : -1;
	switch (c) {
	case OPT_RAW:
		return !(o->raw = 1);
	case OPT_IDS:
		return !(o->ids = 1);
	case OPT_JSON:
		return !(o->json = 1);
	case OPT_QUIET:
		return !(o->devices.quiet = 1);
	default:
		return take_value(o, c);
	}
}

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, struct run_options *o)
{
	int c;

	argv[0] = (char *)"millrace run";
	optind = 1;
	while ((c = getopt_long(argc, argv, "m:p:n:h", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return TOOL_OK;
		}
		if (c == '?' || take_option(o, c))
			return TOOL_USAGE;
	}
	if (optind < argc)
		return complain("the prompt goes behind -p");
	if (!o->prompt)
		return complain("no prompt: give -p TEXT, or -p - for stdin");
	return -1;
}

/* ---- the front ------------------------------------------------------------------------- */

static uint32_t credit(void *front, const struct mr_request *request)
{
	return UINT32_MAX;
}

static void put(struct run *run, const char *text, size_t bytes)
{
	fwrite(text, 1, bytes, run->stream);
	if (run->stream == stdout)
		fflush(stdout);
}

static void on_token(void *front, struct mr_request *request, const struct mr_token *token)
{
	struct run *run = front;
	char text[MR_DETOK_MAX];

	run->answer[run->count] = token->token;
	run->logprobs[run->count++] = token->logprob;
	if (run->options.ids && !run->options.json)
		put(run, text,
		    (size_t)snprintf(text, sizeof(text), run->count > 1 ? " %u" : "%u",
				     token->token));
	else
		put(run, text,
		    mr_detok_push(run->model->tokenizer, &run->detok, token->token, text));
}

static void on_end(void *front, struct mr_request *request, const struct mr_end *end)
{
	struct run *run = front;

	run->end = *end;
	run->ended = 1;
}

static const struct mr_front_ops front_ops = {credit, on_token, on_end};

/* ---- the run --------------------------------------------------------------------------- */

/* The LPU's own account. 0, MR_E_NOT_SUPPORTED where the decode device is none, or a status. */
static int read_counters(const struct run *run, struct mr_lpu_counters *out)
{
	const char *name = run->options.devices.device;
	int got;

	memset(out, 0, sizeof(*out));
	if (name && strcmp(name, "lpu"))
		return MR_E_NOT_SUPPORTED;
	got = mr_lpu_log(run->devices.decode, MR_LPU_LOG_COUNTERS, out, sizeof(*out));
	return got < 0 ? got : got == sizeof(*out) ? 0 : MR_E_TRUNCATED;
}

static int open_all(struct run *run)
{
	struct mr_sched_options sched = {
		.requests = 1, .chunk = run->options.chunk, .steps = run->options.steps};
	uint32_t context;
	int status;

	run->model = tool_model_open(run->options.model);
	if (!run->model)
		return TOOL_FAILED;
	if (tool_devices_open(&run->options.devices, run->model, &run->devices))
		return TOOL_FAILED;
	read_counters(run, &run->before);
	sched.model = run->model;
	sched.prefill = run->devices.prefill;
	sched.decode = run->devices.decode;
	status = mr_sched_create(&sched, &run->sched);
	if (status)
		return failed("the orchestrator", status);
	context = mr_sched_context(run->sched);
	run->answer = calloc(context, sizeof(*run->answer));
	run->logprobs = calloc(context, sizeof(*run->logprobs));
	run->stream = run->options.json ? open_memstream(&run->text, &run->text_bytes) : stdout;
	if (!run->answer || !run->logprobs || !run->stream)
		return failed("the answer", MR_E_NO_MEMORY);
	run->loop = (struct serve_loop){
		.sched = run->sched,
		.devices = {sched.decode, sched.prefill != sched.decode ? sched.prefill : NULL},
		.poll = SERVE_ADAPTIVE,
	};
	status = serve_loop_open(&run->loop);
	return status ? failed("epoll", status) : TOOL_OK;
}

static void close_all(struct run *run)
{
	mr_sched_destroy(run->sched);
	serve_loop_close(&run->loop);
	if (run->stream && run->stream != stdout)
		fclose(run->stream);
	tool_devices_close(&run->devices);
	mr_model_close(run->model);
	free(run->text);
	free(run->answer);
	free(run->logprobs);
}

/* The prompt into the request; one byte more than fits tells a prompt that is too large. */
static int fill_text(const struct run *run, struct mr_request *request)
{
	const char *prompt = run->options.prompt;
	size_t bytes = strlen(prompt);

	if (!strcmp(prompt, "-")) {
		bytes = fread(request->text, 1, MR_PROMPT_BYTES_MAX, stdin);
		if (ferror(stdin))
			return MR_E_IO;
		if (bytes == MR_PROMPT_BYTES_MAX && getchar() != EOF)
			return MR_E_TOO_LARGE;
	} else if (bytes <= MR_PROMPT_BYTES_MAX) {
		memcpy(request->text, prompt, bytes);
	} else {
		return MR_E_TOO_LARGE;
	}
	request->text_bytes = (uint32_t)bytes;
	return 0;
}

static int submit(struct run *run)
{
	struct mr_request *request = mr_sched_request(run->sched);
	int status;

	if (!request)
		return MR_E_FULL;
	status = fill_text(run, request);
	if (status) {
		mr_sched_abandon(run->sched, request);
		return status;
	}
	request->ops = &front_ops;
	request->front = run;
	request->flags = run->options.raw ? 0 : MR_REQUEST_CHAT;
	request->max_tokens = run->options.tokens;
	request->sampling = run->options.sampling;
	return mr_sched_submit(run->sched, request);
}

/* ---- what it prints -------------------------------------------------------------------- */

static const char *finish_name(enum mr_finish finish)
{
	static const char *const names[] = {"stop", "length", "cancel", "error"};

	return names[finish];
}

static double ms(uint64_t from, uint64_t to)
{
	return from && to > from ? (double)(to - from) / 1e6 : 0;
}

/* Tokens after the first by the time that they took. */
static double rate(const struct mr_end *end)
{
	double span = ms(end->first_ns, end->end_ns);

	return end->tokens > 1 && span > 0 ? (end->tokens - 1) / span * 1e3 : 0;
}

static void print_timings(const struct run *run)
{
	const struct mr_end *end = &run->end;

	fprintf(stderr,
		"%u prompt tokens, prefill %.1f ms on %s; first token after %.1f ms; %u tokens at "
		"%.1f/s on %s (%s)\n",
		end->prompt_tokens, ms(end->start_ns, end->prefilled_ns),
		run->devices.prefill->caps.name, ms(end->submit_ns, end->first_ns), end->tokens,
		rate(end), run->devices.decode->caps.name, finish_name(end->finish));
	if (end->cycles && end->tokens)
		fprintf(stderr, "%llu device cycles, %llu predicted: %llu a token\n",
			(unsigned long long)end->cycles, (unsigned long long)end->predicted,
			(unsigned long long)(end->cycles / end->tokens));
}

static struct json_object *timings_json(const struct mr_end *end)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "prefill_ms",
			       tool_json_number(ms(end->start_ns, end->prefilled_ns)));
	json_object_object_add(o, "first_token_ms",
			       tool_json_number(ms(end->submit_ns, end->first_ns)));
	json_object_object_add(o, "total_ms", tool_json_number(ms(end->submit_ns, end->end_ns)));
	json_object_object_add(o, "tokens_per_s", tool_json_number(rate(end)));
	return o;
}

/* What the device says that it made for this run, beside what the driver posted and took. */
static struct json_object *log_json(const struct run *run)
{
	struct json_object *o = json_object_new_object();
	struct mr_lpu_counters after;
	struct mr_telemetry seen = {0};
	int status = read_counters(run, &after);

	if (status) {
		json_object_object_add(o, "status", json_object_new_string(mr_status_name(status)));
		return o;
	}
	run->devices.decode->admin->telemetry(run->devices.decode, &seen);
	json_object_object_add(o, "records",
			       json_object_new_uint64(after.records - run->before.records));
	json_object_object_add(o, "steps", json_object_new_uint64(after.steps - run->before.steps));
	json_object_object_add(o, "records_taken", json_object_new_uint64(seen.records));
	json_object_object_add(o, "steps_posted", json_object_new_uint64(seen.steps));
	return o;
}

static struct json_object *copies_json(const struct mr_end *end)
{
	struct json_object *o = json_object_new_object();

	for (unsigned i = 0; i < MR_COPY_SITES; i++)
		json_object_object_add(o, mr_metric_info[MR_COPY_SITES_FIRST + i].name,
				       json_object_new_uint64(end->copies[i]));
	return o;
}

static void print_json(struct run *run)
{
	const struct mr_end *end = &run->end;
	struct json_object *o = json_object_new_object(), *ids = json_object_new_array();
	struct json_object *logprobs = json_object_new_array();

	fflush(run->stream);
	for (uint32_t i = 0; i < run->count; i++) {
		json_object_array_add(ids, json_object_new_int64(run->answer[i]));
		json_object_array_add(logprobs, tool_json_number(run->logprobs[i]));
	}
	json_object_object_add(o, "prefill",
			       json_object_new_string(run->devices.prefill->caps.name));
	json_object_object_add(o, "decode", json_object_new_string(run->devices.decode->caps.name));
	json_object_object_add(o, "class_prefill",
			       json_object_new_string(run->devices.prefill->caps.class_prefill));
	json_object_object_add(o, "class_decode",
			       json_object_new_string(run->devices.decode->caps.class_decode));
	json_object_object_add(o, "status", json_object_new_string(mr_status_name(end->status)));
	json_object_object_add(o, "finish", json_object_new_string(finish_name(end->finish)));
	json_object_object_add(o, "prompt_tokens", json_object_new_int64(end->prompt_tokens));
	json_object_object_add(o, "tokens", ids);
	json_object_object_add(o, "logprobs", logprobs);
	json_object_object_add(o, "text",
			       json_object_new_string_len(run->text, (int)run->text_bytes));
	json_object_object_add(o, "timings", timings_json(end));
	json_object_object_add(o, "cycles", json_object_new_uint64(end->cycles));
	json_object_object_add(o, "cycles_predicted", json_object_new_uint64(end->predicted));
	json_object_object_add(o, "copies", copies_json(end));
	json_object_object_add(o, "device_log", log_json(run));
	json_object_object_add(o, "machine", tool_facts_json());
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
						       JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static int report(struct run *run)
{
	char text[MR_DETOK_MAX];

	if (!run->options.ids)
		put(run, text, mr_detok_flush(&run->detok, text));
	if (run->options.json)
		print_json(run);
	else
		putchar('\n');
	if (!run->options.devices.quiet && !run->options.json)
		print_timings(run);
	if (run->end.finish == MR_FINISH_CANCEL)
		return 130; /* as a shell says of a program that SIGINT ended */
	return run->end.status ? failed("the request", run->end.status) : TOOL_OK;
}

static int run_prompt(struct run *run)
{
	int status = open_all(run);

	if (status != TOOL_OK)
		return status;
	status = submit(run);
	if (status)
		return failed("the prompt", status);
	tool_catch_signals();
	while (!run->ended) {
		if (tool_stop)
			mr_sched_cancel(run->sched, 0, 0);
		serve_loop_turn(&run->loop);
	}
	return report(run);
}

static int run_command(int argc, char **argv)
{
	struct run *run = calloc(1, sizeof(*run));
	int status;

	if (!run)
		return failed("run", MR_E_NO_MEMORY);
	run->options.tokens = DEFAULT_TOKENS;
	run->loop.epoll = -1;
	status = parse(argc, argv, &run->options);
	if (status < 0) {
		status = run_prompt(run);
		close_all(run);
	}
	free(run);
	return status;
}

TOOL_COMMAND(run, "run one prompt in this process and stream the answer", run_command);
