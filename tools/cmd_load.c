// SPDX-License-Identifier: Apache-2.0
/* `millrace load`: prompts to a server over UDP through DPDK, from a process of its own. Options are read here. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "tools/load.h"

static const char usage[] =
	"usage: millrace load --memif PATH --key FILE -p TEXT [options]\n\n"
	"Sends prompts to `millrace serve` over UDP through a DPDK port of its own, a fixed number "
	"at\n"
	"once, and prints TTFT, ITL, tokens/s, device cycles per token and bytes copied per "
	"request.\n\n"
	"Prompts\n"
	"  -p, --prompt TEXT   a prompt; may be given again\n"
	"  --prompts FILE      a prompt a line\n"
	"  --chat              the prompt is a user's message: use the model's chat template\n"
	"  -n, --requests N    requests in all, prompts in turn (default: each prompt once)\n"
	"  -c, --concurrency N requests under way at once (default: 1)\n"
	"  --max-tokens N      of an answer (default: 64)\n"
	"  --ignore-eos        only --max-tokens and the context end an answer\n"
	"  --temperature X     0 = greedy (default)\n"
	"  --seed N            of the sampler\n"
	"Output\n"
	"  --stream            print each answer's text as it comes (-c 1) or when it is whole\n"
	"  -m, --model FILE    GGUF with the vocabulary for --stream (default: as `millrace "
	"model`)\n"
	"  --json              one JSON object, every answer's ids in it, instead of a table\n"
	"Network\n"
	"  --memif PATH        the server's memif socket\n"
	"  --vdev ARG          another DPDK device instead, such as net_af_packet0,iface=veth1\n"
	"  --eal ARGS          more arguments for DPDK's EAL\n"
	"  --key FILE          key file (`millrace keys new FILE`)\n"
	"  --ip A              our address (default: 10.77.0.2)\n"
	"  --server-ip A       the server's (default: 10.77.0.1)\n"
	"  --server-port N     the server's UDP port (default: 7878)\n"
	"  --wait MS           for the server to appear (default: 5000)\n"
	"  --timeout MS        of silence after which a request is given up (default: 30000)\n";

enum {
	OPT_PROMPTS = TOOL_OPT_OWN,
	OPT_CHAT,
	OPT_MAX_TOKENS,
	OPT_IGNORE_EOS,
	OPT_TEMPERATURE,
	OPT_SEED,
	OPT_STREAM,
	OPT_JSON,
	OPT_MEMIF,
	OPT_VDEV,
	OPT_EAL,
	OPT_KEY,
	OPT_IP,
	OPT_SERVER_IP,
	OPT_SERVER_PORT,
	OPT_WAIT,
	OPT_TIMEOUT,
};

static const struct option table[] = {
	{"prompt", required_argument, NULL, 'p'},
	{"prompts", required_argument, NULL, OPT_PROMPTS},
	{"chat", no_argument, NULL, OPT_CHAT},
	{"requests", required_argument, NULL, 'n'},
	{"concurrency", required_argument, NULL, 'c'},
	{"max-tokens", required_argument, NULL, OPT_MAX_TOKENS},
	{"ignore-eos", no_argument, NULL, OPT_IGNORE_EOS},
	{"temperature", required_argument, NULL, OPT_TEMPERATURE},
	{"seed", required_argument, NULL, OPT_SEED},
	{"stream", no_argument, NULL, OPT_STREAM},
	{"model", required_argument, NULL, 'm'},
	{"json", no_argument, NULL, OPT_JSON},
	{"memif", required_argument, NULL, OPT_MEMIF},
	{"vdev", required_argument, NULL, OPT_VDEV},
	{"eal", required_argument, NULL, OPT_EAL},
	{"key", required_argument, NULL, OPT_KEY},
	{"ip", required_argument, NULL, OPT_IP},
	{"server-ip", required_argument, NULL, OPT_SERVER_IP},
	{"server-port", required_argument, NULL, OPT_SERVER_PORT},
	{"wait", required_argument, NULL, OPT_WAIT},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* What the command line named, before files are opened. */
