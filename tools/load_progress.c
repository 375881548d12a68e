// SPDX-License-Identifier: Apache-2.0
/* The progress line of `millrace load`: once a second, where standard error is a terminal. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/load.h"

#define QUIET_S 2 /* a load that is over by then shows no line */

struct load_progress {
	const struct load_run *run;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int stop;
};

static void say(const struct load_run *run, unsigned second, uint64_t tokens)
{
	uint32_t sent = __atomic_load_n(&run->sent, __ATOMIC_RELAXED);
	uint32_t ended = __atomic_load_n(&run->ended, __ATOMIC_RELAXED);
	uint32_t active = __atomic_load_n(&run->active, __ATOMIC_RELAXED);

	fprintf(stderr, "\r\033[Kmillrace: %u s: %u sent", second, sent);
	if (!run->plan->bounded)
		fprintf(stderr, " of %u", run->plan->count);
	fprintf(stderr, ", %u ended, %u under way, %llu tokens/s", ended, active,
		(unsigned long long)tokens);
}

static void *progress(void *arg)
{
	struct load_progress *p = arg;
	uint64_t before = 0, tokens;
	struct timespec t;
	unsigned second = 0;

	clock_gettime(CLOCK_MONOTONIC, &t);
	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		t.tv_sec++;
		while (!p->stop && pthread_cond_timedwait(&p->wake, &p->lock, &t) == 0)
			;
		if (p->stop)
			break;
		tokens = __atomic_load_n(&p->run->token_count, __ATOMIC_RELAXED);
		if (++second >= QUIET_S)
			say(p->run, second, tokens - before);
		before = tokens;
	}
	pthread_mutex_unlock(&p->lock);
	if (second >= QUIET_S)
		fputs("\r\033[K", stderr);
	return NULL;
}

struct load_progress *load_progress_start(const struct load_run *run)
{
	struct load_progress *p;
	pthread_condattr_t attributes;

	if (!isatty(STDERR_FILENO) || run->options->stream)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->run = run;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, &attributes);
	if (pthread_create(&p->thread, NULL, progress, p)) {
		free(p);
		return NULL;
	}
	return p;
}

void load_progress_stop(struct load_progress *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = 1;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	free(p);
}
