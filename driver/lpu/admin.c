// SPDX-License-Identifier: Apache-2.0
/* Bring-up and the admin queue. Everything here may sleep: it runs at open, load, reset and close. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"

uint64_t mr_lpu_monotonic_ns(void *arg)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Between two looks. A clock of the caller's own is waited for by looking at it. */
static void nap(const struct lpu *lpu)
{
	const struct timespec t = {.tv_nsec = 50000};

	if (lpu->now_ns == mr_lpu_monotonic_ns)
		nanosleep(&t, NULL);
}

static int wait_ready(struct lpu *lpu, uint32_t want)
{
	uint64_t until = mr_lpu_now_ns(lpu) + lpu->ready_ns;

	for (;;) {
		uint32_t status = lpu->bus->ops->reg_read(lpu->bus, MR_LPU_REG_STATUS);
		if (mr_lpu_bus_lost(lpu))
			return mr_lpu_bus_lost(lpu);
		if (status == UINT32_MAX)
			return MR_E_DISCONNECTED; /* no device answers */
		if (want && status & MR_LPU_STATUS_FATAL)
			return MR_E_DEVICE;
		if ((status & MR_LPU_STATUS_READY) == want)
			return 0;
		if (mr_lpu_now_ns(lpu) > until)
			return MR_E_TIMEOUT;
		nap(lpu);
	}
}

static void write_iova(struct lpu *lpu, uint32_t reg, uint64_t iova)
{
	lpu->bus->ops->reg_write(lpu->bus, reg, (uint32_t)iova);
	lpu->bus->ops->reg_write(lpu->bus, reg + 4, (uint32_t)(iova >> 32));
}

int mr_lpu_disable(struct lpu *lpu)
{
	lpu->shadow_on = 0;
	lpu->bus->ops->reg_write(lpu->bus, MR_LPU_REG_CONTROL, 0);
	return wait_ready(lpu, 0);
}

int mr_lpu_enable(struct lpu *lpu)
{
	const struct mr_bus_ops *ops = lpu->bus->ops;

	if (ops->reg_read(lpu->bus, MR_LPU_REG_MAGIC) != MR_LPU_MAGIC ||
	    ops->reg_read(lpu->bus, MR_LPU_REG_VERSION) >> 16 != MR_LPU_VERSION >> 16)
		return mr_lpu_bus_lost(lpu) ? mr_lpu_bus_lost(lpu) : MR_E_VERSION;
	/* Read while the device is there: one that has gone says all ones. */
	uint64_t ms = ops->reg_read(lpu->bus, MR_LPU_REG_TIMEOUT_MS);
	lpu->ready_ns = (ms < 60000 ? ms : 60000) * 1000000;
	int status = ops->reg_read(lpu->bus, MR_LPU_REG_STATUS) ? mr_lpu_disable(lpu) : 0;
	if (status)
		return status; /* its memory may still be written */
	lpu->shadow_on = 0;
	memset(lpu->admin, 0, sizeof(lpu->admin));
	memset(lpu->admin_cq, 0, ADMIN_ENTRIES * sizeof(*lpu->admin_cq));
	lpu->admin_tail = lpu->admin_head = 0;
	ops->reg_write(lpu->bus, MR_LPU_REG_ADMIN_ENTRIES, ADMIN_ENTRIES);
	write_iova(lpu, MR_LPU_REG_ADMIN_SQ_LO, mr_region_iova(lpu->commands, lpu->admin_sq));
	write_iova(lpu, MR_LPU_REG_ADMIN_CQ_LO, mr_region_iova(lpu->records, lpu->admin_cq));
	ops->reg_write(lpu->bus, MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	return wait_ready(lpu, MR_LPU_STATUS_READY);
}

int mr_lpu_admin_post(struct lpu *lpu, void *command, enum admin_kind kind)
{
	struct mr_lpu_head *head = command;
	uint32_t i = 0;

	/* One entry is left free, so that every completion has its place. */
	while (i < ADMIN_ENTRIES - 1 && lpu->admin[i].kind)
		i++;
	if (i == ADMIN_ENTRIES - 1)
		return MR_E_FULL;
	head->request = lpu->admin_tail;
	lpu->admin[i].kind = kind;
	lpu->admin[i].request = head->request;
	memcpy(&lpu->admin_sq[lpu->admin_tail % ADMIN_ENTRIES], command, sizeof(*lpu->admin_sq));
	mr_lpu_doorbell(lpu, 0, MR_LPU_DB_SQ_TAIL, ++lpu->admin_tail);
	return 0;
}

int mr_lpu_admin_take(struct lpu *lpu, struct mr_lpu_completion *c, enum admin_kind *kind)
{
	struct mr_lpu_completion *shared = &lpu->admin_cq[lpu->admin_head % ADMIN_ENTRIES];
	uint32_t phase = !(lpu->admin_head / ADMIN_ENTRIES & 1);

	/* Pairs with the device's write of the phase, last of the entry. */
	if ((__atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE) & 1) != phase)
		return 0;
	*c = *shared; /* read once: the device could write it again */
	*kind = ADMIN_FREE;
	for (uint32_t i = 0; i < ADMIN_ENTRIES; i++)
		if (lpu->admin[i].kind && lpu->admin[i].request == c->request) {
			*kind = lpu->admin[i].kind;
			lpu->admin[i].kind = ADMIN_FREE;
			break;
		}
	if (!*kind)
		mr_count(MR_M_lpu_bad_completion, 1);
	mr_lpu_doorbell(lpu, 0, MR_LPU_DB_CQ_HEAD, ++lpu->admin_head);
	return 1;
}

