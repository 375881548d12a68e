// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu firmware`: what runs on a device, and another image in its place. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/lpu/lpu.h"
#include "tools/lpu.h"
#include "tools/lpu_pages.h"

enum { OPT_SLOT = TOOL_OPT_OWN };

static const char usage[] =
	"usage: millrace lpu firmware status [options]\n"
	"       millrace lpu firmware update FILE [--slot N] [options]\n"
	"       millrace lpu firmware activate [--slot N] [options]\n\n"
	"status prints the firmware slots and which runs. update checks an image, sends it in "
	"pieces\n"
	"and has the device verify it into a slot that does not run. activate has a slot's "
	"firmware\n"
	"run: it resets the device's controller and says what ran before and runs now.\n\n"
	"  --slot N          update: into this slot (default: the first that does not run);\n"
	"                    activate: of this slot (default: the only one with an image that "
	"does\n"
	"                    not run)\n" LPU_DEVICE_HELP "\nexamples:\n"
	"  millrace lpu firmware update lpu-2.1.fw --lpu vfio:0000:01:00.0\n"
	"  millrace lpu firmware activate --lpu vfio:0000:01:00.0\n";

static const struct option table[] = {
	{"slot", required_argument, NULL, OPT_SLOT},
	LPU_DEVICE_LONG_OPTIONS,
	{0},
};

static const struct lpu_page *page;

static int take(void *arg, int option, const char *value)
{
	return tool_parse_number("--slot", value, 1, MR_LPU_FIRMWARE_SLOTS_MAX, arg);
}

static int failed(const char *what, int status)
{
	return lpu_command_failed("firmware", what, status);
}

/* The device's account: 0, or TOOL_FAILED after a line on stderr. */
static int read_log(struct mr_device *dev, struct mr_lpu_firmware_log *f)
{
	int got = mr_lpu_log(dev, MR_LPU_LOG_FIRMWARE, f, sizeof(*f));
	int status = got < 0 ? got : lpu_page_check(page, (size_t)got);

	if (!status && (!f->running || f->running > f->slots || !f->next || f->next > f->slots ||
			f->slots > MR_LPU_FIRMWARE_SLOTS_MAX))
		status = MR_E_PROTOCOL;
	for (uint32_t i = 0; !status && i < f->slots; i++)
		if (!memchr(f->version[i], 0, sizeof(f->version[i])))
			status = MR_E_PROTOCOL;
	return status ? failed("the device's firmware log", status) : 0;
}

static int refuse(const char *path, int status, const char *text)
{
	fprintf(stderr, "millrace lpu firmware: %s: %s (%s)\n", path, text, mr_status_name(status));
	return TOOL_FAILED;
}

/* What can be told of an image before it is sent; the device has the last word. */
static int check(const char *path, const uint8_t *image, size_t bytes,
		 const struct mr_lpu_identify *id)
{
	struct mr_lpu_firmware_image h;
	unsigned char digest[32];
	char text[160];

	memset(&h, 0, sizeof(h));
	memcpy(&h, image, bytes < sizeof(h) ? bytes : sizeof(h));
	if (h.magic != MR_LPU_FIRMWARE_MAGIC)
		return refuse(path, MR_E_FORMAT, "no firmware image");
	if (bytes < sizeof(h) || h.bytes > bytes - sizeof(h))
		return refuse(path, MR_E_TRUNCATED, "the image is cut short");
	if (h.format != MR_LPU_FIRMWARE_FORMAT)
		return refuse(path, MR_E_VERSION, "an image of another format");
	if (h.bytes != bytes - sizeof(h) || !h.version[0] ||
	    !memchr(h.version, 0, sizeof(h.version)) || !memchr(h.product, 0, sizeof(h.product)))
		return refuse(path, MR_E_FORMAT, "an image whose header cannot be");
	if (strncmp(h.product, id->product, sizeof(h.product))) {
		snprintf(text, sizeof(text), "an image for '%.31s'; this device is '%.31s'",
			 h.product, id->product);
		return refuse(path, MR_E_NOT_SUPPORTED, text);
	}
	crypto_hash_sha256(digest, image + sizeof(h), h.bytes);
	if (memcmp(digest, h.sha256, sizeof(digest)))
		return refuse(path, MR_E_CHECKSUM, "the image is damaged: its hash differs");
	if (bytes > id->firmware_max) {
		snprintf(text, sizeof(text), "%zu bytes; the device takes %llu", bytes,
			 (unsigned long long)id->firmware_max);
		return refuse(path, MR_E_TOO_LARGE, text);
	}
	return 0;
}

