// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu load`: a program container from a file to a device, of whatever payload kind. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/lpu/lpu.h"
#include "tools/lpu.h"
#include "userlib/spec/container.h"

static const char usage[] =
	"usage: millrace lpu load FILE [options]\n\n"
	"Sends a program container to a device as it is, has it verified and activates it. The\n"
	"payload is between its maker and the device: of the container only magic, version and\n"
	"length are looked at here. The device keeps the program until another is loaded or its\n"
	"function is reset.\n\n" LPU_DEVICE_HELP "\nexample:\n"
	"  millrace lpu load model.lpu --lpu vfio-user:/run/lpu\n";

static const struct option table[] = {LPU_DEVICE_LONG_OPTIONS, {0}};

static int refuse(const char *path, int status, const char *text)
{
	fprintf(stderr, "millrace lpu load: %s: %s (%s)\n", path, text, mr_status_name(status));
	return TOOL_FAILED;
}

static int check(const char *path, const void *file, size_t bytes, struct mr_prog_header *h)
{
	memset(h, 0, sizeof(*h));
	memcpy(h, file, bytes < sizeof(*h) ? bytes : sizeof(*h));
	if (h->magic != MR_PROG_MAGIC)
		return refuse(path, MR_E_FORMAT, "no program container");
	if (h->version != MR_PROG_VERSION)
		return refuse(path, MR_E_VERSION, "a container of another version");
	if (bytes < sizeof(*h) || h->total_bytes > bytes)
		return refuse(path, MR_E_TRUNCATED, "the container is cut short");
	if (h->total_bytes < bytes)
		return refuse(path, MR_E_FORMAT, "bytes after the container's end");
	return 0;
}

static void on_percent(void *arg, unsigned percent)
{
	const int *on = arg;

	if (*on)
		fprintf(stderr, "\rloading: %u%%%s", percent, percent == 100 ? "\r\033[K" : "");
}

static int load(int argc, char **argv)
{
	struct tool_devices_options options = {0};
	const struct lpu_command_line line = {"load", usage, table, &options, NULL, NULL, 1, 1};
	struct tool_devices devices;
	struct mr_prog_header h;
	size_t bytes;
	int result = lpu_command_parse(&line, argc, argv), on = isatty(STDERR_FILENO);

	if (result >= 0)
		return result;
	const char *path = argv[optind];
	void *file = lpu_command_file("load", path, &bytes);
	result = file ? check(path, file, bytes, &h) : TOOL_FAILED;
	if (!result)
		result = tool_lpu_open(&options, &devices, NULL) ? TOOL_FAILED : TOOL_OK;
	if (!result) {
		int status = mr_lpu_load_container(devices.decode, file, bytes, on_percent, &on);
		if (status) {
			char text[160];
			snprintf(text, sizeof(text), "payload kind %u, %s refuses it",
				 h.payload_kind, devices.decode->caps.name);
			result = refuse(path, status, text);
		} else {
			printf("%s: %zu bytes, payload kind %u, batch %u, context %u: active on "
			       "%s\n",
			       path, bytes, h.payload_kind, h.batch, h.context,
			       devices.decode->caps.name);
		}
		tool_devices_close(&devices);
	}
	free(file);
	return result;
}

TOOL_LPU_COMMAND(load, "send a program container from a file, of any payload kind", load);
