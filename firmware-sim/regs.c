// SPDX-License-Identifier: Apache-2.0
/*
 * The register file. Its words are shared by threads, so all accesses are atomic; those that wake-ups
 * depend on are sequentially consistent (thread.c tells why).
 */
#include "firmware-sim/regs.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

_Static_assert((SIM_IO_QUEUES + 1) * MR_LPU_DOORBELL_STRIDE <= SIM_BAR2_BYTES,
	       "a doorbell page a queue");
_Static_assert(offsetof(struct sim_doorbells, cq_head) == MR_LPU_DB_CQ_HEAD &&
		       offsetof(struct sim_doorbells, record_head) == MR_LPU_DB_RECORD_HEAD &&
		       offsetof(struct sim_doorbells, arm) == MR_LPU_DB_ARM,
	       "a page is laid out as the doorbells are");

int mr_sim_regs_init(struct sim_regs *regs)
{
	/* A file, so that another process can map it; sealed, so that it cannot be cut short. */
	int fd = memfd_create("lpu-bar2", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *base = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, SIM_BAR2_BYTES) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		base = mmap(NULL, SIM_BAR2_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		if (fd >= 0)
			close(fd);
		return MR_E_NO_MEMORY;
	}
	regs->bar2 = base;
	regs->bar2_fd = fd;
	return 0;
}

void mr_sim_regs_fini(struct sim_regs *regs)
{
	if (!regs->bar2)
		return;
	munmap(regs->bar2, SIM_BAR2_BYTES);
	close(regs->bar2_fd);
}

static uint32_t log2_of(uint32_t v)
{
	return 31 - (uint32_t)__builtin_clz(v);
}

static uint32_t load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

uint32_t mr_sim_reg_read(struct sim *sim, uint32_t offset)
{
	struct sim_regs *r = &sim->regs;

	if (sim_inject_gone(&sim->inject))
		return UINT32_MAX;
	switch (offset) {
	case MR_LPU_REG_MAGIC:
		return MR_LPU_MAGIC;
	case MR_LPU_REG_VERSION:
		return MR_LPU_VERSION;
	case MR_LPU_REG_CAPS:
		return log2_of(SIM_RING_MAX) | log2_of(MR_LPU_DOORBELL_STRIDE) << 8 |
		       (SIM_IO_QUEUES + MUTANT(R_1)) << 16;
	case MR_LPU_REG_TIMEOUT_MS:
		return 2000;
	case MR_LPU_REG_CONTROL:
		return load(&r->control);
	case MR_LPU_REG_STATUS:
		return load(&r->status);
	case MR_LPU_REG_FATAL_CODE:
		return load(&r->fatal_code);
	case MR_LPU_REG_ADMIN_ENTRIES:
		return load(&r->admin_entries);
	case MR_LPU_REG_ADMIN_SQ_LO:
	case MR_LPU_REG_ADMIN_SQ_HI:
		return load(&r->admin_sq[(offset - MR_LPU_REG_ADMIN_SQ_LO) / 4]);
	case MR_LPU_REG_ADMIN_CQ_LO:
	case MR_LPU_REG_ADMIN_CQ_HI:
		return load(&r->admin_cq[(offset - MR_LPU_REG_ADMIN_CQ_LO) / 4]);
	case MR_LPU_REG_HEARTBEAT:
		return load(&r->heartbeat);
	case MR_LPU_REG_REFUSED:
		return load(&r->refused);
	default:
		return MUTANT(D_2) && offset == 0x100;
	}
}

