// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace serve`: the daemon. Opens the model, the devices and the fronts that its options name, then
 * runs the loop until SIGTERM or SIGINT, lets requests end for a bounded time, and leaves with status 0.
 */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <millrace/wire.h>

#include "driver/counters.h"
#include "driver/model/model.h"
#include "driver/net/net.h"
#include "driver/ring/server.h"
#include "tools/serve.h"
#include "tools/tools.h"

#define DRAIN_NS   5000000000u
#define DEFAULT_IP "10.77.0.1"
#define VDEV_BYTES 256

struct serve_options {
	const char *model, *ring, *memif, *vdev, *eal, *ip, *key, *stats;
	struct tool_devices_options devices;
	uint32_t port, requests, sequences, batch, chunk, steps, itl_us, client_blocks;
	int no_kv_cache;
	int json;
	enum serve_poll poll;
};

struct serve {
	struct serve_observe observe;
	struct serve_options options;
	struct mr_model *model;
	struct tool_devices devices;
	struct mr_sched *sched;
	struct mr_ring_server *ring;
	struct mr_net *net;
	struct serve_loop loop;
	char vdev[VDEV_BYTES]; /* as DPDK spells it */
};

static volatile sig_atomic_t print_metrics;

static void on_usr1(int number)
{
	print_metrics = 1;
}

static const char usage[] =
	"usage: millrace serve [-m FILE] (--ring SOCKET | --memif PATH --key FILE | ...) "
	"[options]\n\n"
	"Takes prompts from rings and from the wire, prefills, decodes, and carries the tokens "
	"back.\n\n"
	"  -m, --model FILE  GGUF (default: $MR_MODEL, then what `make model` fetched)\n"
	"  --quiet           no progress, no arena's report\n\n"
	"clients on this host:\n"
	"  --ring SOCKET     serve the ring ABI; clients connect to this Unix socket\n\n"
	"clients on the network, over DPDK:\n"
	"  --memif PATH      be the server of a memif socket (no root, no huge pages needed)\n"
	"  --vdev ARGS       any other virtual device, such as net_af_packet0,iface=veth1\n"
	"  --eal ARGS        more EAL arguments; with neither of the above, its first port\n"
	"  --key FILE        the wire's key, made by `millrace keys new FILE`; needed for the "
	"wire\n"
	"  --ip ADDRESS      to answer for (default: " DEFAULT_IP ")\n"
	"  --port N          UDP port (default: 7878)\n\n"
	"devices:\n" TOOL_DEVICE_HELP "  --slots N         sequences at once on a device\n"
	"  --context N       positions of a sequence (default: the model's)\n\n"
	"scheduling:\n"
	"  --requests N      accepted at once (default: 256)\n"
	"  --sequences N     live and paused at once (default: twice the requests)\n"
	"  --batch N         sequences in a DECODE (default: the device's most)\n"
	"  --chunk N         tokens of a prefill call (default: 128)\n"
	"  --steps N         steps of a DECODE while nobody waits to join (default: 1)\n"
	"  --itl US          where prefill shares decode's device, its chunks leave room for a\n"
	"                    token every so many microseconds (default: no bound)\n"
	"  --client-blocks N KV blocks of 16 tokens that one client may hold (default: all)\n"
	"  --no-kv-cache     do not keep KV of ended sequences for prompts that begin alike\n"
	"  --poll MODE       busy, adaptive (default) or sleep\n\n"
	"seeing what it does:\n"
	"  --counters FILE   keep the counters there, for `millrace top` (default: a file in\n"
	"                    $XDG_RUNTIME_DIR or /dev/shm; the log names it); it stays afterwards\n"
	"  --no-counters     no such file\n"
	"  --trace FILE      keep the last 262,144 events there, for `millrace trace`\n"
	"  --stats FILE      write every metric as JSON at the end; SIGUSR1 prints them "
	"meanwhile\n"
	"  --json            two JSON lines on stdout: where it serves, and every metric at the "
	"end\n\n"
	"SIGTERM and SIGINT let requests end for at most 5 s.\n\n"
	"examples:\n"
	"  millrace serve --ring /run/millrace.sock\n"
	"  millrace serve --memif /run/millrace.memif --key wire.key --device cpu\n"
	"  millrace serve --vdev net_af_packet0,iface=veth1 --key wire.key --ring /run/m.sock\n";

