/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program container: what driver/compile makes and a device runs. One file or one stream:
 *
 *   header (256 bytes) | SEGMENT PARAM IO EPOCH CLAIM tables | payload | zeros to 4096 | segments'
 * bytes
 *
 * The part before the segments' bytes is the metadata, meta_bytes long. header.sha256 covers the
 * metadata after itself, header.data_sha256 (covered by it) everything after the metadata: so a
 * device can check the metadata before it takes a single weight. Little-endian; offsets count from
 * the header's first byte.
 *
 * Readers trust nothing: mr_container_open refuses by header and by hash, mr_container_verify
 * refuses what does not fit the chip or contradicts itself. Reserved fields are 0 and refused
 * otherwise. Any thread.
 */
#ifndef MR_USERLIB_SPEC_CONTAINER_H
#define MR_USERLIB_SPEC_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#include "userlib/spec/chip.h"
#include "userlib/spec/isa.h"

#define MR_PROG_MAGIC          0x31474f525052524dull /* "MRRPROG1" */
#define MR_PROG_VERSION        1u
#define MR_PROG_META_BYTES_MAX (64u << 20)
#define MR_PROG_ALIGN          64u   /* of segments, in the file and in SRAM */
#define MR_PROG_DATA_ALIGN     4096u /* of meta_bytes */

enum mr_payload_kind {
	MR_PAYLOAD_REFERENCE = 1, /* weights in SRAM and a list of layers that the device walks */
	MR_PAYLOAD_SCHEDULE = 2,  /* instruction streams (isa.h) */
};

struct mr_prog_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes;   /* sizeof(struct mr_prog_header) */
	uint8_t sha256[32];      /* of bytes [48, meta_bytes) */
	uint8_t data_sha256[32]; /* of bytes [meta_bytes, total_bytes) */
	uint8_t chip_hash[32];   /* the chip that it was compiled for */
	char numeric_class[16];  /* "D" */
	uint32_t chips;
	uint32_t batch;   /* largest DECODE, entries */
	uint32_t context; /* positions a slot can hold */
	uint32_t payload_kind;
	uint64_t meta_bytes;
	uint64_t total_bytes;
	uint32_t segments; /* entries of each table, which follow the header in this order */
	uint32_t params;
	uint32_t ios;
	uint32_t epochs;
	uint32_t claims;
	uint32_t reserved0;
	uint64_t payload_offset; /* 8-byte aligned, right after the tables */
	uint64_t payload_bytes;
	char model[32]; /* NUL-terminated, for people */
	uint64_t reserved[3];
};
_Static_assert(sizeof(struct mr_prog_header) == 256, "header");
_Static_assert(offsetof(struct mr_prog_header, data_sha256) == 48, "what sha256 covers");

/* How a tensor lies in SRAM. The interleaved ones are those of kernels/cpu/pack.h. */
enum mr_layout {
	MR_LAYOUT_F32 = 1,     /* rows x cols floats */
	MR_LAYOUT_Q4_1X16 = 2, /* ceil(rows/16) x cols/32 groups of 320 bytes */
	MR_LAYOUT_Q8_0X16 = 3, /* ceil(rows/16) x cols/32 groups of 544 bytes */
	MR_LAYOUT_F16 = 4,     /* rows x cols halves; of shape files' products */
};

/* A tensor's place. The segments of one chip come in ascending address and do not overlap. */
struct mr_prog_segment {
	char tensor[48];  /* NUL-terminated: "blk.7.ffn_down.weight" */
	uint64_t address; /* in the chip's SRAM, MR_PROG_ALIGN */
	uint64_t bytes;   /* what layout, rows and cols say */
	uint64_t offset;  /* in the container, MR_PROG_ALIGN, ascending */
	uint32_t chip;
	uint32_t slice; /* that address lies in, and its bank */
	uint32_t bank;
	uint32_t layout;
	uint32_t rows;
	uint32_t cols;
	uint64_t reserved[4];
};
_Static_assert(sizeof(struct mr_prog_segment) == 128, "segment");

/* A register of the program that the host may set. None is defined yet. */
struct mr_prog_param {
	char name[32];
	uint32_t id;
	uint32_t reserved0;
	uint64_t smallest, largest, initial;
};
_Static_assert(sizeof(struct mr_prog_param) == 64, "param");

enum mr_io_kind { MR_IO_TOKEN_IN = 1, MR_IO_KV_IN, MR_IO_RECORD_OUT, MR_IO_LOGITS_OUT };

/* What an epoch takes from and gives to the host, for each slot and step. */
struct mr_prog_io {
	char name[32];
	uint32_t kind;
	uint32_t reserved0;
	uint64_t bytes;
	uint64_t reserved[2];
};
_Static_assert(sizeof(struct mr_prog_io) == 64, "io");

enum mr_epoch_kind { MR_EPOCH_DECODE_STEP = 1 };

struct mr_prog_epoch {
	uint32_t kind;
	uint32_t first_op; /* of the payload's list */
	uint32_t ops;
	uint32_t claim; /* index */
	uint64_t reserved[2];
};
_Static_assert(sizeof(struct mr_prog_epoch) == 32, "epoch");

/*
 * Cycles of one step: base + for each slot (slot + block * its KV blocks + tile * ceil(blocks /
 * 16)), where blocks counts those that the step attends to, the one it writes included. That is the
 * cycle of the last slot's record; each slot before it has its own `record` cycles earlier.
 */
struct mr_prog_claim {
	uint32_t epoch;
	uint32_t tile_blocks; /* 16 */
	uint64_t base, slot, block, tile;
	uint64_t record;
	uint64_t reserved[2];
};
_Static_assert(sizeof(struct mr_prog_claim) == 64, "claim");

