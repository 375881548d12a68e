// SPDX-License-Identifier: Apache-2.0
/* Finds the real model without fetching it. */
#include "support/real_model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_NAME "SmolLM2-135M-Instruct.Q4_1.gguf"

static int set(const char *value)
{
	return value && *value;
}

const char *real_model_path(void)
{
	static char path[PATH_MAX];

	if (set(getenv("MR_MODEL")))
		snprintf(path, sizeof(path), "%s", getenv("MR_MODEL"));
	else if (set(getenv("MR_CACHE")))
		snprintf(path, sizeof(path), "%s/" FILE_NAME, getenv("MR_CACHE"));
	else if (set(getenv("XDG_CACHE_HOME")))
		snprintf(path, sizeof(path), "%s/millrace/" FILE_NAME, getenv("XDG_CACHE_HOME"));
	else if (set(getenv("HOME")))
		snprintf(path, sizeof(path), "%s/.cache/millrace/" FILE_NAME, getenv("HOME"));
	else
		return NULL;
	return access(path, R_OK) ? NULL : path;
}