enum {
	OPT_QUIET = TOOL_OPT_OWN,
	OPT_RING,
	OPT_MEMIF,
	OPT_VDEV,
	OPT_EAL,
	OPT_KEY,
	OPT_IP,
	OPT_PORT,
	OPT_SLOTS,
	OPT_CONTEXT,
	OPT_REQUESTS,
	OPT_BATCH,
	OPT_CHUNK,
	OPT_STEPS,
	OPT_SEQUENCES,
	OPT_ITL,
	OPT_CLIENT_BLOCKS,
	OPT_NO_KV_CACHE,
	OPT_POLL,
	OPT_STATS,
	OPT_JSON,
	OPT_COUNTERS,
	OPT_NO_COUNTERS,
	OPT_TRACE,
};

static const struct option table[] = {
	{"model", required_argument, NULL, 'm'},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"ring", required_argument, NULL, OPT_RING},
	{"memif", required_argument, NULL, OPT_MEMIF},
	{"vdev", required_argument, NULL, OPT_VDEV},
	{"eal", required_argument, NULL, OPT_EAL},
	{"key", required_argument, NULL, OPT_KEY},
	{"ip", required_argument, NULL, OPT_IP},
	{"port", required_argument, NULL, OPT_PORT},
	{"slots", required_argument, NULL, OPT_SLOTS},
	{"context", required_argument, NULL, OPT_CONTEXT},
	{"requests", required_argument, NULL, OPT_REQUESTS},
	{"batch", required_argument, NULL, OPT_BATCH},
	{"chunk", required_argument, NULL, OPT_CHUNK},
	{"steps", required_argument, NULL, OPT_STEPS},
	{"sequences", required_argument, NULL, OPT_SEQUENCES},
	{"itl", required_argument, NULL, OPT_ITL},
	{"client-blocks", required_argument, NULL, OPT_CLIENT_BLOCKS},
	{"no-kv-cache", no_argument, NULL, OPT_NO_KV_CACHE},
	{"poll", required_argument, NULL, OPT_POLL},
	{"stats", required_argument, NULL, OPT_STATS},
	{"json", no_argument, NULL, OPT_JSON},
	{"counters", required_argument, NULL, OPT_COUNTERS},
	{"no-counters", no_argument, NULL, OPT_NO_COUNTERS},
	{"trace", required_argument, NULL, OPT_TRACE},
	{"help", no_argument, NULL, 'h'},
	TOOL_DEVICE_LONG_OPTIONS,
	{0},
};

static int complain(const char *text)
{
	fprintf(stderr, "millrace serve: %s\n", text);
	return TOOL_USAGE;
}

