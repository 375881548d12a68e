// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace lpu sim`: the simulated LPU as a process of its own, served over vfio-user to one client after
 * another.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "firmware-sim/sim.h"
#include "firmware-sim/vfio_user.h"
#include "tools/lpu.h"
#include "tools/lpu_control.h"

enum {
	OPT_SOCKET = TOOL_OPT_OWN,
	OPT_STDIN,
	OPT_CHIPS,
	OPT_SPEC,
	OPT_SLOTS,
	OPT_FAULT,
	OPT_SEED,
	OPT_KERNELS,
	OPT_SPIN,
	OPT_PCI,
	OPT_TRAPPED,
	OPT_CLIENTS,
	OPT_QUIET,
};

static const char usage[] =
	"usage: millrace lpu sim --socket PATH|--stdin [options]\n\n"
	"Runs the simulated LPU as a process and serves it over vfio-user at PATH, to one client\n"
	"after another: 'millrace run --lpu vfio-user:PATH', or QEMU's vfio-user-pci. Ends on\n"
	"SIGINT or SIGTERM. PATH.control is for 'millrace lpu poke' and 'millrace lpu fault'.\n\n"
	"  --socket PATH   where to listen\n"
	"  --stdin         one client, whose messages come by standard input; replies go to "
	"standard\n"
	"                  output. Plain bytes: no memory of the client's can be mapped\n"
	"  --chips N       chips of the group, 1 to 64 (default: 2)\n"
	"  --spec FILE     its chip: a chip file, mr1 (default) or tiny\n"
	"  --slots N       slots that it has (default: 256)\n"
	"  --fault LIST    its faults, as for 'millrace lpu fault', and damage to each program:\n"
	"                  sram-zero=TENSOR, sram-flip=TENSOR:OFFSET; or @FILE, one fault a line\n"
	"  --seed N        of faults drawn at random (default: 1)\n"
	"  --kernels NAME  its arithmetic: scalar, avx2, avx512 (default: the widest there is)\n"
	"  --spin US       look for work so long before sleeping, microseconds (default: 30)\n"
	"  --pci ID        PCI vendor and device id in hexadecimal (default: f00d:4c50)\n"
	"  --trapped       doorbells by message only: share no page of BAR2\n"
	"  --clients N     end after so many clients have left (default: never)\n"
	"  --quiet         no line for each client\n"
	"  -h, --help      this text\n";

static const struct option table[] = {
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"stdin", no_argument, NULL, OPT_STDIN},
	{"chips", required_argument, NULL, OPT_CHIPS},
	{"spec", required_argument, NULL, OPT_SPEC},
	{"slots", required_argument, NULL, OPT_SLOTS},
	{"fault", required_argument, NULL, OPT_FAULT},
	{"seed", required_argument, NULL, OPT_SEED},
	{"kernels", required_argument, NULL, OPT_KERNELS},
	{"spin", required_argument, NULL, OPT_SPIN},
	{"pci", required_argument, NULL, OPT_PCI},
	{"trapped", no_argument, NULL, OPT_TRAPPED},
	{"clients", required_argument, NULL, OPT_CLIENTS},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"help", no_argument, NULL, 'h'},
	{0},
};

struct options {
	const char *socket;
	struct mr_sim_options sim;
	uint64_t clients;
	unsigned vendor, device;
	int trapped, quiet, from_stdin;
};

static int take_number(const char *name, uint64_t max, uint32_t *out)
{
	uint64_t n;

	if (tool_parse_number(name, optarg, 1, max, &n))
		return -1;
	*out = (uint32_t)n;
	return 0;
}

static int take_pci(struct options *o)
{
	int end = 0;

	if (sscanf(optarg, "%4x:%4x%n", &o->vendor, &o->device, &end) == 2 && !optarg[end] &&
	    o->vendor && o->device && o->vendor != 0xffff)
		return 0;
	fprintf(stderr, "millrace: --pci takes VENDOR:DEVICE in hexadecimal, not '%s'\n", optarg);
	return -1;
}

static int take(struct options *o, int c)
{
	switch (c) {
	case OPT_SOCKET:
		o->socket = optarg;
		return 0;
	case OPT_STDIN:
		return !(o->from_stdin = 1);
	case OPT_CHIPS:
		return take_number("--chips", 64, &o->sim.chips);
	case OPT_SPEC:
		o->sim.chip_path = optarg;
		return 0;
	case OPT_SLOTS:
		return take_number("--slots", 65536, &o->sim.slots);
	case OPT_FAULT:
		o->sim.fault = optarg;
		return 0;
	case OPT_SEED:
		return tool_parse_number("--seed", optarg, 0, UINT64_MAX, &o->sim.seed);
	case OPT_KERNELS:
		o->sim.kernels = optarg;
		return 0;
	case OPT_SPIN:
		return take_number("--spin", 10000000, &o->sim.spin_us);
	case OPT_PCI:
		return take_pci(o);
	case OPT_TRAPPED:
		return !(o->trapped = 1);
	case OPT_CLIENTS:
		return tool_parse_number("--clients", optarg, 1, UINT64_MAX, &o->clients);
	case OPT_QUIET:
		return !(o->quiet = 1);
	default:
		return -1;
	}
}

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	int c;

	argv[0] = (char *)"millrace lpu sim";
	optind = 1;
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return TOOL_OK;
		}
		if (c == '?' || take(o, c))
			return TOOL_USAGE;
	}
	if (optind < argc || !o->socket == !o->from_stdin) {
		fprintf(stderr,
			"millrace: lpu sim takes --socket PATH or --stdin (--help says more)\n");
		return TOOL_USAGE;
	}
	return -1;
}

