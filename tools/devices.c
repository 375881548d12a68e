// SPDX-License-Identifier: Apache-2.0
/*
 * Opens what a command's device options name: the arena, the prefill device and the decode device, both loaded
 * with the model. The one place in tools/ that knows backends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/bus/record.h"
#include "driver/bus/vfio.h"
#include "driver/bus/vfio_user.h"
#include "driver/cpu/cpu.h"
#include "driver/lpu/lpu.h"
#include "driver/mem/topology.h"
#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "firmware-sim/sim.h"
#include "kernels/cpu/kernels.h"
#include "tools/tools.h"

#define VFIO_USER "vfio-user:"

struct load_line {
	const char *name;
	int on;
};

static void on_progress(void *arg, unsigned percent)
{
	const struct load_line *line = arg;

	if (line->on)
		fprintf(stderr, "\rloading %s: %u%%%s", line->name, percent,
			percent == 100 ? "\r\033[K" : "");
}

static void on_log(void *arg, const char *text)
{
	fprintf(stderr, "millrace: %s\n", text);
}

static int say(const char *what, int status)
{
	fprintf(stderr, "millrace: %s: %s (%s)\n", what, mr_strerror(status),
		mr_status_name(status));
	return status;
}

static int is_vfio_user(const struct tool_devices_options *o)
{
	return o->lpu && !strncmp(o->lpu, VFIO_USER, sizeof(VFIO_USER) - 1);
}

static int open_arena(const struct tool_devices_options *o, int node, struct mr_arena **arena)
{
	const struct mr_arena_options options = {
		.node = node,
		.no_huge = o->no_huge,
		.shareable = is_vfio_user(o),
		.log = o->arena_log ? on_log : NULL,
	};
	int status = mr_arena_create(&options, arena);

	return status ? say("the arena", status) : 0;
}

static int open_nil(const struct tool_devices_options *o, const struct mr_model *model,
		    struct mr_device **dev)
{
	const struct mr_nil_options options = {
		.slots = o->slots,
		.context = o->context,
		.vocab = model->shape.vocab,
	};
	int status = mr_nil_open(&options, dev);

	return status ? say("the nil device", status) : 0;
}

uint32_t tool_threads_default(void)
{
	int cores[16]; /* a small model gains nothing from more */

	return mr_topology_cores(-1, cores, 16);
}

/*
 * Every core where the CPU decodes and the loop sleeps meanwhile. A loop that never sleeps keeps one, and so
 * does a simulated LPU, which computes too.
 */
static uint32_t default_threads(const struct tool_devices_options *o, int lpu)
{
	uint32_t n = tool_threads_default(), others = (lpu != 0) + (o->loop_busy != 0);

	return n > others ? n - others : 1;
}

static int open_cpu(const struct tool_devices_options *o, struct mr_arena *arena, int lpu,
		    struct mr_device **dev)
{
	const struct mr_cpu_options options = {
		.arena = arena,
		.slots = o->slots,
		.context = o->context,
		.kernels = o->kernels,
		.numerics = o->numerics,
		.cpu = -1,
		.apart = o->apart,
		.threads = o->threads ? o->threads : default_threads(o, lpu),
	};
	int status = mr_cpu_open(&options, dev);

	return status ? say("the CPU backend", status) : 0;
}

/* The simulated LPU: a device on a thread of its own, reached through the in-process port. */
static int open_local(const struct tool_devices_options *o, struct mr_bus **bus)
{
	char why[256] = "";
	const struct mr_sim_options sim = {
		.chip_path = o->chip,
		.chips = o->chips,
		.fault = o->fault,
		.perturb = o->perturb,
		.paced = o->paced,
		.slots = o->slots,
		.kernels = o->kernels,
		.spin_us = o->spin_us,
		.cpu = o->chip_cpu,
		.why = why,
		.why_bytes = sizeof(why),
	};
	struct mr_lpu_port port;
	int status = mr_sim_create(&sim, &port);

	if (status)
		return say(why[0] ? why : "the simulated LPU", status);
	status = mr_bus_local_open(&port, bus);
	if (status) {
		port.ops->close(port.ctx);
		return say("the in-process bus", status);
	}
	return 0;
}

