/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace trace`: a trace file's records become turns of requests, each cut into phases, and work of devices
 * (timeline.c); those become Perfetto's JSON (timeline_json.c) or a table (timeline_text.c).
 */
#ifndef MR_TOOLS_TIMELINE_H
#define MR_TOOLS_TIMELINE_H

#include <stdint.h>
#include <stdio.h>

#include "driver/trace.h"

/*
 * A turn's phases follow each other without a gap, from its arrival to its end, so that their shares add up.
 * One that did not happen has no length.
 */
enum phase {
	PHASE_TOKENISE, /* arrival to acceptance */
	PHASE_QUEUE,    /* to the first chunk of prefill */
	PHASE_PREFILL,  /* to the end of the last chunk */
	PHASE_HANDOVER, /* to the end of the last import; the part that prefill did not hide */
	PHASE_FIRST,    /* to the first token */
	PHASE_DECODE,   /* to the last token */
	PHASE_END,      /* to the end */
	PHASE_COUNT,
};
extern const char *const phase_names[PHASE_COUNT];

/* From an arrival to the end, or to the next arrival of the same sequence. */
struct turn {
	uint32_t owner;
	uint32_t tokens, egress; /* events, and tokens that fronts sent */
	uint64_t prompt_tokens;
	uint64_t edge[PHASE_COUNT + 1]; /* ns: phase i lies from edge[i] to edge[i + 1] */
	int32_t status;                 /* of its end */
	uint8_t partial;                /* its beginning was overwritten */
	uint8_t unfinished;             /* it had not ended when the trace was read */
};

enum work_kind { WORK_CHUNK, WORK_HANDOVER, WORK_STEP, WORK_KINDS };
extern const char *const work_names[WORK_KINDS];

/* Work of a device. Pieces of one device never overlap: each begins when the one before it has ended. */
struct work {
	enum work_kind kind;
	uint32_t owner, device;
	uint64_t from_ns, to_ns, value;
	uint64_t status; /* positive magnitude, 0 = well */
	uint8_t unfinished;
	int together; /* went with the one before it on its device */
};

struct timeline {
	const struct mr_trace *trace;
	uint64_t first_ns, last_ns; /* of all records */
	struct turn *turns;         /* in order of their first record */
	uint64_t turn_count;
	struct work *works; /* in order of their ends, those without one last */
	uint64_t work_count;
	uint64_t unmatched; /* ends whose begins were overwritten */
};

/* 0 or MR_E_NO_MEMORY. @trace must stay. */
int timeline_build(const struct mr_trace *trace, struct timeline *out);
void timeline_free(struct timeline *t);
/* The device's name, or "device N" where the server gave none. */
const char *timeline_device(const struct timeline *t, uint32_t device);

/* 0, or -1 where memory or the output failed. */
int timeline_json(const struct timeline *t, FILE *out);
int timeline_text(const struct timeline *t, FILE *out);

#endif /* MR_TOOLS_TIMELINE_H */
