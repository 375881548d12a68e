// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu conform`: runs the conformance suite (tools/conform/) against a device, and says what it found. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/bus/bus.h"
#include "driver/bus/vfio.h"
#include "driver/bus/vfio_user.h"
#include "driver/model/model.h"
#include "firmware-sim/sim.h"
#include "tools/conform/conform.h"
#include "tools/lpu.h"

#define VFIO_USER "vfio-user:"
#define VFIO      "vfio:"
#define TINY      "tests/tiny.gguf"
#define NO_DEVICE 3 /* exit status: there was nothing to test */

enum {
	OPT_BUS = TOOL_OPT_OWN,
	OPT_PROFILE,
	OPT_JSON,
	OPT_PROGRAM,
	OPT_ONLY,
	OPT_REPORT,
	OPT_VERBOSE
};

static const char usage[] =
	"usage: millrace lpu conform --bus BUS [options]\n\n"
	"Checks a device against every rule of the LPU device specification, and prints a line "
	"for\n"
	"each rule (TAP). Exit status: 0 all hold, 1 some do not, 2 usage, 3 no device to test.\n\n"
	"  --bus BUS        local (the simulator in this process), vfio-user:SOCKET, or\n"
	"                   vfio:ADDRESS (a PCI function that is bound to vfio-pci)\n"
	"  -m, --model FILE the model whose program the device is given (default: " TINY ")\n"
	"  --program FILE   its program container, compiled before, instead of compiling here\n"
	"  --profile FILE   tolerances and times: 'key value' lines\n"
	"  --only RULE      only what says something about one rule, such as LPU-Q-3\n"
	"  --json           the report as JSON instead of TAP\n"
	"  --report FILE    the JSON report to FILE as well\n"
	"  --verbose        how long each scenario took, on stderr\n"
	"  --chip FILE      local: chip file, mr1 or tiny (default)\n"
	"  --chips N        local: chips of the group (default: 2)\n"
	"  -h, --help       this text\n";

static const struct option table[] = {
	{"bus", required_argument, NULL, OPT_BUS},
	{"model", required_argument, NULL, 'm'},
	{"program", required_argument, NULL, OPT_PROGRAM},
	{"profile", required_argument, NULL, OPT_PROFILE},
	{"only", required_argument, NULL, OPT_ONLY},
	{"json", no_argument, NULL, OPT_JSON},
	{"report", required_argument, NULL, OPT_REPORT},
	{"verbose", no_argument, NULL, OPT_VERBOSE},
	{"chip", required_argument, NULL, TOOL_OPT_CHIP},
	{"chips", required_argument, NULL, TOOL_OPT_CHIPS},
	{"help", no_argument, NULL, 'h'},
	{0},
};

struct options {
	const char *bus, *model, *program, *only, *report;
	struct conform_profile profile;
	struct mr_sim_options sim;
	int json, verbose;
};

static int take(struct options *o, int c)
{
	struct conform_rule *rule;
	uint64_t n;

	switch (c) {
	case OPT_BUS:
		o->bus = optarg;
		return 0;
	case 'm':
		o->model = optarg;
		return 0;
	case OPT_PROGRAM:
		o->program = optarg;
		return 0;
	case OPT_PROFILE:
		return conform_profile_read(optarg, &o->profile);
	case OPT_ONLY:
		rule = conform_rule_of(optarg);
		if (!rule)
			fprintf(stderr, "millrace: --only: the specification has no rule %s\n",
				optarg);
		o->only = rule ? rule->id : NULL;
		return rule ? 0 : -1;
	case OPT_JSON:
		return !(o->json = 1);
	case OPT_VERBOSE:
		return !(o->verbose = 1);
	case OPT_REPORT:
		o->report = optarg;
		return 0;
	case TOOL_OPT_CHIP:
		o->sim.chip_path = optarg;
		return 0;
	case TOOL_OPT_CHIPS:
		if (tool_parse_number("--chips", optarg, 1, 64, &n))
			return -1;
		o->sim.chips = (uint32_t)n;
		return 0;
	default:
		return -1;
	}
}

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	int c;

	argv[0] = (char *)"millrace lpu conform";
	optind = 1;
	while ((c = getopt_long(argc, argv, "hm:", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return TOOL_OK;
		}
		if (c == '?' || take(o, c))
			return TOOL_USAGE;
	}
	if (optind < argc || !o->bus ||
	    (strcmp(o->bus, "local") && strncmp(o->bus, VFIO_USER, sizeof(VFIO_USER) - 1) &&
	     strncmp(o->bus, VFIO, sizeof(VFIO) - 1))) {
		fprintf(stderr,
			"millrace: lpu conform takes --bus local, --bus vfio-user:SOCKET or "
			"--bus vfio:ADDRESS (--help says more)\n");
		return TOOL_USAGE;
	}
	if (!o->model && !o->program) {
		if (access(TINY, R_OK)) {
			fprintf(stderr,
				"millrace: lpu conform: no " TINY " here: name a model by -m "
				"or a program by --program\n");
			return TOOL_USAGE;
		}
		o->model = TINY;
	}
	return -1;
}

