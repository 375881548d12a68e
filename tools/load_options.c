// SPDX-License-Identifier: Apache-2.0
/* The command line of `millrace load`: what is refused is refused by the option's name. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/model.h"
#include "tools/load.h"

static const char usage[] =
	"usage: millrace load (--ring SOCKET | --memif PATH --key FILE) -p TEXT [options]\n\n"
	"Sends prompts to `millrace serve`, over a ring or over UDP through a DPDK port of its "
	"own,\n"
	"and prints TTFT, ITL, end-to-end time, tokens/s and what failed.\n\n"
	"Prompts\n"
	"  -p, --prompt TEXT   a prompt; may be given again\n"
	"  --prompts FILE      a prompt a line\n"
	"  --prompt-tokens N   random prompts of N tokens\n"
	"  --mix SHORT:LONG[:K] random prompts of SHORT tokens, each K-th (default: 10) of LONG;\n"
	"                      figures by class\n"
	"  --trace FILE        prompts and their times from a trace: JSON lines or CSV\n"
	"  --chat              the prompt is a user's message: use the model's chat template\n"
	"  --max-tokens N      of an answer (default: 64)\n"
	"  --ignore-eos        only --max-tokens and the context end an answer\n"
	"  --temperature X     0 = greedy (default)\n"
	"  --seed N            of the sampler, the arrivals and the random prompts (default: 0)\n"
	"Arrivals\n"
	"  -n, --requests N    requests in all, prompts in turn (default: each prompt once)\n"
	"  --seconds S         send for so long\n"
	"  -c, --concurrency N closed loop: requests under way at once (default: 1)\n"
	"  --rate R            open loop: R requests a second, by a Poisson process\n"
	"Output\n"
	"  --stream            print each answer's text as it comes (-c 1) or when it is whole\n"
	"  -m, --model FILE    GGUF with the vocabulary, for --stream and random prompts over UDP\n"
	"                      (default: as `millrace model`)\n"
	"  --json              one JSON object, every answer's ids in it, instead of a table\n"
	"  --samples FILE      every token's time as CSV\n"
	"  --plot FILE         the distribution of TTFT and ITL (.png or .svg), by gnuplot\n"
	"Server\n"
	"  --ring SOCKET       a ring server's socket\n"
	"  --clients N         ring connections, requests in turn (default: 1)\n"
	"  --memif PATH        the server's memif socket\n"
	"  --vdev ARG          another DPDK device instead, such as net_af_packet0,iface=veth1\n"
	"  --eal ARGS          more arguments for DPDK's EAL\n"
	"  --key FILE          key file (`millrace keys new FILE`)\n"
	"  --ip A              our address (default: 10.77.0.2)\n"
	"  --server-ip A       the server's (default: 10.77.0.1)\n"
	"  --server-port N     the server's UDP port (default: 7878)\n"
	"  --wait MS           for the server to appear (default: 5000)\n"
	"  --timeout MS        of silence after which a request, or a ring's server, is given up\n"
	"                      (default: 30000)\n"
	"  --poll MODE         busy (never sleeps) or adaptive (default)\n";

enum {
	OPT_PROMPTS = TOOL_OPT_OWN,
	OPT_PROMPT_TOKENS,
	OPT_MIX,
	OPT_TRACE,
	OPT_CHAT,
	OPT_MAX_TOKENS,
	OPT_IGNORE_EOS,
	OPT_TEMPERATURE,
	OPT_SEED,
	OPT_SECONDS,
	OPT_RATE,
	OPT_STREAM,
	OPT_JSON,
	OPT_SAMPLES,
	OPT_PLOT,
	OPT_RING,
	OPT_CLIENTS,
	OPT_MEMIF,
	OPT_VDEV,
	OPT_EAL,
	OPT_KEY,
	OPT_IP,
	OPT_SERVER_IP,
	OPT_SERVER_PORT,
	OPT_WAIT,
	OPT_TIMEOUT,
	OPT_POLL,
	OPT_END
};

static const struct option table[] = {
	{"prompt", required_argument, NULL, 'p'},
	{"prompts", required_argument, NULL, OPT_PROMPTS},
	{"prompt-tokens", required_argument, NULL, OPT_PROMPT_TOKENS},
	{"mix", required_argument, NULL, OPT_MIX},
	{"trace", required_argument, NULL, OPT_TRACE},
	{"chat", no_argument, NULL, OPT_CHAT},
	{"requests", required_argument, NULL, 'n'},
	{"seconds", required_argument, NULL, OPT_SECONDS},
	{"concurrency", required_argument, NULL, 'c'},
	{"rate", required_argument, NULL, OPT_RATE},
	{"max-tokens", required_argument, NULL, OPT_MAX_TOKENS},
	{"ignore-eos", no_argument, NULL, OPT_IGNORE_EOS},
	{"temperature", required_argument, NULL, OPT_TEMPERATURE},
	{"seed", required_argument, NULL, OPT_SEED},
	{"stream", no_argument, NULL, OPT_STREAM},
	{"model", required_argument, NULL, 'm'},
	{"json", no_argument, NULL, OPT_JSON},
	{"samples", required_argument, NULL, OPT_SAMPLES},
	{"plot", required_argument, NULL, OPT_PLOT},
	{"ring", required_argument, NULL, OPT_RING},
	{"clients", required_argument, NULL, OPT_CLIENTS},
	{"memif", required_argument, NULL, OPT_MEMIF},
	{"vdev", required_argument, NULL, OPT_VDEV},
	{"eal", required_argument, NULL, OPT_EAL},
	{"key", required_argument, NULL, OPT_KEY},
	{"ip", required_argument, NULL, OPT_IP},
	{"server-ip", required_argument, NULL, OPT_SERVER_IP},
	{"server-port", required_argument, NULL, OPT_SERVER_PORT},
	{"wait", required_argument, NULL, OPT_WAIT},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"poll", required_argument, NULL, OPT_POLL},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* What the command line named, before files are opened. */
