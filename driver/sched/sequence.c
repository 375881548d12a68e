// SPDX-License-Identifier: Apache-2.0
/*
 * Sequences: their pool, their index by (client, key), and how what they do ends: paused, where the request
 * said KEEP and all went well, else gone. Slots are given back here, after the last work that names them.
 */
#include "driver/sched/internal.h"

static struct sequence **bucket(const struct mr_sched *s, uint64_t client, uint64_t key)
{
	return &s->sequence_buckets[mix(client, key) & s->bucket_mask];
}

struct sequence *mr_sched_sequence(const struct mr_sched *s, uint64_t client, uint64_t key)
{
	struct sequence *q = *bucket(s, client, key);

	while (q && (q->client != client || q->key != key))
		q = q->hash_next;
	return q;
}

struct sequence *mr_sched_sequence_new(struct mr_sched *s, uint64_t client)
{
	struct sequence *q = TAILQ_FIRST(&s->free_sequences);
	struct account *account = q ? mr_sched_account(s, client) : NULL;

	if (!account)
		return NULL;
	TAILQ_REMOVE(&s->free_sequences, q, link);
	s->live++;
	*q = (struct sequence){
		.client = client,
		.index = q->index,
		.owner = s->next_owner++,
		.state = FREE,
		.decoded = NONE,
		.account = account,
		.tokens = q->tokens,
		.ready = q->ready,
		.sent = q->sent,
	};
	mr_sched_set_state(s, q, ENDING); /* until it is put on a list */
	return q;
}

void mr_sched_sequence_name(struct mr_sched *s, struct sequence *q, uint64_t key)
{
	struct sequence **head = bucket(s, q->client, key);

	q->key = key;
	q->named = 1;
	q->hash_next = *head;
	*head = q;
}

void mr_sched_sequence_unname(struct mr_sched *s, struct sequence *q)
{
	struct sequence **at = bucket(s, q->client, q->key);

	if (!q->named)
		return;
	while (*at != q)
		at = &(*at)->hash_next;
	*at = q->hash_next;
	q->named = 0;
}

void mr_sched_sequence_free(struct mr_sched *s, struct sequence *q)
{
	mr_sched_sequence_unname(s, q);
	mr_sched_hand_move(q, NULL);
	mr_sched_move(s, q, FREE, NULL);
	mr_kv_release(s, q, PRE);
	mr_kv_release(s, q, DEC);
	q->account->kept -= q->kept;
	mr_sched_account_put(s, q->account);
	TAILQ_INSERT_HEAD(&s->free_sequences, q, link);
	s->live--;
}

void mr_sched_move(struct mr_sched *s, struct sequence *q, enum state state,
		   struct sequence_list *list)
{
	if (q->on)
		TAILQ_REMOVE(q->on, q, link);
	mr_sched_set_state(s, q, state);
	q->on = list;
	if (list)
		TAILQ_INSERT_TAIL(list, q, link);
}

void mr_sched_hand_move(struct sequence *q, struct sequence_list *list)
{
	if (q->hand_on)
		TAILQ_REMOVE(q->hand_on, q, hand_link);
	q->hand_on = list;
	if (list)
		TAILQ_INSERT_TAIL(list, q, hand_link);
}

void mr_sched_end(struct mr_sched *s, struct sequence *q, int32_t status, enum mr_finish finish)
{
	if (q->ending)
		return;
	q->ending = 1;
	q->status = status;
	q->finish = finish;
	if (q->on == &s->due || q->on == &q->account->queue[q->class])
		mr_sched_dequeue(s, q);
	mr_sched_hand_move(q, NULL);
	mr_sched_move(s, q, ENDING, q->inflight ? NULL : &s->ending);
}

int mr_sched_work_done(struct mr_sched *s, struct sequence *q)
{
	q->inflight--;
	if (!q->ending)
		return 0;
	if (q->inflight == 0)
		mr_sched_move(s, q, ENDING, &s->ending);
	return 1;
}

/* What a device says where it failed, and not what it was asked. */
static int device_failed(int32_t status)
{
	return status == MR_E_DEVICE || status == MR_E_TIMEOUT || status == MR_E_PROTOCOL ||
	       status == MR_E_DMA_FAULT || status == MR_E_DISCONNECTED;
}

int mr_sched_may_go_on(struct sequence *q, int32_t status)
{
	if (!device_failed(status) || q->again == AGAIN_MAX)
		return 0;
	q->again++;
	mr_count(MR_M_sched_again, 1);
	return 1;
}

int mr_sched_again(struct mr_sched *s, struct sequence *q, int32_t status)
{
	if (s->shared || q->entry->request.op == MR_REQUEST_SCORE || !mr_sched_may_go_on(q, status))
		return 0;
	mr_kv_drop(s, q, DEC);
	q->fed = 0;
	q->handovers = 0;
	mr_sched_enqueue(s, q);
	return 1;
}

/* The answer is whole and the client keeps the sequence: it waits for input. */
static void pause(struct mr_sched *s, struct sequence *q)
{
	struct entry *e = q->entry;

	q->ending = 0;
	mr_sched_move(s, q, PAUSED, NULL);
	mr_kv_release(s, q, PRE);
	mr_kv_idle(s, q, 1);
	mr_sched_finish(s, e);
}

static void finish(struct mr_sched *s, struct sequence *q)
{
	struct entry *e = q->entry;

	if (q->status == 0)
		mr_kv_publish(s, q, DEC, q->fed);
	if (e && q->status == 0 && (e->request.flags & MR_REQUEST_KEEP)) {
		pause(s, q);
		return;
	}
	/* Off every list and without a name first: the front may submit from inside end. */
	mr_sched_move(s, q, ENDING, NULL);
	mr_sched_sequence_unname(s, q);
	if (q->status < 0 && q->status != MR_E_CANCELLED) {
		/* What a failing device left behind is nobody's to share. */
		mr_kv_drop(s, q, PRE);
		mr_kv_drop(s, q, DEC);
	}
	if (e)
		mr_sched_finish(s, e);
	mr_sched_sequence_free(s, q);
}

int mr_sched_reap(struct mr_sched *s)
{
	struct sequence *q;
	int count = 0;

	for (; (q = TAILQ_FIRST(&s->ending)) != NULL; count++)
		finish(s, q);
	return count;
}

int mr_sched_query(const struct mr_sched *s, uint64_t client, uint64_t key,
		   struct mr_sequence_info *info)
{
	const struct sequence *q = mr_sched_sequence(s, client, key);

	*info = (struct mr_sequence_info){.state = MR_SEQUENCE_ENDED};
	if (!q || q->ending)
		return MR_E_NOT_FOUND;
	*info = (struct mr_sequence_info){
		.state = (enum mr_sequence_state)q->state,
		.tokens = q->count,
		.positions = q->fed,
		.blocks = (q->kv[PRE] ? q->kv[PRE]->blocks : 0) +
			  (q->kv[DEC] ? q->kv[DEC]->blocks : 0),
		.owner = q->owner,
	};
	return 0;
}