static void on_percent(void *arg, unsigned percent)
{
	const int *on = arg;

	if (*on)
		fprintf(stderr, "\rsending: %u%%%s", percent, percent == 100 ? "\r\033[K" : "");
}

static int update(struct mr_device *dev, const char *path, uint32_t slot)
{
	int on = isatty(STDERR_FILENO), status;
	struct mr_lpu_firmware_log f;
	size_t bytes;
	uint8_t *image = lpu_command_file("firmware", path, &bytes);
	int result = image ? check(path, image, bytes, mr_lpu_identity(dev)) : TOOL_FAILED;

	if (!result)
		result = read_log(dev, &f);
	for (uint32_t i = 1; !result && !slot && i <= f.slots; i++)
		slot = i == f.running ? 0 : i;
	if (!result) {
		status = slot ? mr_lpu_firmware_download(dev, image, bytes, slot, on_percent, &on)
			      : MR_E_NOT_SUPPORTED;
		result = status ? failed(slot ? path : "every slot of the device runs", status) : 0;
	}
	if (!result)
		result = read_log(dev, &f);
	if (!result)
		printf("slot %u holds %s; slot %u, %s, runs until 'millrace lpu firmware activate "
		       "--slot %u'\n",
		       slot, f.version[slot - 1], f.running, f.version[f.running - 1], slot);
	free(image);
	return result;
}

static int activate(struct mr_device *dev, uint32_t slot)
{
	struct mr_lpu_firmware_log before, after;
	int status;

	if (read_log(dev, &before))
		return TOOL_FAILED;
	if (!slot) {
		uint32_t others = 0;
		for (uint32_t i = 1; i <= before.slots; i++)
			if (i != before.running && before.version[i - 1][0]) {
				slot = i;
				others++;
			}
		if (others != 1)
			return failed(others ? "more than one slot could run: name it with --slot"
					     : "no other slot has an image: update first",
				      others ? MR_E_INVALID : MR_E_NOT_FOUND);
	}
	status = mr_lpu_firmware_activate(dev, slot);
	if (status)
		return failed("activate", status);
	status = dev->admin->reset(dev);
	if (status)
		return failed("reset", status);
	if (read_log(dev, &after))
		return TOOL_FAILED;
	printf("before: slot %u, %s\nnow:    slot %u, %s\n", before.running,
	       before.version[before.running - 1], after.running, after.version[after.running - 1]);
	return after.running == slot ? TOOL_OK
				     : failed("another slot runs after the reset", MR_E_DEVICE);
}

static int status_of(struct mr_device *dev)
{
	struct mr_lpu_firmware_log f;
	int result = read_log(dev, &f);

	if (!result)
		lpu_page_print(stdout, page, &f, sizeof(f));
	return result;
}

static int firmware(int argc, char **argv)
{
	struct tool_devices_options options = {0};
	uint64_t slot = 0;
	const struct lpu_command_line line = {"firmware", usage, table, &options,
					      take,       &slot, 1,     2};
	struct tool_devices devices;
	int result = lpu_command_parse(&line, argc, argv);

	if (result >= 0)
		return result;
	const char *what = argv[optind], *path = argc - optind == 2 ? argv[optind + 1] : NULL;
	int updates = !strcmp(what, "update"), activates = !strcmp(what, "activate");
	if ((!updates && !activates && strcmp(what, "status")) || updates != (path != NULL)) {
		fprintf(stderr, "millrace lpu firmware: status, update FILE or activate "
				"('millrace lpu firmware --help')\n");
		return TOOL_USAGE;
	}
	page = lpu_page_find("firmware");
	if (tool_lpu_open(&options, &devices, NULL))
		return TOOL_FAILED;
	if (!(mr_lpu_identity(devices.decode)->logs & 1ull << MR_LPU_LOG_FIRMWARE))
		result = failed("the device's firmware log", MR_E_NOT_SUPPORTED);
	else if (updates)
		result = update(devices.decode, path, (uint32_t)slot);
	else
		result = activates ? activate(devices.decode, (uint32_t)slot)
				   : status_of(devices.decode);
	tool_devices_close(&devices);
	return result;
}

TOOL_LPU_COMMAND(firmware, "what firmware runs, send another, activate it", firmware);
