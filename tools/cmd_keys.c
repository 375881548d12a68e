// SPDX-License-Identifier: Apache-2.0
/* `millrace keys`: makes and looks at the key files of the wire. */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/net/key.h"
#include "tools/tools.h"

static const char usage[] =
	"usage: millrace keys new FILE [--json]\n"
	"       millrace keys id FILE [--json]\n\n"
	"A key file holds the 32 secret bytes that a client and the server share on the wire.\n\n"
	"  new   makes one of random bytes, readable by its owner alone; prints the key's id\n"
	"  id    prints the id of a key, which is no secret\n\n"
	"  --json   print it as JSON: {\"file\":...,\"id\":...}\n\n"
	"Both programs refuse a file that its group or others may read: chmod 600 FILE.\n";

static int complain(const char *path, int status)
{
	const char *why = mr_strerror(status);

	if (status == MR_E_PERMISSION)
		why = "its group or others may read it (chmod 600), or you may not";
	else if (status == MR_E_FORMAT)
		why = "it is not a plain file of 32 bytes";
	else if (status == MR_E_EXISTS)
		why = "it is there already, and a key is never written over";
	else if (status == MR_E_IO)
		why = strerror(errno);
	fprintf(stderr, "millrace: key file %s: %s\n", path, why);
	return TOOL_FAILED;
}

static int keys(int argc, char **argv)
{
	struct json_object *root;
	struct mr_wire_key key;
	char id[17];
	int status, json = 0;

	if (argc > 2 && !strcmp(argv[argc - 1], "--json")) {
		json = 1;
		argc--;
	}
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(usage, stdout);
		return TOOL_OK;
	}
	if (argc != 3 || (strcmp(argv[1], "new") && strcmp(argv[1], "id"))) {
		fputs(usage, stderr);
		return TOOL_USAGE;
	}
	status = strcmp(argv[1], "new") ? mr_key_load(argv[2], &key) : mr_key_create(argv[2], &key);
	if (status != 0)
		return complain(argv[2], status);
	snprintf(id, sizeof(id), "%016llx", (unsigned long long)key.id);
	if (!json) {
		puts(id);
		return TOOL_OK;
	}
	root = json_object_new_object();
	json_object_object_add(root, "file", json_object_new_string(argv[2]));
	json_object_object_add(root, "id", json_object_new_string(id));
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN));
	json_object_put(root);
	return TOOL_OK;
}

TOOL_COMMAND(keys, "make and look at key files of the wire", keys);