/* ---- payload `reference`: header, chips[], ops[] ------------------------------------------------
 */

struct mr_ref_header {
	uint32_t version; /* 1 */
	uint32_t chips;   /* as the container's */
	uint32_t ops; /* 0 in payload `schedule`, which begins with this header and chips[] too */
	uint32_t kv_blocks; /* blocks of 16 positions, all layers, in all slots together */
	uint32_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context;
	float rms_eps, rope_base;
	uint64_t reserved[5];
};
_Static_assert(sizeof(struct mr_ref_header) == 96, "reference header");

/* A chip's part: layers [first_layer, first_layer + layers), and room for their KV. */
struct mr_ref_chip {
	uint64_t kv_address;     /* MR_PROG_ALIGN, above the chip's segments */
	uint64_t kv_block_bytes; /* of one block, the chip's layers one after the other */
	uint32_t first_layer;
	uint32_t layers;
	uint64_t reserved[5];
};
_Static_assert(sizeof(struct mr_ref_chip) == 64, "reference chip");

enum mr_ref_kind { MR_REF_EMBED = 1, MR_REF_LAYER, MR_REF_HEAD };
enum mr_ref_tensor { /* index in mr_ref_op.segment of a LAYER */
		     MR_REF_ATTN_NORM,
		     MR_REF_Q,
		     MR_REF_K,
		     MR_REF_V,
		     MR_REF_O,
		     MR_REF_FFN_NORM,
		     MR_REF_GATE,
		     MR_REF_UP,
		     MR_REF_DOWN,
		     MR_REF_TENSORS
};
#define MR_REF_NONE 0xffffffffu

/* EMBED first, LAYER 0 to layers-1, HEAD last; chips never descend along the list. */
struct mr_ref_op {
	uint32_t kind;
	uint32_t chip;
	uint32_t layer; /* of a LAYER, else 0 */
	uint32_t reserved0;
	uint32_t segment[MR_REF_TENSORS]; /* EMBED: matrix. HEAD: norm, matrix. Rest MR_REF_NONE */
	uint32_t reserved[3];
};
_Static_assert(sizeof(struct mr_ref_op) == 64, "reference op");

/* ---- calls --------------------------------------------------------------------------------------
 */

/* Metadata, opened: every pointer is into the caller's bytes. */
struct mr_container {
	const struct mr_prog_header *header;
	const struct mr_prog_segment *segments;
	const struct mr_prog_param *params;
	const struct mr_prog_io *ios;
	const struct mr_prog_epoch *epochs;
	const struct mr_prog_claim *claims;
	const struct mr_ref_header *ref; /* payload */
	const struct mr_ref_chip *chips; /* ref->chips */
	const struct mr_ref_op *ops;     /* ref->ops */
	/* of payload `schedule`, else NULL */
	const struct mr_sched_header *sched;
	const struct mr_sched_chip *sched_chips; /* sched->chips */
	const struct mr_sched_area *areas;       /* sched->areas */
	const struct mr_isa *icu;                /* sched->icu */
	const struct mr_isa *instructions;       /* sched->instructions */
};

/*
 * Opens metadata: @meta, 8-byte aligned, must hold all meta_bytes of it and may go on. Returns 0,
 * MR_E_TRUNCATED, MR_E_FORMAT (magic, sizes, reserved), MR_E_VERSION, MR_E_TOO_LARGE,
 * MR_E_NOT_SUPPORTED (payload kind) or MR_E_CHECKSUM. @why (may be NULL) gets one sentence where it
 * fails.
 */
int mr_container_open(const void *meta, size_t bytes, struct mr_container *c, char *why,
		      size_t why_bytes);

/*
 * Checks an open container against a group of @chips chips: MR_E_NOT_SUPPORTED (compiled for
 * another chip file, class or more chips), MR_E_SRAM_FULL (a place outside SRAM), MR_E_FORMAT
 * (tables or payload that contradict themselves), MR_E_RANGE (a number out of bounds). Linear in
 * the tables.
 */
int mr_container_verify(const struct mr_container *c, const struct mr_chip *chip, uint32_t chips,
			char *why, size_t why_bytes);

/*
 * verify.c, for a schedule: replays it with timing code of its own and refuses with
 * MR_E_SCHEDULE_VIOLATION what does not come out (Documentation/lpu-isa.rst lists it), with
 * MR_E_FORMAT or MR_E_RANGE what makes no sense. The tables were checked before. Of a shape's program, which no
 * device takes, @c holds header, segments, claims, chips, schedule and a reference header with vocab 0.
 */
struct mr_spec_why;
int mr_schedule_verify(const struct mr_container *c, const struct mr_chip *chip,
		       struct mr_spec_why *why);

/* The claim's cycles of a step of @n slots, of which i attends to @blocks[i] KV blocks. */
uint64_t mr_claim_cycles(const struct mr_prog_claim *claim, const uint32_t *blocks, uint32_t n);

/* Bytes of a tensor in @layout, or 0 where the numbers make no sense. */
uint64_t mr_layout_bytes(uint32_t layout, uint32_t rows, uint32_t cols);

/*
 * For writers: from the counts and payload_bytes in @header fills the sizes and offsets of the
 * metadata (header_bytes, payload_offset, meta_bytes), magic and version.
 */
void mr_container_layout(struct mr_prog_header *header);
/* Computes both hashes of a whole container whose header says total_bytes, all else being in place.
 */
void mr_container_seal(void *container);

#endif /* MR_USERLIB_SPEC_CONTAINER_H */
