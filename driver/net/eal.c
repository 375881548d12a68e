// SPDX-License-Identifier: Apache-2.0
/*
 * See eal.h. The arguments keep EAL to itself: no shared files (so that any number of processes of any user run
 * side by side), no telemetry socket, no PCI scan unless asked for, no pinning of the calling thread:
 * the poll loop is placed by whoever runs it. DPDK's own messages below critical are left out: what fails
 * comes back as a status with a sentence.
 */
#include "driver/net/eal.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#define ARGS_MAX 48

struct args {
	int count;
	char *v[ARGS_MAX + 1];
	char lcores[2048];
};

static int add(struct args *args, char *text)
{
	if (args->count == ARGS_MAX)
		return -1;
	args->v[args->count++] = text;
	return 0;
}

/* "0@(a,b,...)": lcore 0, which is the calling thread, floats over the CPUs that it may use already. */
static void main_lcore(char *out, size_t bytes)
{
	cpu_set_t set;
	size_t at = (size_t)snprintf(out, bytes, "0@(");
	const char *comma = "";

	if (sched_getaffinity(0, sizeof(set), &set) != 0) {
		CPU_ZERO(&set);
		CPU_SET(0, &set);
	}
	for (int cpu = 0; cpu < CPU_SETSIZE && at + 16 < bytes; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		at += (size_t)snprintf(out + at, bytes - at, "%s%d", comma, cpu);
		comma = ",";
	}
	snprintf(out + at, bytes - at, ")");
}

static int wants_pci(const char *eal_args)
{
	return eal_args && (strstr(eal_args, "-a ") || strstr(eal_args, "--allow"));
}

/* Blanks become NULs; the words are EAL's for good, because it keeps pointers to its arguments. */
static int split(struct args *args, char *text)
{
	char *save = NULL;

	for (char *word = strtok_r(text, " \t", &save); word; word = strtok_r(NULL, " \t", &save))
		if (add(args, word) != 0)
			return -1;
	return 0;
}

int mr_eal_start(const char *eal_args, int huge, char *why, size_t why_bytes)
{
	static int running;
	static struct args args; /* EAL keeps pointers into it */
	static char *more;
	int bad = 0;

	if (running)
		return 0;
	main_lcore(args.lcores, sizeof(args.lcores));
	args.count = 0;
	bad |= add(&args, "millrace");
	bad |= add(&args, "--no-telemetry");
	bad |= add(&args, "--log-level=critical");
	bad |= add(&args, "--lcores");
	bad |= add(&args, args.lcores);
	bad |= add(&args, "-m");
	bad |= add(&args, "64");
	bad |= add(&args, huge ? "--in-memory" : "--no-huge");
	if (!huge)
		bad |= add(&args, "--no-shconf");
	if (!wants_pci(eal_args)) {
		bad |= add(&args, "--no-pci");
		bad |= add(&args, "--iova-mode=va");
	}
	free(more);
	more = strdup(eal_args ? eal_args : "");
	if (!more || bad || split(&args, more) != 0) {
		snprintf(why, why_bytes, "too many EAL arguments");
		return MR_E_INVALID;
	}
	args.v[args.count] = NULL;
	if (rte_eal_init(args.count, args.v) < 0) {
		snprintf(why, why_bytes, "DPDK does not start: %s (arguments: %s)",
			 rte_strerror(rte_errno), eal_args ? eal_args : "none given");
		return MR_E_INVALID;
	}
	running = 1;
	return 0;
}
