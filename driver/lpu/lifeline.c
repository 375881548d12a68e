// SPDX-License-Identifier: Apache-2.0
/* What recover.c asks of this device: its registers, an abort of the oldest command, the two resets. */
#include <string.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"

static uint64_t now_ns(void *ctx)
{
	return mr_lpu_now_ns(ctx);
}

static uint32_t status_of(void *ctx)
{
	struct lpu *lpu = ctx;

	return lpu->bus->ops->reg_read(lpu->bus, MR_LPU_REG_STATUS);
}

static uint32_t heartbeat(void *ctx)
{
	struct lpu *lpu = ctx;

	return lpu->bus->ops->reg_read(lpu->bus, MR_LPU_REG_HEARTBEAT);
}

static int abort_oldest(void *ctx)
{
	struct lpu *lpu = ctx;
	struct pending *p = &lpu->pending[lpu->sq_done % lpu->entries];
	struct mr_lpu_cmd_abort cmd = {
		.head.opcode = MR_LPU_ABORT,
		.queue = IO_QUEUE,
		.target = p->request,
	};

	mr_count(MR_M_lpu_stalls, 1);
	mr_count(MR_M_lpu_hangs, !lpu->recover.alive);
	mr_lpu_say(lpu, "%s makes no progress, and its heart %s", lpu->dev.caps.name,
		   lpu->recover.alive ? "beats" : "stands still");
	if (!(lpu->id.opcodes_admin & 1ull << MR_LPU_ABORT))
		return MR_E_NOT_SUPPORTED;
	int status = mr_lpu_admin_post(lpu, &cmd, ADMIN_ABORT);
	if (status)
		return status;
	p->aborted = 1;
	mr_count(MR_M_lpu_aborts, 1);
	return 0;
}

static int bring_back(struct lpu *lpu)
{
	int status = mr_lpu_enable(lpu);

	return status ? status : mr_lpu_start(lpu);
}

static int controller(void *ctx)
{
	struct lpu *lpu = ctx;
	int status = mr_lpu_disable(lpu);

	mr_count(MR_M_lpu_controller_resets, 1);
	if (!status)
		status = bring_back(lpu);
	mr_lpu_say(lpu, "%s: controller reset: %s", lpu->dev.caps.name, mr_strerror(status));
	return status;
}

/* Behind a bus that was lost: is what answers now the device that the caps and the program are for? */
static int same_device(struct lpu *lpu)
{
	const struct mr_lpu_identify was = lpu->id;
	int status = mr_lpu_read_identity(lpu);

	return !status && memcmp(&was, &lpu->id, sizeof(was)) ? MR_E_VERSION : status;
}

/* Takes the program with it. */
static int function(void *ctx)
{
	struct lpu *lpu = ctx;
	int again = mr_lpu_bus_lost(lpu) != 0;

	lpu->shadow_on = 0;
	mr_count(MR_M_lpu_function_resets, 1);
	int status = lpu->bus->ops->reset(lpu->bus);
	if (!status)
		status = bring_back(lpu);
	if (!status && again)
		status = same_device(lpu);
	if (!status)
		status = mr_lpu_reload(lpu);
	mr_lpu_say(lpu, "%s: function reset: %s", lpu->dev.caps.name, mr_strerror(status));
	return status;
}

void mr_lpu_recover_init(struct lpu *lpu)
{
	static const struct mr_recover_ops ops = {
		now_ns, status_of, heartbeat, abort_oldest, controller, function,
	};

	lpu->recover = (struct mr_recover){
		.ops = &ops,
		.ctx = lpu,
		.stall_ns = lpu->timeout_ns,
		.slow_ns = lpu->timeout_ns * 12,
		.abort_ns = lpu->timeout_ns,
	};
}
