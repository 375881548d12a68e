/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `millrace load` share: cmd_load.c reads the options, load_loop.c drives the requests, and
 * load_report.c says how it went.
 */
#ifndef MR_TOOLS_LOAD_H
#define MR_TOOLS_LOAD_H

#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "driver/net/client.h"
#include "tools/tools.h"

struct load_prompt {
	char *text;
	uint32_t bytes;
};

struct load_options {
	struct mr_net_client_options client;
	struct load_prompt *prompts;
	uint32_t prompt_count;
	uint32_t requests;    /* in all; prompts are taken in turn */
	uint32_t concurrency; /* under way at once */
	uint32_t max_tokens;
	uint32_t flags; /* MR_WIRE_* */
	struct mr_sampling sampling;
	uint32_t wait_ms;       /* for the server's address */
	const char *memif;      /* path of the server's socket; NULL = another device */
	const char *where;      /* how the server is reached, for messages */
	struct mr_model *model; /* for text; NULL = ids only */
	int stream, json;
};

/* One request, from its sending on. Times are CLOCK_MONOTONIC, this process's. */
struct load_record {
	uint32_t prompt; /* index */
	uint32_t tokens;
	uint32_t limit;
	int status, ended, has_done;
	uint64_t sent_ns, first_ns, last_ns, end_ns;
	uint32_t *ids; /* max_tokens entries */
	struct mr_wire_done done;
	uint64_t copies[MR_WIRE_COPY_SITES_MAX];
};

struct load_run {
	const struct load_options *options;
	struct mr_net_client *client;
	struct load_record *records;
	uint32_t sent, ended;
	uint32_t *id_memory;
	uint64_t *itl; /* arrival of a token after the one before, ns */
	uint64_t itl_count, itl_max;
	uint64_t begin_ns, end_ns;
	uint64_t hiccup_p99_ns, hiccup_max_ns;
	struct mr_net_client_stats stats;
	struct mr_detok detok; /* of the answer that is streamed */
};

/* Opens the client, runs all requests, closes. Returns 0, or -1 after one line on stderr. */
int load_run(struct load_run *run, const struct load_options *options);
void load_free(struct load_run *run);

/* Prints the table or the JSON object. Returns an exit status: TOOL_OK when every request was answered. */
int load_report(const struct load_run *run);

#endif /* MR_TOOLS_LOAD_H */
