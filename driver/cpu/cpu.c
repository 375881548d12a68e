// SPDX-License-Identifier: Apache-2.0
/* Opens, resets and closes the CPU backend; its ops tables. */
#include "driver/cpu/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Work under way ends at its next layer; slots that it names are free when its DONE has been taken. */
static int cpu_reset(struct mr_device *dev)
{
	struct cpu *cpu = cpu_of(dev);

	cpu_queue_reset(cpu);
	cpu_slots_close_all(cpu);
	return 0;
}

static int cpu_telemetry(struct mr_device *dev, struct mr_telemetry *out)
{
	struct cpu *cpu = cpu_of(dev);

	*out = cpu->telemetry;
	out->steps = __atomic_load_n(&cpu->steps, __ATOMIC_RELAXED);
	out->kv_blocks = cpu->blocks;
	out->kv_blocks_used = cpu->pool.count - mr_blocks_free(&cpu->pool);
	return 0;
}

static void cpu_close(struct mr_device *dev)
{
	struct cpu *cpu = cpu_of(dev);

	if (cpu->running) {
		cpu_queue_stop(cpu);
		pthread_join(cpu->thread, NULL);
	}
	if (dev->wait_fd >= 0)
		close(dev->wait_fd);
	mr_workspace_destroy(cpu->ws);
	mr_team_destroy(cpu->team);
	if (cpu->prompt.layers != cpu->layers)
		free(cpu->prompt.layers);
	free(cpu->layers);
	mr_blocks_destroy(&cpu->pool);
	free(cpu->slots);
	free(cpu->slot_tables);
	free(cpu->free_slots);
	free(cpu->jobs);
	free(cpu->events);
	free(cpu->x);
	free(cpu->logits);
	free(cpu->scratch);
	free(cpu);
}

static const struct mr_admin_ops admin_ops = {
	.reset = cpu_reset,
	.telemetry = cpu_telemetry,
	.close = cpu_close,
};

static const struct mr_memory_ops memory_ops = {
	.slot_open = cpu_slot_open,
	.slot_close = cpu_slot_close,
	.kv_export = cpu_kv_export,
	.kv_import = cpu_kv_import,
	.kv_fork = cpu_kv_fork,
};

static const struct mr_work_ops work_ops = {
	.load = cpu_load,
	.prefill = cpu_prefill,
	.decode = cpu_decode,
	.score = cpu_score,
	.poll = cpu_poll,
	.arm = cpu_arm,
};

/* Counts the jobs of a path, by its name or the beginning of it. */
static enum mr_metric path_metric(const struct mr_kernels *kern)
{
	static const struct {
		const char *name;
		enum mr_metric metric;
	} paths[] = {
		{"amx", MR_M_cpu_jobs_amx},
		{"avx512", MR_M_cpu_jobs_avx512},
		{"avx2", MR_M_cpu_jobs_avx2},
	};

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		if (!strncmp(kern->name, paths[i].name, strlen(paths[i].name)))
			return paths[i].metric;
	return MR_M_cpu_jobs_scalar;
}

int mr_cpu_open(const struct mr_cpu_options *options, struct mr_device **dev)
{
	const struct mr_kernels *kern =
		options->table ? options->table : mr_kernels_select(options->kernels);
	struct cpu *cpu;

	if (!kern)
		return MR_E_NOT_SUPPORTED;
	if (options->threads > MR_TEAM_THREADS_MAX)
		return MR_E_INVALID;
	cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~63ul);
	if (!cpu)
		return MR_E_NO_MEMORY;
	*cpu = (struct cpu){
		.dev =
			{
				.admin = &admin_ops,
				.mem = &memory_ops,
				.work = &work_ops,
				.caps =
					{
						.stages = MR_STAGE_PREFILL | MR_STAGE_DECODE |
							  MR_STAGE_SCORE,
						.batch_max = CPU_BATCH_MAX,
						.steps_max = CPU_STEPS_MAX,
						.chunk_max = CPU_CHUNK_MAX,
						.pass_rows = options->apart ? 0 : CPU_ROWS,
					},
				.wait_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
			},
		.arena = options->arena,
		.options = *options,
		.kern = kern,
		.path = path_metric(kern),
	};
	snprintf(cpu->dev.caps.name, sizeof(cpu->dev.caps.name), "cpu:%s", kern->name);
	cpu_classes_name(cpu);
	if (cpu->dev.wait_fd < 0) {
		free(cpu);
		return MR_E_IO;
	}
	*dev = &cpu->dev;
	return 0;
}
