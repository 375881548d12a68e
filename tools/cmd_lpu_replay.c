// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu replay`: plays a recorded bus trace on another device and compares what it answers. */
#include <stdlib.h>
#include <string.h>

#include "driver/bus/bus.h"
#include "driver/bus/bus_trace.h"
#include "driver/bus/record.h"
#include "driver/bus/replay.h"
#include "tools/lpu.h"

enum { OPT_EXACT = TOOL_OPT_OWN, OPT_WAIT };

static const char usage[] =
	"usage: millrace lpu replay FILE [options]\n\n"
	"Plays a trace that --record wrote on a device, a model in RTL behind vfio-user perhaps: "
	"the\n"
	"same registers, doorbells, commands and memory; and compares completions and token "
	"records\n"
	"with the recorded ones. Exit status 0: all alike; 1: the first difference is "
	"explained.\n\n"
	"  --exact           cycles too\n"
	"  --wait MS         for each answer of the device (default: 5000)\n" LPU_DEVICE_HELP
	"\nexamples:\n"
	"  millrace run -p 'a mill' -n 4 --record run.trace\n"
	"  millrace lpu replay run.trace --lpu vfio-user:/run/rtl --wait 600000\n";

static const struct option table[] = {
	{"exact", no_argument, NULL, OPT_EXACT},
	{"wait", required_argument, NULL, OPT_WAIT},
	LPU_DEVICE_LONG_OPTIONS,
	{0},
};

static int take(void *arg, int option, const char *value)
{
	struct mr_bus_replay_options *o = arg;

	if (option == OPT_WAIT)
		return tool_parse_number("--wait", value, 1, 86400000, &o->wait_ms);
	o->exact = 1;
	return 0;
}

static void *memory(void *arg, size_t bytes)
{
	const struct mr_region *region;

	return mr_arena_region(arg, MR_REGION_RECORDS, bytes, &region) ? NULL : region->base;
}

static int report(const char *path, const struct mr_bus_replay_result *r, int status)
{
	printf("%s: %llu entries played: %llu commands; %llu completions and %llu records "
	       "compared, "
	       "%llu events not; %llu differences\n",
	       path, (unsigned long long)r->entries, (unsigned long long)r->commands,
	       (unsigned long long)r->completions, (unsigned long long)r->records,
	       (unsigned long long)r->events, (unsigned long long)r->differences);
	if (r->cut)
		printf("the trace itself ends early: %s\n", mr_status_name(-(int)r->cut));
	if (r->first[0])
		printf("first difference: %s\n", r->first);
	if (status == MR_E_CANCELLED)
		fprintf(stderr, "millrace lpu replay: stopped\n");
	else if (status)
		return lpu_command_failed("replay", "ended early", status);
	return status || r->differences ? TOOL_FAILED : TOOL_OK;
}

static int play(const char *path, const struct tool_devices_options *devices,
		struct mr_bus_replay_options *o)
{
	struct mr_bus_record_stats stats = {0};
	struct mr_bus_replay_result result;
	struct mr_arena *arena;
	int status;

	if (tool_arena_open(devices, &arena))
		return TOOL_FAILED;
	if (tool_bus_open(devices, &stats, &o->bus)) {
		mr_arena_destroy(arena);
		return TOOL_FAILED;
	}
	o->memory = memory;
	o->memory_arg = arena;
	o->stop = (const int *)(uintptr_t)&tool_stop;
	status = mr_bus_replay(o, &result);
	o->bus->ops->close(o->bus);
	mr_arena_destroy(arena);
	if (stats.status)
		lpu_command_failed("replay", devices->record, stats.status);
	return report(path, &result, status);
}

static int replay(int argc, char **argv)
{
	struct tool_devices_options devices = {0};
	struct mr_bus_replay_options o = {0};
	const struct lpu_command_line line = {"replay", usage, table, &devices, take, &o, 1, 1};
	int result = lpu_command_parse(&line, argc, argv);
	char why[200];
	void *file;

	if (result >= 0)
		return result;
	const char *path = argv[optind];
	file = lpu_command_file("replay", path, &o.bytes);
	if (!file)
		return TOOL_FAILED;
	o.trace = file;
	result = mr_bus_trace_check(file, o.bytes, why, sizeof(why));
	if (result) {
		fprintf(stderr, "millrace lpu replay: %s: %s (%s)\n", path, why,
			mr_status_name(result));
		free(file);
		return TOOL_FAILED;
	}
	tool_catch_signals();
	result = play(path, &devices, &o);
	free(file);
	return result;
}

TOOL_LPU_COMMAND(replay, "play a recorded bus trace on a device and compare", replay);
