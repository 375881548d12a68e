// SPDX-License-Identifier: Apache-2.0
/* A device that forwards to another one and disturbs what a test asks it to: see the header. */
#include "support/wrap_device.h"

#include <string.h>

uint64_t wrap_random(uint64_t *seed)
{
	uint64_t x = *seed ? *seed : 1;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *seed = x;
}

static struct wrap_device *of(struct mr_device *dev)
{
	return (struct wrap_device *)dev;
}

/* Where the fault is due now: its status for the caller, or noted for the event of @tag. */
static int due(struct wrap_device *w, struct wrap_fault *fault, int which, uint64_t tag)
{
	int32_t status = fault->status;

	if (status == 0 || fault->after-- > 0)
		return 0;
	*fault = (struct wrap_fault){.status = 0, .in_event = fault->in_event};
	if (!fault->in_event)
		return status;
	w->in_event_tag[which] = tag;
	w->in_event_status[which] = status;
	return 0;
}

static int wrap_reset(struct mr_device *dev)
{
	return of(dev)->lost ? of(dev)->lost : of(dev)->inner->admin->reset(of(dev)->inner);
}

static int wrap_telemetry(struct mr_device *dev, struct mr_telemetry *out)
{
	return of(dev)->inner->admin->telemetry(of(dev)->inner, out);
}

static void wrap_close(struct mr_device *dev)
{
}

static int wrap_open(struct mr_device *dev, const struct mr_slot_config *config,
		     struct mr_slot *slot)
{
	return of(dev)->inner->mem->slot_open(of(dev)->inner, config, slot);
}

static int wrap_slot_close(struct mr_device *dev, struct mr_slot slot)
{
	return of(dev)->inner->mem->slot_close(of(dev)->inner, slot);
}

static int wrap_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		       uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max)
{
	return of(dev)->inner->mem->kv_export(of(dev)->inner, slot, layer, block, owner, generation,
					      out, max);
}

static int wrap_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		       uint32_t count, uint64_t tag)
{
	struct wrap_device *w = of(dev);
	struct mr_kv_desc copy[MR_KV_DESCS_MAX];
	int status = due(w, &w->import, 1, tag);

	if (status || count > MR_KV_DESCS_MAX)
		return status ? status : MR_E_INVALID;
	w->imports++;
	memcpy(copy, descs, count * sizeof(*descs));
	if (w->on_import)
		w->on_import(w->arg, copy, count);
	return w->inner->mem->kv_import(w->inner, slot, copy, count, tag);
}

static int wrap_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		     const struct mr_slot_config *config, struct mr_slot *slot)
{
	return of(dev)->inner->mem->kv_fork(of(dev)->inner, from, positions, config, slot);
}

static int wrap_load(struct mr_device *dev, const struct mr_model *model,
		     void (*progress)(void *arg, unsigned percent), void *arg)
{
	return of(dev)->inner->work->load(of(dev)->inner, model, progress, arg);
}

static int wrap_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
			uint32_t count, uint32_t position, uint64_t tag)
{
	struct wrap_device *w = of(dev);
	int status = due(w, &w->prefill, 0, tag);

	w->prefills++;
	if (status)
		return status;
	return w->inner->work->prefill(w->inner, slot, tokens, count, position, tag);
}

static int wrap_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
		       uint32_t steps, uint64_t tag)
{
	struct wrap_device *w = of(dev);
	int status = due(w, &w->decode, 2, tag);

	if (status)
		return status;
	w->decodes++;
	w->most_entries = count > w->most_entries ? count : w->most_entries;
	w->most_steps = steps > w->most_steps ? steps : w->most_steps;
	return w->inner->work->decode(w->inner, entries, count, steps, tag);
}

static int wrap_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
		      uint32_t count, uint32_t position, uint64_t tag)
{
	return of(dev)->inner->work->score(of(dev)->inner, slot, tokens, count, position, tag);
}

/* A work whose DONE is to fail loses its other events too, as on a device that broke off. */
static int disturb(struct wrap_device *w, struct mr_event *event)
{
	for (int i = 0; i < 3; i++) {
		if (w->in_event_status[i] == 0 || event->tag != w->in_event_tag[i])
			continue;
		if (event->type != MR_EVENT_DONE)
			return 1;
		event->status = w->in_event_status[i];
		w->in_event_status[i] = 0;
		break;
	}
	return 0;
}

static int wrap_poll(struct mr_device *dev, struct mr_event *events, uint32_t max)
{
	struct wrap_device *w = of(dev);
	int count, kept = 0;

	if (w->lost)
		return w->lost;
	if (w->lag) {
		uint32_t some = (uint32_t)(wrap_random(&w->seed) % w->lag);

		max = some < max ? some : max;
	}
	count = w->inner->work->poll(w->inner, events, max);
	for (int i = 0; i < count; i++) {
		if (w->on_event)
			w->on_event(w->arg, &events[i]);
		if (!disturb(w, &events[i]))
			events[kept++] = events[i];
	}
	return count < 0 ? count : kept;
}

static int wrap_arm(struct mr_device *dev)
{
	return of(dev)->inner->work->arm(of(dev)->inner);
}

static const struct mr_admin_ops admin = {wrap_reset, wrap_telemetry, wrap_close};
static const struct mr_memory_ops memory = {wrap_open, wrap_slot_close, wrap_export, wrap_import,
					    wrap_fork};
static const struct mr_work_ops work = {wrap_load,  wrap_prefill, wrap_decode,
					wrap_score, wrap_poll,    wrap_arm};

void wrap_device(struct wrap_device *wrap, struct mr_device *inner)
{
	memset(wrap, 0, sizeof(*wrap));
	wrap->inner = inner;
	wrap->dev.admin = &admin;
	wrap->dev.mem = &memory;
	wrap->dev.work = &work;
	wrap->dev.caps = inner->caps;
	wrap->dev.wait_fd = inner->wait_fd;
}
