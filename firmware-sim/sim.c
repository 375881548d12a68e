// SPDX-License-Identifier: Apache-2.0
/* Power on and off: the chip file, the parts, the port's calls. */
#include "firmware-sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "firmware-sim/chips.h"
#include "firmware-sim/device.h"
#include "firmware-sim/fault.h"
#include "kernels/cpu/kernels.h"

static uint32_t port_reg_read(void *ctx, uint32_t offset)
{
	return mr_sim_reg_read(ctx, offset);
}

static void port_reg_write(void *ctx, uint32_t offset, uint32_t value)
{
	mr_sim_reg_write(ctx, offset, value);
}

static void port_doorbell(void *ctx, uint32_t queue, uint32_t offset, uint32_t value)
{
	mr_sim_doorbell(ctx, queue, offset, value);
}

static int port_dma_map(void *ctx, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	struct sim *sim = ctx;

	return mr_sim_dma_map(&sim->dma, iova, base, bytes, access);
}

static int port_dma_unmap(void *ctx, uint64_t iova)
{
	struct sim *sim = ctx;

	return mr_sim_dma_unmap(&sim->dma, iova);
}

static int port_irq(void *ctx, uint32_t vector, int fd)
{
	struct sim *sim = ctx;

	if (vector >= SIM_VECTORS)
		return MR_E_RANGE;
	mr_sim_dma_lock(&sim->dma);
	sim->vector_fd[vector] = fd;
	mr_sim_dma_unlock(&sim->dma);
	return 0;
}

/* Asks the device's thread, which may be in a step. */
static int port_reset(void *ctx)
{
	const struct timespec nap = {.tv_nsec = 100000};
	struct sim *sim = ctx;

	if (__atomic_load_n(&sim->inject.link, __ATOMIC_SEQ_CST) == SIM_REMOVED)
		return MR_E_DISCONNECTED;
	__atomic_store_n(&sim->function_reset, 1, __ATOMIC_SEQ_CST);
	if (sim->manual)
		mr_sim_thread_turn(sim);
	mr_sim_wake(sim);
	for (int i = 0; i < 100000; i++) {
		if (!__atomic_load_n(&sim->function_reset, __ATOMIC_SEQ_CST))
			return 0;
		nanosleep(&nap, NULL);
	}
	return MR_E_TIMEOUT;
}

static void destroy(struct sim *sim)
{
	mr_sim_inject_stop(sim);
	free(sim->damage);
	mr_sim_regs_fini(&sim->regs);
	pthread_mutex_destroy(&sim->mail.lock);
	mr_sim_program_drop(sim);
	mr_sim_firmware_stop(&sim->firmware);
	mr_sim_sram_fini(&sim->sram);
	mr_sim_dma_fini(&sim->dma);
	free(sim->chip_text);
	free(sim);
}

static void port_close(void *ctx)
{
	struct sim *sim = ctx;

	mr_sim_thread_stop(sim);
	mr_sim_disable(sim);
	destroy(sim);
}

static const struct mr_lpu_port_ops port_ops = {
	.reg_read = port_reg_read,
	.reg_write = port_reg_write,
	.doorbell = port_doorbell,
	.dma_map = port_dma_map,
	.dma_unmap = port_dma_unmap,
	.irq = port_irq,
	.reset = port_reset,
	.close = port_close,
};

static int read_file(const char *path, char **text, uint32_t *bytes)
{
	FILE *f = fopen(path, "rb");
	char *buf = f ? malloc(MR_CHIP_BYTES_MAX + 1) : NULL;
	size_t n = buf ? fread(buf, 1, MR_CHIP_BYTES_MAX + 1, f) : 0;

	if (f)
		fclose(f);
	if (!f)
		return MR_E_NOT_FOUND;
	if (!buf)
		return MR_E_NO_MEMORY;
	*text = buf;
	*bytes = (uint32_t)n; /* one byte too many is refused by the parser */
	return 0;
}

static int load_chip(struct sim *sim, const struct mr_sim_options *o)
{
	const char *name = o->chip_path ? o->chip_path : "mr1";
	const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(name);
	int status = 0;

	if (b) {
		sim->chip_bytes = (uint32_t)(b->end - b->text);
		sim->chip_text = malloc(sim->chip_bytes);
		if (!sim->chip_text)
			return MR_E_NO_MEMORY;
		memcpy(sim->chip_text, b->text, sim->chip_bytes);
	} else {
		status = read_file(name, &sim->chip_text, &sim->chip_bytes);
		if (status && o->why && o->why_bytes)
			snprintf(o->why, o->why_bytes, "no chip file %s", name);
	}
	if (!status)
		status = mr_chip_parse(sim->chip_text, sim->chip_bytes, &sim->chip, o->why,
				       o->why_bytes);
	return status;
}

