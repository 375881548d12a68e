// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu log`: what a device tells of itself, page by page. */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver/lpu/lpu.h"
#include "tools/lpu.h"
#include "tools/lpu_pages.h"

enum { OPT_PAGE = TOOL_OPT_OWN, OPT_JSON, OPT_WATCH };

static const char usage[] =
	"usage: millrace lpu log [--page NAME] [options]\n\n"
	"Prints the log pages of an LPU. Opening a device resets its controller: queues and slots\n"
	"go, its program, counters and the latest crash dump stay. One in STATUS.FATAL is so\n"
	"brought back.\n\n"
	"  --page NAME       only counters, health, power, firmware, errors, crash or chip\n"
	"                    (default: all that the device has but chip)\n"
	"  --json            one JSON object, numbers as the device gives them\n"
	"  --watch           again each second, until Ctrl-C\n" LPU_DEVICE_HELP "\nexamples:\n"
	"  millrace lpu log --lpu vfio-user:/run/lpu\n"
	"  millrace lpu log --lpu vfio:0000:01:00.0 --page power --watch\n";

static const struct option table[] = {
	{"page", required_argument, NULL, OPT_PAGE},
	{"json", no_argument, NULL, OPT_JSON},
	{"watch", no_argument, NULL, OPT_WATCH},
	LPU_DEVICE_LONG_OPTIONS,
	{0},
};

struct log_options {
	struct tool_devices_options devices;
	const struct lpu_page *page;
	int json, watch;
};

static int take(void *arg, int option, const char *value)
{
	struct log_options *o = arg;

	if (option == OPT_JSON)
		return !(o->json = 1);
	if (option == OPT_WATCH)
		return !(o->watch = 1);
	o->page = lpu_page_find(value);
	if (o->page)
		return 0;
	fprintf(stderr,
		"millrace lpu log: --page is counters, health, power, firmware, errors, crash or "
		"chip, not '%s'\n",
		value);
	return -1;
}

/*
 * Reads a page: bytes, or a status. A device that gives up between two looks answers nothing more: it is reset, once,
 * and asked again.
 */
static int read_page(struct mr_device *dev, const struct lpu_page *page, void *data)
{
	int got = mr_lpu_log(dev, page->log, data, LPU_PAGE_BYTES);

	if ((got != MR_E_TIMEOUT && got != MR_E_DEVICE) || tool_stop)
		return got;
	fprintf(stderr, "millrace lpu log: no answer (%s): the device is reset\n",
		mr_status_name(got));
	int status = dev->admin->reset(dev);
	return status ? status : mr_lpu_log(dev, page->log, data, LPU_PAGE_BYTES);
}

/* A page of @dev into @out: printed, or added to it. 0 or a status. */
static int show(struct mr_device *dev, const struct lpu_page *page, struct json_object *out)
{
	uint8_t *data = malloc(LPU_PAGE_BYTES);
	int got = data ? read_page(dev, page, data) : MR_E_NO_MEMORY;
	int status = got < 0 ? got : lpu_page_check(page, (size_t)got);

	if (!status && out)
		json_object_object_add(out, page->name, lpu_page_json(page, data, (size_t)got));
	else if (!status)
		lpu_page_print(stdout, page, data, (size_t)got);
	free(data);
	return status ? lpu_command_failed("log", page->name, status) : TOOL_OK;
}

static int show_all(const struct log_options *o, struct mr_device *dev)
{
	const struct mr_lpu_identify *id = mr_lpu_identity(dev);
	struct json_object *out = o->json ? json_object_new_object() : NULL;
	int result = TOOL_OK;

	if (out) {
		json_object_object_add(out, "device", json_object_new_string(dev->caps.name));
		json_object_object_add(out, "time", json_object_new_int64((int64_t)time(NULL)));
	}
	for (size_t i = 0; !result && i < sizeof(lpu_pages) / sizeof(lpu_pages[0]); i++) {
		const struct lpu_page *page = &lpu_pages[i];
		int wanted = o->page ? o->page == page
				     : page->log != MR_LPU_LOG_CHIP && id->logs & 1ull << page->log;
		if (wanted)
			result = show(dev, page, out);
	}
	if (out && !result)
		puts(json_object_to_json_string_ext(out, JSON_C_TO_STRING_PLAIN |
								 JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(out);
	fflush(stdout);
	return result;
}

static int log_command(int argc, char **argv)
{
	const struct timespec second = {.tv_sec = 1};
	struct log_options o = {0};
	const struct lpu_command_line line = {"log", usage, table, &o.devices, take, &o, 0, 0};
	struct tool_devices devices;
	uint32_t fatal;
	int result = lpu_command_parse(&line, argc, argv);

	if (result >= 0)
		return result;
	tool_catch_signals();
	if (tool_lpu_open(&o.devices, &devices, &fatal))
		return TOOL_FAILED;
	if (fatal)
		fprintf(stderr,
			"millrace lpu log: the device had given up (%s); it was reset, and page "
			"crash "
			"tells more\n",
			lpu_crash_cause(fatal));
	do {
		result = show_all(&o, devices.decode);
		if (o.watch && !result && !tool_stop)
			nanosleep(&second, NULL);
		if (o.watch && !o.json && !result && !tool_stop)
			putchar('\n');
	} while (o.watch && !result && !tool_stop);
	tool_devices_close(&devices);
	return result;
}

TOOL_LPU_COMMAND(log, "what a device tells of itself: counters, health, power, crash", log_command);
