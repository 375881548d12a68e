/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU backend's parts and who may touch what.
 *
 *   cpu.c    open, close, reset, telemetry, the ops tables
 *   load.c   sizes, caps, buffers
 *   weights.c  weights into the arena, packed by all threads
 *   classes.c  which numeric class makes which rows; class P's weights
 *   threads.c  the compute team: how many, and where they are pinned
 *   slots.c  slots and KV blocks, export; the host's thread only
 *   post.c   checks work and posts it; takes events; the host's thread only
 *   queue.c  how the two threads pass jobs and events and wake each other
 *   jobs.c   which of the waiting jobs may run; imports, forks; the compute thread only
 *   pass.c   a pass over the weights for all rows that may go together; the compute thread only
 *
 * Two threads. The host's (the orchestrator's loop) owns everything but what is marked. The compute thread
 * owns what is marked "compute"; a slot's memory and history are its own while jobs that name the slot are
 * under way, and the host frees a slot only after it has taken the last such job's DONE.
 */
#ifndef MR_DRIVER_CPU_INTERNAL_H
#define MR_DRIVER_CPU_INTERNAL_H

#include <pthread.h>
#include <stddef.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/blocks.h"
#include "driver/metrics.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/layer.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/team.h"

#define CPU_BATCH_MAX 64u
#define CPU_STEPS_MAX 16u
#define CPU_CHUNK_MAX 512u
#define CPU_ROWS      64u /* rows that one pass over the weights takes; >= CPU_BATCH_MAX */
/*
 * Rows of a DECODE from which on --numerics=fast takes class P: with fewer, class D's quarter of the bytes
 * is worth more than BF16 tiles (decisions.rst).
 */
#define CPU_FAST_ROWS 32u
#define CPU_JOBS      64u   /* a power of two */
#define CPU_EVENTS    4096u /* at least; a power of two; more than one DECODE can make */

/* A FORK copies the block in which a fork ends; the caller hears nothing of it. */
enum job_type { JOB_PREFILL, JOB_IMPORT, JOB_DECODE, JOB_SCORE, JOB_FORK };

struct job_entry {
	uint32_t slot;
	uint32_t generation; /* as the caller knows it, for the events */
	uint32_t position;
	uint32_t logits;
	uint32_t forced; /* 1 = forced[] of the job holds its tokens of step 1 on */
};

/* What a DECODE knows of an entry from step to step. */
struct job_row {
	uint32_t entry; /* of the job */
	uint32_t token; /* to be fed */
};

struct job {
	enum job_type type;
	uint64_t tag;
	uint32_t epoch; /* of its post: another one means that a reset came between */
	uint32_t count; /* entries, tokens or descriptors; FORK: positions */
	uint32_t steps;
	uint32_t events;                         /* reserved for it in the event queue */
	uint32_t taken;                          /* the host has taken its DONE */
	const uint32_t *tokens;                  /* PREFILL: the caller's */
	struct job_entry entries[CPU_BATCH_MAX]; /* FORK: the new slot, the old one; else [0] */
	/* compute, once it is posted */
	uint32_t ended;
	uint32_t fed;   /* PREFILL, SCORE: tokens that have been fed; DECODE: steps made */
	uint32_t tells; /* PREFILL: passes that may still tell of each layer */
	uint32_t live;  /* DECODE: rows of the next step */
	struct job_row rows[CPU_BATCH_MAX];
	union {
		uint32_t score[CPU_CHUNK_MAX];
		uint32_t forced[CPU_BATCH_MAX][CPU_STEPS_MAX];
		struct mr_kv_desc descs[MR_KV_DESCS_MAX];
	};
};

/* One side's view of the other, on cache lines of their own. See queue.c for the orders. */
struct queue {
	_Alignas(64) uint32_t job_tail; /* the host publishes jobs */
	uint32_t epoch;                 /* the host's count of resets */
	uint32_t released;              /* logits events that the host has let go of */
	uint32_t stop;
	_Alignas(64) uint32_t event_tail; /* the compute thread publishes events */
	_Alignas(64) uint32_t parked;     /* the compute thread sleeps, or is about to (futex) */
	_Alignas(64) uint32_t armed;      /* the host wants wait_fd written */
};