static int failed(const char *what, int status)
{
	fprintf(stderr, "millrace serve: %s: %s (%s)\n", what, mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

/* Where a number goes, and how large it may be; NULL = @option takes no number. */
static uint32_t *number_of(struct serve_options *o, int option, uint64_t *max)
{
	*max = 1u << 20;
	switch (option) {
	case OPT_PORT:
		*max = 65535;
		return &o->port;
	case OPT_SLOTS:
		*max = 65536;
		return &o->devices.slots;
	case OPT_CONTEXT:
		return &o->devices.context;
	case OPT_REQUESTS:
		*max = 65536;
		return &o->requests;
	case OPT_BATCH:
		return &o->batch;
	case OPT_CHUNK:
		return &o->chunk;
	case OPT_STEPS:
		return &o->steps;
	case OPT_SEQUENCES:
		return &o->sequences;
	case OPT_ITL:
		*max = 60000000;
		return &o->itl_us;
	case OPT_CLIENT_BLOCKS:
		return &o->client_blocks;
	default:
		return NULL;
	}
}

static const char **text_of(struct serve *s, int option)
{
	struct serve_options *o = &s->options;

	switch (option) {
	case 'm':
		return &o->model;
	case OPT_RING:
		return &o->ring;
	case OPT_MEMIF:
		return &o->memif;
	case OPT_VDEV:
		return &o->vdev;
	case OPT_EAL:
		return &o->eal;
	case OPT_KEY:
		return &o->key;
	case OPT_IP:
		return &o->ip;
	case OPT_STATS:
		return &o->stats;
	case OPT_COUNTERS:
		return &s->observe.counters;
	case OPT_TRACE:
		return &s->observe.trace;
	default:
		return NULL;
	}
}

static int parse_poll(struct serve_options *o, const char *mode)
{
	static const char *const modes[] = {"busy", "adaptive", "sleep"};

	for (int i = 0; i < 3; i++) {
		if (!strcmp(mode, modes[i])) {
			o->poll = (enum serve_poll)i;
			return 0;
		}
	}
	fprintf(stderr, "millrace serve: --poll is busy, adaptive or sleep, not '%s'\n", mode);
	return -1;
}

static int take_option(struct serve *s, int c)
{
	struct serve_options *o = &s->options;
	int taken = tool_device_option(c, optarg, &o->devices);
	const char **text = text_of(s, c);
	uint64_t max, n;
	uint32_t *number = number_of(o, c, &max);

	if (taken)
		return taken > 0 ? 0 : -1;
	if (text) {
		*text = optarg;
		return 0;
	}
	if (number) {
		for (const struct option *t = table; t->name; t++)
			if (t->val == c && tool_parse_number(t->name, optarg, 1, max, &n))
				return -1;
		*number = (uint32_t)n;
		return 0;
	}
	if (c == OPT_POLL)
		return parse_poll(o, optarg);
	if (c == OPT_JSON) {
		o->json = 1;
		return 0;
	}
	if (c == OPT_QUIET)
		o->devices.quiet = 1;
	if (c == OPT_NO_COUNTERS)
		s->observe.no_counters = 1;
	if (c == OPT_NO_KV_CACHE)
		o->no_kv_cache = 1;
	return c == OPT_QUIET || c == OPT_NO_COUNTERS || c == OPT_NO_KV_CACHE ? 0 : -1;
}

static int wants_wire(const struct serve_options *o)
{
	return o->memif || o->vdev || o->eal;
}

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, struct serve *s)
{
	struct serve_options *o = &s->options;
	int c;

	argv[0] = (char *)"millrace serve";
	optind = 1;
	while ((c = getopt_long(argc, argv, "m:h", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return TOOL_OK;
		}
		if (c == '?' || take_option(s, c))
			return TOOL_USAGE;
	}
	o->devices.arena_log = !o->devices.quiet;
	o->devices.loop_busy = o->poll == SERVE_BUSY;
	if (optind < argc)
		return complain("it takes options only ('millrace serve --help' lists them)");
	if (!o->ring && !wants_wire(o))
		return complain("nobody could connect: give --ring, --memif or --vdev");
	if (wants_wire(o) && !o->key)
		return complain("the wire needs --key FILE ('millrace keys new FILE' makes one)");
	if (o->memif && o->vdev)
		return complain("give --memif or --vdev, not both");
	if (s->observe.counters && s->observe.no_counters)
		return complain("give --counters or --no-counters, not both");
	return -1;
}

/* A server that was killed leaves its socket file behind, and memif would not bind to it again. */
static void remove_stale_socket(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int fd;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode) || strlen(path) >= sizeof(address.sun_path))
		return;
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) && errno == ECONNREFUSED)
		unlink(path);
	close(fd);
}

