// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu features`: reads and sets what FEATURES of lpu_spec.h names. */
#include <stdlib.h>
#include <string.h>

#include <millrace/lpu_spec.h>

#include "driver/lpu/lpu.h"
#include "tools/lpu.h"

static const char usage[] =
	"usage: millrace lpu features [NAME[=VALUE]...] [options]\n\n"
	"Prints a device's features, or those named; NAME=VALUE sets one and prints what the "
	"device\n"
	"then says. A reset puts every feature back, and a device is reset when this command "
	"ends:\n"
	"so it tells what a device has and takes, and changes nothing for those that come "
	"after.\n\n"
	"  queues            I/O queues that may be created (this command has made one)\n"
	"  coalesce          of its queue: entries + microseconds * 256\n"
	"  heartbeat_ms      the heartbeat changes at least this often\n"
	"  temp_over_mk      event at or above so many millikelvin; 0 = none\n"
	"  temp_under_mk     event at or below; 0 = none\n"
	"  events            bit n: events of type n are told\n"
	"  shadow            shadow doorbells; the driver's own, not to be set\n\n" LPU_DEVICE_HELP
	"\nexample:\n"
	"  millrace lpu features --lpu vfio-user:/run/lpu heartbeat_ms=100\n";

static const struct option table[] = {LPU_DEVICE_LONG_OPTIONS, {0}};

static const char *const names[] = {
	[MR_LPU_FEATURE_QUEUES] = "queues",
	[MR_LPU_FEATURE_COALESCE] = "coalesce",
	[MR_LPU_FEATURE_HEARTBEAT_MS] = "heartbeat_ms",
	[MR_LPU_FEATURE_TEMP_OVER_MK] = "temp_over_mk",
	[MR_LPU_FEATURE_TEMP_UNDER_MK] = "temp_under_mk",
	[MR_LPU_FEATURE_EVENTS] = "events",
	[MR_LPU_FEATURE_SHADOW] = "shadow",
};
#define NAMES (sizeof(names) / sizeof(names[0]))

/* NAME or NAME=VALUE: the feature, and where there is one *value. 0 = refused, after a line on stderr. */
static uint32_t parse(const char *text, uint32_t *value, int *sets)
{
	const char *equals = strchr(text, '=');
	size_t length = equals ? (size_t)(equals - text) : strlen(text);
	uint64_t n;

	*sets = equals != NULL;
	for (uint32_t i = 1; i < NAMES; i++) {
		if (strlen(names[i]) != length || strncmp(names[i], text, length))
			continue;
		if (equals && tool_parse_number(names[i], equals + 1, 0, UINT32_MAX, &n))
			return 0;
		*value = equals ? (uint32_t)n : 0;
		return i;
	}
	fprintf(stderr,
		"millrace lpu features: no feature '%.*s' ('millrace lpu features --help')\n",
		(int)length, text);
	return 0;
}

static int show(struct mr_device *dev, uint32_t feature, int sets, uint32_t value)
{
	int status = sets ? mr_lpu_feature_set(dev, feature, value) : 0;

	if (!status)
		status = mr_lpu_feature_get(dev, feature, &value);
	if (status)
		return lpu_command_failed("features", names[feature], status);
	printf("%s=%u\n", names[feature], value);
	return TOOL_OK;
}

static int features(int argc, char **argv)
{
	struct tool_devices_options options = {0};
	const struct lpu_command_line line = {"features", usage, table, &options,
					      NULL,       NULL,  0,     (int)NAMES * 4};
	struct tool_devices devices;
	int result = lpu_command_parse(&line, argc, argv), sets;
	uint32_t value;

	if (result >= 0)
		return result;
	result = TOOL_OK;
	for (int i = optind; i < argc; i++)
		if (!parse(argv[i], &value, &sets))
			return TOOL_USAGE;
	if (tool_lpu_open(&options, &devices, NULL))
		return TOOL_FAILED;
	for (uint32_t i = 1; optind == argc && i < NAMES && !result; i++)
		if (mr_lpu_identity(devices.decode)->features & 1ull << i)
			result = show(devices.decode, i, 0, 0);
	for (int i = optind; i < argc && !result; i++) {
		uint32_t feature = parse(argv[i], &value, &sets);
		result = show(devices.decode, feature, sets, value);
	}
	tool_devices_close(&devices);
	return result;
}

TOOL_LPU_COMMAND(features, "read and set a device's features", features);