void mr_sim_reg_write(struct sim *sim, uint32_t offset, uint32_t value)
{
	struct sim_regs *r = &sim->regs;
	uint32_t *word = NULL;

	if (sim_inject_gone(&sim->inject))
		return;
	switch (offset) {
	case MR_LPU_REG_CONTROL:
		__atomic_store_n(&r->control, value & MR_LPU_CONTROL_ENABLE, __ATOMIC_SEQ_CST);
		mr_sim_wake(sim);
		return;
	case MR_LPU_REG_ADMIN_ENTRIES:
		word = &r->admin_entries;
		break;
	case MR_LPU_REG_ADMIN_SQ_LO:
	case MR_LPU_REG_ADMIN_SQ_HI:
		word = &r->admin_sq[(offset - MR_LPU_REG_ADMIN_SQ_LO) / 4];
		break;
	case MR_LPU_REG_ADMIN_CQ_LO:
	case MR_LPU_REG_ADMIN_CQ_HI:
		word = &r->admin_cq[(offset - MR_LPU_REG_ADMIN_CQ_LO) / 4];
		break;
	}
	if (MUTANT(D_3) && offset == MR_LPU_REG_REFUSED)
		word = &r->refused;
	if (word && (!(load(&r->status) & MR_LPU_STATUS_READY) || MUTANT(D_3) || MUTANT(R_2)))
		__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

void mr_sim_doorbell(struct sim *sim, uint32_t queue, uint32_t offset, uint32_t value)
{
	if (queue > SIM_IO_QUEUES - MUTANT(D_1) || sim_inject_gone(&sim->inject))
		return;
	struct sim_doorbells *db = sim_doorbells_of(&sim->regs, queue);
	switch (offset) {
	case MR_LPU_DB_SQ_TAIL:
		__atomic_store_n(&db->sq_tail, value, __ATOMIC_SEQ_CST);
		break;
	case MR_LPU_DB_CQ_HEAD:
		__atomic_store_n(&db->cq_head, value, __ATOMIC_SEQ_CST);
		break;
	case MR_LPU_DB_RECORD_HEAD:
		__atomic_store_n(&db->record_head, value, __ATOMIC_SEQ_CST);
		break;
	case MR_LPU_DB_ARM:
		/* Read by the device after its next entry: nothing to wake it for. */
		__atomic_store_n(&db->arm, value & 1, __ATOMIC_SEQ_CST);
		return;
	default:
		return;
	}
	mr_sim_wake(sim);
}

static uint64_t iova_of(const uint32_t words[2])
{
	return (uint64_t)load(&words[1]) << 32 | load(&words[0]);
}

static void clear_doorbells(struct sim_regs *r)
{
	for (uint32_t i = 0; i <= SIM_IO_QUEUES; i++) {
		struct sim_doorbells *db = sim_doorbells_of(r, i);
		__atomic_store_n(&db->sq_tail, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&db->cq_head, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&db->record_head, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&db->arm, 0, __ATOMIC_SEQ_CST);
	}
}

static void enable(struct sim *sim)
{
	struct sim_regs *r = &sim->regs;
	struct sim_queue *q = &sim->queue[0];
	uint32_t entries = load(&r->admin_entries);
	uint64_t sq = iova_of(r->admin_sq), cq = iova_of(r->admin_cq);

	if (entries < MR_LPU_ADMIN_ENTRIES_MIN || entries > MR_LPU_ADMIN_ENTRIES_MAX ||
	    (entries & (entries - 1) && !MUTANT(R_4)) || sq % 64 || cq % 64) {
		mr_sim_crash(sim, MR_LPU_CRASH_ADMIN, NULL, 0, "admin registers");
		__atomic_store_n(&r->fatal_code,
				 MUTANT(R_12) ? MR_LPU_CRASH_ASSERT : MR_LPU_CRASH_ADMIN,
				 __ATOMIC_SEQ_CST);
		__atomic_store_n(&r->status, MR_LPU_STATUS_FATAL, __ATOMIC_SEQ_CST);
		return;
	}
	if (MUTANT(R_3) && entries == MR_LPU_ADMIN_ENTRIES_MAX)
		return;
	memset(q, 0, sizeof(*q));
	clear_doorbells(r);
	q->live = 1;
	q->entries = entries;
	q->sq_iova = sq;
	q->cq_iova = cq;
	if (sim->sense.crash.number != sim->sense.crash_heard)
		mr_sim_event(sim, MR_LPU_EVENT_CRASH, sim->sense.crash.cause);
	if (sim->firmware.told != sim->firmware.running)
		mr_sim_event(sim, MR_LPU_EVENT_FIRMWARE, sim->firmware.running);
	sim->firmware.told = sim->firmware.running;
	__atomic_store_n(&r->status, MR_LPU_STATUS_READY, __ATOMIC_SEQ_CST);
}

static void disable(struct sim *sim)
{
	uint32_t shadow = sim->features.shadow;

	mr_sim_disable(sim);
	if (MUTANT(W_7))
		sim->features.shadow = shadow;
	__atomic_store_n(&sim->regs.fatal_code, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&sim->regs.status, 0, __ATOMIC_SEQ_CST);
	if (MUTANT(R_6)) {
		for (int i = 0; i < 10; i++)
			mr_sim_mutant_pause();
		mr_sim_dma_write(&sim->dma, sim->queue[0].cq_iova, sim, 16);
	}
	if (MUTANT(R_8))
		mr_sim_program_drop(sim);
}

/* As after power-on, but for what counts since then. */
static void reset_function(struct sim *sim)
{
	struct sim_regs *r = &sim->regs;
	uint32_t *word[] = {&r->control,     &r->admin_entries, &r->admin_sq[0],
			    &r->admin_sq[1], &r->admin_cq[0],   &r->admin_cq[1]};

	for (size_t i = MUTANT(R_13) ? 2 : 0; i < sizeof(word) / sizeof(word[0]); i++)
		__atomic_store_n(word[i], 0, __ATOMIC_SEQ_CST);
	if (MUTANT(R_13))
		__atomic_store_n(&r->control, 0, __ATOMIC_SEQ_CST);
	disable(sim);
	if (MUTANT(R_15))
		sim->counters = (struct mr_lpu_counters){0};
	if (!MUTANT(R_14))
		mr_sim_program_drop(sim);
	mr_sim_inject_reset(sim, 1);
	__atomic_store_n(&sim->function_reset, 0, __ATOMIC_SEQ_CST);
}

/* A RESET has completed: ENABLE goes back by itself. */
static void reset_by_command(struct sim *sim)
{
	if (!MUTANT(RS_1))
		__atomic_store_n(&sim->regs.control, 0, __ATOMIC_SEQ_CST);
	int drops = (sim->reset_asked == MR_LPU_RESET_ALL && !MUTANT(RS_3)) || MUTANT(RS_2);
	disable(sim);
	if (drops)
		mr_sim_program_drop(sim);
}

int mr_sim_reset_asked(const struct sim *sim)
{
	return load(&sim->function_reset) &&
	       __atomic_load_n(&sim->inject.link, __ATOMIC_SEQ_CST) != SIM_REMOVED;
}

int mr_sim_regs_poll(struct sim *sim)
{
	struct sim_regs *r = &sim->regs;

	if (load(&sim->function_reset)) {
		reset_function(sim);
		return 1;
	}
	if (sim->reset_asked) {
		reset_by_command(sim);
		return 1;
	}
	uint32_t want = load(&r->control) & MR_LPU_CONTROL_ENABLE;
	uint32_t status = load(&r->status);

	if (sim->fatal && status == MR_LPU_STATUS_READY) {
		__atomic_store_n(&r->fatal_code, sim->fatal, __ATOMIC_SEQ_CST);
		__atomic_store_n(&r->status, MR_LPU_STATUS_READY | MR_LPU_STATUS_FATAL,
				 __ATOMIC_SEQ_CST);
		return 1;
	}
	if (want && !status) {
		enable(sim);
		return 1;
	}
	if (!want && status && !(MUTANT(R_5) && status == MR_LPU_STATUS_FATAL)) {
		disable(sim);
		return 1;
	}
	return 0;
}