static int open_wire(struct serve *s)
{
	const struct serve_options *o = &s->options;
	struct mr_net_options net = {
		.vdev = o->vdev,
		.eal_args = o->eal,
		.arena = s->devices.arena,
		.port = (uint16_t)o->port,
		.sched = s->sched,
	};
	char why[MR_NET_WHY_BYTES] = "";
	int status;

	if (mr_net_parse_ip(o->ip ? o->ip : DEFAULT_IP, &net.ip)) {
		fprintf(stderr,
			"millrace serve: --ip takes an address such as " DEFAULT_IP ", not '%s'\n",
			o->ip);
		return TOOL_USAGE;
	}
	if (o->memif) {
		if (strchr(o->memif, ',') || strlen(o->memif) > 100)
			return complain("--memif takes a path of at most 100 bytes without commas");
		snprintf(s->vdev, sizeof(s->vdev),
			 "net_memif0,role=server,id=0,socket=%s,socket-abstract=no", o->memif);
		remove_stale_socket(o->memif);
		net.vdev = s->vdev;
	}
	status = mr_key_load(o->key, &net.key);
	if (status)
		return failed(o->key, status);
	status = mr_net_create(&net, &s->net, why);
	explicit_bzero(&net.key, sizeof(net.key));
	if (status)
		return failed(why[0] ? why : "the wire", status);
	s->loop.fronts[s->loop.front_count++] = mr_net_front(s->net);
	return TOOL_OK;
}

static int open_ring(struct serve *s)
{
	const struct mr_ring_server_options ring = {
		.socket_path = s->options.ring,
		.sched = s->sched,
		.model = s->model,
	};
	int status = mr_ring_server_create(&ring, &s->ring);

	if (status)
		return failed(s->options.ring, status);
	s->loop.fronts[s->loop.front_count++] = mr_ring_server_front(s->ring);
	return TOOL_OK;
}

static int open_all(struct serve *s)
{
	const struct serve_options *o = &s->options;
	struct mr_sched_options sched = {
		.requests = o->requests,
		.batch_max = o->batch,
		.chunk = o->chunk,
		.steps = o->steps,
		.sequences = o->sequences,
		.itl_ns = o->itl_us * 1000ull,
		.client_blocks = o->client_blocks,
		.no_cache = o->no_kv_cache,
	};
	int status;

	s->model = tool_model_open(o->model);
	if (!s->model)
		return TOOL_FAILED;
	/* First, so that nobody counts while the table moves. */
	if (serve_observe_open(&s->observe))
		return TOOL_FAILED;
	if (tool_devices_open(&o->devices, s->model, &s->devices))
		return TOOL_FAILED;
	serve_observe_devices(&s->observe, &s->devices);
	s->loop.observe = &s->observe;
	sched.model = s->model;
	sched.prefill = s->devices.prefill;
	sched.decode = s->devices.decode;
	status = mr_sched_create(&sched, &s->sched);
	if (status)
		return failed("the orchestrator", status);
	s->loop.sched = s->sched;
	s->loop.poll = o->poll;
	s->loop.devices[0] = s->devices.decode;
	s->loop.devices[1] = s->devices.prefill != s->devices.decode ? s->devices.prefill : NULL;
	status = o->ring ? open_ring(s) : TOOL_OK;
	if (status == TOOL_OK && wants_wire(o))
		status = open_wire(s);
	if (status != TOOL_OK)
		return status;
	status = serve_loop_open(&s->loop);
	return status ? failed("epoll", status) : TOOL_OK;
}

/* The wire cancels its requests while the orchestrator lives; the ring wants them to have ended. */
static void close_all(struct serve *s)
{
	serve_loop_close(&s->loop);
	mr_net_destroy(s->net);
	mr_sched_destroy(s->sched);
	mr_ring_server_destroy(s->ring);
	tool_devices_close(&s->devices);
	serve_observe_close(&s->observe);
	mr_model_close(s->model);
}

