// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/sense.h"

#include <stdio.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/sim.h"
#include "firmware-sim/mutant.h"

static void changed(struct sim *sim)
{
	__atomic_store_n(&sim->sense.changed, 1, __ATOMIC_SEQ_CST);
	mr_sim_wake(sim);
}

void mr_sim_sense(const struct mr_lpu_port *port, uint32_t temperature_mk, uint32_t power_mw)
{
	struct sim *sim = port->ctx;

	__atomic_store_n(&sim->sense.temperature_mk, temperature_mk, __ATOMIC_RELAXED);
	__atomic_store_n(&sim->sense.power_mw, power_mw, __ATOMIC_RELAXED);
	changed(sim);
}

void mr_sim_ecc(const struct mr_lpu_port *port, uint64_t corrected, uint64_t uncorrected)
{
	struct sim *sim = port->ctx;

	__atomic_add_fetch(&sim->sense.ecc_corrected, corrected, __ATOMIC_RELAXED);
	__atomic_add_fetch(&sim->sense.ecc_uncorrected, uncorrected, __ATOMIC_RELAXED);
	changed(sim);
}

void mr_sim_assert(const struct mr_lpu_port *port)
{
	struct sim *sim = port->ctx;

	__atomic_store_n(&sim->sense.asserts, 1, __ATOMIC_RELAXED);
	changed(sim);
}

/* A threshold is passed where the temperature was on its other side before. */
static void feel_temperature(struct sim *sim, uint32_t now)
{
	const struct sim_features *f = &sim->features;
	uint32_t was = sim->sense.was_mk;

	if (f->over_mk && now >= f->over_mk && (was < f->over_mk || MUTANT(FE_11)))
		mr_sim_event(sim, MR_LPU_EVENT_TEMPERATURE, MR_LPU_TEMPERATURE_OVER);
	if (f->under_mk && now <= f->under_mk && was > f->under_mk)
		mr_sim_event(sim, MR_LPU_EVENT_TEMPERATURE, MR_LPU_TEMPERATURE_UNDER);
	sim->sense.was_mk = now;
	if (sim->sense.peak_mk < now)
		sim->sense.peak_mk = now;
}

static void spend(struct sim_sense *s, uint64_t now_ms)
{
	s->energy_uj += (now_ms - s->energy_ms) * s->used_mw;
	s->energy_ms = now_ms;
}

int mr_sim_sense_run(struct sim *sim)
{
	struct sim_sense *s = &sim->sense;

	if (!__atomic_load_n(&s->changed, __ATOMIC_SEQ_CST))
		return 0;
	__atomic_store_n(&s->changed, 0, __ATOMIC_SEQ_CST);
	feel_temperature(sim, __atomic_load_n(&s->temperature_mk, __ATOMIC_RELAXED));
	spend(s, mr_sim_uptime_ms(sim));
	s->used_mw = __atomic_load_n(&s->power_mw, __ATOMIC_RELAXED);
	if (s->peak_mw < s->used_mw)
		s->peak_mw = s->used_mw;
	uint64_t corrected = __atomic_load_n(&s->ecc_corrected, __ATOMIC_RELAXED);
	uint64_t uncorrected = __atomic_load_n(&s->ecc_uncorrected, __ATOMIC_RELAXED);
	if (corrected != s->was_corrected || uncorrected != s->was_uncorrected)
		mr_sim_event(sim, MR_LPU_EVENT_ECC, uncorrected != s->was_uncorrected ? 2 : 1);
	s->was_corrected = corrected;
	s->was_uncorrected = uncorrected;
	if (__atomic_exchange_n(&s->asserts, 0, __ATOMIC_RELAXED) && !sim->fatal &&
	    sim->queue[0].live)
		mr_sim_crash(sim, MR_LPU_CRASH_ASSERT, NULL, 0, "asked to");
	return 1;
}

void mr_sim_sense_power(struct sim *sim, uint64_t now_ms, struct mr_lpu_power *out)
{
	struct sim_sense *s = &sim->sense;

	spend(s, now_ms);
	*out = (struct mr_lpu_power){
		.power_mw = s->used_mw,
		.power_peak_mw = s->peak_mw,
		.temperature_mk = s->was_mk,
		.temperature_peak_mk = s->peak_mk,
		.over_mk = sim->features.over_mk,
		.under_mk = sim->features.under_mk,
		.energy_mj = s->energy_uj / 1000,
	};
}

void mr_sim_crash(struct sim *sim, uint32_t cause, const struct sim_queue *q, uint64_t iova,
		  const char *text)
{
	struct mr_lpu_crash *c = &sim->sense.crash;

	if (sim->fatal)
		return; /* what follows from the first fault says nothing new */
	sim->fatal = cause;
	if (MUTANT(L_11))
		return;
	*c = (struct mr_lpu_crash){
		.number = c->number + 1,
		.time_ms = mr_sim_uptime_ms(sim),
		.cause = cause,
		.queue = q ? q->index : 0,
		.opcode = q ? q->opcode : 0,
		.request = q ? q->request : 0,
		.iova = iova,
		.steps = sim->counters.steps,
	};
	memcpy(c->firmware, sim->firmware.version[sim->firmware.running - 1], sizeof(c->firmware));
	snprintf(c->text, sizeof(c->text), "%s", text);
}
