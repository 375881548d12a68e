// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace model`: looks into a model file. `info` and `tokenize` are here; what needs a device lies in
 * files of its own (model_cmds.h).
 */
#include <getopt.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/gguf.h"
#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "tools/model_cmds.h"
#include "tools/tools.h"

static const char usage[] = "usage: millrace model <subcommand> [options]\n\n"
			    "  info      what a model file holds: shape, tensors, tokeniser\n"
			    "  tokenize  text to token ids\n"
			    "  logits    what a device makes of a prompt\n"
			    "  vectors   runs the reference vectors on a device\n\n"
			    "millrace model <subcommand> --help says more.\n";

static const char info_usage[] =
	"usage: millrace model info [FILE] [--json]\n\n"
	"  FILE    GGUF (default: $MR_MODEL, then what `make model` fetched)\n"
	"  --json  one JSON object instead of a table\n";

static const char tokenize_usage[] =
	"usage: millrace model tokenize [-m FILE] [options] TEXT|-\n\n"
	"Prints the token ids of TEXT, or of what stdin holds where TEXT is -.\n\n"
	"  -m, --model FILE  GGUF (default: $MR_MODEL, then what `make model` fetched)\n"
	"  --control         text that spells a control token is that token\n"
	"  --json            one JSON object instead of a table\n";

enum { OPT_JSON = 0x100, OPT_CONTROL };

struct options {
	const char *model;
	int json, control;
};

/* Takes the options off the front. Returns 0, or an exit status + 1. */
static int parse(int argc, char **argv, const char *name, const char *help,
		 const struct option *table, const char *letters, struct options *o)
{
	int c;

	argv[0] = (char *)(uintptr_t)name; /* the name that getopt complains under */
	optind = 1;
	while ((c = getopt_long(argc, argv, letters, table, NULL)) != -1) {
		switch (c) {
		case 'm':
			o->model = optarg;
			break;
		case OPT_JSON:
			o->json = 1;
			break;
		case OPT_CONTROL:
			o->control = 1;
			break;
		case 'h':
			fputs(help, stdout);
			return TOOL_OK + 1;
		default:
			return TOOL_USAGE + 1;
		}
	}
	return 0;
}

static void print_json(struct json_object *o)
{
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
}

/* Tensors of one type: how many, and their bytes. */
static uint32_t count_type(const struct mr_gguf *gguf, enum mr_tensor_type type, uint64_t *bytes)
{
	uint32_t n = 0;

	*bytes = 0;
	for (uint32_t i = 0; i < mr_gguf_tensor_count(gguf); i++) {
		const struct mr_tensor *t = mr_gguf_tensor_at(gguf, i);

		if (t->type != type)
			continue;
		*bytes += t->bytes;
		n++;
	}
	return n;
}

static const enum mr_tensor_type types[] = {
	MR_TENSOR_F32,  MR_TENSOR_F16,  MR_TENSOR_BF16, MR_TENSOR_Q4_0, MR_TENSOR_Q4_1,
	MR_TENSOR_Q8_0, MR_TENSOR_Q4_K, MR_TENSOR_Q5_K, MR_TENSOR_Q6_K,
};
#define TYPES (sizeof(types) / sizeof(types[0]))

static uint64_t kv_bytes_per_token(const struct mr_shape *s)
{
	return s->layers * mr_kv_layer_bytes(s) / 16;
}

