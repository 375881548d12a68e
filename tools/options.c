// SPDX-License-Identifier: Apache-2.0
/* What several commands read and write alike: shared options, numbers in and out. */
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tools.h"

int tool_parse_number(const char *option, const char *text, uint64_t min, uint64_t max,
		      uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	/* strtoull takes blanks and a sign; a command line should not. */
	if (text[0] >= '0' && text[0] <= '9' && !*end && !errno && *out >= min && *out <= max)
		return 0;
	fprintf(stderr, "millrace: %s takes a whole number from %llu to %llu, not '%s'\n", option,
		(unsigned long long)min, (unsigned long long)max, text);
	return -1;
}

static const char *const numerics[] = {
	[MR_NUMERICS_EXACT] = "exact",
	[MR_NUMERICS_STRICT] = "strict",
	[MR_NUMERICS_FAST] = "fast",
};

const char *tool_numerics_name(enum mr_numerics n)
{
	return numerics[n];
}

static int parse_numerics(const char *value, struct tool_devices_options *out)
{
	for (int n = MR_NUMERICS_EXACT; n <= MR_NUMERICS_FAST; n++) {
		if (strcmp(value, numerics[n]))
			continue;
		out->numerics = (enum mr_numerics)n;
		out->numerics_asked = 1;
		return 1;
	}
	fprintf(stderr, "millrace: --numerics is exact, strict or fast, not '%s'\n", value);
	return -1;
}

int tool_device_option(int option, const char *value, struct tool_devices_options *out)
{
	uint64_t n;

	switch (option) {
	case TOOL_OPT_DEVICE:
		if (strcmp(value, "lpu") && strcmp(value, "cpu") && strcmp(value, "nil")) {
			fprintf(stderr, "millrace: --device is lpu, cpu or nil, not '%s'\n", value);
			return -1;
		}
		out->device = value;
		return 1;
	case TOOL_OPT_KERNELS:
		out->kernels = value;
		return 1;
	case TOOL_OPT_NUMERICS:
		return parse_numerics(value, out);
	case TOOL_OPT_THREADS:
		if (tool_parse_number("--threads", value, 1, 256, &n))
			return -1;
		out->threads = (uint32_t)n;
		return 1;
	case TOOL_OPT_CHIP:
		out->chip = value;
		return 1;
	case TOOL_OPT_CHIPS:
		if (tool_parse_number("--chips", value, 1, 64, &n))
			return -1;
		out->chips = (uint32_t)n;
		return 1;
	case TOOL_OPT_FAULT:
		out->fault = value;
		return 1;
	case TOOL_OPT_LPU:
		if (strcmp(value, "local") && strncmp(value, "vfio-user:", 10) &&
		    strncmp(value, "vfio:", 5)) {
			fprintf(stderr,
				"millrace: --lpu is local, vfio-user:SOCKET or vfio:ADDRESS, not "
				"'%s'\n",
				value);
			return -1;
		}
		out->lpu = value;
		return 1;
	case TOOL_OPT_PERTURB:
		out->perturb = value;
		return 1;
	case TOOL_OPT_PACED: {
		char *end;

		out->paced = value ? strtod(value, &end) : 1;
		if (!value || (end != value && !*end && out->paced > 0 && out->paced <= 1e6))
			return 1;
		fprintf(stderr, "millrace: --paced takes a number above 0, at most 1e6, not '%s'\n",
			value);
		return -1;
	}
	case TOOL_OPT_RECORD:
		out->record = value;
		return 1;
	case TOOL_OPT_NO_HUGE:
		out->no_huge = 1;
		return 1;
	default:
		return 0;
	}
}

struct json_object *tool_json_number(double value)
{
	char text[40];

	if (!isfinite(value))
		return json_object_new_double(value);
	snprintf(text, sizeof(text), "%.9g", value);
	return json_object_new_double_s(value, text);
}
