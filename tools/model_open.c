// SPDX-License-Identifier: Apache-2.0
/* Finds and opens the model of a command: the file named, $MR_MODEL, or what `make model` fetched. */
#include <stdlib.h>
#include <unistd.h>

#include "driver/model/model.h"
#include "tools/tools.h"

#define PATH_BYTES 4096
#define DEMO_MODEL "SmolLM2-135M-Instruct.Q4_1.gguf"

static const char *environment(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

/* Where scripts/model.sh keeps the demo's model; keep the two alike. */
static const char *cached(char out[PATH_BYTES])
{
	const char *cache = environment("MR_CACHE"), *xdg = environment("XDG_CACHE_HOME");
	const char *home = environment("HOME");

	if (cache)
		snprintf(out, PATH_BYTES, "%s/%s", cache, DEMO_MODEL);
	else if (xdg)
		snprintf(out, PATH_BYTES, "%s/millrace/%s", xdg, DEMO_MODEL);
	else
		snprintf(out, PATH_BYTES, "%s/.cache/millrace/%s", home ? home : ".", DEMO_MODEL);
	return out;
}

struct mr_model *tool_model_open(const char *path)
{
	char buffer[PATH_BYTES], why[256] = "";
	struct mr_model *model = NULL;
	int status;

	if (!path)
		path = environment("MR_MODEL");
	if (!path) {
		path = cached(buffer);
		if (access(path, R_OK)) {
			fprintf(stderr,
				"millrace: no model at %s: run 'make model' to fetch the demo's, "
				"or name a GGUF with -m FILE or MR_MODEL\n",
				path);
			return NULL;
		}
	}
	status = mr_model_open(path, &model, why, sizeof(why));
	if (status) {
		fprintf(stderr, "millrace: %s: %s (%s)\n", path, why[0] ? why : mr_strerror(status),
			mr_status_name(status));
		return NULL;
	}
	return model;
}