static void info_json(const struct mr_model *m)
{
	struct json_object *o = json_object_new_object(), *tensors = json_object_new_object();
	struct json_object *stop = json_object_new_array();
	const struct mr_shape *s = &m->shape;
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"file_bytes", mr_gguf_file_bytes(m->gguf)},
		{"layers", s->layers},
		{"width", s->width},
		{"ffn", s->ffn},
		{"heads", s->heads},
		{"kv_heads", s->kv_heads},
		{"head_dim", s->head_dim},
		{"vocab", s->vocab},
		{"context", s->context},
		{"kv_bytes_per_token", kv_bytes_per_token(s)},
		{"bos", m->bos},
		{"eos", m->eos},
	};

	json_object_object_add(o, "name", json_object_new_string(m->name));
	json_object_object_add(o, "architecture", json_object_new_string(m->architecture));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		json_object_object_add(o, numbers[i].name,
				       json_object_new_uint64(numbers[i].value));
	json_object_object_add(o, "rope_base", json_object_new_double((double)s->rope_base));
	json_object_object_add(o, "rms_eps", json_object_new_double((double)s->rms_eps));
	json_object_object_add(o, "tied",
			       json_object_new_boolean(m->output.data == m->token_embd.data));
	json_object_object_add(o, "chat_known", json_object_new_boolean((int)m->chat.known));
	for (uint32_t i = 0; i < m->stop_count; i++)
		json_object_array_add(stop, json_object_new_uint64(m->stop[i]));
	json_object_object_add(o, "stop", stop);
	for (size_t i = 0; i < TYPES; i++) {
		struct json_object *t = json_object_new_object();
		uint64_t bytes;
		uint32_t count = count_type(m->gguf, types[i], &bytes);

		if (!count) {
			json_object_put(t);
			continue;
		}
		json_object_object_add(t, "count", json_object_new_uint64(count));
		json_object_object_add(t, "bytes", json_object_new_uint64(bytes));
		json_object_object_add(tensors, mr_tensor_type_name(types[i]), t);
	}
	json_object_object_add(o, "tensors", tensors);
	print_json(o);
}

