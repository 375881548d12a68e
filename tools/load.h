/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `millrace load` share.
 *   cmd_load.c, load_options.c  the command line
 *   load_trace.c                trace files
 *   load_plan.c                 which request is due when: made before the start
 *   load_prompts.c              prompts of a given number of tokens
 *   load_loop.c                 the timing loop
 *   load_net.c, load_ring.c     how a request reaches the server
 *   load_figures.c, load_report.c, load_json.c, load_plot.c  how it went
 *
 * Times are CLOCK_MONOTONIC of this process, in nanoseconds, unless said otherwise.
 */
#ifndef MR_TOOLS_LOAD_H
#define MR_TOOLS_LOAD_H

#include <stdint.h>
#include <time.h>

#include <millrace/wire.h>

#include "driver/net/client.h"
#include "tools/load_trace.h"
#include "tools/tools.h"

struct mr_model;

#define LOAD_REQUESTS_MAX 10000000u
#define LOAD_TOKENS_MAX   (64u << 20) /* of all answers together: 12 bytes are kept for each */
#define LOAD_RANDOM       UINT32_MAX  /* load_request.prompt: made of random tokens */
#define LOAD_FLIGHT_MAX   4096u       /* requests under way at once */

static inline uint64_t load_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A stream of random numbers that is a function of its seed (splitmix64). */
struct load_random {
	uint64_t state;
};
static inline uint64_t load_random_next(struct load_random *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

struct load_options {
	struct mr_net_client_options client; /* the wire's */
	const char *ring;                    /* socket of a ring server; NULL = the wire */
	const char *memif; /* path of the server's socket; NULL = another device */
	const char *where; /* how the server is reached, for messages */
	uint32_t wait_ms, timeout_ms;
	uint32_t clients; /* ring connections */

	struct load_prompt *prompts;
	uint32_t prompt_count;
	uint32_t prompt_tokens;                  /* random prompts of so many; 0 = none */
	uint32_t mix_short, mix_long, mix_every; /* each mix_every-th prompt is long; 0 = no mix */
	const char *trace;
	uint32_t requests; /* in all; 0 = not said */
	uint32_t concurrency;
	double rate;    /* open loop: requests a second; 0 = closed loop */
	double seconds; /* 0 = not said */
	uint32_t max_tokens;
	int chat, ignore_eos;
	struct mr_sampling sampling; /* its seed is that of arrivals and random prompts too */

	int stream, json, busy;
	const char *samples, *plot; /* files to write; NULL = none */
	const char *model_path;
	struct mr_model *model; /* the wire's vocabulary; NULL = ids only */
};

/* A request before it is sent. */
struct load_request {
	uint64_t due_ns;        /* after the start; closed loop: 0 */
	uint32_t prompt;        /* index of a text, or LOAD_RANDOM */
	uint32_t prompt_tokens; /* of LOAD_RANDOM */
	uint32_t max_tokens;    /* of the answer */
	uint16_t class, client;
};

struct load_plan {
	struct load_request *requests;
	uint32_t count;
	int open;         /* requests are due at their time; else when one before ended */
	uint64_t span_ns; /* open: the time for which arrivals were made */
	uint64_t tokens;  /* of all answers, at most */
	uint32_t longest; /* random prompt, tokens; 0 = none is random */
	uint32_t bounded; /* closed: @count is only our bound on what fits --seconds */
	const struct load_prompt *texts;
	struct load_labels classes, clients;
	struct load_trace trace; /* what it was made of; owns texts then */
};

/* Makes the plan. Returns 0, or -1 after one line on stderr. */
int load_plan_make(const struct load_options *options, struct load_plan *plan);
void load_plan_free(struct load_plan *plan);
/* The time to the next arrival of a Poisson process of @rate a second. */
double load_gap_ns(struct load_random *random, double rate);

/* One request, from its sending on. */
struct load_record {
	uint64_t due_ns, sent_ns, end_ns;
	uint64_t *at;  /* when each token came; max_tokens entries */
	uint32_t *ids; /* as many */
	uint32_t tokens;
	uint32_t limit; /* that an E_TOO_LARGE passed */
	int16_t status;
	uint8_t ended, cut, has_done, finish; /* cut: ended by us, with the load */
	uint32_t prompt_tokens;               /* as the server counted; 0 = it did not say */
	uint64_t queue_ns, prefill_ns, total_ns, cycles; /* the server's; 0 = it did not say */
	int32_t cycles_off; /* cycles, less those that were predicted */
};

/* How an answer ended, as far as the transport says. */
struct load_done {
	uint32_t finish; /* enum mr_wire_finish */
	uint32_t prompt_tokens;
	uint64_t queue_ns, prefill_ns, total_ns, cycles;
	int32_t cycles_off;
	uint32_t copy_sites;
	const uint64_t *copies;
};

/* A prompt as it goes out: text, or ids where the transport takes them. */
struct load_input {
	const char *text;
	uint32_t bytes;
	const uint32_t *ids; /* NULL = text */
	uint32_t count;
};

struct load_run;
struct load_transport {
	/* Connects by @until. Returns 0, or -1 after one line on stderr. */
	int (*open)(struct load_run *run, uint64_t until);
	void (*close)(struct load_run *run);
	/* Sends request @tag. MR_E_FULL: not now; other errors end the request. */
	int (*send)(struct load_run *run, uint32_t tag, const struct load_input *input);
	void (*cancel)(struct load_run *run, uint32_t tag);
	/* Hands over what came, to load_token and load_end. Returns how much; below 0: the server is gone. */
	int (*poll)(struct load_run *run);
	/* Sleeps until something may have come, at most @ns. */
	void (*sleep)(struct load_run *run, uint64_t ns);
	/* The bytes of a token of the vocabulary; NULL where there is no such id. */
	const char *(*token)(const struct load_run *run, uint32_t id, size_t *bytes, int *control);
	int takes_ids;
};
extern const struct load_transport load_net, load_ring;

/* Random words of the vocabulary; each random prompt is a window on them. */
struct load_pool {
	uint32_t *ids;
	char *text;
	uint32_t *text_at; /* where each word begins in text; one more at the end */
};
/* Makes the pool that @run's plan needs. Returns 0, or -1 after one line on stderr. */
int load_pool_make(struct load_run *run);
void load_pool_free(struct load_pool *pool);
void load_pool_prompt(const struct load_run *run, uint32_t request, struct load_input *input);

struct load_run {
	const struct load_options *options;
	const struct load_plan *plan;
	const struct load_transport *transport;
	void *link; /* the transport's */
	struct load_pool pool;
	struct load_record *records;
	uint32_t sent, ended, active; /* the progress line's thread reads them, relaxed */
	uint64_t token_count;         /* and this */
	uint64_t *at_memory;
	uint32_t *id_memory;
	uint32_t prompts_end; /* where the tokens of the next request go, in both */
	uint64_t begin_ns, end_ns;
	int gone;      /* status with which the server went away; 0 = it did not */
	int stopped;   /* by a signal */
	uint64_t held; /* requests that were due and found no room */
	int last_held; /* the next one already counts in @held */
	uint64_t hiccup_p99_ns, hiccup_max_ns;
	uint64_t faults, preempted; /* of the loop's thread: page faults, involuntary switches */
	uint64_t copies[MR_WIRE_COPY_SITES_MAX]; /* payload bytes, of all good requests */
	uint32_t copy_sites;
	struct mr_net_client_stats wire;
	struct load_stream *stream; /* of the answer that is printed */
};

/* Events from a transport's poll. @status below 0: why there is no whole answer. @done may be NULL. */
void load_token(struct load_run *run, uint32_t tag, uint32_t index, uint32_t id);
void load_end(struct load_run *run, uint32_t tag, int status, uint32_t limit,
	      const struct load_done *done);

/* Connects, runs the plan, closes. Returns 0, or -1 after one line on stderr. */
int load_run(struct load_run *run, const struct load_options *options,
	     const struct load_plan *plan);
void load_free(struct load_run *run);

/* A line on a terminal each second, from a thread of its own so that the terminal cannot hold up the loop. */
struct load_progress;
struct load_progress *load_progress_start(const struct load_run *run);
void load_progress_stop(struct load_progress *progress); /* NULL is allowed */

struct load_latencies {
	/* From when the request was due; in a closed loop that is when it was sent. */
	struct tool_summary ttft, total;
	struct tool_summary ttft_sent; /* from when it was sent */
	struct tool_summary itl;
	struct tool_summary
		itl_beside; /* while a prompt of another class waited for its first token */
	uint32_t sent, good;
	uint64_t tokens, prompt_tokens;
};

struct load_figures {
	struct load_latencies all, class[LOAD_LABELS_MAX];
	struct tool_summary lag, queue, prefill; /* lag: of sending behind being due */
	uint32_t good, failed, cut, unsent,
		late;             /* late: sent LOAD_LATE_NS or more after being due */
	uint64_t cycles, counted; /* counted: tokens of answers that say their cycles */
	double seconds, tokens_per_s, served_per_s, offered_per_s, cycles_per_token;
};
#define LOAD_LATE_NS 100000u

/* 0 or MR_E_NO_MEMORY. */
int load_figures(const struct load_run *run, struct load_figures *f);
/* How many requests ended with @status; *@limit: what an E_TOO_LARGE passed. */
uint32_t load_count_status(const struct load_run *run, int status, uint32_t *limit);
uint64_t load_ttft(const struct load_record *r); /* 0 = no token came */

/* Prints the table or the JSON object, writes the files. TOOL_OK when every request was answered. */
int load_report(const struct load_run *run);
void load_print_json(const struct load_run *run, const struct load_figures *f);
const char *load_site_name(uint32_t site);
/* Each token and end as CSV in @path. 0, or -1 after one line on stderr. */
int load_write_samples(const struct load_run *run, const char *path);
/* Whether @path can be plotted here: 0, or -1 after one line that says what is missing. */
int load_plot_check(const char *path);
/* The CDF of TTFT and ITL by class. 0, or -1 after one line on stderr. */
int load_plot(const struct load_run *run, const char *path);

/* Fills @options from the command line. 0 = go on, else an exit status + 1. */
int load_options_read(int argc, char **argv, struct load_options *options);
void load_options_free(struct load_options *options);

#endif /* MR_TOOLS_LOAD_H */
