// SPDX-License-Identifier: Apache-2.0
/*
 * Whose prompt is prefilled next. Each client has an account with a queue a class; the accounts of a class
 * take turns by deficit round robin, counted in tokens, so that a client with long prompts, or with many,
 * takes no more than its share. Within an account it is by priority, then first come, first served; one that
 * has begun or waits for KV is not overtaken, since it may hold what the other would wait for. A prompt's turn comes when
 * all of those before it has been posted, so one prompt of each client is unfinished. Requests with an ITL bound go before
 * background, which gets one chunk in FOREGROUND_RUN all the same. Those with a deadline go before all (due.c),
 * and are charged to their account's foreground.
 *
 * A sequence that finds no room for its KV claims the next that comes: until then no other of its class,
 * or of background, starts, so that small ones cannot starve a large one. Those that have begun go on.
 */
#include "driver/sched/internal.h"

#define FOREGROUND_RUN 16u

static struct account **bucket(const struct mr_sched *s, uint64_t client)
{
	return &s->account_buckets[mix(client, 0) & s->bucket_mask];
}

struct account *mr_sched_account_find(const struct mr_sched *s, uint64_t client)
{
	struct account *a = *bucket(s, client);

	while (a && a->client != client)
		a = a->hash_next;
	return a;
}

struct account *mr_sched_account(struct mr_sched *s, uint64_t client)
{
	struct account *a = mr_sched_account_find(s, client);

	if (!a && s->free_accounts) {
		struct account **head = bucket(s, client);

		a = s->free_accounts;
		s->free_accounts = a->hash_next;
		*a = (struct account){.client = client, .hash_next = *head};
		TAILQ_INIT(&a->queue[FOREGROUND]);
		TAILQ_INIT(&a->queue[BACKGROUND]);
		*head = a;
	}
	if (a)
		a->refs++;
	return a;
}

void mr_sched_account_put(struct mr_sched *s, struct account *a)
{
	struct account **at = bucket(s, a->client);

	if (--a->refs)
		return;
	while (*at != a)
		at = &(*at)->hash_next;
	*at = a->hash_next;
	a->hash_next = s->free_accounts;
	s->free_accounts = a;
}

uint64_t mr_sched_client_blocks(const struct mr_sched *s, uint64_t client)
{
	const struct account *a = mr_sched_account_find(s, client);

	return a ? a->blocks[PRE] + a->blocks[DEC] : 0;
}

static void insert(struct mr_sched *s, struct sequence_list *queue, struct sequence *q)
{
	struct sequence *before = TAILQ_LAST(queue, sequence_list);
	const struct sequence *last = before;

	while (before && before->state == QUEUED && s->claim[q->class] != before &&
	       before->rank > q->rank)
		before = TAILQ_PREV(before, sequence_list, link);
	if (before)
		TAILQ_INSERT_AFTER(queue, before, q, link);
	else
		TAILQ_INSERT_HEAD(queue, q, link);
	q->on = queue;
	mr_count(MR_M_sched_overtakes, before != last);
}

void mr_sched_enqueue(struct mr_sched *s, struct sequence *q)
{
	struct account *a = q->account;

	mr_sched_move(s, q, QUEUED, NULL);
	if (q->due_ns) {
		mr_sched_due_insert(s, q);
		return;
	}
	insert(s, &a->queue[q->class], q);
	if (a->in_ring[q->class])
		return;
	a->in_ring[q->class] = 1;
	a->deficit[q->class] = 0;
	TAILQ_INSERT_TAIL(&s->ring[q->class], a, ring[q->class]);
}

void mr_sched_dequeue(struct mr_sched *s, struct sequence *q)
{
	struct account *a = q->account;
	int due = q->on == &s->due;

	mr_sched_move(s, q, q->state, NULL);
	if (s->claim[q->class] == q)
		s->claim[q->class] = NULL;
	if (due || !TAILQ_EMPTY(&a->queue[q->class]))
		return;
	a->in_ring[q->class] = 0;
	TAILQ_REMOVE(&s->ring[q->class], a, ring[q->class]);
}

/* Whether @q asked for room in vain, and none has come since. */
static int waits(const struct mr_sched *s, const struct sequence *q)
{
	return q->waited[PRE] == s->pool[PRE].moved + 1ull ||
	       q->waited[DEC] == s->pool[DEC].moved + 1ull;
}

/* Whether @q may post now: it has its KV already, or there may be room, and nobody before it wants it. */
static int may_go(const struct mr_sched *s, const struct sequence *q)
{
	if (q->state == PREFILLING)
		return 1;
	if (waits(s, q))
		return 0;
	if (s->claim[FOREGROUND] && s->claim[FOREGROUND] != q)
		return 0;
	return q->class == FOREGROUND || !s->claim[BACKGROUND] || s->claim[BACKGROUND] == q;
}

static void rotate(struct mr_sched *s, struct account *a, int class)
{
	TAILQ_REMOVE(&s->ring[class], a, ring[class]);
	TAILQ_INSERT_TAIL(&s->ring[class], a, ring[class]);
}

/* Whether the chunk of @q under way leaves more of that prompt to be posted. */
static int has_more(const struct sequence *q)
{
	return q->written + q->chunk < q->count - 1;
}

/* Whose turn it is within @a; NULL where the one before is not posted in full. */
static struct sequence *first_of(const struct account *a, int class)
{
	struct sequence *q;

	TAILQ_FOREACH(q, &a->queue[class], link)
	if (!q->chunk)
		return q;
	else if (has_more(q))
		return NULL;
	return NULL;
}

/* The earliest deadline of those that may go. */
static struct sequence *first_due(const struct mr_sched *s)
{
	struct sequence *q;

	TAILQ_FOREACH(q, &s->due, link)
	if (!q->chunk && may_go(s, q))
		return q;
	else if (q->chunk && has_more(q))
		return NULL;
	return NULL;
}

static struct sequence *next_of(struct mr_sched *s, int class)
{
	struct account *a, *first = NULL;

	while ((a = TAILQ_FIRST(&s->ring[class])) != NULL && a != first) {
		struct sequence *q = first_of(a, class);

		if (!q || !may_go(s, q)) {
			first = first ? first : a;
			rotate(s, a, class);
			continue;
		}
		if (a->deficit[class] > 0)
			return q;
		/* Its turn is over; the next one begins with a fresh share. */
		a->deficit[class] += s->chunk;
		if (a->deficit[class] > 0 && TAILQ_NEXT(a, ring[class]) == NULL)
			return q;
		rotate(s, a, class);
		first = NULL;
	}
	return NULL;
}

struct sequence *mr_sched_next(struct mr_sched *s)
{
	struct sequence *q = mr_sched_due_turn(s) ? first_due(s) : NULL;

	if (q)
		return q;
	if (s->in_a_row < FOREGROUND_RUN || TAILQ_EMPTY(&s->ring[BACKGROUND]))
		q = next_of(s, FOREGROUND);
	if (!q)
		q = next_of(s, BACKGROUND);
	if (!q)
		q = next_of(s, FOREGROUND);
	return q ? q : first_due(s);
}

void mr_sched_charge(struct mr_sched *s, struct sequence *q, uint32_t tokens)
{
	q->account->deficit[q->class] -= tokens;
	mr_sched_due_charge(s, q, tokens);
	if (q->class == BACKGROUND || TAILQ_EMPTY(&s->ring[BACKGROUND]))
		s->in_a_row = 0;
	else
		s->in_a_row++;
}
