// SPDX-License-Identifier: Apache-2.0
/*
 * The closed loop of `millrace load`: as many requests under way as asked for, the next one sent when one ends.
 * It spins for a short while and then sleeps shortly, because client and server may share a core.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <millrace/status.h>

#include "tools/load.h"

#define IDLE_TURNS    2000 /* polls without work before it sleeps: some 100 us */
#define IDLE_US       20
#define OPEN_AGAIN_US 50000        /* between two tries to reach a memif server */
#define LAST_WORDS_NS 500000000ull /* for the ends of cancelled requests */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void print_text(const char *text, size_t bytes)
{
	fwrite(text, 1, bytes, stdout);
	fflush(stdout);
}

static void print_prompt(const struct load_run *run, const struct load_record *r)
{
	const struct load_prompt *p = &run->options->prompts[r->prompt];

	printf("> %.*s\n", (int)p->bytes, p->text);
}

static void print_token(struct load_run *run, uint32_t id)
{
	char text[MR_DETOK_MAX];

	print_text(text, mr_detok_push(run->options->model->tokenizer, &run->detok, id, text));
}

static void print_end(struct load_run *run, const struct load_record *r)
{
	char text[MR_DETOK_MAX];

	print_text(text, mr_detok_flush(&run->detok, text));
	if (r->status)
		printf("[%s]", mr_status_name(r->status));
	printf("\n\n");
	run->detok = (struct mr_detok){0};
}

/* One at a time is printed as it comes; several at once, each when it is whole. */
static int streams(const struct load_run *run)
{
	return run->options->stream && run->options->concurrency == 1;
}

static void on_token(void *arg, uint64_t tag, uint32_t index, const struct mr_wire_token *token)
{
	struct load_run *run = arg;
	struct load_record *r = &run->records[tag];
	uint64_t now = now_ns();

	if (index >= run->options->max_tokens)
		return; /* a server that sends more than was asked for */
	if (index == 0)
		r->first_ns = now;
	else
		run->itl[run->itl_count++] = now - r->last_ns;
	r->last_ns = now;
	r->ids[index] = token->id;
	r->tokens = index + 1;
	if (streams(run))
		print_token(run, token->id);
}

static void on_end(void *arg, uint64_t tag, int status, uint32_t limit,
		   const struct mr_wire_done *done, const uint64_t *copies)
{
	struct load_run *run = arg;
	struct load_record *r = &run->records[tag];

	r->end_ns = now_ns();
	r->ended = 1;
	r->status = status;
	r->limit = limit;
	if (done) {
		r->has_done = 1;
		r->done = *done;
		memcpy(r->copies, copies, sizeof(r->copies));
	}
	run->ended++;
	if (!run->options->stream)
		return;
	if (!streams(run)) {
		print_prompt(run, r);
		for (uint32_t i = 0; i < r->tokens; i++)
			print_token(run, r->ids[i]);
	}
	print_end(run, r);
}

static const struct mr_net_client_ops ops = {on_token, on_end};

static void send_next(struct load_run *run)
{
	const struct load_options *o = run->options;
	struct load_record *r = &run->records[run->sent];
	struct mr_net_prompt prompt = {
		.max_tokens = o->max_tokens,
		.flags = o->flags,
		.sampling = o->sampling,
		.tag = run->sent,
	};

	r->prompt = run->sent % o->prompt_count;
	r->ids = run->id_memory + (size_t)run->sent * o->max_tokens;
	prompt.text = o->prompts[r->prompt].text;
	prompt.bytes = o->prompts[r->prompt].bytes;
	if (streams(run))
		print_prompt(run, r);
	run->sent++;
	r->sent_ns = now_ns();
	/* There is room and an address; nothing else can be refused here. */
	mr_net_client_send(run->client, &prompt);
}

/* Polls once; sleeps shortly when there was nothing for a while. */
static void turn(struct load_run *run, unsigned *idle)
{
	if (mr_net_client_poll(run->client) > 0)
		*idle = 0;
	else if (++*idle > IDLE_TURNS)
		usleep(IDLE_US);
}

/*
 * Opens the client. A memif client cannot start before its server listens, so a socket that is not there yet, or
 * that nobody listens on, is tried again until @until.
 */
static int open_client(struct load_run *run, uint64_t until)
{
	struct mr_net_client_options client = run->options->client;
	const char *memif = run->options->memif;
	char why[MR_NET_WHY_BYTES] = "there is no such socket";
	int status = MR_E_NOT_FOUND;

	client.requests = run->options->concurrency;
	client.ops = &ops;
	client.arg = run;
	while (!tool_stop) {
		if (!memif || access(memif, F_OK) == 0)
			status = mr_net_client_open(&client, &run->client, why);
		if (status == 0)
			return 0;
		if (!memif || (status != MR_E_DEVICE && status != MR_E_NOT_FOUND) ||
		    now_ns() > until)
			break;
		usleep(OPEN_AGAIN_US);
	}
	fprintf(stderr, "millrace: %s: %s%s\n", run->options->where, why,
		memif ? "; is `millrace serve` running there?" : "");
	return -1;
}

static int resolve(struct load_run *run, uint64_t until)
{
	unsigned idle = IDLE_TURNS;

	while (!mr_net_client_ready(run->client) && !tool_stop) {
		if (now_ns() > until) {
			fprintf(stderr,
				"millrace: %s: nobody answers ARP within %u ms; is `millrace "
				"serve` running there, with that address?\n",
				run->options->where, run->options->wait_ms);
			return -1;
		}
		turn(run, &idle);
	}
	return 0;
}

static void drive(struct load_run *run)
{
	const struct load_options *o = run->options;
	unsigned idle = 0;

	run->begin_ns = now_ns();
	while (!tool_stop && run->ended < o->requests) {
		while (run->sent < o->requests &&
		       mr_net_client_active(run->client) < o->concurrency)
			send_next(run);
		turn(run, &idle);
	}
	run->end_ns = now_ns();
	if (!mr_net_client_active(run->client))
		return;
	for (uint32_t i = 0; i < run->sent; i++)
		if (!run->records[i].ended)
			mr_net_client_cancel(run->client, i);
	for (uint64_t until = now_ns() + LAST_WORDS_NS;
	     mr_net_client_active(run->client) && now_ns() < until;)
		turn(run, &idle);
}

static int make_room(struct load_run *run)
{
	const struct load_options *o = run->options;
	size_t tokens = (size_t)o->requests * o->max_tokens;

	run->records = calloc(o->requests, sizeof(*run->records));
	run->id_memory = calloc(tokens, sizeof(*run->id_memory));
	run->itl = calloc(tokens, sizeof(*run->itl));
	if (run->records && run->id_memory && run->itl)
		return 0;
	fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
	return -1;
}

int load_run(struct load_run *run, const struct load_options *options)
{
	uint64_t until = now_ns() + options->wait_ms * 1000000ull;
	struct tool_hiccup *hiccup;
	int status;

	*run = (struct load_run){.options = options};
	if (make_room(run) != 0 || open_client(run, until) != 0)
		return -1;
	prctl(PR_SET_TIMERSLACK, 1000); /* short sleeps are short */
	status = resolve(run, until);
	if (status == 0) {
		hiccup = tool_hiccup_start();
		drive(run);
		tool_hiccup_stop(hiccup, &run->hiccup_p99_ns, &run->hiccup_max_ns);
	}
	run->stats = mr_net_client_stats(run->client);
	mr_net_client_close(run->client);
	return status;
}

void load_free(struct load_run *run)
{
	free(run->records);
	free(run->id_memory);
	free(run->itl);
}