struct cpu_slot {
	uint32_t generation; /* odd while open, so that 0 never names an open slot */
	uint32_t closing;    /* closed, but work under way still names it */
	uint32_t inflight;   /* jobs posted and not taken back */
	uint32_t posted;     /* positions that have KV once all posted work has run */
	uint32_t written;    /* positions that have KV now, as far as polled events say */
	uint32_t ahead;      /* layers that have KV up to ahead_position */
	uint32_t ahead_position;
	uint32_t marked; /* post number of the decode that named it last */
	struct mr_slot_config config;
	uint32_t block_count;
	uint32_t *blocks; /* indices in the pool */
	uint8_t **kv;     /* their memory, as mr_row.kv */
	/* compute */
	uint64_t claimed;       /* number of the scan in which a job took it, or waits for it */
	uint32_t history_count; /* the ids fed to DECODE, newest last */
	uint32_t history[MR_SAMPLE_HISTORY];
};

/* How rows of a numeric class are computed: its kernels, and the weights that they read. */
struct cpu_class {
	const struct mr_kernels *kern;
	struct mr_layer *layers;
	struct mr_matrix output;
};

struct cpu {
	struct mr_device dev; /* first: a struct mr_device * is a struct cpu * */
	struct mr_arena *arena;
	struct mr_cpu_options options;
	const struct mr_kernels *kern;
	struct mr_team *team; /* rank 0 is the compute thread, while loading the host's */
	int cpu;              /* where rank 0 is pinned, -1 = nowhere */
	pthread_t thread;
	int running; /* the thread was started, that is, a model is loaded */

	struct mr_shape shape;
	struct mr_layer *layers;
	struct mr_matrix embd, output;
	const float *output_norm;
	struct cpu_class prompt; /* of prompts: class P, or class D's own again */
	uint32_t fast_rows;      /* DECODEs of as many rows are computed so too; 0 = none */

	const struct mr_region *kv_region;
	size_t layer_bytes, block_bytes; /* of a KV block: of a layer, of all layers */
	uint32_t blocks;
	struct mr_blocks pool;

	struct cpu_slot *slots;
	void *slot_tables; /* all slots' blocks and kv */
	uint32_t *free_slots;
	uint32_t free_slot_count;

	struct queue queue;
	struct job *jobs;
	struct mr_event *events;
	uint32_t job_tail, job_done; /* posted; taken back: free-running */
	uint32_t event_head;
	uint32_t event_cap;    /* of events, a power of two */
	uint32_t event_room;   /* events that no job has reserved */
	uint32_t logits_taken; /* logits events handed out by polls */
	uint32_t decodes;      /* post number, for cpu_slot.marked */
	int armed;
	uint32_t wakes_owed; /* writes of wait_fd that are not read yet */
	struct mr_telemetry telemetry;

	/* compute */
	struct mr_workspace *ws;
	float *x;           /* (CPU_ROWS, width) */
	float *logits;      /* (CPU_BATCH_MAX, vocab) */
	void *scratch;      /* of mr_sample, for each thread */
	uint32_t job_first; /* the oldest that has not ended */
	uint64_t scan;
	uint32_t event_tail;
	uint32_t logits_made; /* logits events published */
	uint64_t steps;       /* read by telemetry, relaxed */
	enum mr_metric path;  /* counts the jobs of these kernels */
};

/* How many of a job's entries name slots. */
static inline uint32_t cpu_job_slots(const struct job *job)
{
	return job->type == JOB_DECODE ? job->count : job->type == JOB_FORK ? 2 : 1;
}

static inline struct cpu *cpu_of(struct mr_device *dev)
{
	return (struct cpu *)dev;
}