int mr_lpu_admin(struct lpu *lpu, void *command, uint32_t *result)
{
	const struct mr_lpu_head *head = command;
	uint64_t until = mr_lpu_now_ns(lpu) + lpu->timeout_ns;
	struct mr_lpu_completion c;
	enum admin_kind kind;
	int status = mr_lpu_admin_post(lpu, command, ADMIN_WAIT);

	if (status)
		return status;
	for (;;) {
		if (!mr_lpu_admin_take(lpu, &c, &kind)) {
			if (mr_lpu_bus_lost(lpu))
				return mr_lpu_bus_lost(lpu);
			nap(lpu);
		} else if (kind == ADMIN_FREE) {
			return MR_E_PROTOCOL;
		} else if (kind != ADMIN_WAIT || c.request != head->request) {
			mr_lpu_events_admin(lpu, kind, &c);
		} else {
			break;
		}
		/* Also where others came: a device may have one event after another to tell. */
		if (mr_lpu_now_ns(lpu) > until)
			return MR_E_TIMEOUT;
	}
	if (result)
		*result = c.result;
	return c.status <= -MR_E_SCHEDULE_VIOLATION ? -(int)c.status : MR_E_INTERNAL;
}

static int text_ends(const char *text, size_t bytes)
{
	return memchr(text, 0, bytes) != NULL;
}

int mr_lpu_read_identity(struct lpu *lpu)
{
	struct mr_lpu_identify *id = &lpu->id;
	struct mr_lpu_cmd_identify cmd = {
		.head.opcode = MR_LPU_IDENTIFY,
		.iova = lpu->readback->iova,
		.bytes = sizeof(*id),
	};
	int status = mr_lpu_admin(lpu, &cmd, NULL);

	if (status)
		return status;
	memcpy(id, lpu->readback->base, sizeof(*id));
	if (id->magic != MR_LPU_MAGIC || id->version >> 16 != MR_LPU_VERSION >> 16)
		return MR_E_VERSION;
	if (id->kv_block_tokens != MR_KV_BLOCK_TOKENS || id->kv_type != MR_LPU_KV_FP16)
		return MR_E_NOT_SUPPORTED;
	if (!id->chips || id->chips > 64 || !id->slots_max || id->slots_max > 65536 ||
	    !id->queues_max || id->ring_entries_max < 2 ||
	    id->ring_entries_max > MR_LPU_RING_ENTRIES_MAX || !id->batch_max || !id->steps_max ||
	    !id->context_max || !id->cycle_ps || !id->chip_bytes ||
	    id->chip_bytes > MR_CHIP_BYTES_MAX ||
	    (id->opcodes_io & 1ull << (MR_LPU_SCORE & 63) && id->score_max < 2) ||
	    !text_ends(id->product, sizeof(id->product)))
		return MR_E_PROTOCOL;
	return 0;
}

int mr_lpu_log(struct mr_device *dev, uint32_t log, void *out, uint32_t bytes)
{
	struct lpu *lpu = lpu_of(dev);
	struct mr_lpu_cmd_get_log cmd = {
		.head.opcode = MR_LPU_GET_LOG,
		.iova = lpu->readback->iova,
		.bytes = bytes < MR_CHIP_BYTES_MAX ? bytes : MR_CHIP_BYTES_MAX,
		.log = log,
	};
	uint32_t got;
	int status = mr_lpu_admin(lpu, &cmd, &got);

	if (status)
		return status;
	if (got > cmd.bytes)
		return MR_E_PROTOCOL;
	memcpy(out, lpu->readback->base, got);
	return (int)got;
}

int mr_lpu_read_chip(struct lpu *lpu)
{
	uint32_t bytes = lpu->id.chip_bytes;
	char *text = malloc(bytes);
	int status = text ? mr_lpu_log(&lpu->dev, MR_LPU_LOG_CHIP, text, bytes) : MR_E_NO_MEMORY;

	if (status >= 0 && (uint32_t)status != bytes)
		status = MR_E_PROTOCOL;
	if (status >= 0)
		status = mr_chip_parse(text, bytes, &lpu->chip, NULL, 0);
	free(text);
	if (!status && memcmp(lpu->chip.hash, lpu->id.chip_hash, sizeof(lpu->chip.hash)))
		status = MR_E_CHECKSUM;
	return status;
}
