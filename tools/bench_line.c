// SPDX-License-Identifier: Apache-2.0
#include "tools/bench_line.h"

#include <sched.h>
#include <x86intrin.h>

#include <millrace/status.h>

void bench_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

int bench_two_cpus(const cpu_set_t *allowed, int cpus[2])
{
	int found = 0;

	for (int i = 0; i < CPU_SETSIZE && found < 2; i++)
		if (CPU_ISSET(i, allowed))
			cpus[found++] = i;
	return found == 2 ? 0 : MR_E_NOT_SUPPORTED;
}

void bench_line_echo(struct bench_lines *lines, const struct bench_line *kind, uint32_t mine)
{
	uint32_t last = __atomic_load_n(&lines->pong.word, __ATOMIC_RELAXED);

	while (__atomic_load_n(&kind->word, __ATOMIC_ACQUIRE) == mine) {
		uint32_t word = __atomic_load_n(&lines->ping.word, __ATOMIC_ACQUIRE);

		if (word == last) {
			_mm_pause();
			continue;
		}
		last = word;
		__atomic_store_n(&lines->pong.word, word, __ATOMIC_RELEASE);
	}
}

void bench_line_round(struct bench_lines *lines, uint64_t *ticks, uint64_t count)
{
	uint32_t word = __atomic_load_n(&lines->ping.word, __ATOMIC_RELAXED);
	uint64_t before = __rdtsc();

	for (uint64_t i = 0; i < count; i++) {
		uint64_t now;

		__atomic_store_n(&lines->ping.word, ++word, __ATOMIC_RELEASE);
		/* With the pause the line moves sooner than without: the better reference. */
		while (__atomic_load_n(&lines->pong.word, __ATOMIC_ACQUIRE) != word)
			_mm_pause();
		now = __rdtsc();
		ticks[i] = now - before;
		before = now;
	}
}