struct named {
	const char *memif, *vdev, *key;
	char vdev_text[512];
	char given[OPT_END]; /* by what getopt_long returns */
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

static int decimal(const char *option, const char *text, double min, double max, double *out)
{
	char *end;

	*out = strtod(text, &end);
	if (text[0] >= '0' && text[0] <= '9' && !*end && isfinite(*out) && *out >= min &&
	    *out <= max)
		return 0;
	fprintf(stderr, "millrace: %s takes a number from %g to %g, not '%s'\n", option, min, max,
		text);
	return -1;
}

static int address(const char *option, const char *text, uint32_t *out)
{
	if (mr_net_parse_ip(text, out) == 0)
		return 0;
	fprintf(stderr, "millrace: %s takes an IPv4 address, not '%s'\n", option, text);
	return -1;
}

static int mix(const char *text, struct load_options *o)
{
	unsigned a, b, every = 10;
	int end = -1, parts;
	/* Digits and colons: sscanf alone takes blanks and signs. */
	size_t plain = strspn(text, "0123456789:");

	parts = sscanf(text, "%7u:%7u%n:%7u%n", &a, &b, &end, &every, &end);
	if (!text[plain] && parts >= 2 && end == (int)strlen(text) && a && a <= 1u << 20 && b &&
	    b <= 1u << 20 && every >= 2) {
		o->mix_short = a;
		o->mix_long = b;
		o->mix_every = every;
		return 0;
	}
	fprintf(stderr,
		"millrace: --mix takes SHORT:LONG or SHORT:LONG:K, tokens from 1 to %u and K from "
		"2, "
		"not '%s'\n",
		1u << 20, text);
	return -1;
}

static int poll_mode(const char *text, int *busy)
{
	*busy = strcmp(text, "busy") == 0;
	if (*busy || strcmp(text, "adaptive") == 0)
		return 0;
	fprintf(stderr, "millrace: --poll is busy or adaptive, not '%s'\n", text);
	return -1;
}

static int server_option(int c, const char *value, struct load_options *o, struct named *named)
{
	uint32_t port;

	switch (c) {
	case OPT_RING:
		o->ring = value;
		return 0;
	case OPT_CLIENTS:
		return number("--clients", value, 1, LOAD_LABELS_MAX, &o->clients);
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
		return number("--timeout", value, 1, 3600000, &o->timeout_ms);
	case OPT_POLL:
		return poll_mode(value, &o->busy);
	default:
		return -1; /* getopt_long has complained */
	}
}

static int output_option(int c, const char *value, struct load_options *o, struct named *named)
{
	switch (c) {
	case OPT_STREAM:
		o->stream = 1;
		return 0;
	case OPT_JSON:
		o->json = 1;
		return 0;
	case OPT_SAMPLES:
		o->samples = value;
		return 0;
	case OPT_PLOT:
		o->plot = value;
		return 0;
	case 'm':
		o->model_path = value;
		return 0;
	default:
		return server_option(c, value, o, named);
	}
}

static int one_option(int c, const char *value, struct load_options *o, struct named *named)
{
	double x;

	switch (c) {
	case 'p':
		return add_prompt(o, value, strlen(value));
	case OPT_PROMPTS:
		return add_prompts(o, value);
	case OPT_PROMPT_TOKENS:
		return number("--prompt-tokens", value, 1, 1u << 20, &o->prompt_tokens);
	case OPT_MIX:
		return mix(value, o);
	case OPT_TRACE:
		o->trace = value;
		return 0;
	case OPT_CHAT:
		o->chat = 1;
		return 0;
	case 'n':
		return number("--requests", value, 1, LOAD_REQUESTS_MAX, &o->requests);
	case OPT_SECONDS:
		return decimal("--seconds", value, 0.001, 1e6, &o->seconds);
	case 'c':
		return number("--concurrency", value, 1, LOAD_FLIGHT_MAX, &o->concurrency);
	case OPT_RATE:
		return decimal("--rate", value, 0.001, 1e6, &o->rate);
	case OPT_MAX_TOKENS:
		return number("--max-tokens", value, 1, 1u << 20, &o->max_tokens);
	case OPT_IGNORE_EOS:
		o->ignore_eos = 1;
		return 0;
	case OPT_TEMPERATURE:
		if (decimal("--temperature", value, 0, 100, &x))
			return -1;
		o->sampling.temperature = (float)x;
		return 0;
	case OPT_SEED:
		return tool_parse_number("--seed", value, 0, UINT64_MAX, &o->sampling.seed);
	default:
		return output_option(c, value, o, named);
	}
}

static int complain(const char *text)
{
	fprintf(stderr, "millrace: %s; see millrace load --help\n", text);
	return -1;
}

static const char *option_name(int c)
{
	for (const struct option *t = table; t->name; t++)
		if (t->val == c)
			return t->name;
	return "";
}

/* Refuses what of @options, which ends with 0, was given. */
static int refuse(const struct named *named, const int *options, const char *why)
{
	for (; *options; options++) {
		if (!named->given[*options])
			continue;
		fprintf(stderr, "millrace: --%s %s; see millrace load --help\n",
			option_name(*options), why);
		return -1;
	}
	return 0;
}

static int check_prompts(const struct load_options *o, const struct named *named)
{
	static const int of_trace[] = {OPT_RATE, 'c', 0};
	static const int open_only[] = {'c', 0};
	static const int text_only[] = {OPT_CHAT, 0};
	const int kinds = (o->prompt_count > 0) + (o->prompt_tokens > 0) + (o->mix_every > 0) +
			  (o->trace != NULL);

	if (kinds == 0)
		return complain("no prompt: give -p, --prompts, --prompt-tokens, --mix or --trace");
	if (kinds > 1)
		return complain("give one of -p or --prompts, --prompt-tokens, --mix and --trace");
	for (uint32_t i = 0; i < o->prompt_count; i++)
		if (!o->prompts[i].bytes)
			return complain("a prompt is empty");
	if (o->trace && refuse(named, of_trace, "makes arrivals, and so does --trace"))
		return -1;
	if (o->rate > 0 && refuse(named, open_only, "is of the closed loop; --rate opens it"))
		return -1;
	if (!o->prompt_count && !o->trace && !o->requests && o->seconds <= 0)
		return complain("how many random prompts? give -n or --seconds");
	if (!o->prompt_count && !o->trace)
		return refuse(named, text_only, "renders text, and random prompts are tokens");
	return 0;
}

static int check_output(const struct load_options *o)
{
	if (o->stream && o->json)
		return complain("--stream and --json both want the output");
	if (o->stream && (o->rate > 0 || o->trace))
		return complain("--stream writes between two requests: not with --rate or --trace");
	return 0;
}

static int check_server(struct load_options *o, struct named *named)
{
	static const int of_wire[] = {OPT_MEMIF,     OPT_VDEV,        OPT_EAL, OPT_KEY, OPT_IP,
				      OPT_SERVER_IP, OPT_SERVER_PORT, 'm',     0};
	static const int of_ring[] = {OPT_CLIENTS, 0};
	int n;

	if (o->ring) {
		o->where = o->ring;
		return refuse(named, of_wire,
			      "is of the wire, and --ring needs none of it: no DPDK, no key, the "
			      "server's vocabulary");
	}
	if (!named->memif && !named->vdev)
		return complain("no server: give --ring, --memif or --vdev");
	if (named->memif && named->vdev)
		return complain("give either --memif or --vdev");
	if (!named->key)
		return complain("no --key");
	if (refuse(named, of_ring, "is of the ring: on the wire a key is a client"))
		return -1;
	o->client.vdev = named->vdev;
	o->where = named->vdev;
	if (!named->memif)
		return 0;
	n = snprintf(named->vdev_text, sizeof(named->vdev_text),
		     "net_memif0,role=client,id=0,socket=%s,socket-abstract=no", named->memif);
	if (n < 0 || (size_t)n >= sizeof(named->vdev_text) || strchr(named->memif, ','))
		return complain("--memif takes a short path without commas");
	o->client.vdev = strdup(named->vdev_text);
	o->memif = o->where = named->memif;
	return o->client.vdev ? 0 : complain(mr_strerror(MR_E_NO_MEMORY));
}

static int open_key(const char *path, struct mr_wire_key *key)
{
	int status = mr_key_load(path, key);

	if (status == 0)
		return 0;
	fprintf(stderr, "millrace: key file %s: %s (%s); see millrace keys --help\n", path,
		mr_strerror(status), mr_status_name(status));
	return -1;
}

int load_options_read(int argc, char **argv, struct load_options *o)
{
	struct named named = {0};
	int c;

	*o = (struct load_options){
		.concurrency = 1,
		.max_tokens = 64,
		.clients = 1,
		.wait_ms = 5000,
		.timeout_ms = 30000,
		.client = {.ip = 0x0a4d0002, .server_ip = 0x0a4d0001},
	};
	optind = 1;
	while ((c = getopt_long(argc, argv, "p:n:c:m:h", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return TOOL_OK + 1;
		}
		if (c == '?' || one_option(c, optarg, o, &named) != 0)
			return TOOL_USAGE + 1;
		named.given[c] = 1;
	}
	if (optind < argc) {
		complain("prompts are given by -p or --prompts");
		return TOOL_USAGE + 1;
	}
	if (check_prompts(o, &named) || check_output(o) || check_server(o, &named))
		return TOOL_USAGE + 1;
	if ((o->plot && load_plot_check(o->plot)) ||
	    (!o->ring && open_key(named.key, &o->client.key)))
		return TOOL_FAILED + 1;
	/* Fewer requests than places: no more places. */
	if (o->requests && o->concurrency > o->requests)
		o->concurrency = o->requests;
	return 0;
}

void load_options_free(struct load_options *o)
{
	for (uint32_t i = 0; i < o->prompt_count; i++)
		free(o->prompts[i].text);
	free(o->prompts);
	if (o->memif)
		free((char *)o->client.vdev);
	if (o->model)
		mr_model_close(o->model);
}
