/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace bench lpu`: what the LPU driver and the way to the device cost, on nil, on the simulated LPU in this
 * process and on one behind vfio-user, beside the round trip of one cache line between the same two cores.
 *
 *   bench_lpu.c          which ways are taken, and the table's rows
 *   bench_lpu_measure.c  the figures of one device
 *   bench_lpu_server.c   `millrace lpu sim` as a process of our own
 */
#ifndef MR_TOOLS_BENCH_LPU_H
#define MR_TOOLS_BENCH_LPU_H

#include <stdint.h>
#include <stdio.h>

#include "tools/bench_line.h"
#include "tools/bench_rows.h"
#include "tools/tools.h"

#define BENCH_LPU_SLOTS 16u

enum bench_lpu_figure {
	LPU_LINE,       /* round trip of a cache line */
	LPU_FENCE,      /* mr_lpu_fence called to its DONE seen by the poller */
	LPU_RATIO,      /* thousandths: the means of a slice of each by turns, one by the other */
	LPU_FENCE_POST, /* mr_lpu_fence called to its return: the doorbell is its last act */
	LPU_POST_1,     /* the same of a DECODE of 1 slot */
	LPU_RECORD_1,   /* doorbell to the first record seen: the device's computing is in it */
	LPU_STEP_1,     /* DECODE called to its DONE seen */
	LPU_CPU_1,      /* CPU time of the driver's thread for it, poll included */
	LPU_POST_16,    /* and of 16 slots */
	LPU_RECORD_16,
	LPU_STEP_16,
	LPU_CPU_16,
	LPU_FIGURES
};

extern const char *const bench_lpu_names[LPU_FIGURES]; /* in CSV and JSON */

/* What was found on one device; nanoseconds but for LPU_RATIO. */
struct bench_lpu_found {
	struct tool_summary of[LPU_FIGURES]; /* n = 0: not measured */
	uint64_t doorbells, avoided;         /* of the FENCEs and the polled DECODEs */
	uint64_t posted;                     /* how many these were */
	double allocations, calling; /* a polled DECODE: malloc and free; 1 = a system call */
	int calls_seen;              /* 0 = this kernel cannot say */
	long call;                   /* number of one, -1 = none */
};

/* The core that answers pings, and what both threads share. */
struct bench_lpu_echo;
int bench_lpu_echo_start(int cpu, struct bench_lpu_echo **echo);
void bench_lpu_echo_stop(struct bench_lpu_echo *echo);

struct bench_lpu_run {
	struct mr_device *dev;       /* loaded; BENCH_LPU_SLOTS slots of it are free */
	int fences;                  /* it is the LPU driver's */
	uint32_t runs;               /* 2,000 FENCEs and 200 DECODEs a run, of each kind */
	uint32_t idle_us;            /* after so long the device's thread is out of the way */
	struct bench_lpu_echo *echo; /* NULL = no cache line beside it */
	FILE *csv;                   /* percentiles of each figure, or NULL */
	const char *name;            /* in it */
};

/* 0 or a status. */
int bench_lpu_measure(const struct bench_lpu_run *run, struct bench_lpu_found *found);

/*
 * `millrace lpu sim` on @cpu, at a socket in a folder of its own; it has ended when stop returns, and ends with us.
 * Start: 0, or a status after a line on stderr.
 */
struct bench_lpu_server {
	int pid;
	char folder[108], socket[120], output[120];
};
int bench_lpu_server_start(struct bench_lpu_server *server, int cpu, uint32_t spin_us,
			   const struct tool_devices_options *devices);
void bench_lpu_server_stop(struct bench_lpu_server *server);

struct bench_lpu_options {
	const char *model;                   /* NULL = $MR_MODEL, then what `make model` fetched */
	struct tool_devices_options devices; /* lpu NULL = local and vfio-user */
	uint32_t runs;
	FILE *csv;
};

/* All of it. Returns an exit status, after a line on stderr where it is not 0. */
int bench_lpu(const struct bench_lpu_options *options, struct bench_rows *rows);

#endif /* MR_TOOLS_BENCH_LPU_H */
