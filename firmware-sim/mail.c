// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/mail.h"

#include <time.h>

#include "firmware-sim/device.h"
#include "firmware-sim/fault.h"

#define WAIT_NAPS 200000 /* of 50 us */

/* A letter that the device has not answered stays until it does: nobody writes over it. */
static int post(struct sim *sim, enum sim_mail_kind kind)
{
	struct sim_mail *m = &sim->mail;
	const struct timespec nap = {.tv_nsec = 50000};

	__atomic_store_n(&m->kind, kind, __ATOMIC_SEQ_CST);
	mr_sim_wake(sim);
	for (int i = 0; i < WAIT_NAPS; i++) {
		if (__atomic_load_n(&m->kind, __ATOMIC_SEQ_CST) == SIM_MAIL_NONE)
			return m->status;
		nanosleep(&nap, NULL);
	}
	return MR_E_TIMEOUT;
}

static int lock(struct sim_mail *m)
{
	pthread_mutex_lock(&m->lock);
	if (__atomic_load_n(&m->kind, __ATOMIC_SEQ_CST) == SIM_MAIL_NONE)
		return 0;
	pthread_mutex_unlock(&m->lock);
	return MR_E_TIMEOUT; /* the last one was given up and is still there */
}

int mr_sim_mail_poke(struct sim *sim, uint32_t chip, uint64_t address, uint8_t *byte)
{
	int status = lock(&sim->mail);

	if (status)
		return status;
	sim->mail.chip = chip;
	sim->mail.address = address;
	sim->mail.byte = *byte;
	status = post(sim, SIM_MAIL_POKE);
	if (!status)
		*byte = sim->mail.byte;
	pthread_mutex_unlock(&sim->mail.lock);
	return status;
}

int mr_sim_mail_damage(struct sim *sim, const char *fault)
{
	int status = mr_sim_fault_check(fault) ? MR_E_INVALID : lock(&sim->mail);

	if (status)
		return status;
	sim->mail.fault = fault;
	status = post(sim, SIM_MAIL_DAMAGE);
	pthread_mutex_unlock(&sim->mail.lock);
	return status;
}

static int poke(struct sim *sim)
{
	struct sim_mail *m = &sim->mail;

	if (m->chip >= sim->sram.chips || m->address >= sim->sram.bytes)
		return MR_E_RANGE;
	uint8_t *at = sim_sram_at(&sim->sram, m->chip, m->address);
	uint8_t was = *at;
	*at = m->byte;
	m->byte = was;
	return 0;
}

int mr_sim_mail_poll(struct sim *sim)
{
	struct sim_mail *m = &sim->mail;

	switch (__atomic_load_n(&m->kind, __ATOMIC_SEQ_CST)) {
	case SIM_MAIL_NONE:
		return 0;
	case SIM_MAIL_POKE:
		m->status = poke(sim);
		break;
	case SIM_MAIL_DAMAGE:
		m->status = sim->program.state == SIM_PROGRAM_ACTIVE
				    ? mr_sim_fault_apply(m->fault, &sim->program.c, &sim->sram)
				    : MR_E_NOT_ACTIVE;
		break;
	}
	__atomic_store_n(&m->kind, SIM_MAIL_NONE, __ATOMIC_SEQ_CST);
	return 1;
}
