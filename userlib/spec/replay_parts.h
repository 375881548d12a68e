/* SPDX-License-Identifier: Apache-2.0 */
/* The verifier of schedules, inside: replay.c has the clock and the ICU, replay_rules.c what each instruction must keep. */
#ifndef MR_USERLIB_SPEC_REPLAY_PARTS_H
#define MR_USERLIB_SPEC_REPLAY_PARTS_H

#include "userlib/spec/container.h"
#include "userlib/spec/why.h"

#define REPLAY_STREAMS 128u
#define REPLAY_PORTS   256u
#define REPLAY_KV      8192u /* SCATTERs of a step and chip */
#define REPLAY_EFFORT  (1ull << 31)

/* Rows on a stream, or under way to another chip. */
struct passing {
	uint64_t start, end; /* first row; a cycle after the last */
	uint32_t rows, interval, type, cols;
	uint32_t tile;   /* elements beyond the slot's positions are absent */
	uint32_t groups; /* of KV blocks, else 0 */
	uint32_t there, taken;
};

/* Something that takes a port until @end; of a WRITE also its banks, of a READ its bytes. */
struct busy {
	uint64_t start, end, lo, hi;
	uint64_t stride, bytes; /* of a READ's rows */
};

struct kv_part {
	uint32_t address, groups, cols;
	uint64_t ready;
};

struct replay_chip {
	struct passing stream[REPLAY_STREAMS];
	struct busy port[3][REPLAY_PORTS]; /* reads, writes, vector instructions */
	uint32_t ports[3];                 /* in use */
	uint64_t queue[MR_ISA_QUEUES], skew[MR_ISA_QUEUES];
	uint64_t mxm_free, host_free, table_ready;
	/* the installed tile, and the sums begun */
	uint64_t weights_ready;
	uint32_t outputs, inputs, sums_outputs, sums_rows;
	uint32_t installed, used, summing, halves;
	uint32_t *
		word; /* [work_bytes / 4]: 1 + the cycle since which it may be read, 0 = never written */
	struct kv_part *kv;
	uint32_t kv_count;
	struct busy *read; /* of the body under way */
	uint32_t read_count, read_room;
};

struct replay {
	const struct mr_container *c;
	const struct mr_chip *chip;
	struct mr_spec_why *why;
	struct replay_chip *part; /* [chips] */
	struct passing *flight;   /* [chips][chips] */
	uint64_t *link_free;      /* [chips][chips] */
	uint32_t slots, blocks;   /* of this replay: slots of the step, blocks of a tile */
	uint32_t slot, in_slot, in_tile;
	uint64_t now, body_end;
	uint32_t body;
	uint32_t records; /* RECORDs among the instructions of the body under way */
	uint32_t samples; /* SAMPLEs before it */
	uint64_t record_end;
	uint32_t index; /* of the instruction, for the sentence */
	uint64_t
		effort; /* instructions and words looked at, so that no program keeps a device for hours */
};

static inline uint64_t replay_ceil(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* One instruction that starts at @start. */
int mr_replay_rule(struct replay *r, const struct mr_isa *i, uint64_t start);
int mr_replay_refuse(struct replay *r, const struct mr_isa *i, int status, const char *what);

#endif /* MR_USERLIB_SPEC_REPLAY_PARTS_H */