void model_print_quoted(const char *text, size_t bytes)
{
	putchar('"');
	for (size_t i = 0; i < bytes; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
			printf("\\x%02x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void info_table(const struct mr_model *m)
{
	const struct mr_shape *s = &m->shape;
	size_t bytes;

	printf("name          ");
	model_print_quoted(m->name, strlen(m->name));
	printf("\narchitecture  %s, GGUF 3, %.1f MB, %u tensors, %u keys\n", m->architecture,
	       (double)mr_gguf_file_bytes(m->gguf) / 1e6, mr_gguf_tensor_count(m->gguf),
	       mr_gguf_pair_count(m->gguf));
	printf("layers        %u of width %u, ffn %u\n", s->layers, s->width, s->ffn);
	printf("attention     %u heads of %u over %u KV heads, RoPE base %g, context %u\n",
	       s->heads, s->head_dim, s->kv_heads, (double)s->rope_base, s->context);
	printf("KV            %llu bytes a token, FP16\n",
	       (unsigned long long)kv_bytes_per_token(s));
	for (size_t i = 0; i < TYPES; i++) {
		uint64_t type_bytes;
		uint32_t count = count_type(m->gguf, types[i], &type_bytes);

		if (!count)
			continue;
		printf("%-13s %u tensors, %.1f MB\n", mr_tensor_type_name(types[i]), count,
		       (double)type_bytes / 1e6);
	}
	printf("output        %s\n", m->output.data == m->token_embd.data ? "tied to the embedding"
									  : "a matrix of its own");
	printf("vocabulary    %u tokens; BOS %u, EOS %u; an answer ends at", s->vocab, m->bos,
	       m->eos);
	for (uint32_t i = 0; i < m->stop_count; i++) {
		const char *text = mr_token_bytes(m->tokenizer, m->stop[i], &bytes);

		printf("%s %u ", i ? "," : "", m->stop[i]);
		model_print_quoted(text, bytes);
	}
	printf("\nchat template %s\n", m->chat.known ? "known" : "not known: prompts only");
}

static int model_info(int argc, char **argv)
{
	static const struct option table[] = {
		{"json", no_argument, NULL, OPT_JSON}, {"help", no_argument, NULL, 'h'}, {0}};
	struct options o = {0};
	struct mr_model *m;
	int status = parse(argc, argv, "millrace model info", info_usage, table, "h", &o);

	if (status)
		return status - 1;
	if (argc - optind > 1) {
		fprintf(stderr, "millrace: model info takes one file (--help says more)\n");
		return TOOL_USAGE;
	}
	m = tool_model_open(optind < argc ? argv[optind] : NULL);
	if (!m)
		return TOOL_FAILED;
	if (o.json)
		info_json(m);
	else
		info_table(m);
	mr_model_close(m);
	return TOOL_OK;
}

#define STDIN_BYTES_MAX ((size_t)16 << 20)

/* All of stdin, for the caller to free; NULL after one line on stderr. */
static char *read_stdin(size_t *bytes)
{
	char *text = malloc(STDIN_BYTES_MAX + 1);

	if (!text) {
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return NULL;
	}
	*bytes = fread(text, 1, STDIN_BYTES_MAX + 1, stdin);
	if (!ferror(stdin) && *bytes <= STDIN_BYTES_MAX)
		return text;
	fprintf(stderr, "millrace: stdin: %s\n",
		mr_strerror(ferror(stdin) ? MR_E_IO : MR_E_TOO_LARGE));
	free(text);
	return NULL;
}

static void print_tokens(const struct mr_model *m, const uint32_t *ids, int n, int json)
{
	struct json_object *list, *o;

	for (int i = 0; i < n && !json; i++) {
		size_t bytes;
		const char *text = mr_token_bytes(m->tokenizer, ids[i], &bytes);

		printf("%8u  ", ids[i]);
		model_print_quoted(text, bytes);
		puts(mr_token_is_control(m->tokenizer, ids[i]) ? "  control" : "");
	}
	if (!json)
		return;
	list = json_object_new_array();
	for (int i = 0; i < n; i++)
		json_object_array_add(list, json_object_new_uint64(ids[i]));
	o = json_object_new_object();
	json_object_object_add(o, "tokens", list);
	print_json(o);
}

static int tokenize(const struct mr_model *m, const char *text, size_t bytes,
		    const struct options *o)
{
	struct mr_token_work *work = NULL;
	size_t cap = 3 * bytes; /* an ill-formed byte makes at most three tokens */
	uint32_t *ids = calloc(cap + 1, sizeof(*ids));
	int n = ids ? mr_token_work_create(m->tokenizer, bytes, &work) : MR_E_NO_MEMORY;

	if (!n)
		n = mr_encode(m->tokenizer, work, text, bytes, o->control ? MR_ENCODE_CONTROL : 0,
			      ids, cap);
	if (n < 0)
		fprintf(stderr, "millrace: %s\n", mr_strerror(n));
	else
		print_tokens(m, ids, n, o->json);
	mr_token_work_destroy(work);
	free(ids);
	return n < 0 ? TOOL_FAILED : TOOL_OK;
}

static int model_tokenize(int argc, char **argv)
{
	static const struct option table[] = {{"model", required_argument, NULL, 'm'},
					      {"control", no_argument, NULL, OPT_CONTROL},
					      {"json", no_argument, NULL, OPT_JSON},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	struct options o = {0};
	struct mr_model *m;
	char *text, *input = NULL;
	size_t bytes;
	int status = parse(argc, argv, "millrace model tokenize", tokenize_usage, table, "m:h", &o);

	if (status)
		return status - 1;
	if (argc - optind != 1) {
		fprintf(stderr,
			"millrace: model tokenize takes one text, or - (--help says more)\n");
		return TOOL_USAGE;
	}
	m = tool_model_open(o.model);
	if (!m)
		return TOOL_FAILED;
	text = argv[optind];
	bytes = strlen(text);
	if (!strcmp(text, "-"))
		text = input = read_stdin(&bytes);
	status = text ? tokenize(m, text, bytes, &o) : TOOL_FAILED;
	free(input);
	mr_model_close(m);
	return status;
}

static int run(int argc, char **argv)
{
	const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{"info", model_info},
		{"tokenize", model_tokenize},
		{"logits", model_logits},
		{"vectors", model_vectors},
	};
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		fputs(usage, stdout);
		return TOOL_OK;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	if (*name)
		fprintf(stderr, "millrace: model has no subcommand '%s'\n", name);
	fputs(usage, stderr);
	return TOOL_USAGE;
}
TOOL_COMMAND(model, "look into a model file: info, tokenize, logits, vectors", run);