/* slots.c */
struct cpu_slot *cpu_slot_of(struct cpu *cpu, struct mr_slot slot); /* NULL = stale */
int cpu_slot_open(struct mr_device *dev, const struct mr_slot_config *config, struct mr_slot *slot);
/* The same over the first @shared blocks of @from. */
int cpu_slot_open_over(struct cpu *cpu, const struct mr_slot_config *config,
		       const struct cpu_slot *from, uint32_t shared, struct mr_slot *slot);
/* Whether it may be written from @position on: 0, MR_E_INVALID (a gap), MR_E_BUSY (shared). */
int cpu_slot_writable(const struct cpu *cpu, const struct cpu_slot *s, uint32_t position);
/* Posted work writes positions @from to @to - 1; what lay beyond is gone. */
void cpu_slot_write(struct cpu_slot *s, uint32_t from, uint32_t to);
void cpu_slot_written(struct cpu_slot *s, uint32_t to); /* polled events say so */
int cpu_slot_close(struct mr_device *dev, struct mr_slot slot);
void cpu_slot_work_done(struct cpu *cpu, uint32_t index);
void cpu_slots_close_all(struct cpu *cpu);
int cpu_slots_create(struct cpu *cpu);
int cpu_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		  uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max);

/* load.c */
int cpu_load(struct mr_device *dev, const struct mr_model *model,
	     void (*progress)(void *arg, unsigned percent), void *arg);

/* weights.c */
int cpu_weights_load(struct cpu *cpu, const struct mr_model *model,
		     void (*progress)(void *arg, unsigned percent), void *arg);

/* classes.c */
void cpu_classes_name(struct cpu *cpu); /* in the caps; once kern and options are there */
int cpu_classes_load(struct cpu *cpu);  /* after the weights */

/* The class of a DECODE's step of @n rows. */
static inline struct cpu_class cpu_class_of_step(const struct cpu *cpu, uint32_t n)
{
	if (cpu->fast_rows && n >= cpu->fast_rows)
		return cpu->prompt;
	return (struct cpu_class){cpu->kern, cpu->layers, cpu->output};
}

/* threads.c */
int cpu_team_create(struct cpu *cpu);  /* the team, without rank 0 */
int cpu_thread_start(struct cpu *cpu); /* the compute thread, which is rank 0 */

/* post.c */
int cpu_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		const struct mr_slot_config *config, struct mr_slot *slot);
int cpu_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
	      uint32_t position, uint64_t tag);
int cpu_kv_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		  uint32_t count, uint64_t tag);
int cpu_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
		uint32_t position, uint64_t tag);
int cpu_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
	       uint32_t steps, uint64_t tag);
int cpu_poll(struct mr_device *dev, struct mr_event *events, uint32_t max);
int cpu_arm(struct mr_device *dev);

/* queue.c: the host's side */
void cpu_queue_post(struct cpu *cpu);    /* publishes jobs up to cpu->job_tail */
void cpu_queue_release(struct cpu *cpu); /* logits up to cpu->logits_taken may be overwritten */
void cpu_queue_reset(struct cpu *cpu);
void cpu_queue_stop(struct cpu *cpu);
uint32_t cpu_queue_events(const struct cpu *cpu); /* events that wait */
/* queue.c: the compute thread's side */
int cpu_queue_wait(struct cpu *cpu, uint32_t *tail); /* for a job that has not ended; -1 = stop */
uint32_t cpu_queue_epoch(const struct cpu *cpu);
void cpu_queue_put(struct cpu *cpu, const struct mr_event *event);
void cpu_queue_publish(struct cpu *cpu); /* what has been put */
/* Waits until the host has let go of all logits; 0, or -1 when a reset came meanwhile. */
int cpu_queue_wait_logits(struct cpu *cpu, uint32_t epoch);

/* pass.c: one pass for @jobs, of which no two name the same slot, oldest first, of one epoch */
void cpu_pass(struct cpu *cpu, struct job *const *jobs, uint32_t count);

/* jobs.c */
void cpu_job_end(struct cpu *cpu, struct job *job, int32_t status); /* puts its DONE */
void *cpu_compute(void *arg);

#endif /* MR_DRIVER_CPU_INTERNAL_H */
