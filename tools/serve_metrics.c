// SPDX-License-Identifier: Apache-2.0
/* The counters for people (SIGUSR1) and for programs (--stats, --json), with the machine's facts beside them. */
#include <errno.h>
#include <json-c/json.h>

#include "driver/metrics.h"
#include "tools/serve.h"
#include "tools/tools.h"

void serve_metrics_print(FILE *out)
{
	for (int i = 0; i < MR_METRIC_COUNT; i++) {
		const struct mr_metric_info *info = &mr_metric_info[i];
		uint64_t value = mr_metric_read((enum mr_metric)i);

		if (value)
			fprintf(out, "%-22s %14llu %-12s %s\n", info->name,
				(unsigned long long)value, info->unit, info->help);
	}
	fflush(out);
}

static struct json_object *metrics_json(void)
{
	struct json_object *root = json_object_new_object();
	struct json_object *metrics = json_object_new_object();

	for (int i = 0; i < MR_METRIC_COUNT; i++)
		json_object_object_add(metrics, mr_metric_info[i].name,
				       json_object_new_uint64(mr_metric_read((enum mr_metric)i)));
	json_object_object_add(root, "metrics", metrics);
	json_object_object_add(root, "machine", tool_facts_json());
	return root;
}

void serve_metrics_json(void)
{
	struct json_object *root = metrics_json();

	printf("%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN));
	json_object_put(root);
}

int serve_metrics_write(const char *path)
{
	struct json_object *root = metrics_json();
	int status = json_object_to_file_ext(path, root, JSON_C_TO_STRING_PRETTY);
	json_object_put(root);
	return status;
}
