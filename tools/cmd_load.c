// SPDX-License-Identifier: Apache-2.0
/* `millrace load`: requests to a server, over a ring or over the wire, from a process of its own, and how it went. */
#include "tools/load.h"

/* The wire brings no vocabulary along, as a ring does. */
static int open_model(struct load_options *o, const struct load_plan *plan)
{
	if (o->ring || (!o->stream && !plan->longest))
		return 0;
	if (plan->longest && !o->model_path)
		fprintf(stderr, "millrace: random prompts over the wire are words of the model's "
				"vocabulary (-m FILE)\n");
	o->model = tool_model_open(o->model_path);
	return o->model ? 0 : -1;
}

static int load(int argc, char **argv)
{
	struct load_options options;
	struct load_plan plan = {0};
	struct load_run run = {0};
	int status = load_options_read(argc, argv, &options);

	if (status != 0) {
		load_options_free(&options);
		return status - 1;
	}
	status = load_plan_make(&options, &plan);
	if (status == 0)
		status = open_model(&options, &plan);
	if (status == 0 && !options.ring && plan.clients.count > 1)
		fprintf(stderr,
			"millrace: on the wire a key is a client: the %u clients of %s are one to "
			"the server\n",
			plan.clients.count, options.trace);
	if (status == 0) {
		tool_catch_signals();
		status = load_run(&run, &options, &plan);
	}
	status = status == 0 ? load_report(&run) : TOOL_FAILED;
	load_free(&run);
	load_plan_free(&plan);
	load_options_free(&options);
	return status;
}

TOOL_COMMAND(load, "send prompts over a ring or over UDP, and measure the answers", load);