static int is_vfio(const struct tool_devices_options *o)
{
	return o->lpu && !strncmp(o->lpu, "vfio:", 5);
}

/* ADDRESS[@VENDOR:DEVICE], the ids in hexadecimal. 0, or MR_E_INVALID. */
static int parse_vfio(const char *text, char address[32], struct mr_vfio_options *options)
{
	const char *at = strchr(text, '@');
	size_t length = at ? (size_t)(at - text) : strlen(text);
	unsigned vendor, device;
	int end = 0;

	options->vendor = options->device = MR_VFIO_ANY_ID;
	if (!length || length >= 32)
		return MR_E_INVALID;
	memcpy(address, text, length);
	address[length] = 0;
	options->address = address;
	if (!at)
		return 0;
	if (sscanf(at, "@%4x:%4x%n", &vendor, &device, &end) != 2 || at[end])
		return MR_E_INVALID;
	options->vendor = (uint16_t)vendor;
	options->device = (uint16_t)device;
	return 0;
}

static int open_vfio(const struct tool_devices_options *o, struct mr_bus **bus)
{
	/* The admin queue's doorbells and those of one I/O queue. */
	struct mr_vfio_options options = {
		.bar0_min = MR_LPU_BAR0_BYTES,
		.bar2_min = 2 * MR_LPU_DOORBELL_STRIDE,
	};
	char address[32], why[400] = "";
	int status = parse_vfio(o->lpu + 5, address, &options);

	if (status)
		return say(o->lpu, status);
	status = mr_bus_vfio_open(&options, bus, why, sizeof(why));
	if (status)
		return say(why[0] ? why : o->lpu, status);
	const struct mr_vfio_facts *f = mr_bus_vfio_facts(*bus);
	if (o->arena_log)
		fprintf(stderr,
			"millrace: lpu %s: %04x:%04x, IOMMU group %d, node %d, %u vectors of %s, "
			"%s, registers and doorbells %s\n",
			f->place.address, f->function.vendor, f->function.device, f->place.group,
			f->place.node, f->vectors, f->is_msix ? "MSI-X" : "MSI",
			f->can_reset ? "can be reset" : "cannot be reset",
			f->mapped[0] && f->mapped[1] ? "mapped" : "by system calls");
	return 0;
}

/* The NUMA node of a real device, for the arena; -1 = any. */
static int device_node(const struct tool_devices_options *o)
{
	struct mr_vfio_options options;
	struct mr_vfio_place place;
	char address[32];

	if (!is_vfio(o) || parse_vfio(o->lpu + 5, address, &options) ||
	    mr_vfio_find("/sys", address, &place))
		return -1;
	return place.node;
}

/* An LPU behind a socket: `millrace lpu sim`, or a vendor's. PATH, or PATH@VENDOR:DEVICE with ids in hexadecimal. */
static int open_vfio_user(const struct tool_devices_options *o, struct mr_bus **bus)
{
	const char *text = o->lpu + sizeof(VFIO_USER) - 1, *at = strrchr(text, '@');
	char why[256] = "", path[256];
	struct mr_vfio_user_bus_options options = {
		.path = path,
		.why = why,
		.why_bytes = sizeof(why),
	};
	unsigned vendor, device;
	int end = 0;

	/* A path may have an @ of its own: then no two ids follow it. */
	if (at && sscanf(at, "@%4x:%4x%n", &vendor, &device, &end) == 2 && !at[end]) {
		options.vendor = (uint16_t)vendor;
		options.device = (uint16_t)device;
	} else {
		at = text + strlen(text);
	}
	if ((size_t)(at - text) >= sizeof(path))
		return say(o->lpu, MR_E_INVALID);
	memcpy(path, text, (size_t)(at - text));
	path[at - text] = 0;
	int status = mr_bus_vfio_user_open(&options, bus);

	return status ? say(why[0] ? why : o->lpu, status) : 0;
}

