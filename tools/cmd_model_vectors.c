// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace model vectors`: runs the reference vectors of a folder (tests/vectors/README.md says what they hold)
 * and prints the one JSON object that compare.py there judges. This file holds the command, tokens and chats;
 * what a device must do is in vectors_device.c.
 */
#include <getopt.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/model/chat.h"
#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "tools/model_cmds.h"
#include "tools/tools.h"
#include "tools/vectors.h"

#define TEXT_BYTES   (1u << 20) /* of one item, rendered */
#define MESSAGES_MAX 64u

struct vectors_options {
	const char *dir, *model, *only, *output;
	struct tool_devices_options devices;
};

/* What tokens and chats are encoded with. */
struct text_tools {
	const struct mr_model *model;
	struct mr_token_work *work;
	uint32_t *ids;
	char *text;
	size_t cap; /* of ids */
};

static const char usage[] =
	"usage: millrace model vectors DIR [-m FILE] [options]\n\n"
	"Runs the reference vectors in DIR (tokens.json, chat.json, logits.json, ppl.json) and "
	"prints\n"
	"the JSON object that compare.py takes. On the LPU every logit comes from DECODE with "
	"forced\n"
	"input from an empty slot; on the CPU `top` and `forced` come from prefill and decode, the "
	"rest\n"
	"from forced decode, and the two must agree bit for bit.\n\n"
	"  -m, --model FILE  GGUF (default: $MR_MODEL, then what `make model` fetched)\n"
	"  --only LIST       of tokens,chat,logits,ppl (default: all)\n"
	"  --json            accepted for likeness' sake: the output is JSON in any case\n"
	"  -o, --output FILE write there instead of to standard output\n" TOOL_DEVICE_HELP;

static int parse(int argc, char **argv, struct vectors_options *o)
{
	enum { OPT_ONLY = TOOL_OPT_OWN, OPT_JSON };
	static const struct option table[] = {
		{"model", required_argument, NULL, 'm'},
		{"only", required_argument, NULL, OPT_ONLY},
		{"json", no_argument, NULL, OPT_JSON},
		{"output", required_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		TOOL_DEVICE_LONG_OPTIONS,
		{0},
	};
	int c;

	argv[0] = (char *)"millrace model vectors"; /* the name that getopt complains under */
	optind = 1;
	while ((c = getopt_long(argc, argv, "m:o:h", table, NULL)) != -1) {
		int taken = tool_device_option(c, optarg, &o->devices);

		if (taken)
			c = taken > 0 ? 0 : '?';
		switch (c) {
		case 0:
		case OPT_JSON:
			break;
		case 'm':
			o->model = optarg;
			break;
		case 'o':
			o->output = optarg;
			break;
		case OPT_ONLY:
			o->only = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return -1;
		default:
			return TOOL_USAGE;
		}
	}
	if (optind + 1 == argc) {
		o->dir = argv[optind];
		return TOOL_OK;
	}
	fprintf(stderr, "millrace: model vectors takes one folder (--help says more)\n");
	return TOOL_USAGE;
}

static int kind_index(const char *word, size_t bytes)
{
	for (int i = 0; i < VECTOR_KINDS; i++)
		if (strlen(vector_kinds[i]) == bytes && !memcmp(vector_kinds[i], word, bytes))
			return i;
	return -1;
}

/* The kinds that --only names, as bits; 0 after one line on stderr. */
static unsigned kinds_of(const char *only)
{
	unsigned kinds = 0;

	if (!only)
		return (1u << VECTOR_KINDS) - 1;
	for (;; only++) {
		size_t bytes = strcspn(only, ",");
		int i = kind_index(only, bytes);

		if (i < 0) {
			fprintf(stderr,
				"millrace: --only takes tokens,chat,logits,ppl, not '%.*s'\n",
				(int)bytes, only);
			return 0;
		}
		kinds |= 1u << i;
		only += bytes;
		if (!*only)
			return kinds;
	}
}

static struct json_object *ids_json(const uint32_t *ids, int n)
{
	struct json_object *a = json_object_new_array();

	for (int i = 0; i < n; i++)
		json_object_array_add(a, json_object_new_uint64(ids[i]));
	return a;
}

static struct json_object *item_new(struct json_object *in)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "id", json_object_get(json_object_object_get(in, "id")));
	return o;
}

/* The bytes of "hex" or "text" into t->text; -1 where neither can be read. */
static int item_text(const struct text_tools *t, struct json_object *in)
{
	const char *hex = json_object_get_string(json_object_object_get(in, "hex"));
	struct json_object *text = json_object_object_get(in, "text");
	size_t n = hex ? strlen(hex) / 2 : (size_t)json_object_get_string_len(text);

	if ((!hex && !text) || n > TEXT_BYTES || (hex && strlen(hex) % 2))
		return -1;
	if (!hex) {
		memcpy(t->text, json_object_get_string(text), n);
		return (int)n;
	}
	for (size_t i = 0; i < n; i++) {
		char pair[3] = {hex[2 * i], hex[2 * i + 1], 0}, *end;

		t->text[i] = (char)strtoul(pair, &end, 16);
		if (*end)
			return -1;
	}
	return (int)n;
}

static int run_tokens(const struct text_tools *t, struct json_object *in, struct json_object *out)
{
	for (size_t i = 0; i < vector_length(in); i++) {
		struct json_object *item = vector_at(in, i), *o;
		int bytes = item_text(t, item), n;

		if (bytes < 0)
			return MR_E_FORMAT;
		n = mr_encode(t->model->tokenizer, t->work, t->text, (size_t)bytes,
			      MR_ENCODE_CONTROL, t->ids, t->cap);
		if (n < 0)
			return n;
		o = item_new(item);
		json_object_object_add(o, "tokens", ids_json(t->ids, n));
		json_object_array_add(out, o);
	}
	return 0;
}