/* @list's sram faults go to programs, the others to the device. */
static int take_faults(struct sim *sim, const char *list)
{
	size_t n = strlen(list);
	char *damage = malloc(n + 1), *others = malloc(n + 1);
	struct sim_faults faults;
	int status = damage && others && n ? 0 : n ? MR_E_NO_MEMORY : MR_E_INVALID;

	if (!status) {
		mr_sim_fault_split(list, damage, others);
		status = *damage ? mr_sim_fault_check(damage) : 0;
	}
	if (!status)
		status = mr_sim_faults_parse(others, &faults);
	if (!status)
		status = mr_sim_inject_add(sim, &faults);
	if (!status && *damage) {
		sim->program.fault = sim->damage = damage;
		damage = NULL;
	}
	free(damage);
	free(others);
	return status;
}

static int init(struct sim *sim, const struct mr_sim_options *o)
{
	int status = load_chip(sim, o);

	sim->chips = o->chips ? o->chips : 2;
	sim->slots_max = o->slots ? o->slots : 256;
	sim->spin_us = o->spin_us ? o->spin_us : 30;
	sim->manual = o->manual;
	sim->now_us = o->now_us;
	sim->clock_arg = o->clock_arg;
	for (uint32_t i = 0; i < SIM_VECTORS; i++)
		sim->vector_fd[i] = -1;
	if (status)
		return status;
	sim->timing = sim->chip;
	sim->paced_us = o->paced > 0 ? o->paced * (double)sim->chip.cycle_ps / 1e6 : 0;
	if (o->why && o->why_bytes)
		snprintf(o->why, o->why_bytes, "chips, slots, fault, perturb or kernels");
	if (o->perturb && mr_sim_perturb(sim, o->perturb))
		return MR_E_INVALID;
	if (sim->chips > SIM_CHIPS_MAX || sim->slots_max > 65536)
		return MR_E_INVALID;
	status = o->fault ? take_faults(sim, o->fault) : 0;
	if (status)
		return status;
	sim->kernels = mr_kernels_select(o->kernels);
	if (!sim->kernels)
		return MR_E_NOT_SUPPORTED;
	return mr_sim_sram_init(&sim->sram, sim->chips, sim->chip.sram_bytes);
}

int mr_sim_create(const struct mr_sim_options *options, struct mr_lpu_port *port)
{
	struct sim *sim = calloc(1, sizeof(*sim));
	int status;

	if (!sim)
		return MR_E_NO_MEMORY;
	if (sodium_init() < 0 || mr_sim_dma_init(&sim->dma)) {
		free(sim);
		return MR_E_NO_MEMORY;
	}
	pthread_mutex_init(&sim->mail.lock, NULL);
	mr_sim_inject_start(sim, options->seed);
	mr_sim_log_start(&sim->log);
	mr_sim_features_reset(&sim->features);
	mr_sim_firmware_start(&sim->firmware);
	status = init(sim, options);
	if (!status)
		status = mr_sim_regs_init(&sim->regs);
	if (!status)
		status = mr_sim_thread_start(sim, options->cpu);
	if (status) {
		destroy(sim);
		return status;
	}
	port->ops = &port_ops;
	port->ctx = sim;
	return 0;
}

static struct sim *sim_of(const struct mr_lpu_port *port)
{
	return port->ops == &port_ops ? port->ctx : NULL;
}

int mr_sim_fault(const struct mr_lpu_port *port, const char *list)
{
	struct sim *sim = sim_of(port);
	struct sim_faults faults;
	int status = sim ? mr_sim_faults_parse(list, &faults) : MR_E_NOT_SUPPORTED;

	return status ? status : mr_sim_inject_add(sim, &faults);
}

uint64_t mr_sim_injected(const struct mr_lpu_port *port, enum mr_sim_fault_kind kind)
{
	struct sim *sim = sim_of(port);

	return sim ? __atomic_load_n(&sim->inject.injected[kind], __ATOMIC_RELAXED) : 0;
}

int mr_sim_turn(const struct mr_lpu_port *port)
{
	struct sim *sim = sim_of(port);

	return sim && sim->manual ? mr_sim_thread_turn(sim) : 0;
}

int mr_sim_doorbell_fd(const struct mr_lpu_port *port, size_t *bytes)
{
	struct sim *sim = sim_of(port);

	if (!sim)
		return MR_E_NOT_SUPPORTED;
	__atomic_store_n(&sim->regs.polled, 1, __ATOMIC_RELAXED);
	mr_sim_wake(sim);
	*bytes = SIM_BAR2_BYTES;
	return sim->regs.bar2_fd;
}

int mr_sim_poke(const struct mr_lpu_port *port, uint32_t chip, uint64_t address, uint8_t *byte)
{
	struct sim *sim = sim_of(port);

	return sim ? mr_sim_mail_poke(sim, chip, address, byte) : MR_E_NOT_SUPPORTED;
}

int mr_sim_damage(const struct mr_lpu_port *port, const char *fault)
{
	struct sim *sim = sim_of(port);

	return sim ? mr_sim_mail_damage(sim, fault) : MR_E_NOT_SUPPORTED;
}
