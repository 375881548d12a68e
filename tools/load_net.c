// SPDX-License-Identifier: Apache-2.0
/* `millrace load` over the wire: the client of driver/net on a DPDK port of its own. One key is one client. */
#include <stdlib.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "tools/load.h"

#define OPEN_AGAIN_US 50000 /* between two tries to reach a memif server */
#define NAP_NS        20000 /* a port has no descriptor to sleep on */

struct net_link {
	struct mr_net_client *client;
	struct load_run *run;
	int gone;
};

static void on_token(void *arg, uint64_t tag, uint32_t index, const struct mr_wire_token *token)
{
	struct net_link *link = arg;

	load_token(link->run, (uint32_t)tag, index, token->id);
}

static void on_end(void *arg, uint64_t tag, int status, uint32_t limit,
		   const struct mr_wire_done *done, const uint64_t *copies)
{
	struct net_link *link = arg;
	struct load_run *run = link->run;
	struct load_done d;

	/* One request may be lost; a server that said nothing at all for as long is not there. */
	if (status == MR_E_TIMEOUT && load_now() - mr_net_client_stats(link->client).heard_ns >=
					      run->options->timeout_ms * 1000000ull)
		link->gone = status;
	if (!done) {
		load_end(run, (uint32_t)tag, status, limit, NULL);
		return;
	}
	d = (struct load_done){
		.finish = done->finish,
		.prompt_tokens = done->prompt_tokens,
		.queue_ns = done->queue_ns,
		.prefill_ns = done->prefill_ns,
		.total_ns = done->total_ns,
		.cycles = done->cycles,
		.cycles_off = done->cycles_off,
		.copy_sites = done->copy_sites,
		.copies = copies,
	};
	load_end(run, (uint32_t)tag, status, limit, &d);
}

static const struct mr_net_client_ops ops = {on_token, on_end};

/*
 * Opens the client. A memif client cannot start before its server listens, so a socket that is not there yet, or
 * that nobody listens on, is tried again until @until.
 */
static int open_client(struct load_run *run, struct net_link *link, uint64_t until)
{
	struct mr_net_client_options client = run->options->client;
	const char *memif = run->options->memif;
	char why[MR_NET_WHY_BYTES] = "there is no such socket";
	int status = MR_E_NOT_FOUND;
	uint32_t flight = run->plan->open ? LOAD_FLIGHT_MAX : run->options->concurrency;

	client.requests = flight < run->plan->count ? flight : run->plan->count;
	client.timeout_ms = run->options->timeout_ms;
	client.ops = &ops;
	client.arg = link;
	while (!tool_stop) {
		if (!memif || access(memif, F_OK) == 0)
			status = mr_net_client_open(&client, &link->client, why);
		if (status == 0)
			return 0;
		if (!memif || (status != MR_E_DEVICE && status != MR_E_NOT_FOUND) ||
		    load_now() > until)
			break;
		usleep(OPEN_AGAIN_US);
	}
	fprintf(stderr, "millrace: %s: %s%s\n", run->options->where, why,
		memif ? "; is `millrace serve` running there?" : "");
	return -1;
}

static int net_open(struct load_run *run, uint64_t until)
{
	struct net_link *link = calloc(1, sizeof(*link));

	run->link = link;
	if (!link) {
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return -1;
	}
	link->run = run;
	if (open_client(run, link, until))
		return -1;
	while (!mr_net_client_ready(link->client) && !tool_stop) {
		if (load_now() > until) {
			fprintf(stderr,
				"millrace: %s: nobody answers ARP within %u ms; is `millrace "
				"serve` running there, with that address?\n",
				run->options->where, run->options->wait_ms);
			return -1;
		}
		if (!mr_net_client_poll(link->client))
			usleep(NAP_NS / 1000);
	}
	return 0;
}

static void net_close(struct load_run *run)
{
	struct net_link *link = run->link;

	if (link && link->client) {
		run->wire = mr_net_client_stats(link->client);
		mr_net_client_close(link->client);
	}
	free(link);
}

static int net_send(struct load_run *run, uint32_t tag, const struct load_input *input)
{
	const struct load_options *o = run->options;
	struct net_link *link = run->link;
	const struct mr_net_prompt prompt = {
		.text = input->text,
		.bytes = input->bytes,
		.max_tokens = run->plan->requests[tag].max_tokens,
		.flags = (o->chat ? MR_WIRE_CHAT : 0) | (o->ignore_eos ? MR_WIRE_IGNORE_EOS : 0),
		.sampling = o->sampling,
		.tag = tag,
	};

	return mr_net_client_send(link->client, &prompt);
}

static void net_cancel(struct load_run *run, uint32_t tag)
{
	struct net_link *link = run->link;

	mr_net_client_cancel(link->client, tag);
}

static int net_poll(struct load_run *run)
{
	struct net_link *link = run->link;
	int done = mr_net_client_poll(link->client);

	return link->gone ? link->gone : done;
}

static void net_sleep(struct load_run *run, uint64_t ns)
{
	struct timespec t = {.tv_nsec = ns < NAP_NS ? (long)ns : NAP_NS};

	nanosleep(&t, NULL);
}

static const char *net_token(const struct load_run *run, uint32_t id, size_t *bytes, int *control)
{
	const struct mr_tokenizer *tokenizer = run->options->model->tokenizer;

	*control = mr_token_is_control(tokenizer, id);
	return mr_token_bytes(tokenizer, id, bytes);
}

const struct load_transport load_net = {
	.open = net_open,
	.close = net_close,
	.send = net_send,
	.cancel = net_cancel,
	.poll = net_poll,
	.sleep = net_sleep,
	.token = net_token,
};