static int run_chat(const struct text_tools *t, struct json_object *in, struct json_object *out)
{
	for (size_t i = 0; i < vector_length(in); i++) {
		struct json_object *item = vector_at(in, i), *o, *list;
		struct mr_chat_message message[MESSAGES_MAX];
		size_t count;
		int prompt, n, bytes;

		list = json_object_object_get(item, "messages");
		prompt = json_object_get_boolean(
			json_object_object_get(item, "add_generation_prompt"));
		count = vector_length(list);
		if (count > MESSAGES_MAX)
			return MR_E_TOO_LARGE;
		for (size_t k = 0; k < count; k++) {
			struct json_object *m = vector_at(list, k);
			struct json_object *content = json_object_object_get(m, "content");

			message[k].role = json_object_get_string(json_object_object_get(m, "role"));
			message[k].content = json_object_get_string(content);
			message[k].bytes = (size_t)json_object_get_string_len(content);
			if (!message[k].role || !message[k].content)
				return MR_E_FORMAT;
		}
		n = mr_chat_encode(t->model, t->work, message, count, prompt, t->ids, t->cap);
		if (n < 0)
			return n;
		bytes = mr_chat_render(t->model, message, count, prompt, t->text, TEXT_BYTES);
		if (bytes < 0)
			return bytes;
		o = item_new(item);
		json_object_object_add(o, "tokens", ids_json(t->ids, n));
		json_object_object_add(o, "rendered", json_object_new_string_len(t->text, bytes));
		json_object_array_add(out, o);
	}
	return 0;
}

/* Tokens and chats: what the model's tokeniser and template alone must do. */
static int run_text(const struct mr_model *model, struct json_object **in, struct json_object *out)
{
	struct text_tools t = {.model = model, .cap = model->shape.context};
	int status = mr_token_work_create(model->tokenizer, TEXT_BYTES, &t.work);

	t.ids = malloc(t.cap * sizeof(*t.ids));
	t.text = malloc(TEXT_BYTES);
	if (!status && (!t.ids || !t.text))
		status = MR_E_NO_MEMORY;
	for (int kind = VECTOR_TOKENS; !status && kind <= VECTOR_CHAT; kind++) {
		struct json_object *list;

		if (!in[kind])
			continue;
		list = json_object_new_array();
		json_object_object_add(out, vector_kinds[kind], list);
		status = kind == VECTOR_TOKENS ? run_tokens(&t, in[kind], list)
					       : run_chat(&t, in[kind], list);
	}
	if (status)
		fprintf(stderr, "millrace: tokens and chats: %s (%s)\n", mr_strerror(status),
			mr_status_name(status));
	mr_token_work_destroy(t.work);
	free(t.ids);
	free(t.text);
	return status;
}

/* Opens the files that are asked for; -1 after one line on stderr. */
static int read_inputs(const char *dir, unsigned kinds, struct json_object **in)
{
	for (int i = 0; i < VECTOR_KINDS; i++) {
		char path[4096];
		enum json_type type = i == VECTOR_PPL ? json_type_object : json_type_array;

		if (!(kinds & 1u << i))
			continue;
		snprintf(path, sizeof(path), "%s/%s.json", dir, vector_kinds[i]);
		in[i] = json_object_from_file(path);
		if (!in[i]) {
			fprintf(stderr, "millrace: %s", json_util_get_last_err());
			return -1;
		}
		if (!json_object_is_type(in[i], type)) {
			fprintf(stderr, "millrace: %s: not the reference vectors' format\n", path);
			return -1;
		}
	}
	return 0;
}

static int write_output(const char *path, struct json_object *out)
{
	const char *text = json_object_to_json_string_ext(out, JSON_C_TO_STRING_PLAIN);
	FILE *f = path ? fopen(path, "we") : stdout;
	int bad = !f || fputs(text, f) < 0 || fputc('\n', f) < 0 || fflush(f);

	if (f && path)
		bad |= fclose(f) != 0;
	if (bad)
		fprintf(stderr, "millrace: cannot write %s\n", path ? path : "the output");
	return bad;
}

static int run(const struct vectors_options *o, const struct mr_model *model, unsigned kinds,
	       struct json_object **in)
{
	const unsigned on_device = 1u << VECTOR_LOGITS | 1u << VECTOR_PPL;
	struct json_object *out = json_object_new_object();
	int bad = run_text(model, in, out);

	if (!bad && kinds & on_device)
		bad = vectors_on_device(&o->devices, model, in[VECTOR_LOGITS], in[VECTOR_PPL], out);
	if (!bad)
		bad = write_output(o->output, out);
	json_object_put(out);
	return bad ? TOOL_FAILED : TOOL_OK;
}

int model_vectors(int argc, char **argv)
{
	struct vectors_options o = {0};
	struct json_object *in[VECTOR_KINDS] = {NULL};
	int status = parse(argc, argv, &o);
	struct mr_model *model;
	unsigned kinds;

	if (status)
		return status < 0 ? TOOL_OK : status;
	kinds = kinds_of(o.only);
	if (!kinds)
		return TOOL_USAGE;
	model = tool_model_open(o.model);
	if (!model)
		return TOOL_FAILED;
	status = read_inputs(o.dir, kinds, in) ? TOOL_FAILED : run(&o, model, kinds, in);
	for (int i = 0; i < VECTOR_KINDS; i++)
		json_object_put(in[i]);
	mr_model_close(model);
	return status;
}
