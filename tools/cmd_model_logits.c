// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace model logits`: what a device makes of a few tokens. Every token goes through DECODE as forced input
 * from an empty slot, so the figures are the decode device's own; the digest over all their bytes compares
 * devices, kernel paths and machines to the last bit.
 */
#include <getopt.h>
#include <json-c/json.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "tools/forced.h"
#include "tools/model_cmds.h"
#include "tools/tools.h"

#define TOP_MAX 1000u

struct logits_options {
	const char *model, *tokens, *prompt;
	struct tool_devices_options devices;
	uint32_t top;
	int digest, json;
};

struct logits_run {
	uint32_t vocab, last, top, top_count;
	uint32_t ids[TOP_MAX];
	float logits[TOP_MAX];
	double log_sum; /* of the last position */
	uint64_t cycles;
	crypto_hash_sha256_state hash;
};

static const char usage[] =
	"usage: millrace model logits [-m FILE] (--tokens ID,ID,... | -p TEXT) [options]\n\n"
	"Feeds the tokens through DECODE on the device, from an empty slot, and prints the "
	"largest\n"
	"logits after the last one.\n\n"
	"  -m, --model FILE  GGUF (default: $MR_MODEL, then what `make model` fetched)\n"
	"  --tokens LIST     token ids with commas between them\n"
	"  -p, --prompt TEXT text to tokenise; spelled control tokens are taken as such\n"
	"  --top N           how many logits to print (default: 10)\n"
	"  --digest          print the SHA-256 of all logits of all positions, as FP32 bytes\n"
	"  --json            one JSON object instead of a table\n" TOOL_DEVICE_HELP;

static int parse(int argc, char **argv, struct logits_options *o)
{
	enum { OPT_TOKENS = TOOL_OPT_OWN, OPT_TOP, OPT_DIGEST, OPT_JSON };
	static const struct option table[] = {
		{"model", required_argument, NULL, 'm'},
		{"tokens", required_argument, NULL, OPT_TOKENS},
		{"prompt", required_argument, NULL, 'p'},
		{"top", required_argument, NULL, OPT_TOP},
		{"digest", no_argument, NULL, OPT_DIGEST},
		{"json", no_argument, NULL, OPT_JSON},
		{"help", no_argument, NULL, 'h'},
		TOOL_DEVICE_LONG_OPTIONS,
		{0},
	};
	uint64_t n;
	int c;

	argv[0] = (char *)"millrace model logits"; /* the name that getopt complains under */
	optind = 1;
	while ((c = getopt_long(argc, argv, "m:p:h", table, NULL)) != -1) {
		int taken = tool_device_option(c, optarg, &o->devices);

		if (taken)
			c = taken > 0 ? 0 : '?';
		switch (c) {
		case 0:
			break;
		case 'm':
			o->model = optarg;
			break;
		case 'p':
			o->prompt = optarg;
			break;
		case OPT_TOKENS:
			o->tokens = optarg;
			break;
		case OPT_TOP:
			if (tool_parse_number("--top", optarg, 0, TOP_MAX, &n))
				return TOOL_USAGE;
			o->top = (uint32_t)n;
			break;
		case OPT_DIGEST:
			o->digest = 1;
			break;
		case OPT_JSON:
			o->json = 1;
			break;
		case 'h':
			fputs(usage, stdout);
			return -1;
		default:
			return TOOL_USAGE;
		}
	}
	if (optind == argc && !o->tokens == !!o->prompt)
		return TOOL_OK;
	fprintf(stderr, "millrace: model logits takes one of --tokens and -p, and nothing else "
			"(--help says more)\n");
	return TOOL_USAGE;
}

/* Ids of "1,2,3"; returns how many, or -1 after one line on stderr. */
static int parse_ids(const char *text, uint32_t vocab, uint32_t *ids, uint32_t cap)
{
	int n = 0;

	for (;;) {
		char word[24];
		size_t bytes = strcspn(text, ",");
		uint64_t id;

		snprintf(word, sizeof(word), "%.*s", bytes > 20 ? 20 : (int)bytes, text);
		if (tool_parse_number("--tokens", word, 0, vocab - 1, &id))
			return -1;
		if ((uint32_t)n == cap) {
			fprintf(stderr, "millrace: more tokens than the model's context of %u\n",
				cap);
			return -1;
		}
		ids[n++] = (uint32_t)id;
		if (!text[bytes])
			return n;
		text += bytes + 1;
	}
}

static int encode(const struct mr_model *model, const char *text, uint32_t *ids, uint32_t cap)
{
	struct mr_token_work *work = NULL;
	size_t bytes = strlen(text);
	int n = mr_token_work_create(model->tokenizer, bytes + 1, &work);

	if (!n)
		n = mr_encode(model->tokenizer, work, text, bytes,
			      MR_ENCODE_CONTROL | MR_ENCODE_START, ids, cap);
	mr_token_work_destroy(work);
	if (n > 0)
		return n;
	fprintf(stderr, "millrace: the prompt: %s\n", n ? mr_strerror(n) : "no token in it");
	return -1;
}

