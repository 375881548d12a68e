// SPDX-License-Identifier: Apache-2.0
/* Runs the parts of `millrace bench sched`. See bench_sched.h. */
#include "tools/bench_sched.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* 0, or why what is measured on devices is not. */
static int real_on(const struct bench_sched_options *o, const struct mr_model *model,
		   const char *device, struct bench_rows *r)
{
	struct tool_devices_options options = o->devices;
	struct tool_devices devices;
	int status;

	options.device = device;
	options.slots = 16;
	options.context = model->shape.context < 2304 ? model->shape.context : 2304;
	if (tool_devices_open(&options, model, &devices))
		return MR_E_DEVICE;
	status = bench_sched_real(r, model, &devices, o->runs);
	tool_devices_close(&devices);
	options.slots = 32;
	if (!status && !strcmp(device, "cpu"))
		status = bench_sched_mixed(r, model, &options, o->runs);
	return status;
}

static int real(const struct bench_sched_options *o, struct bench_rows *r)
{
	static const char *const both[] = {"cpu", "lpu"};
	struct mr_model *model = tool_model_open(o->model);
	int status = 0;

	if (!model) {
		if (o->model)
			return MR_E_NOT_FOUND;
		bench_part(r, "real", "On devices");
		bench_row_missing(r, "all", "fork, prefix and hand-over", "there is no model");
		return 0;
	}
	for (unsigned i = 0; !status && i < 2; i++)
		if (!o->devices.device || !strcmp(o->devices.device, both[i]))
			status = real_on(o, model, both[i], r);
	mr_model_close(model);
	return status;
}

int bench_sched(const struct bench_sched_options *o, struct bench_rows *r)
{
	struct tool_hiccup *meter = tool_hiccup_start();
	int status;

	memset(r, 0, sizeof(*r));
	status = bench_sched_step(r, 3 * o->runs);
	if (!status)
		status = bench_sched_quiet(r);
	if (!status)
		status = bench_sched_virtual(r);
	if (!status)
		status = real(o, r);
	tool_hiccup_stop(meter, &r->hiccup_p99_ns, &r->hiccup_max_ns);
	if (!status)
		return TOOL_OK;
	fprintf(stderr, "millrace: bench sched: %s (%s)\n", mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}
