// SPDX-License-Identifier: Apache-2.0
/*
 * An agent that waits for a tool: the model answers, a command runs, and the model goes on with what the
 * command printed. Between the two answers the sequence is paused on the server, which need not read the
 * conversation again: only the tool's result is new.
 *
 *   usage: example-agent [QUESTION [COMMAND [SOCKET]]]
 */
#include <stdio.h>
#include <string.h>

#include <millrace/millrace.h>

#define SECOND 1000000000ll
enum { CONVERSATION = 1, RESULT, GOODBYE }; /* keys */

/* Prints the answer of request @key to its end. Returns 0, or the status with which it failed. */
static int follow(struct mr_ring *ring, uint64_t key)
{
	for (;;) {
		int rc = mr_ring_wait(ring, 60 * SECOND);
		const char *text = NULL;
		uint32_t flags;
		struct mr_cqe cqe;
		size_t bytes;

		if (rc)
			return rc;
		if (!mr_ring_poll(ring, &cqe) || cqe.key != key)
			continue;
		if (cqe.type == MR_CQE_DONE || cqe.type == MR_CQE_ERROR) {
			printf("\n");
			return cqe.status;
		}
		if (cqe.type == MR_CQE_TOKEN)
			text = mr_ring_token(ring, cqe.token, &bytes, &flags);
		if (text && !(flags & MR_VOCAB_CONTROL))
			fwrite(text, 1, bytes, stdout);
		fflush(stdout);
	}
}

/* What the command prints, as the message that the model gets. Returns its length. */
static size_t run_tool(const char *command, char *message, size_t bytes)
{
	size_t used = (size_t)snprintf(message, bytes, "The tool printed: ");
	FILE *tool = popen(command, "r");

	if (tool) {
		used += fread(message + used, 1, bytes - used, tool);
		pclose(tool);
	}
	return used;
}

static int converse(struct mr_ring *ring, const char *question, const char *command)
{
	const struct mr_params params = {.version = MR_PARAMS_VERSION, .max_tokens = 64};
	char message[4096];
	size_t bytes;
	int rc;

	rc = mr_ring_submit_text(ring, CONVERSATION, question, strlen(question),
				 MR_SUBMIT_CHAT | MR_SUBMIT_KEEP, &params);
	if (!rc)
		rc = follow(ring, CONVERSATION);
	if (rc)
		return rc;
	/* However long this takes, the conversation keeps, and takes nothing that others need. */
	bytes = run_tool(command, message, sizeof(message));
	rc = mr_ring_append_text(ring, RESULT, CONVERSATION, message, bytes,
				 MR_SUBMIT_CHAT | MR_SUBMIT_KEEP, &params);
	if (!rc)
		rc = follow(ring, RESULT);
	if (!rc)
		rc = mr_ring_release(ring, GOODBYE, CONVERSATION);
	return rc ? rc : follow(ring, GOODBYE);
}

int main(int argc, char **argv)
{
	const char *question = argc > 1 ? argv[1] : "What time is it? A tool will tell you.";
	const char *command = argc > 2 ? argv[2] : "date";
	const struct mr_ring_options options = {
		.path = argc > 3 ? argv[3] : NULL,
		.required = MR_FEATURE_KEEP | MR_FEATURE_APPEND,
	};
	struct mr_ring *ring;
	int rc;

	rc = mr_ring_connect(&options, &ring);
	if (!rc)
		rc = converse(ring, question, command);
	if (rc)
		fprintf(stderr, "agent: %s\n", mr_strerror(rc));
	mr_ring_disconnect(ring);
	return rc != 0;
}
