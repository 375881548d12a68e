// SPDX-License-Identifier: Apache-2.0
/* A timeline as tables: what each device did, the phases over all requests, and each request's phases. */
#include <stdlib.h>

#include <millrace/status.h>

#include "tools/timeline.h"
#include "tools/tools.h"

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_devices(const struct timeline *t, FILE *out)
{
	uint64_t span = t->last_ns - t->first_ns;

	fprintf(out, "\n%-18s %8s %10s %10s %8s %10s %8s\n", "device", "chunks", "hand-overs",
		"steps", "busy %", "busy ms", "mean us");
	for (uint32_t device = 0; device < MR_TRACE_DEVICES; device++) {
		uint64_t count[WORK_KINDS] = {0}, busy = 0, n = 0;

		for (uint64_t i = 0; i < t->work_count; i++) {
			const struct work *w = &t->works[i];

			if (w->device != device)
				continue;
			count[w->kind]++;
			busy += w->together ? 0 : w->to_ns - w->from_ns;
			n++;
		}
		if (n)
			fprintf(out, "%-18s %8llu %10llu %10llu %8.1f %10.3f %8.1f\n",
				timeline_device(t, device), (unsigned long long)count[WORK_CHUNK],
				(unsigned long long)count[WORK_HANDOVER],
				(unsigned long long)count[WORK_STEP], percent(busy, span), ms(busy),
				(double)busy / (double)n / 1000);
	}
}

static uint64_t whole(const struct turn *turn)
{
	return turn->edge[PHASE_COUNT] - turn->edge[0];
}

static int print_phases(const struct timeline *t, FILE *out)
{
	uint64_t *v = calloc(t->turn_count + 1, sizeof(*v)), total = 0;

	if (!v)
		return -1;
	for (uint64_t i = 0; i < t->turn_count; i++)
		total += whole(&t->turns[i]);
	fprintf(out, "\n%-12s %8s %10s %10s %10s %10s   (ms)\n", "phase", "share %", "p50", "p90",
		"p99", "max");
	for (int p = 0; p < PHASE_COUNT; p++) {
		struct tool_summary s;
		uint64_t sum = 0;

		for (uint64_t i = 0; i < t->turn_count; i++) {
			v[i] = t->turns[i].edge[p + 1] - t->turns[i].edge[p];
			sum += v[i];
		}
		s = tool_summarise(v, t->turn_count);
		fprintf(out, "%-12s %8.1f %10.3f %10.3f %10.3f %10.3f\n", phase_names[p],
			percent(sum, total), ms(s.p50), ms(s.p90), ms(s.p99), ms(s.max));
	}
	free(v);
	return 0;
}

static void print_turns(const struct timeline *t, FILE *out)
{
	fprintf(out, "\n%-8s %6s %6s %10s", "request", "prompt", "tokens", "ms");
	for (int p = 0; p < PHASE_COUNT; p++)
		fprintf(out, " %10s", phase_names[p]);
	fprintf(out, "   (%%)\n");
	for (uint64_t i = 0; i < t->turn_count; i++) {
		const struct turn *turn = &t->turns[i];

		fprintf(out, "%-8u %6llu %6u %10.3f", turn->owner,
			(unsigned long long)turn->prompt_tokens, turn->tokens, ms(whole(turn)));
		for (int p = 0; p < PHASE_COUNT; p++)
			fprintf(out, " %10.1f",
				percent(turn->edge[p + 1] - turn->edge[p], whole(turn)));
		fprintf(out, "   %s%s%s\n", turn->unfinished ? "not ended" : "",
			turn->status ? mr_status_name(turn->status) : "",
			turn->partial ? " beginning lost" : "");
	}
}

int timeline_text(const struct timeline *t, FILE *out)
{
	uint64_t tokens = 0;

	for (uint64_t i = 0; i < t->turn_count; i++)
		tokens += t->turns[i].tokens;
	fprintf(out, "%llu records over %.3f ms: %llu requests, %llu tokens\n",
		(unsigned long long)t->trace->count, ms(t->last_ns - t->first_ns),
		(unsigned long long)t->turn_count, (unsigned long long)tokens);
	if (t->trace->lost || t->trace->broken)
		fprintf(out,
			"%llu older records were overwritten, %llu places held no whole record\n",
			(unsigned long long)t->trace->lost, (unsigned long long)t->trace->broken);
	if (t->trace->count == 0)
		return 0;
	print_devices(t, out);
	if (print_phases(t, out))
		return -1;
	print_turns(t, out);
	return ferror(out) ? -1 : 0;
}
