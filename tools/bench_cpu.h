/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace bench cpu`: how near the CPU backend comes to what the machine can do, and to its peers. Four
 * tables: the roofs (bench_cpu_roof.c), loading (bench_cpu_load.c), each kernel as a fraction of its roof (bench_cpu_kernels.c), and end
 * to end at the device's ops, beside other engines that run the same file in the same minutes
 * (bench_cpu_ends.c, through bench_peer.c and scripts/peer.py). Every raw sample goes to one CSV.
 */
#ifndef MR_TOOLS_BENCH_CPU_H
#define MR_TOOLS_BENCH_CPU_H

#include <stdint.h>
#include <stdio.h>

#include "driver/model/model.h"
#include "kernels/cpu/kernels.h"
#include "tools/tools.h"

struct mr_team;

#define BENCH_PEERS_MAX 4u
#define BENCH_RUNS_MAX  100u

struct bench_cpu_options {
	const char *model_path;
	const char *kernels; /* path; NULL = the widest */
	enum mr_numerics numerics;
	const char *peers[BENCH_PEERS_MAX]; /* commands that speak bench_peer.h */
	uint32_t peer_count;
	uint32_t runs;
	uint32_t threads[2]; /* thread counts to measure; 0 = none */
	const char *only;    /* "roofs", "load", "kernels", "ends"; NULL = all */
	const char *row;     /* of the table of ends; NULL = all rows */
	FILE *csv;           /* NULL = none */
	int no_huge;
};

/* One end-to-end figure: what is timed. */
struct bench_end {
	const char *name;
	uint32_t prefill; /* tokens of a prompt to be prefilled, 0 = decode is timed */
	uint32_t first;   /* 1 = prefill, and one token made: the time to first token */
	uint32_t batch, context, steps;
};

/* Opens the CSV's columns; a sample is one line. */
void bench_cpu_csv_head(const struct bench_cpu_options *o);
void bench_cpu_csv(const struct bench_cpu_options *o, const char *table, const char *name,
		   const char *engine, uint32_t threads, uint32_t run, const char *unit,
		   double value, double of_roof, const char *class);

/* Median of @n values, which it sorts. */
double bench_median(double *values, uint32_t n);

/* ---- bench_cpu_roof.c ---- */

struct bench_roofs {
	double read_bytes_s; /* all threads together stream as many bytes as the model's weights */
	double int8_macs_s;  /* multiply-adds: of bytes to int32 */
	double float_macs_s; /* FP32 FMA */
};

/* A buffer of the weights' size on huge pages, for reading roofs again and again. */
struct bench_buffer;
int bench_buffer_create(uint64_t bytes, struct bench_buffer **out);
void bench_buffer_destroy(struct bench_buffer *b);
/* A team for it, the caller among it, on cores of their own while it lives; NULL for one thread. */
int bench_team(uint32_t threads, struct mr_team **team);
void bench_team_end(struct mr_team *team);
/* Bytes a second of one pass by all threads of @team (NULL = the caller alone). */
double bench_buffer_read(struct bench_buffer *b, struct mr_team *team);
/* Peak arithmetic of @kern's instruction set on one thread, by chains in registers. */
double bench_arithmetic_bf16(void); /* 0 = the CPU has no such instruction */
void bench_arithmetic(const struct mr_kernels *kern, double *int8_macs_s, double *float_macs_s);

/* ---- bench_cpu_kernels.c ---- */
int bench_cpu_kernels(const struct bench_cpu_options *o, const struct mr_kernels *kern,
		      const struct mr_shape *shape, const struct bench_roofs *one);

/* ---- bench_cpu_ends.c ---- */
int bench_cpu_ends(const struct bench_cpu_options *o, const struct mr_model *model);

/* ---- bench_cpu_load.c ---- */
int bench_cpu_load(const struct bench_cpu_options *o, const struct mr_model *model);

/* ---- bench_cpu.c ---- */
int bench_cpu(const struct bench_cpu_options *o);

#endif /* MR_TOOLS_BENCH_CPU_H */
