// SPDX-License-Identifier: Apache-2.0
/*
 * Named prefixes: tokens that any client may put before a prompt by their name, and whose KV they then
 * share. The tokens stay until the prefix is released; its KV is kept like any other, and computed again by
 * the next prompt that wants it where it had to give way.
 */
#include "driver/sched/internal.h"

struct prefix *mr_sched_prefix_find(const struct mr_sched *s, uint64_t name)
{
	for (uint32_t i = 0; i < s->prefix_count; i++)
		if (s->prefixes[i].name == name)
			return &s->prefixes[i];
	return NULL;
}

int mr_sched_prefix(struct mr_sched *s, uint64_t client, uint64_t target, uint64_t name)
{
	struct sequence *q = mr_sched_sequence(s, client, target);
	struct prefix *p;
	uint32_t own = 0;

	if (name == 0)
		return MR_E_INVALID;
	if (!q || q->ending)
		return MR_E_NOT_FOUND;
	if (mr_sched_prefix_find(s, name))
		return MR_E_EXISTS;
	for (uint32_t i = 0; i < s->prefix_count; i++)
		own += s->prefixes[i].name && s->prefixes[i].client == client;
	if (own >= (s->prefix_count * 3 + 3) / 4)
		return MR_E_QUOTA;
	p = mr_sched_prefix_find(s, 0);
	if (!p)
		return MR_E_FULL;
	p->name = name;
	p->client = client;
	p->count = q->count;
	copy_ids(p->tokens, q->tokens, q->count);
	if (!s->shared)
		mr_kv_keep(s, q, PRE, prefix_space(name), p->count);
	mr_kv_keep(s, q, DEC, prefix_space(name), p->count);
	return 0;
}

static void release(struct mr_sched *s, struct prefix *p)
{
	if (!s->shared)
		mr_kv_forget(s, PRE, prefix_space(p->name));
	mr_kv_forget(s, DEC, prefix_space(p->name));
	p->name = 0;
}

int mr_sched_prefix_release(struct mr_sched *s, uint64_t client, uint64_t name)
{
	struct prefix *p = name ? mr_sched_prefix_find(s, name) : NULL;

	if (!p || p->client != client)
		return MR_E_NOT_FOUND;
	release(s, p);
	return 0;
}

void mr_sched_prefix_release_all(struct mr_sched *s, uint64_t client)
{
	for (uint32_t i = 0; i < s->prefix_count; i++)
		if (s->prefixes[i].name && s->prefixes[i].client == client)
			release(s, &s->prefixes[i]);
}