static void announce_json(const struct serve *s, const char *model)
{
	const struct serve_options *o = &s->options;
	struct json_object *root = json_object_new_object();
	const struct mr_caps *prefill = &s->devices.prefill->caps;
	const struct mr_caps *decode = &s->devices.decode->caps;
	const char *const names[] = {"model", "prefill", "decode", "class_prefill", "class_decode"};
	const char *const texts[] = {model, prefill->name, decode->name, prefill->class_prefill,
				     decode->class_decode};

	for (int i = 0; i < 5; i++)
		json_object_object_add(root, names[i], json_object_new_string(texts[i]));
	json_object_object_add(root, "context", json_object_new_int64(mr_sched_context(s->sched)));
	json_object_object_add(root, "ring", o->ring ? json_object_new_string(o->ring) : NULL);
	json_object_object_add(root, "ip",
			       s->net ? json_object_new_string(o->ip ? o->ip : DEFAULT_IP) : NULL);
	json_object_object_add(root, "port",
			       s->net ? json_object_new_int64(o->port ? o->port : MR_WIRE_PORT)
				      : NULL);
	printf("%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN));
	fflush(stdout);
	json_object_put(root);
}

/* One line for the log, and the same for who looks at the counters file. */
static void announce(const struct serve *s)
{
	const struct serve_options *o = &s->options;
	const char *model = s->model->name[0] ? s->model->name : "a model";
	const char *port = o->memif ? o->memif : o->vdev ? o->vdev : "the first port";
	char listen[512] = "", numerics[160];

	if (o->ring)
		snprintf(listen, sizeof(listen), "; ring %s", o->ring);
	if (s->net)
		snprintf(listen + strlen(listen), sizeof(listen) - strlen(listen),
			 "; wire %s:%u on %s", o->ip ? o->ip : DEFAULT_IP,
			 o->port ? o->port : MR_WIRE_PORT, port);
	fprintf(stderr, "millrace: serving %s: prefill %s, decode %s, context %u%s\n", model,
		s->devices.prefill->caps.name, s->devices.decode->caps.name,
		mr_sched_context(s->sched), listen);
	tool_numerics_line(o->devices.numerics, &s->devices, numerics, sizeof(numerics));
	fprintf(stderr, "millrace: %s\n", numerics);
	if (o->json)
		announce_json(s, model);
	mr_counters_describe(model, listen + 2);
	mr_counters_set_state(MR_SERVER_SERVING, mr_clock_monotonic.now_ns(NULL));
}

/* Requests may end for DRAIN_NS; then what the fronts still have to send goes out, if it can at once. */
static void drain(struct serve *s)
{
	uint64_t until = mr_clock_monotonic.now_ns(NULL) + DRAIN_NS;

	mr_sched_drain(s->sched);
	mr_counters_set_state(MR_SERVER_DRAINING, mr_clock_monotonic.now_ns(NULL));
	while (mr_sched_active(s->sched) && mr_clock_monotonic.now_ns(NULL) < until)
		serve_loop_turn(&s->loop);
	if (mr_sched_active(s->sched))
		fprintf(stderr, "millrace: %u requests did not end in time and are cancelled\n",
			mr_sched_active(s->sched));
	for (uint32_t i = 0; i < s->loop.front_count; i++)
		for (int turn = 0; turn < 64; turn++)
			s->loop.fronts[i].poll(s->loop.fronts[i].ctx);
}

static int serve(struct serve *s)
{
	int status = open_all(s);

	if (status != TOOL_OK)
		return status;
	if (s->observe.path[0])
		fprintf(stderr, "millrace: counters in %s\n", s->observe.path);
	tool_catch_signals();
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_usr1}, NULL);
	announce(s);
	while (!tool_stop) {
		serve_loop_turn(&s->loop);
		if (print_metrics) {
			print_metrics = 0;
			serve_metrics_print(stderr);
		}
	}
	drain(s);
	return TOOL_OK;
}

static int run(int argc, char **argv)
{
	struct serve *s = calloc(1, sizeof(*s));
	const char *stats;
	int status;

	if (!s)
		return failed("serve", MR_E_NO_MEMORY);
	s->options.poll = SERVE_ADAPTIVE;
	s->loop.epoll = -1;
	status = parse(argc, argv, s);
	if (status < 0) {
		status = serve(s);
		close_all(s);
		stats = s->options.stats;
		if (s->options.json && status == TOOL_OK)
			serve_metrics_json();
		if (stats && status == TOOL_OK && serve_metrics_write(stats)) {
			fprintf(stderr, "millrace serve: %s: cannot be written\n", stats);
			status = TOOL_FAILED;
		}
	}
	free(s);
	return status;
}

TOOL_COMMAND(serve, "serve prompts from rings and from the wire", run);
