// SPDX-License-Identifier: Apache-2.0
/*
 * A decision before a deadline: how likely does the model hold "buy", "hold" and "sell" after a headline?
 * What has not come by the deadline counts for nothing, and the answer is the safe one: hold.
 *
 *   usage: example-decide [HEADLINE [MILLISECONDS [SOCKET]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <millrace/millrace.h>

#define CHOICES 3u
#define SAFE    1u             /* hold */
enum { HEADLINE = 1, SCORES }; /* keys */

static const char *const choices[CHOICES] = {" buy", " hold", " sell"};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* The headline is taken in without an answer; SCORE asks about it, whether that is done yet or not. */
static int ask(struct mr_ring *ring, const char *headline)
{
	const struct mr_params no_answer = {.version = MR_PARAMS_VERSION};
	char prompt[1024];
	int bytes, rc;

	bytes = snprintf(prompt, sizeof(prompt),
			 "Headline: %s\nWhat to do with the stock:", headline);
	if (bytes >= (int)sizeof(prompt))
		return MR_E_TOO_LARGE;
	rc = mr_ring_submit_text(ring, HEADLINE, prompt, (size_t)bytes, MR_SUBMIT_KEEP, &no_answer);
	return rc ? rc : mr_ring_score_text(ring, SCORES, HEADLINE, choices, NULL, CHOICES, NULL);
}

/*
 * The likeliest choice, by ln p a token, so that longer words do not lose for their length. Returns 0,
 * MR_E_TIMEOUT when not all three were there in time, or another status.
 */
static int decide(struct mr_ring *ring, int64_t deadline, uint32_t *choice)
{
	float best = 0;

	for (;;) {
		int64_t left = deadline - now_ns();
		int rc = left > 0 ? mr_ring_wait(ring, left) : MR_E_TIMEOUT;
		struct mr_cqe cqe;

		if (rc)
			return rc;
		if (!mr_ring_poll(ring, &cqe))
			continue;
		if (cqe.status)
			return cqe.status;
		if (cqe.key == SCORES && cqe.type == MR_CQE_DONE)
			return 0;
		if (cqe.type != MR_CQE_SCORE)
			continue;
		cqe.logprob /= (float)cqe.token;
		if (cqe.index == 0 || cqe.logprob > best) {
			best = cqe.logprob;
			*choice = cqe.index;
		}
	}
}

int main(int argc, char **argv)
{
	const char *headline = argc > 1 ? argv[1] : "Mill doubles its output";
	int64_t deadline = now_ns() + (argc > 2 ? atoll(argv[2]) : 100) * 1000000;
	const struct mr_ring_options options = {
		.path = argc > 3 ? argv[3] : NULL,
		.required = MR_FEATURE_KEEP | MR_FEATURE_SCORE,
	};
	uint32_t choice = SAFE;
	struct mr_ring *ring;
	int rc;

	rc = mr_ring_connect(&options, &ring);
	if (!rc)
		rc = ask(ring, headline);
	if (!rc)
		rc = decide(ring, deadline, &choice);
	if (rc) {
		fprintf(stderr, "decide: %s\n", mr_strerror(rc));
		choice = SAFE;
	}
	printf("%s\n", choices[choice] + 1);
	mr_ring_disconnect(ring); /* what is still under way ends with it */
	return rc != 0 && rc != MR_E_TIMEOUT;
}
