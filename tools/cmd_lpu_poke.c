// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu poke`: changes what the SRAM of a running `millrace lpu sim` holds, for tests. */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "tools/lpu.h"
#include "tools/lpu_control.h"

enum {
	OPT_SOCKET = TOOL_OPT_OWN,
	OPT_CHIP,
	OPT_ADDRESS,
	OPT_VALUE,
	OPT_DAMAGE,
	OPT_SENSE,
	OPT_ECC,
	OPT_ASSERT
};

static const char usage[] =
	"usage: millrace lpu poke --socket PATH --address N --value N [--chip N]\n"
	"       millrace lpu poke --socket PATH --fault LIST | --sense MK:MW | --ecc N:N | "
	"--assert\n\n"
	"Changes memory of the LPU that 'millrace lpu sim --socket PATH' runs, as a fault "
	"would.\n\n"
	"  --socket PATH   the simulator's socket\n"
	"  --chip N        which chip of the group, from 0 (default: 0)\n"
	"  --address N     which byte of its SRAM; prints the value that was there\n"
	"  --value N       its new value, 0 to 255\n"
	"  --fault LIST    damage to the active program: sram-zero=TENSOR, "
	"sram-flip=TENSOR:OFFSET\n"
	"  --sense MK:MW   the chips' temperature in millikelvin, the group's power in milliwatts\n"
	"  --ecc N:N       so many more words of SRAM were wrong: corrected, and lost\n"
	"  --assert        the firmware gives up at once, where the device is enabled\n"
	"  -h, --help      this text\n";

static const struct option table[] = {
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"chip", required_argument, NULL, OPT_CHIP},
	{"address", required_argument, NULL, OPT_ADDRESS},
	{"value", required_argument, NULL, OPT_VALUE},
	{"fault", required_argument, NULL, OPT_DAMAGE},
	{"sense", required_argument, NULL, OPT_SENSE},
	{"ecc", required_argument, NULL, OPT_ECC},
	{"assert", no_argument, NULL, OPT_ASSERT},
	{"help", no_argument, NULL, 'h'},
	{0},
};

struct options {
	const char *socket;
	const char *act, *with; /* "damage", and its LIST; NULL = a byte of SRAM */
	uint64_t chip, address, value;
	int has_address, has_value;
};

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	int c, bad = 0;

	argv[0] = (char *)"millrace lpu poke";
	optind = 1;
	while (!bad && (c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		switch (c) {
		case OPT_SOCKET:
			o->socket = optarg;
			break;
		case OPT_DAMAGE:
		case OPT_SENSE:
		case OPT_ECC:
			o->act = c == OPT_DAMAGE ? "damage" : c == OPT_SENSE ? "sense" : "ecc";
			o->with = optarg;
			break;
		case OPT_CHIP:
			bad = tool_parse_number("--chip", optarg, 0, 63, &o->chip);
			break;
		case OPT_ADDRESS:
			bad = tool_parse_number("--address", optarg, 0, INT64_MAX, &o->address);
			o->has_address = 1;
			break;
		case OPT_VALUE:
			bad = tool_parse_number("--value", optarg, 0, 255, &o->value);
			o->has_value = 1;
			break;
		case OPT_ASSERT:
			o->act = "assert";
			o->with = "";
			break;
		case 'h':
			fputs(usage, stdout);
			return TOOL_OK;
		default:
			return TOOL_USAGE;
		}
	}
	if (bad)
		return TOOL_USAGE;
	if (!o->socket || optind < argc || o->has_address != o->has_value ||
	    !o->has_address == !o->act) {
		fprintf(stderr, "millrace: lpu poke takes --socket, and --address with --value, "
				"--fault, --sense, --ecc or --assert (--help says more)\n");
		return TOOL_USAGE;
	}
	return -1;
}

static int poke(int argc, char **argv)
{
	struct options o = {0};
	char path[256], line[LPU_CONTROL_LINE], answer[LPU_CONTROL_LINE] = "";
	int status = parse(argc, argv, &o);

	if (status >= 0)
		return status;
	snprintf(path, sizeof(path), "%s" TOOL_LPU_CONTROL, o.socket);
	if (o.act)
		snprintf(line, sizeof(line), "%s%s%s", o.act, *o.with ? " " : "", o.with);
	else
		snprintf(line, sizeof(line), "poke %" PRIu64 " %" PRIu64 " %" PRIu64, o.chip,
			 o.address, o.value);
	status = lpu_control_ask(path, line, answer);
	if (status) {
		fprintf(stderr, "millrace: %s: %s (%s); is 'millrace lpu sim --socket %s' there?\n",
			path, mr_strerror(status), mr_status_name(status), o.socket);
		return TOOL_FAILED;
	}
	if (strncmp(answer, "ok", 2)) {
		fprintf(stderr, "millrace: lpu poke: %s\n", answer);
		return TOOL_FAILED;
	}
	if (o.has_address)
		printf("%s\n", answer + 3);
	return TOOL_OK;
}

TOOL_LPU_COMMAND(poke, "change SRAM of a simulator that runs", poke);