/* The bus itself, to @inner, and what the driver is given: the same, or a record around it. */
static int open_bus(const struct tool_devices_options *o, struct mr_bus_record_stats *stats,
		    struct mr_bus **inner, struct mr_bus **bus)
{
	int status = is_vfio_user(o) ? open_vfio_user(o, inner)
		     : is_vfio(o)    ? open_vfio(o, inner)
				     : open_local(o, inner);

	*bus = *inner;
	if (status || !o->record)
		return status;
	status = mr_bus_record_open(o->record, 0, *inner, stats, bus);
	if (status) {
		fprintf(stderr, "millrace: --record %s: %s (%s)\n", o->record, strerror(errno),
			mr_status_name(status));
		(*inner)->ops->close(*inner);
	}
	return status;
}

int tool_bus_open(const struct tool_devices_options *o, struct mr_bus_record_stats *stats,
		  struct mr_bus **bus)
{
	struct mr_bus *inner;

	return open_bus(o, stats, &inner, bus);
}

static int open_lpu(const struct tool_devices_options *o, struct tool_devices *out, uint32_t *fatal)
{
	struct mr_lpu_options options = {
		.arena = out->arena,
		.slots = o->slots,
		.context = o->context,
		.log = on_log,
		.no_shadow = o->record != NULL,
	};
	struct mr_bus *inner;

	if (o->record) {
		out->record = calloc(1, sizeof(*out->record));
		out->record_path = o->record;
		if (!out->record)
			return say("the LPU", MR_E_NO_MEMORY);
	}
	int status = open_bus(o, out->record, &inner, &options.bus);
	if (status)
		return status;
	uint32_t code = options.bus->ops->reg_read(options.bus, MR_LPU_REG_FATAL_CODE);
	if (fatal)
		*fatal = code == UINT32_MAX ? 0 : code;
	status = mr_lpu_open(&options, &out->decode);
	if (status) {
		const char *why = is_vfio(o) ? mr_bus_vfio_why(inner) : "";
		say(*why ? why : "the LPU", status);
		options.bus->ops->close(options.bus);
	}
	return status;
}

int tool_arena_open(const struct tool_devices_options *o, struct mr_arena **arena)
{
	return open_arena(o, device_node(o), arena);
}

int tool_lpu_open(const struct tool_devices_options *o, struct tool_devices *out, uint32_t *fatal)
{
	memset(out, 0, sizeof(*out));
	int status = tool_arena_open(o, &out->arena);

	if (!status)
		status = open_lpu(o, out, fatal);
	out->prefill = out->decode;
	if (status)
		tool_devices_close(out);
	return status;
}

static int load(const struct tool_devices_options *o, const struct mr_model *model,
		struct mr_device *dev, const char *(*why)(const struct mr_device *dev))
{
	struct load_line line = {dev->caps.name, !o->quiet && isatty(STDERR_FILENO)};
	int status = dev->work->load(dev, model, on_progress, &line);
	const char *reason;

	if (!status)
		return 0;
	if (line.on)
		fputc('\n', stderr);
	reason = why ? why(dev) : "";
	fprintf(stderr, "millrace: %s: load: %s (%s)\n", dev->caps.name,
		*reason ? reason : mr_strerror(status), mr_status_name(status));
	return status;
}

const struct mr_kernels *tool_kernels(const char *name)
{
	const struct mr_kernels *kern = mr_kernels_select(name);
	const char *from = name ? "" : " (MR_CPU)";

	if (kern)
		return kern;
	fprintf(stderr, "millrace: kernels '%s'%s: this CPU has none of that name; it has",
		name ? name : getenv("MR_CPU"), from);
	for (int i = 0; mr_kernels_all[i]; i++)
		if (mr_kernels_runnable(mr_kernels_all[i]))
			fprintf(stderr, " %s", mr_kernels_all[i]->name);
	fprintf(stderr, " (%s)\n", mr_status_name(MR_E_NOT_SUPPORTED));
	return NULL;
}

