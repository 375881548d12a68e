// SPDX-License-Identifier: Apache-2.0
/*
 * Says hello to a millrace server: submits a prompt, prints the answer as its tokens come.
 *
 *   usage: example-hello [PROMPT [SOCKET]]
 */
#include <stdio.h>
#include <string.h>

#include <millrace/millrace.h>

#define SECOND 1000000000ll

static void print_token(const struct mr_ring *ring, uint32_t token)
{
	uint32_t flags;
	size_t bytes;
	const char *text = mr_ring_token(ring, token, &bytes, &flags);

	if (text && !(flags & MR_VOCAB_CONTROL)) {
		fwrite(text, 1, bytes, stdout);
		fflush(stdout);
	}
}

/* Prints the answer to its end. Returns 0, or the status with which it failed. */
static int follow(struct mr_ring *ring)
{
	for (;;) {
		int rc = mr_ring_wait(ring, 60 * SECOND);
		struct mr_cqe cqe;

		if (rc)
			return rc;
		if (!mr_ring_poll(ring, &cqe))
			continue;
		if (cqe.type == MR_CQE_TOKEN) {
			print_token(ring, cqe.token);
			continue;
		}
		printf("\n");
		return cqe.status;
	}
}

int main(int argc, char **argv)
{
	const char *prompt = argc > 1 ? argv[1] : "Say hello.";
	const struct mr_ring_options options = {.path = argc > 2 ? argv[2] : NULL};
	struct mr_ring *ring;
	int rc;

	rc = mr_ring_connect(&options, &ring);
	if (!rc)
		rc = mr_ring_submit_text(ring, 1, prompt, strlen(prompt), MR_SUBMIT_CHAT, NULL);
	if (!rc)
		rc = follow(ring);
	if (rc)
		fprintf(stderr, "hello: %s\n", mr_strerror(rc));
	mr_ring_disconnect(ring);
	return rc != 0;
}