static void on_step(void *arg, const struct tool_forced_step *step)
{
	struct logits_run *r = arg;

	crypto_hash_sha256_update(&r->hash, (const unsigned char *)step->logits,
				  (unsigned long long)r->vocab * sizeof(float));
	r->cycles += step->cycles;
	if (step->position != r->last)
		return;
	r->top_count = tool_top(step->logits, r->vocab, r->ids, r->top);
	for (uint32_t i = 0; i < r->top_count; i++)
		r->logits[i] = step->logits[r->ids[i]];
	r->log_sum = tool_log_sum_exp(step->logits, r->vocab);
}

static void print_json(const struct mr_device *dev, const struct mr_model *model,
		       const struct logits_run *r, const uint32_t *ids, int n, const char *digest)
{
	struct json_object *o = json_object_new_object(), *in = json_object_new_array();
	struct json_object *top = json_object_new_array();

	for (int i = 0; i < n; i++)
		json_object_array_add(in, json_object_new_uint64(ids[i]));
	for (uint32_t i = 0; i < r->top_count; i++) {
		struct json_object *pair = json_object_new_array();

		json_object_array_add(pair, json_object_new_uint64(r->ids[i]));
		json_object_array_add(pair, tool_json_number((double)r->logits[i]));
		json_object_array_add(top, pair);
	}
	json_object_object_add(o, "model", json_object_new_string(model->name));
	json_object_object_add(o, "device", json_object_new_string(dev->caps.name));
	json_object_object_add(o, "tokens", in);
	json_object_object_add(o, "top", top);
	json_object_object_add(o, "cycles", json_object_new_uint64(r->cycles));
	if (digest)
		json_object_object_add(o, "digest", json_object_new_string(digest));
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
}

static void print_table(const struct mr_device *dev, const struct mr_model *model,
			const struct logits_run *r, int n, const char *digest)
{
	printf("%s, %s, after %d token%s", model->name, dev->caps.name, n, n == 1 ? "" : "s");
	if (r->cycles)
		printf(", %llu device cycles", (unsigned long long)r->cycles);
	putchar('\n');
	if (r->top_count)
		printf("%8s %10s %10s  text\n", "id", "logit", "ln p");
	for (uint32_t i = 0; i < r->top_count; i++) {
		size_t bytes;
		const char *text = mr_token_bytes(model->tokenizer, r->ids[i], &bytes);

		printf("%8u %10.5f %10.5f  ", r->ids[i], (double)r->logits[i],
		       (double)r->logits[i] - r->log_sum);
		model_print_quoted(text, bytes);
		putchar('\n');
	}
	if (digest)
		printf("sha256 %s\n", digest);
}

static int run(const struct logits_options *o, const struct mr_model *model, const uint32_t *ids,
	       int n)
{
	struct tool_forced sequence = {.tokens = ids, .count = (uint32_t)n};
	unsigned char sum[crypto_hash_sha256_BYTES];
	char digest[2 * crypto_hash_sha256_BYTES + 1];
	struct tool_devices_options options = o->devices;
	struct tool_devices devices;
	struct logits_run r = {0};
	int status;

	options.context = (uint32_t)n + 1;
	options.slots = 1;
	options.decode_only = 1;
	if (tool_devices_open(&options, model, &devices))
		return TOOL_FAILED;
	r.vocab = devices.decode->caps.vocab;
	r.last = (uint32_t)n - 1;
	r.top = o->top;
	crypto_hash_sha256_init(&r.hash);
	status = tool_forced_run(devices.decode, &sequence, 1, on_step, NULL, &r);
	crypto_hash_sha256_final(&r.hash, sum);
	sodium_bin2hex(digest, sizeof(digest), sum, sizeof(sum));
	if (status)
		fprintf(stderr, "millrace: %s: decode: %s (%s)\n", devices.decode->caps.name,
			mr_strerror(status), mr_status_name(status));
	else if (o->json)
		print_json(devices.decode, model, &r, ids, n, o->digest ? digest : NULL);
	else
		print_table(devices.decode, model, &r, n, o->digest ? digest : NULL);
	tool_devices_close(&devices);
	return status ? TOOL_FAILED : TOOL_OK;
}

int model_logits(int argc, char **argv)
{
	struct logits_options o = {.top = 10};
	int status = parse(argc, argv, &o), n = -1;
	struct mr_model *model;
	uint32_t *ids, cap;

	if (status)
		return status < 0 ? TOOL_OK : status;
	model = tool_model_open(o.model);
	if (!model)
		return TOOL_FAILED;
	cap = model->shape.context - 1;
	ids = calloc(cap + 1, sizeof(*ids));
	if (ids)
		n = o.tokens ? parse_ids(o.tokens, model->shape.vocab, ids, cap)
			     : encode(model, o.prompt, ids, cap);
	else
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
	status = n > 0 ? run(&o, model, ids, n) : TOOL_FAILED;
	free(ids);
	mr_model_close(model);
	return status;
}
