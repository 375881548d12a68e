/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LPU's instructions, 32 bytes each, and the payload `schedule` that holds them. What they do and when is
 * said in Documentation/lpu-isa.rst; this header is its numbers. The compiler writes them, the verifier and
 * the device read them.
 */
#ifndef MR_USERLIB_SPEC_ISA_H
#define MR_USERLIB_SPEC_ISA_H

#include <stdint.h>
#include <string.h>

/* The unit is the opcode's high four bits. */
enum mr_isa_unit {
	MR_ISA_ICU,
	MR_ISA_MEM,
	MR_ISA_MXM,
	MR_ISA_VXM,
	MR_ISA_SXM, /* reserved */
	MR_ISA_C2C,
	MR_ISA_HOST,
	MR_ISA_UNITS
};
/* MEM has two queues: this one, and that of WRITE and SCATTER. The others have one each. */
#define MR_ISA_WRITES 7u
#define MR_ISA_QUEUES 8u

/* X(name, code) */
#define MR_ISA_OPS(X)    \
	X(NOP, 0x00)     \
	X(LOOP, 0x01)    \
	X(END, 0x02)     \
	X(READ, 0x10)    \
	X(WRITE, 0x11)   \
	X(GATHER, 0x12)  \
	X(SCATTER, 0x13) \
	X(LOADW, 0x20)   \
	X(MUL, 0x21)     \
	X(ACC, 0x22)     \
	X(DOTS, 0x23)    \
	X(SUMS, 0x24)    \
	X(ADD, 0x30)     \
	X(SUB, 0x31)     \
	X(VMUL, 0x32)    \
	X(MUL3, 0x33)    \
	X(FMA, 0x34)     \
	X(DIV, 0x35)     \
	X(MAX, 0x36)     \
	X(EXP, 0x37)     \
	X(RSQRT, 0x38)   \
	X(CMUL, 0x39)    \
	X(SUM, 0x3a)     \
	X(SUMSQ, 0x3b)   \
	X(RMAX, 0x3c)    \
	X(FILL, 0x3d)    \
	X(CVT, 0x3e)     \
	X(QUANT32, 0x3f) \
	X(SEND, 0x50)    \
	X(RECV, 0x51)    \
	X(DMA_IN, 0x60)  \
	X(DMA_OUT, 0x61) \
	X(SAMPLE, 0x62)  \
	X(RECORD, 0x63)

enum mr_isa_op {
#define X(name, code) MR_I_##name = code,
	MR_ISA_OPS(X)
#undef X
};

/* What a row is made of; of LOADW and GATHER also the matrix layouts of container.h. */
enum mr_isa_type {
	MR_T_NONE,
	MR_T_F32,
	MR_T_F16,
	MR_T_Q8, /* blocks of 40 bytes for 32 columns: int8[32], FP32 scale, int32 sum */
	MR_T_U32,
	MR_T_Q4_1X16,
	MR_T_Q8_0X16,
	MR_T_COUNT
};

/* What an ICU NOP's slope, or a LOOP, counts. */
enum mr_isa_register { MR_R_NONE, MR_R_SLOTS, MR_R_TILES, MR_R_BLOCKS };

#define MR_F_SLOTS  0x10u /* rows for each slot, stride apart */
#define MR_F_SLOT   0x20u /* in LOOP SLOTS: the address is the current slot's, stride apart */
#define MR_F_BLOCKS 0x40u /* rows for each KV block of the tile */
#define MR_F_TILE \
	0x80u /* a row's elements are the tile's positions: those beyond the slot's are absent */

#define MR_ISA_NONE  255u /* no stream */
#define MR_ISA_IMM0  254u /* as a source: address, stride as FP32 */
#define MR_ISA_IMM1  253u
#define MR_ISA_TILE  256u /* positions of a tile */
#define MR_ISA_BLOCK 16u  /* positions of a KV block */
#define MR_Q8_BYTES  40u  /* of a block of 32 columns */

enum mr_isa_index { MR_INDEX_TOKEN, MR_INDEX_POSITION, MR_INDEX_BLOCKS };

struct mr_isa {
	uint8_t op;
	uint8_t form; /* enum mr_isa_type | MR_F_*; of an ICU NOP or LOOP the register */
	uint8_t chip; /* whose queue */
	uint8_t peer; /* C2C: the other chip; of a NOP outside the ICU the queue that waits */
	uint8_t src[3];
	uint8_t dst;
	uint16_t body; /* counted over the ICU's NOPs */
	uint16_t rows;
	uint32_t offset; /* start = body's start + offset + slope * the body's register */
	uint16_t slope;
	uint16_t interval; /* cycles from a row to the next */
	uint32_t cols;
	uint32_t
		address; /* in units of 8 bytes; of VXM immediate 0, of DOTS the factor, as FP32's bits */
	uint32_t stride; /* bytes; of VXM immediate 1 */
};
_Static_assert(sizeof(struct mr_isa) == 32, "instruction");

/* A slot's row of the slot table, then its KV blocks' ids. */
struct mr_isa_slot {
	uint32_t token, position, blocks, reserved;
};

/*
 * ---- payload `schedule`: the reference payload's header with ops = 0, its chips[], then this, chips[], areas[],
 * the ICU's queue and the others' ----
 */

struct mr_sched_header {
	uint32_t version; /* 1 */
	uint32_t chips;
	uint32_t icu;          /* instructions of the ICU */
	uint32_t instructions; /* of all queues: body by body, each queue's in its order */
	uint32_t areas;
	uint32_t reserved0;
	uint64_t reserved[5];
};
_Static_assert(sizeof(struct mr_sched_header) == 64, "schedule header");

struct mr_sched_chip {
	uint64_t work_address; /* 64-byte aligned, above the segments and below the KV */
	uint64_t work_bytes;
	uint64_t table_address; /* of the slot table, in the work area */
	uint32_t table_stride;
	uint32_t reserved0;
	uint64_t reserved[4];
};
_Static_assert(sizeof(struct mr_sched_chip) == 64, "schedule chip");

/* A part of a work area that one kind of rows has to itself. What an instruction reads or writes lies in one. */
struct mr_sched_area {
	char name[32]; /* NUL-terminated, for people */
	uint64_t address, bytes;
	uint32_t chip;
	uint32_t reserved[3];
};
_Static_assert(sizeof(struct mr_sched_area) == 64, "schedule area");

static inline uint32_t mr_isa_queue(const struct mr_isa *i)
{
	return i->op == MR_I_NOP                              ? i->peer
	       : i->op == MR_I_WRITE || i->op == MR_I_SCATTER ? MR_ISA_WRITES
							      : i->op >> 4;
}

static inline float mr_isa_float(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static inline uint32_t mr_isa_bits(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

static inline uint32_t mr_isa_type(const struct mr_isa *i)
{
	return i->form & 0x0fu;
}

/* Bytes of a row of @cols elements, 0 where the type has no rows. */
static inline uint64_t mr_isa_row_bytes(uint32_t type, uint32_t cols)
{
	return type == MR_T_F32 || type == MR_T_U32 ? 4ull * cols
	       : type == MR_T_F16                   ? 2ull * cols
	       : type == MR_T_Q8                    ? (uint64_t)cols / 32 * MR_Q8_BYTES
						    : 0;
}

/* The instruction's name, "?" where there is none. */
const char *mr_isa_name(uint8_t op);

#endif /* MR_USERLIB_SPEC_ISA_H */