struct named {
	const char *memif, *vdev, *key, *model;
	char vdev_text[512];
};

static int add_prompt(struct load_options *o, const char *text, size_t bytes)
{
	struct load_prompt *more =
		reallocarray(o->prompts, o->prompt_count + 1, sizeof(*o->prompts));
	char *copy = strndup(text, bytes);

	if (more)
		o->prompts = more;
	if (!more || !copy || bytes > UINT32_MAX) {
		free(copy);
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return -1;
	}
	o->prompts[o->prompt_count++] = (struct load_prompt){copy, (uint32_t)bytes};
	return 0;
}

static int add_prompts(struct load_options *o, const char *path)
{
	FILE *file = fopen(path, "re");
	size_t room = 0;
	char *line = NULL;
	ssize_t n;
	int bad = 0;

	if (!file) {
		fprintf(stderr, "millrace: %s: %s\n", path, strerror(errno));
		return -1;
	}
	while (!bad && (n = getline(&line, &room, file)) >= 0) {
		if (n && line[n - 1] == '\n')
			n--;
		if (n)
			bad = add_prompt(o, line, (size_t)n);
	}
	free(line);
	fclose(file);
	return bad;
}

static int number(const char *option, const char *text, uint64_t min, uint64_t max, uint32_t *out)
{
	uint64_t n;

	if (tool_parse_number(option, text, min, max, &n) != 0)
		return -1;
	*out = (uint32_t)n;
	return 0;
}

static int address(const char *option, const char *text, uint32_t *out)
{
	if (mr_net_parse_ip(text, out) == 0)
		return 0;
	fprintf(stderr, "millrace: %s takes an IPv4 address, not '%s'\n", option, text);
	return -1;
}

static int temperature(const char *text, float *out)
{
	char *end;

	*out = strtof(text, &end);
	if (end != text && !*end && *out >= 0 && *out <= 100)
		return 0;
	fprintf(stderr, "millrace: --temperature takes a number from 0 to 100, not '%s'\n", text);
	return -1;
}

static int network_option(int c, const char *value, struct load_options *o, struct named *named)
{
	uint32_t port;

	switch (c) {
	case OPT_MEMIF:
		named->memif = value;
		return 0;
	case OPT_VDEV:
		named->vdev = value;
		return 0;
	case OPT_EAL:
		o->client.eal_args = value;
		return 0;
	case OPT_KEY:
		named->key = value;
		return 0;
	case OPT_IP:
		return address("--ip", value, &o->client.ip);
	case OPT_SERVER_IP:
		return address("--server-ip", value, &o->client.server_ip);
	case OPT_SERVER_PORT:
		if (number("--server-port", value, 1, 65535, &port) != 0)
			return -1;
		o->client.server_port = (uint16_t)port;
		return 0;
	case OPT_WAIT:
		return number("--wait", value, 1, 3600000, &o->wait_ms);
	case OPT_TIMEOUT:
		return number("--timeout", value, 1, 3600000, &o->client.timeout_ms);
	default:
		return -1; /* getopt_long has complained */
	}
}

static int one_option(int c, const char *value, struct load_options *o, struct named *named)
{
	switch (c) {
	case 'p':
		return add_prompt(o, value, strlen(value));
	case OPT_PROMPTS:
		return add_prompts(o, value);
	case OPT_CHAT:
		o->flags |= MR_WIRE_CHAT;
		return 0;
	case 'n':
		return number("--requests", value, 1, 10000000, &o->requests);
	case 'c':
		return number("--concurrency", value, 1, 4096, &o->concurrency);
	case OPT_MAX_TOKENS:
		return number("--max-tokens", value, 1, 1u << 20, &o->max_tokens);
	case OPT_IGNORE_EOS:
		o->flags |= MR_WIRE_IGNORE_EOS;
		return 0;
	case OPT_TEMPERATURE:
		return temperature(value, &o->sampling.temperature);
	case OPT_SEED:
		return tool_parse_number("--seed", value, 0, UINT64_MAX, &o->sampling.seed);
	case OPT_STREAM:
		o->stream = 1;
		return 0;
	case OPT_JSON:
		o->json = 1;
		return 0;
	case 'm':
		named->model = value;
		return 0;
	default:
		return network_option(c, value, o, named);
	}
}