static void on_log(void *arg, const char *line)
{
	fprintf(stderr, "millrace: lpu sim: %s\n", line);
}

static int failed(const char *what, int status)
{
	fprintf(stderr, "millrace: lpu sim: %s: %s (%s)\n", what, mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

/* Client after client. 0 = asked to end, or the last one has left. */
static int serve(const struct options *o, struct mr_vfio_user *server, int listener, int stop_fd)
{
	for (uint64_t n = 1; !o->clients || n <= o->clients; n++) {
		int fd = mr_vfio_user_accept(listener, stop_fd);
		if (fd < 0)
			return fd == MR_E_CANCELLED ? TOOL_OK : failed("accept", fd);
		if (!o->quiet)
			fprintf(stderr, "millrace: lpu sim: client %llu is here\n",
				(unsigned long long)n);
		struct mr_vfio_user_socket socket = {fd, stop_fd};
		struct mr_vfio_user_transport t = mr_vfio_user_socket_transport(&socket);
		int status = mr_vfio_user_serve(server, &t);
		close(fd);
		if (!o->quiet || status == MR_E_PROTOCOL)
			fprintf(stderr, "millrace: lpu sim: client %llu %s\n",
				(unsigned long long)n,
				status == MR_E_PROTOCOL ? "broke the protocol: disconnected"
							: "has left");
		if (status == MR_E_CANCELLED)
			return TOOL_OK;
	}
	return TOOL_OK;
}

/* One client, by plain bytes. 0 = it has left, or the server was asked to end. */
static int serve_stdin(struct mr_vfio_user *server, int stop_fd)
{
	struct mr_vfio_user_stream stream = {STDIN_FILENO, STDOUT_FILENO, stop_fd};
	struct mr_vfio_user_transport t = mr_vfio_user_stream_transport(&stream);

	return mr_vfio_user_serve(server, &t) == MR_E_PROTOCOL
		       ? failed("standard input", MR_E_PROTOCOL)
		       : TOOL_OK;
}

static int serve_device(const struct options *o, const struct mr_lpu_port *port, int stop_fd)
{
	struct mr_vfio_user_options v = {
		.port = port,
		.doorbell_fd = -1,
		.vendor = (uint16_t)o->vendor,
		.device = (uint16_t)o->device,
		.log = on_log,
	};
	char control_path[256];
	struct lpu_control *control;
	struct mr_vfio_user_stats stats;
	struct mr_vfio_user *server;
	int listener, result, status;

	if (!o->trapped && !o->from_stdin)
		v.doorbell_fd = mr_sim_doorbell_fd(port, &v.doorbell_bytes);
	status = mr_vfio_user_create(&v, &server);
	if (status)
		return failed("the server", status);
	if (o->from_stdin) {
		result = serve_stdin(server, stop_fd);
		mr_vfio_user_destroy(server);
		return result;
	}
	listener = mr_vfio_user_listen(o->socket);
	if (listener < 0) {
		mr_vfio_user_destroy(server);
		return failed(o->socket, listener);
	}
	snprintf(control_path, sizeof(control_path), "%s" TOOL_LPU_CONTROL, o->socket);
	status = lpu_control_start(control_path, port, stop_fd, &control);
	if (status) {
		result = failed(control_path, status);
	} else {
		fprintf(stderr, "millrace: lpu sim: listening at %s\n", o->socket);
		result = serve(o, server, listener, stop_fd);
	}
	close(listener);
	unlink(o->socket);
	/* The control thread ends when a signal came; where the last client left, one is sent. */
	if (control)
		kill(getpid(), SIGTERM);
	lpu_control_stop(control);
	mr_vfio_user_stats(server, &stats);
	fprintf(stderr,
		"millrace: lpu sim: %llu clients, %llu messages (%llu refused), %llu connections "
		"broken off\n",
		(unsigned long long)stats.connections, (unsigned long long)stats.messages,
		(unsigned long long)stats.refused, (unsigned long long)stats.broken);
	mr_vfio_user_destroy(server);
	return result;
}

static int sim(int argc, char **argv)
{
	char why[256] = "";
	struct options o = {.sim = {.seed = 1, .why = why, .why_bytes = sizeof(why)}};
	struct mr_lpu_port port;
	sigset_t signals;
	int status = parse(argc, argv, &o), stop_fd;

	if (status >= 0)
		return status;
	/* Blocked in every thread; a descriptor that stays readable tells all of them. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	stop_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (stop_fd < 0) {
		fprintf(stderr, "millrace: lpu sim: signalfd: %s\n", strerror(errno));
		return TOOL_FAILED;
	}
	status = mr_sim_create(&o.sim, &port);
	if (status) {
		close(stop_fd);
		return failed(why[0] ? why : "the simulated LPU", status);
	}
	status = serve_device(&o, &port, stop_fd);
	port.ops->close(port.ctx);
	close(stop_fd);
	return status;
}

TOOL_LPU_COMMAND(sim, "serve the simulated LPU over vfio-user", sim);