void tool_numerics_line(enum mr_numerics numerics, const struct tool_devices *devices, char *out,
			size_t bytes)
{
	const struct mr_caps *prefill = &devices->prefill->caps, *decode = &devices->decode->caps;
	char held[48] = "";

	if (prefill->class_bytes)
		snprintf(held, sizeof(held), " (%.0f MB of weights for them)",
			 (double)prefill->class_bytes / 1e6);
	snprintf(out, bytes, "numerics %s: prompts in %s%s, generated tokens in %s",
		 tool_numerics_name(numerics), prefill->class_prefill, held, decode->class_decode);
}

/* Who asked for a class P and has none should know. */
static void say_numerics(const struct tool_devices_options *o, const struct tool_devices *out)
{
	const struct mr_caps *caps = &out->prefill->caps;

	if (o->numerics_asked && o->numerics != MR_NUMERICS_STRICT &&
	    strncmp(caps->class_prefill, "P-", 2))
		fprintf(stderr,
			"millrace: --numerics=%s: %s has no class P; all is in class %s, as with "
			"strict\n",
			tool_numerics_name(o->numerics), caps->name, caps->class_prefill);
}

int tool_devices_open(const struct tool_devices_options *o, const struct mr_model *model,
		      struct tool_devices *out)
{
	const char *name = o->device ? o->device : "lpu";
	int lpu = !strcmp(name, "lpu");
	int status;

	memset(out, 0, sizeof(*out));
	if (o->record && !lpu) {
		fprintf(stderr, "millrace: --record is of an LPU's bus; --device is %s\n", name);
		return MR_E_INVALID;
	}
	if (strcmp(name, "nil") && !tool_kernels(o->kernels))
		return MR_E_NOT_SUPPORTED;
	status = open_arena(o, lpu ? device_node(o) : -1, &out->arena);
	if (!status && lpu)
		status = open_lpu(o, out, NULL);
	else if (!status && !strcmp(name, "cpu"))
		status = open_cpu(o, out->arena, 0, &out->decode);
	else if (!status && !strcmp(name, "nil"))
		status = open_nil(o, model, &out->decode);
	else if (!status)
		status = say(name, MR_E_NOT_SUPPORTED);
	if (!status)
		status = load(o, model, out->decode, lpu ? mr_lpu_why : NULL);
	/* An LPU is for decode: prompts are the CPU's. The others do both. */
	if (!status && lpu && !o->decode_only)
		status = open_cpu(o, out->arena, 1, &out->prefill);
	else if (!status)
		out->prefill = out->decode;
	if (!status && out->prefill != out->decode)
		status = load(o, model, out->prefill, NULL);
	if (status)
		tool_devices_close(out);
	else
		say_numerics(o, out);
	return status;
}

/* What became of the record, once the bus is closed. */
static void say_record(const struct tool_devices *d)
{
	const struct mr_bus_record_stats *r = d->record;

	if (r->status)
		fprintf(stderr, "millrace: %s: the trace ends early after %llu entries: %s (%s)\n",
			d->record_path, (unsigned long long)r->entries, mr_strerror(r->status),
			mr_status_name(r->status));
	else if (r->entries)
		fprintf(stderr, "millrace: %s: %llu entries, %llu bytes\n", d->record_path,
			(unsigned long long)r->entries, (unsigned long long)r->bytes);
}

void tool_devices_close(struct tool_devices *d)
{
	if (d->prefill && d->prefill != d->decode)
		d->prefill->admin->close(d->prefill);
	if (d->decode)
		d->decode->admin->close(d->decode);
	mr_arena_destroy(d->arena);
	if (d->record)
		say_record(d);
	free(d->record);
	memset(d, 0, sizeof(*d));
}