static int complain(const char *text)
{
	fprintf(stderr, "millrace: %s; see millrace load --help\n", text);
	return -1;
}

/* What must be there, and what follows from it. */
static int check(struct load_options *o, struct named *named, int extra)
{
	int n;

	if (extra)
		return complain("prompts are given by -p or --prompts");
	if (!o->prompt_count)
		return complain("no prompt: give -p or --prompts");
	for (uint32_t i = 0; i < o->prompt_count; i++)
		if (!o->prompts[i].bytes)
			return complain("a prompt is empty");
	if (!named->memif == !named->vdev)
		return complain("give either --memif or --vdev");
	if (!named->key)
		return complain("no --key");
	if (o->stream && o->json)
		return complain("--stream and --json both want the output");
	if (!o->requests)
		o->requests = o->prompt_count;
	if (o->concurrency > o->requests)
		o->concurrency = o->requests;
	o->client.vdev = named->vdev;
	o->where = named->vdev;
	if (!named->memif)
		return 0;
	n = snprintf(named->vdev_text, sizeof(named->vdev_text),
		     "net_memif0,role=client,id=0,socket=%s,socket-abstract=no", named->memif);
	if (n < 0 || (size_t)n >= sizeof(named->vdev_text) || strchr(named->memif, ','))
		return complain("--memif takes a short path without commas");
	o->client.vdev = named->vdev_text;
	o->memif = o->where = named->memif;
	return 0;
}

static int read_options(int argc, char **argv, struct load_options *o, struct named *named)
{
	int c;

	*o = (struct load_options){
		.concurrency = 1,
		.max_tokens = 64,
		.wait_ms = 5000,
		.client = {.timeout_ms = 30000, .ip = 0x0a4d0002, .server_ip = 0x0a4d0001},
	};
	optind = 1;
	while ((c = getopt_long(argc, argv, "p:n:c:m:h", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return TOOL_OK + 1;
		}
		if (one_option(c, optarg, o, named) != 0)
			return TOOL_USAGE + 1;
	}
	return check(o, named, optind < argc) ? TOOL_USAGE + 1 : 0;
}

static int open_key(const char *path, struct mr_wire_key *key)
{
	int status = mr_key_load(path, key);

	if (status == 0)
		return 0;
	fprintf(stderr, "millrace: key file %s: %s; see millrace keys --help\n", path,
		mr_strerror(status));
	return -1;
}

static void free_options(struct load_options *o)
{
	for (uint32_t i = 0; i < o->prompt_count; i++)
		free(o->prompts[i].text);
	free(o->prompts);
	if (o->model)
		mr_model_close(o->model);
}

static int load(int argc, char **argv)
{
	struct load_options options;
	struct named named = {0};
	struct load_run run = {0};
	int status = read_options(argc, argv, &options, &named);

	if (status != 0) {
		free_options(&options);
		return status - 1;
	}
	status = open_key(named.key, &options.client.key);
	if (status == 0 && options.stream) {
		options.model = tool_model_open(named.model);
		status = options.model ? 0 : -1;
	}
	if (status == 0) {
		tool_catch_signals();
		status = load_run(&run, &options);
	}
	status = status == 0 ? load_report(&run) : TOOL_FAILED;
	load_free(&run);
	free_options(&options);
	return status;
}

TOOL_COMMAND(load, "send prompts over UDP through DPDK, and measure the answers", load);