static void feel_temperature(void *arg, uint32_t millikelvin)
{
	mr_sim_sense(arg, millikelvin, 1000);
}

static void feel_ecc(void *arg, uint64_t corrected, uint64_t uncorrected)
{
	mr_sim_ecc(arg, corrected, uncorrected);
}

static void feel_lost_word(void *arg)
{
	mr_sim_fault(arg, "ecc-lost");
}

static void feel_assert(void *arg)
{
	mr_sim_assert(arg);
}

static int open_bus(struct options *o, struct conform *t, struct mr_lpu_port *port)
{
	char why[256] = "";
	int status;

	if (!strcmp(o->bus, "local")) {
		o->sim.why = why;
		o->sim.why_bytes = sizeof(why);
		status = mr_sim_create(&o->sim, port);
		if (!status)
			status = mr_bus_local_open(port, &t->bus);
		t->stimulus = (struct conform_stimulus){feel_temperature, feel_ecc, feel_lost_word,
							feel_assert, port};
	} else if (!strncmp(o->bus, VFIO, sizeof(VFIO) - 1)) {
		const struct mr_vfio_options v = {
			.address = o->bus + sizeof(VFIO) - 1,
			.vendor = MR_VFIO_ANY_ID,
			.device = MR_VFIO_ANY_ID,
			.bar0_min = MR_LPU_BAR0_BYTES,
			.bar2_min = 2 * MR_LPU_DOORBELL_STRIDE,
		};
		status = mr_bus_vfio_open(&v, &t->bus, why, sizeof(why));
	} else {
		const struct mr_vfio_user_bus_options v = {
			.path = o->bus + sizeof(VFIO_USER) - 1,
			.why = why,
			.why_bytes = sizeof(why),
		};
		status = mr_bus_vfio_user_open(&v, &t->bus);
	}
	if (status)
		fprintf(stderr, "millrace: lpu conform: %s: %s (%s)\n", o->bus,
			why[0] ? why : mr_strerror(status), mr_status_name(status));
	return status;
}

static int read_program(const char *path, struct conform *t)
{
	FILE *f = fopen(path, "rb");
	long bytes = f && !fseek(f, 0, SEEK_END) ? ftell(f) : -1;
	int ok = bytes > 0 && !fseek(f, 0, SEEK_SET);

	t->program = ok ? aligned_alloc(64, ((size_t)bytes + 63) / 64 * 64) : NULL;
	ok = t->program && fread(t->program, 1, (size_t)bytes, f) == (size_t)bytes;
	t->program_bytes = ok ? (size_t)bytes : 0;
	if (f)
		fclose(f);
	if (!ok)
		fprintf(stderr, "millrace: lpu conform: cannot read %s\n", path);
	return ok ? 0 : -1;
}

static int report_to(struct conform *t, const struct options *o)
{
	FILE *f = o->report ? fopen(o->report, "w") : NULL;
	int failed = o->json ? conform_json(t, o->bus, stdout) : conform_tap(t, stdout);

	if (o->report && !f) {
		fprintf(stderr, "millrace: lpu conform: cannot write %s\n", o->report);
		return TOOL_USAGE;
	}
	if (f) {
		conform_json(t, o->bus, f);
		fclose(f);
	}
	return failed ? TOOL_FAILED : TOOL_OK;
}

static int conform(int argc, char **argv)
{
	struct options o = {.sim = {.chip_path = "tiny", .chips = 2}};
	struct conform *t = calloc(1, sizeof(*t));
	struct mr_model *model = NULL;
	struct mr_lpu_port port;
	int status;

	if (!t)
		return TOOL_FAILED;
	conform_profile_default(&o.profile);
	status = parse(argc, argv, &o);
	if (status < 0 && o.model)
		status = (model = tool_model_open(o.model)) ? -1 : TOOL_USAGE;
	if (status < 0 && o.program)
		status = read_program(o.program, t) ? TOOL_USAGE : -1;
	if (status < 0) {
		t->profile = o.profile;
		t->model = model;
		t->only = o.only;
		t->verbose = o.verbose;
		status = NO_DEVICE;
		if (!open_bus(&o, t, &port) && !conform_open(t)) {
			conform_run(t);
			status = report_to(t, &o);
		}
		conform_close(t);
	}
	mr_model_close(model);
	if (o.program)
		free(t->program);
	free(t);
	return status;
}

TOOL_LPU_COMMAND(conform, "check a device against the specification", conform);
