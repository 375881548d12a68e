// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace load` over rings, through libmillrace's public calls alone. Each client of the plan is a connection of
 * its own, because a connection is what the server keeps accounts and quotas by.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <millrace/millrace.h>

#include "tools/load.h"

#define OPEN_AGAIN_US 50000
#define BURST         64           /* CQEs of one ring before the next one's turn */
#define CHECK_TURNS   256          /* empty polls between two looks at a server's heartbeat */
#define KEY_CANCEL    (1ull << 32) /* keys of CANCELs; those of requests are their tags */

struct ring_link {
	struct mr_ring *rings[LOAD_LABELS_MAX];
	struct pollfd fds[LOAD_LABELS_MAX];
	uint32_t count, turns;
};

static int connect_one(struct load_run *run, struct mr_ring **ring, uint64_t until)
{
	const uint64_t largest = run->plan->longest * sizeof(uint32_t) + sizeof(struct mr_params);
	struct mr_ring_options options = {
		.path = run->options->ring,
		.silent_ms = run->options->timeout_ms,
	};
	int status;

	/* Room for a few of the largest prompts; small ones have room enough in the server's default. */
	if (largest > (1u << 16))
		options.data_bytes =
			4 * largest < MR_DATA_BYTES_MAX ? 4 * largest : MR_DATA_BYTES_MAX;
	do {
		status = mr_ring_connect(&options, ring);
		if (status == 0)
			return 0;
		if (status != MR_E_NOT_FOUND || load_now() > until)
			break;
		usleep(OPEN_AGAIN_US);
	} while (!tool_stop);
	fprintf(stderr, "millrace: %s: %s (%s)%s\n", run->options->ring, mr_strerror(status),
		mr_status_name(status),
		status == MR_E_NOT_FOUND ? "; is `millrace serve --ring` running there?" : "");
	return -1;
}

static int ring_open(struct load_run *run, uint64_t until)
{
	struct ring_link *link = calloc(1, sizeof(*link));
	uint32_t wanted =
		run->plan->clients.count ? run->plan->clients.count : run->options->clients;

	run->link = link;
	if (!link) {
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return -1;
	}
	while (link->count < wanted) {
		if (connect_one(run, &link->rings[link->count], until))
			return -1;
		link->fds[link->count].fd = mr_ring_fd(link->rings[link->count]);
		link->fds[link->count].events = POLLIN;
		link->count++;
	}
	return 0;
}

static void ring_close(struct load_run *run)
{
	struct ring_link *link = run->link;

	for (uint32_t i = 0; link && i < link->count; i++)
		mr_ring_disconnect(link->rings[i]);
	free(link);
}

static struct mr_ring *ring_of(const struct load_run *run, uint32_t tag)
{
	const struct ring_link *link = run->link;

	return link->rings[run->plan->requests[tag].client];
}

static int ring_send(struct load_run *run, uint32_t tag, const struct load_input *input)
{
	const struct load_options *o = run->options;
	struct mr_ring *ring = ring_of(run, tag);
	const struct mr_params params = {
		.version = MR_PARAMS_VERSION,
		.max_tokens = run->plan->requests[tag].max_tokens,
		.sampling = o->sampling,
	};
	uint32_t flags = o->ignore_eos ? MR_SUBMIT_IGNORE_EOS : 0;

	if (input->ids)
		return mr_ring_submit_tokens(ring, tag, input->ids, input->count, flags, &params);
	if (o->chat)
		flags |= MR_SUBMIT_CHAT;
	return mr_ring_submit_text(ring, tag, input->text, input->bytes, flags, &params);
}

static void ring_cancel(struct load_run *run, uint32_t tag)
{
	/* No room: the end of the connection, which is near, cancels as well. */
	(void)mr_ring_cancel(ring_of(run, tag), KEY_CANCEL + tag, tag);
}

static void take(struct load_run *run, const struct mr_cqe *cqe)
{
	static const uint32_t finish[] = {
		[MR_ENDED_STOP] = MR_WIRE_FINISH_STOP,
		[MR_ENDED_LENGTH] = MR_WIRE_FINISH_LENGTH,
		[MR_ENDED_CANCEL] = MR_WIRE_FINISH_CANCEL,
		[MR_ENDED_ERROR] = MR_WIRE_FINISH_ERROR,
	};
	struct load_done done;

	if (cqe->op != MR_OP_SUBMIT || cqe->key >= run->sent)
		return;
	if (cqe->type == MR_CQE_TOKEN) {
		load_token(run, (uint32_t)cqe->key, cqe->index, cqe->token);
		return;
	}
	if (cqe->type != MR_CQE_DONE && cqe->type != MR_CQE_ERROR)
		return;
	/* An SQE that was refused made no sequence. */
	if (!cqe->sequence || cqe->ended < MR_ENDED_STOP || cqe->ended > MR_ENDED_ERROR) {
		load_end(run, (uint32_t)cqe->key, cqe->status, 0, NULL);
		return;
	}
	done = (struct load_done){
		.finish = finish[cqe->ended],
		.prompt_tokens = cqe->status ? 0 : cqe->position - cqe->index,
		.cycles = cqe->cycles,
	};
	load_end(run, (uint32_t)cqe->key, cqe->status, 0, &done);
}

static int ring_poll(struct load_run *run)
{
	struct ring_link *link = run->link;
	const struct mr_cqe *cqe;
	int done = 0, status = 0;

	for (uint32_t i = 0; i < link->count; i++) {
		for (int n = 0; n < BURST && (cqe = mr_ring_peek(link->rings[i])); n++, done++) {
			take(run, cqe);
			mr_ring_consume(link->rings[i]);
		}
	}
	if (done || ++link->turns % CHECK_TURNS)
		return done;
	for (uint32_t i = 0; i < link->count && !status; i++)
		status = mr_ring_check(link->rings[i]);
	return status;
}

static void ring_sleep(struct load_run *run, uint64_t ns)
{
	const struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
	struct ring_link *link = run->link;
	uint32_t armed = 0;

	/* The next empty poll looks at the heartbeats: turns are few where most time is slept. */
	link->turns = CHECK_TURNS - 1;
	while (armed < link->count && !mr_ring_arm(link->rings[armed]))
		armed++;
	if (armed == link->count && ppoll(link->fds, link->count, &t, NULL) > 0) {
		for (uint32_t i = 0; i < link->count; i++) {
			eventfd_t count;

			if (link->fds[i].revents & POLLIN)
				(void)!eventfd_read(link->fds[i].fd, &count);
		}
	}
	while (armed)
		mr_ring_disarm(link->rings[--armed]);
}

static const char *ring_token(const struct load_run *run, uint32_t id, size_t *bytes, int *control)
{
	const struct ring_link *link = run->link;
	uint32_t flags = 0;
	const char *text = mr_ring_token(link->rings[0], id, bytes, &flags);

	*control = (flags & MR_VOCAB_CONTROL) != 0;
	return text;
}

const struct load_transport load_ring = {
	.open = ring_open,
	.close = ring_close,
	.send = ring_send,
	.cancel = ring_cancel,
	.poll = ring_poll,
	.sleep = ring_sleep,
	.token = ring_token,
	.takes_ids = 1,
};
