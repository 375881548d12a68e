/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LPU device specification as C: registers, queues, commands, token records. A decode device
 * that follows this header, in silicon or in software, is driven by driver/lpu without a line
 * changed. Included by driver/, firmware-sim/ and tests; C11 and C++17.
 *
 * Concepts
 *   function    one PCI function = one group of 1 to 64 chips, addressed as one device by (slot,
 *               layer, block). Vendor and device id come from configuration; BAR0's MAGIC and
 *               VERSION say whether this header applies.
 *   BAR0        4 KiB of 32-bit registers, MR_LPU_REG_*. Only aligned 32-bit accesses; an unknown
 *               register reads 0 and ignores writes.
 *   BAR2        one doorbell page of MR_LPU_DOORBELL_STRIDE bytes a queue, MR_LPU_DB_*. Write-only.
 *   BAR4        MSI-X: vector 0 belongs to the admin queue, the others to whichever queue names
 *               them.
 *   IOVA        an address in the device's DMA space. The device reads and writes host memory only
 *               where it was mapped with that access; anything else ends the command with
 *               E_DMA_FAULT.
 *   queue       a submission ring of 64-byte commands that the device reads, a completion ring of
 *               16-byte entries that it writes, and, for I/O queues, a ring of 32-byte token
 *               records that it writes. Queue 0 is the admin queue; 1 to queues_max are I/O queues.
 *               Each ring holds a power of two of entries. Indices are free-running u32; the entry
 *               is index mod entries.
 *   doorbell    a free-running index that the host publishes in BAR2: how far it has written
 *               submissions (SQ_TAIL), taken completions (CQ_HEAD), taken records (RECORD_HEAD).
 *   phase       how the host knows a fresh entry without a tail word. A completion carries a phase
 *               bit, 1 on the first lap of its ring, inverted on each later one. A record carries
 *               its lap, a u32 counted from 1 (0 never occurs). Host memory for both rings starts
 *               zeroed; the device writes the phase last, after all else of the entry is visible
 *               (release); the host reads it first (acquire).
 *   credit      entries that the host has taken and so given back, by CQ_HEAD and RECORD_HEAD. A
 *               device without credit stalls before the step or completion that needs it. It never
 *               overwrites and never drops.
 *   order       the commands of one queue run and complete in the order in which they were
 *               submitted. The records of a DECODE or SCORE are visible before its completion, which
 *               is visible before the records of the next. There is no order between queues.
 *   program     what the compiler makes from a model and a chip file (userlib/spec/container.h). It
 *               is written, verified, then activated; slots and DECODE need an active one.
 *   slot        0 to slots_max - 1: a sequence's KV, sampling state and generation on the device.
 *   generation  u32 that the host chooses at SLOT_SET and that every command about the slot must
 *               repeat; a reuse of the slot changes it, and what names the old one is refused with
 *               E_STALE.
 *   block       MR_KV_BLOCK_TOKENS positions of one layer: K[kv_head][16][head_dim], then V, FP16.
 *               In SRAM a block holds these positions of all layers, and may belong to several slots
 *               (KV_FORK). It is free when the last of them closes.
 *   step        the making of one token for every entry of a DECODE.
 *   pass        the same walk over the layers for tokens of one slot side by side: what SCORE runs.
 *   epoch       what runs from one host event (a DECODE or SCORE that reached the head of its queue)
 *               on, with no further event: its cycles are the program's CLAIM.
 *   cycle       the device's unit of time; identify.cycle_ps says how long it lasts.
 *
 * A request, step by step
 *   1. The host writes a command at SQ[tail mod entries], with a request id of its choice that no
 *      other outstanding command of the queue has, then tail + 1 to SQ_TAIL (after the command is
 *      visible).
 *   2. The device reads it, refuses it or carries it out, and writes records as they are made.
 *   3. It writes a completion with the request id, and raises the queue's vector where it is armed.
 *   4. The host takes records and completion, then writes RECORD_HEAD and CQ_HEAD, now or batched.
 *   Arming: the host writes 1 to ARM, reads any register (so that the write has arrived), then
 *   looks at its rings once more; only when they are empty may it sleep. The device raises the
 *   vector after the next entry that it makes visible, once, and is disarmed.
 *
 * Recovery, from the mildest: ABORT of the command, clearing ENABLE (or RESET), function-level reset.
 *
 * Bring-up: wait for STATUS.READY = 0; write ADMIN_*; CONTROL.ENABLE = 1; wait at most TIMEOUT_MS
 * for STATUS.READY = 1; IDENTIFY; QUEUE_CREATE; PROGRAM. Clearing ENABLE stops every queue, forgets
 * every slot and keeps the program; READY = 0 says that no DMA will follow.
 *
 * Growth: little-endian. Opcodes, status codes, logs and fields are appended, never reused. Fields
 * named reserved, and flags without a name, must be 0 and are refused with E_INVALID otherwise: so
 * a new one with value 0 keeps the old behaviour. What a device does not have it answers with
 * E_NOT_SUPPORTED. Users query capabilities (IDENTIFY), they do not compare versions. No unions, no
 * bit fields, no holes.
 */
#ifndef MILLRACE_LPU_SPEC_H
#define MILLRACE_LPU_SPEC_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/sampling.h>
#include <millrace/status.h>

#ifdef __cplusplus
#define MR_LPU_ASSERT(cond) static_assert(cond, #cond)
#else
#define MR_LPU_ASSERT(cond) _Static_assert(cond, #cond)
#endif
#define MR_LPU_SIZE(type, bytes)      MR_LPU_ASSERT(sizeof(struct type) == (bytes))
#define MR_LPU_AT(type, field, bytes) MR_LPU_ASSERT(offsetof(struct type, field) == (bytes))

/* ---- BAR0: registers. R = read, W = write by the host ---------------------------------------- */

#define MR_LPU_BAR0_BYTES 4096u

#define MR_LPU_REG_MAGIC   0x000u /* R: MR_LPU_MAGIC */
#define MR_LPU_REG_VERSION 0x004u /* R: major << 16 | minor; a driver refuses another major */
#define MR_LPU_REG_CAPS \
	0x008u                          /* R: bits 0-7 log2 of the largest ring, 8-15 log2 of the \
					 * doorbell stride, 16-31 largest I/O queue number */
#define MR_LPU_REG_TIMEOUT_MS    0x00cu /* R: milliseconds that a change of READY may take */
#define MR_LPU_REG_CONTROL       0x010u /* RW: MR_LPU_CONTROL_*; 0 after power-on */
#define MR_LPU_REG_STATUS        0x014u /* R: MR_LPU_STATUS_* */
#define MR_LPU_REG_FATAL_CODE    0x018u /* R: why FATAL: MR_LPU_CRASH_*; 0 while FATAL = 0 */
#define MR_LPU_REG_ADMIN_ENTRIES 0x020u /* RW while READY = 0: of both admin rings, 2 to 4096 */
#define MR_LPU_REG_ADMIN_SQ_LO   0x028u /* RW while READY = 0: IOVA of the admin submission ring, */
#define MR_LPU_REG_ADMIN_SQ_HI   0x02cu /* 64-byte aligned */
#define MR_LPU_REG_ADMIN_CQ_LO   0x030u /* RW while READY = 0: IOVA of the admin completion ring, */
#define MR_LPU_REG_ADMIN_CQ_HI   0x034u /* 64-byte aligned */
#define MR_LPU_REG_HEARTBEAT     0x038u /* R: changes while the device's firmware runs its loop */
#define MR_LPU_REG_REFUSED       0x03cu /* R: commands refused, doorbells ignored */

#define MR_LPU_MAGIC             0x55504c4du /* "MLPU" */
#define MR_LPU_VERSION           0x00010000u
#define MR_LPU_CONTROL_ENABLE    1u
#define MR_LPU_STATUS_READY      1u
#define MR_LPU_STATUS_FATAL      2u /* the device gave up; only clearing ENABLE is understood */
#define MR_LPU_ADMIN_ENTRIES_MIN 2u
#define MR_LPU_ADMIN_ENTRIES_MAX 4096u
#define MR_LPU_RING_ENTRIES_MAX  65536u

/* ---- BAR2: doorbells, u32 at page q * MR_LPU_DOORBELL_STRIDE --------------------------------- */

#define MR_LPU_DOORBELL_STRIDE 4096u
#define MR_LPU_DB_SQ_TAIL      0x00u /* ignored and counted where it claims more than the ring holds */
#define MR_LPU_DB_CQ_HEAD      0x04u
#define MR_LPU_DB_RECORD_HEAD  0x08u
#define MR_LPU_DB_ARM          0x0cu /* 1 = raise the vector after the next entry, once */

/*
 * Shadow doorbells: a queue's indices in host memory, where the device reads them while it is awake, so
 * that the host spares the write to BAR2. On by the feature MR_LPU_FEATURE_SHADOW, which names
 * struct mr_lpu_shadow[queues_max + 1] by queue. From then on the device takes indices from here alone;
 * a write of an index to BAR2 only wakes it. ARM is written to BAR2 always.
 *
 * No wake-up is lost: the device stores asleep = 1, full fence, reads the indices once more; the host
 * stores an index, full fence, reads asleep, and writes BAR2 where it is 1.
 */
struct mr_lpu_shadow {
	uint32_t sq_tail; /* these three are the host's */
	uint32_t cq_head;
	uint32_t record_head;
	uint32_t reserved[13]; /* to the end of a cache line */
	uint32_t asleep;       /* the device's: 1 = it looks at nothing until BAR2 is written */
	uint32_t reserved1[15];
};
MR_LPU_SIZE(mr_lpu_shadow, 128);
MR_LPU_AT(mr_lpu_shadow, asleep, 64);

/* ---- completions and records ---------------------------------------------------------------- */

/*
 * status: 0, or the magnitude of an enum mr_status:
 *   E_INVALID        a reserved field or unknown flag is set
 *   E_NOT_SUPPORTED  opcode, log or option not built
 *   E_RANGE          a number outside what this header or IDENTIFY allows
 *   E_DMA_FAULT      IOVA not mapped with this access
 *   E_STALE          slot, owner or generation does not match
 *   E_CHECKSUM       CRC or hash differs
 *   E_TRUNCATED      KV missing below the position
 *   E_NOT_ACTIVE     no program; E_FORMAT, E_VERSION, E_SRAM_FULL: container
 *   E_BUSY           slots are open; another queue's command uses the slot; a write into a block that
 *                    another slot shares
 *   E_CANCELLED      ended by ABORT
 *   E_FULL           more ASYNC_EVENTs or ABORTs than the device keeps
 *   E_SCHEDULE_VIOLATION  a pass whose cycles were not the program's CLAIM; a program whose
 *                    instructions do not meet
 *   E_EXISTS, E_NOT_FOUND, E_KV_EXHAUSTED, E_CONTEXT_FULL, E_MASK_LATE, E_DEVICE: as millrace/status.h
 *                    says
 * A refused command has had no effect, unless it says otherwise.
 */
struct mr_lpu_completion {
	uint32_t request; /* of the command */
	uint32_t result;  /* by opcode; 0 where none is named */
	uint16_t sq_head; /* low 16 bits of how far the device has read the submission ring */
	uint16_t status;
	uint32_t phase; /* bit 0: phase bit; the others 0. Written last */
};
MR_LPU_SIZE(mr_lpu_completion, 16);
MR_LPU_AT(mr_lpu_completion, status, 10);
MR_LPU_AT(mr_lpu_completion, phase, 12);

/* One token of one slot: made by DECODE, or given to SCORE. */
struct mr_lpu_record {
	uint64_t cycle;      /* from the start of the epoch to this record, in cycles */
	uint32_t token;      /* below the program's vocabulary */
	uint32_t position;   /* of the token in its sequence */
	uint32_t generation; /* of the slot */
	uint16_t slot;
	uint16_t status; /* MR_LPU_RECORD_* */
	float logprob;   /* ln p(token) under the unmodified logits */
	uint32_t phase;  /* lap of the ring, from 1. Written last, release */
};
#define MR_LPU_RECORD_STOPPED 1u /* a stop token: no further record for this slot in its DECODE */

MR_LPU_SIZE(mr_lpu_record, 32);
MR_LPU_AT(mr_lpu_record, token, 8);
MR_LPU_AT(mr_lpu_record, position, 12);
MR_LPU_AT(mr_lpu_record, generation, 16);
MR_LPU_AT(mr_lpu_record, slot, 20);
MR_LPU_AT(mr_lpu_record, status, 22);
MR_LPU_AT(mr_lpu_record, logprob, 24);
MR_LPU_AT(mr_lpu_record, phase, 28);

/* ---- commands ------------------------------------------------------------------------------- */

enum mr_lpu_opcode {
	/* admin queue */
	MR_LPU_IDENTIFY = 0x01,     /* struct mr_lpu_identify by DMA */
	MR_LPU_QUEUE_CREATE = 0x02, /* an I/O queue with its record ring */
	MR_LPU_QUEUE_DELETE = 0x03, /* ends its commands without completions */
	MR_LPU_GET_LOG = 0x04,      /* counters, the chip file, errors, health, ... */
	MR_LPU_FEATURES = 0x05,     /* optional: reads and sets MR_LPU_FEATURE_* */
	MR_LPU_ASYNC_EVENT = 0x06,  /* optional: completes when the device has something to say */
	MR_LPU_ABORT = 0x07,        /* optional: ends a command of a queue */
	MR_LPU_PROGRAM = 0x08,      /* load, verify, activate a program container */
	MR_LPU_FIRMWARE = 0x09,     /* optional: download, verify, activate firmware */
	MR_LPU_RESET = 0x0a,        /* optional; CONTROL.ENABLE is there always */
	/* I/O queues */
	MR_LPU_SLOT_SET = 0x81, /* opens a slot: sampling, owner, generation, KV reserved */
	MR_LPU_KV_WRITE = 0x82, /* KV blocks from host memory into SRAM */
	MR_LPU_KV_READ = 0x83,  /* optional: KV blocks from SRAM into host memory */
	MR_LPU_KV_FORK = 0x84,  /* optional: opens a slot over another's first positions */
	MR_LPU_KV_FREE = 0x85,  /* closes a slot */
	MR_LPU_DECODE = 0x86,   /* steps for a batch of slots */
	MR_LPU_SCORE = 0x87,    /* optional: log-probabilities of given tokens */
	MR_LPU_EXEC = 0x88,     /* optional: one epoch, activations in and out */
	MR_LPU_FENCE = 0x89,    /* completes when all before it on its queue has */
};

/* What every command starts with. */
struct mr_lpu_head {
	uint16_t opcode;  /* enum mr_lpu_opcode */
	uint16_t flags;   /* none defined: 0 */
	uint32_t request; /* comes back in the completion */
};
MR_LPU_SIZE(mr_lpu_head, 8);

/* Any command; also FENCE, whose words must be 0. */
struct mr_lpu_command {
	struct mr_lpu_head head;
	uint64_t word[7];
};
MR_LPU_SIZE(mr_lpu_command, 64);

struct mr_lpu_cmd_identify {
	struct mr_lpu_head head;
	uint64_t iova;  /* of a struct mr_lpu_identify to be written */
	uint32_t bytes; /* sizeof(struct mr_lpu_identify) or less: what is wanted of it */
	uint32_t reserved0;
	uint64_t reserved[5];
};
MR_LPU_SIZE(mr_lpu_cmd_identify, 64);

struct mr_lpu_cmd_queue_create {
	struct mr_lpu_head head;
	uint32_t queue;   /* 1 to queues_max; E_EXISTS where it is there */
	uint32_t entries; /* of both rings, power of two, 2 to ring_entries_max */
	uint64_t sq_iova; /* 64-byte aligned, as the two below */
	uint64_t cq_iova;
	uint64_t record_iova;
	uint32_t record_entries; /* power of two, 2 to ring_entries_max: bounds a DECODE too */
	uint32_t vector;         /* MSI-X vector */
	uint64_t reserved[2];
};
MR_LPU_SIZE(mr_lpu_cmd_queue_create, 64);
MR_LPU_AT(mr_lpu_cmd_queue_create, sq_iova, 16);
MR_LPU_AT(mr_lpu_cmd_queue_create, record_entries, 40);

struct mr_lpu_cmd_queue_delete {
	struct mr_lpu_head head;
	uint32_t queue;
	uint32_t reserved0;
	uint64_t reserved[6];
};
MR_LPU_SIZE(mr_lpu_cmd_queue_delete, 64);

/* result: bytes written. */
struct mr_lpu_cmd_get_log {
	struct mr_lpu_head head;
	uint64_t iova;   /* to be written */
	uint32_t bytes;  /* room there */
	uint32_t log;    /* MR_LPU_LOG_* */
	uint64_t offset; /* into the log; at its end, 0 bytes are written */
	uint64_t reserved[4];
};
MR_LPU_SIZE(mr_lpu_cmd_get_log, 64);
#define MR_LPU_LOG_COUNTERS 1u /* struct mr_lpu_counters */
#define MR_LPU_LOG_CHIP     2u /* the chip file's text, identify.chip_bytes long */
#define MR_LPU_LOG_ERRORS   3u /* optional: struct mr_lpu_error[], oldest first */
#define MR_LPU_LOG_HEALTH   4u /* optional, as all below: struct mr_lpu_health */
#define MR_LPU_LOG_FIRMWARE 5u /* struct mr_lpu_firmware_log */
#define MR_LPU_LOG_CRASH    6u /* struct mr_lpu_crash; 0 bytes where there was none */
#define MR_LPU_LOG_POWER    7u /* struct mr_lpu_power */

/*
 * Reads a feature, or sets it and reads it back; see the table of them below. result: its value.
 *   E_INVALID        a reserved field set; @queue, @value or @iova where the feature or action has none
 *   E_NOT_SUPPORTED  the device has not this feature
 *   E_RANGE          @action; @value outside the feature's range; no such @queue; @iova not aligned
 *   E_NOT_FOUND      @queue was not created
 *   E_BUSY           QUEUES while an I/O queue is there
 *   E_DMA_FAULT      SHADOW: @iova is not mapped for reading and writing
 */
struct mr_lpu_cmd_features {
	struct mr_lpu_head head;
	uint32_t feature; /* MR_LPU_FEATURE_* */
	uint32_t action;  /* MR_LPU_FEATURE_GET or _SET */
	uint32_t value;   /* SET: the new value; else 0 */
	uint32_t queue;   /* COALESCE: 1 to queues_max; else 0 */
	uint64_t iova;    /* SHADOW set to 1: of the array, 64-byte aligned; else 0 */
	uint64_t reserved[4];
};
MR_LPU_SIZE(mr_lpu_cmd_features, 64);
MR_LPU_AT(mr_lpu_cmd_features, queue, 20);
MR_LPU_AT(mr_lpu_cmd_features, iova, 24);
#define MR_LPU_FEATURE_GET 1u
#define MR_LPU_FEATURE_SET 2u

/* Each has its reset value again after every reset. */
#define MR_LPU_FEATURE_QUEUES   1u /* I/O queues that may be created, 1 to queues_max; queues_max */
#define MR_LPU_FEATURE_COALESCE 2u /* of a queue, see MR_LPU_COALESCE_*; 0 */
#define MR_LPU_FEATURE_HEARTBEAT_MS \
	3u /* HEARTBEAT changes at least once in so long, 10 to 60000; 1000 */
#define MR_LPU_FEATURE_TEMP_OVER_MK  4u /* event at or above so many millikelvin; 358150; 0 = none */
#define MR_LPU_FEATURE_TEMP_UNDER_MK 5u /* event at or below; 0 = none */
#define MR_LPU_FEATURE_EVENTS        6u /* bit n: events of type n are told; MR_LPU_EVENTS_ALL */
#define MR_LPU_FEATURE_SHADOW        7u /* 1 = shadow doorbells at iova; 0 */

/*
 * COALESCE: an armed queue raises its vector when so many entries are visible since it was armed, or so
 * many microseconds after the first of them, whichever is first. 0 entries = at once, and then the time is
 * 0 too; else the time is 1 to MR_LPU_COALESCE_US_MAX.
 */
#define MR_LPU_COALESCE(entries, us) ((uint32_t)(entries) | (uint32_t)(us) << 8)
#define MR_LPU_COALESCE_ENTRIES(v)   ((v)&0xffu)
#define MR_LPU_COALESCE_US(v)        ((v) >> 8)
#define MR_LPU_COALESCE_US_MAX       1000000u

/*
 * Stays outstanding until the device has something to say, and then completes; at most
 * identify.async_max of them at a time, one more is E_FULL. It completes out of order, and does not hold
 * up what was submitted after it. result: MR_LPU_EVENT_*. After an event of a type, no other of that type
 * is told until the host has read the log that the event names.
 */
struct mr_lpu_cmd_async_event {
	struct mr_lpu_head head;
	uint64_t reserved[7];
};
MR_LPU_SIZE(mr_lpu_cmd_async_event, 64);
#define MR_LPU_EVENT(type, log, info) \
	((uint32_t)(type) | (uint32_t)(log) << 8 | (uint32_t)(info) << 16)
#define MR_LPU_EVENT_TYPE(result) ((result)&0xffu)           /* MR_LPU_EVENT_*, below */
#define MR_LPU_EVENT_LOG(result)  ((result) >> 8 & 0xffu)    /* MR_LPU_LOG_*: read it */
#define MR_LPU_EVENT_INFO(result) ((result) >> 16 & 0xffffu) /* by type */

#define MR_LPU_EVENT_DOORBELL 1u /* an index was ignored; log COUNTERS; info: queue */
#define MR_LPU_EVENT_ERROR \
	2u /* a DMA fault or E_DEVICE; log ERRORS; info: status, as in a completion */
#define MR_LPU_EVENT_TEMPERATURE \
	3u                  /* a threshold was passed; log POWER; info: MR_LPU_TEMPERATURE_* */
#define MR_LPU_EVENT_ECC 4u /* words of SRAM were wrong; log HEALTH; info: 1 corrected, 2 not */
#define MR_LPU_EVENT_FIRMWARE \
	5u /* other firmware runs since the reset; log FIRMWARE; info: its slot */
#define MR_LPU_EVENT_CRASH       6u /* a crash dump is there; log CRASH; info: its cause */
#define MR_LPU_EVENTS_ALL        0x7eu
#define MR_LPU_TEMPERATURE_OVER  1u
#define MR_LPU_TEMPERATURE_UNDER 2u

/*
 * Ends the command @target of queue @queue: one that waits is not started, a DECODE or SCORE that runs ends
 * before its next step or pass. The target completes once and in its turn, with E_CANCELLED, or as if
 * nothing had been said where it was too late. On the admin queue only an ASYNC_EVENT can be ended.
 * result: 1 = the target will end with E_CANCELLED, 0 = it is not there or cannot be ended any more.
 */
struct mr_lpu_cmd_abort {
	struct mr_lpu_head head;
	uint32_t queue;  /* 0 to queues_max; E_NOT_FOUND where it is not there */
	uint32_t target; /* its request id */
	uint64_t reserved[6];
};
MR_LPU_SIZE(mr_lpu_cmd_abort, 64);
MR_LPU_AT(mr_lpu_cmd_abort, target, 12);

/*
 * BEGIN, then WRITEs of the whole container in order without gaps, VERIFY, ACTIVATE. The metadata
 * (header, tables, payload) is checked as soon as it is complete, before any byte of a segment is
 * taken; segments go straight to SRAM; VERIFY checks their hash. BEGIN ends the active program and
 * is refused with E_BUSY while a slot is open. Any refusal of WRITE or VERIFY drops the container:
 * begin again.
 */
struct mr_lpu_cmd_program {
	struct mr_lpu_head head;
	uint32_t action; /* MR_LPU_PROGRAM_* */
	uint32_t reserved0;
	uint64_t iova;   /* WRITE: to be read; else 0 */
	uint64_t offset; /* WRITE: in the container; else 0 */
	uint64_t bytes;  /* BEGIN: of the container; WRITE: of this piece, 1 to 2^30; else 0 */
	uint64_t reserved[3];
};
MR_LPU_SIZE(mr_lpu_cmd_program, 64);
#define MR_LPU_PROGRAM_BEGIN    1u
#define MR_LPU_PROGRAM_WRITE    2u
#define MR_LPU_PROGRAM_VERIFY   3u
#define MR_LPU_PROGRAM_ACTIVATE 4u

/*
 * DOWNLOADs of a whole image in order (offset 0 begins anew), VERIFY into a slot that does not run,
 * ACTIVATE: the slot's firmware runs from the next reset on. A refused DOWNLOAD or VERIFY drops the image.
 *   E_INVALID        a reserved field set, or a field that the action does not have
 *   E_RANGE          @action, @slot, @bytes, an @offset that does not follow, more than firmware_max
 *   E_BUSY           VERIFY into the slot that runs
 *   E_NOT_ACTIVE     VERIFY with nothing downloaded
 *   E_NOT_FOUND      ACTIVATE of an empty slot
 *   E_FORMAT, E_VERSION, E_TRUNCATED, E_CHECKSUM, E_NOT_SUPPORTED (another product): the image
 */
struct mr_lpu_cmd_firmware {
	struct mr_lpu_head head;
	uint32_t action; /* MR_LPU_FIRMWARE_* */
	uint32_t slot;   /* VERIFY, ACTIVATE: from 1; else 0 */
	uint64_t iova;   /* DOWNLOAD: to be read; else 0 */
	uint64_t offset; /* DOWNLOAD: in the image; else 0 */
	uint64_t bytes;  /* DOWNLOAD: of this piece, 1 or more; else 0 */
	uint64_t reserved[3];
};
MR_LPU_SIZE(mr_lpu_cmd_firmware, 64);
MR_LPU_AT(mr_lpu_cmd_firmware, iova, 16);
#define MR_LPU_FIRMWARE_DOWNLOAD 1u
#define MR_LPU_FIRMWARE_VERIFY   2u
#define MR_LPU_FIRMWARE_ACTIVATE 3u

/*
 * Completes, and then CONTROL.ENABLE becomes 0 by itself, with all that this means. ALL also drops the
 * program. The host waits for READY = 0 and brings the device up again.
 */
struct mr_lpu_cmd_reset {
	struct mr_lpu_head head;
	uint32_t kind; /* MR_LPU_RESET_*; E_RANGE */
	uint32_t reserved0;
	uint64_t reserved[6];
};
MR_LPU_SIZE(mr_lpu_cmd_reset, 64);
#define MR_LPU_RESET_CONTROLLER 1u
#define MR_LPU_RESET_ALL        2u

/*
 * Opens a slot that is free, with @generation. KV for param.positions is reserved in SRAM at once,
 * or E_KV_EXHAUSTED; E_CONTEXT_FULL where it is more than the program's context; E_EXISTS where the
 * slot is open.
 */
struct mr_lpu_cmd_slot_set {
	struct mr_lpu_head head;
	uint32_t slot;
	uint32_t generation;
	uint64_t param_iova;  /* struct mr_lpu_slot_param, read before the completion */
	uint32_t param_bytes; /* its size */
	uint32_t reserved0;
	uint64_t reserved[4];
};
MR_LPU_SIZE(mr_lpu_cmd_slot_set, 64);
MR_LPU_AT(mr_lpu_cmd_slot_set, param_iova, 16);

struct mr_lpu_slot_param {
	uint32_t owner;     /* the sequence; KV descriptors must repeat it */
	uint32_t positions; /* 1 to the program's context: prompt and answer together */
	struct mr_sampling sampling;
	uint64_t history_iova; /* ids (u32) before the first one fed, oldest first, for penalties */
	uint32_t history_count; /* 0 to MR_LPU_HISTORY_MAX; 0 = none, then history_iova is 0 */
	uint32_t reserved0;
	uint64_t reserved[5];
};
#define MR_LPU_HISTORY_MAX 64u /* ids of a sequence that penalties look back at */
MR_LPU_SIZE(mr_lpu_slot_param, 128);
MR_LPU_AT(mr_lpu_slot_param, sampling, 8);
MR_LPU_AT(mr_lpu_slot_param, history_iova, 72);

#define MR_KV_BLOCK_TOKENS 16u
#define MR_KV_DESCS_MAX    128u

/* A KV block of one layer on its way to a device. 32 bytes. */
struct mr_kv_desc {
	uint64_t iova;       /* of K[kv_head][16][head_dim] then V, FP16 */
	uint32_t block;      /* index in the sequence: its first position / 16 */
	uint16_t layer;      /* from 0 */
	uint16_t length;     /* positions of the block that hold KV, 1..16 */
	uint32_t owner;      /* the sequence that holds the block */
	uint32_t generation; /* of the slot that is to receive it */
	uint32_t crc32c;     /* of the block's bytes, all 16 positions */
	uint32_t reserved;   /* 0 */
};
MR_LPU_SIZE(mr_kv_desc, 32);
MR_LPU_AT(mr_kv_desc, block, 8);
MR_LPU_AT(mr_kv_desc, layer, 12);
MR_LPU_AT(mr_kv_desc, owner, 16);
MR_LPU_AT(mr_kv_desc, crc32c, 24);

/*
 * Takes KV blocks by DMA. Owner or generation that differ: E_STALE. A block shorter than what the
 * slot holds of it already: E_TRUNCATED. CRC32C of the bytes as they arrived in SRAM: E_CHECKSUM;
 * the blocks before it are in, it is not, and its positions count as missing. result: blocks taken.
 */
struct mr_lpu_cmd_kv_write {
	struct mr_lpu_head head;
	uint32_t slot;
	uint32_t generation;
	uint64_t descs_iova; /* struct mr_kv_desc[count] */
	uint32_t count;      /* 1 to MR_KV_DESCS_MAX */
	uint32_t reserved0;
	uint64_t reserved[4];
};
MR_LPU_SIZE(mr_lpu_cmd_kv_write, 64);
MR_LPU_AT(mr_lpu_cmd_kv_write, descs_iova, 16);

/*
 * Writes @count blocks of @layer, from @block on, to host memory side by side, and a descriptor of each:
 * with the IOVA where it lies, how many positions hold KV, CRC32C of the bytes as they were sent, @owner
 * and @receiver as its generation. So another slot can take them by KV_WRITE. Positions that hold no KV
 * are sent as zeros. result: blocks written, also where the command fails.
 *   E_INVALID        a reserved field set
 *   E_STALE          @slot is not open, or its generation is another
 *   E_BUSY           a command of another queue uses the slot
 *   E_RANGE          @slot, @layer, @count, a block that the slot has not reserved, @iova not aligned
 *   E_TRUNCATED      a block without KV: those before it are written
 *   E_DMA_FAULT      @iova or @descs_iova is not mapped for writing
 */
struct mr_lpu_cmd_kv_read {
	struct mr_lpu_head head;
	uint32_t slot;
	uint32_t generation;
	uint64_t iova;       /* 64-byte aligned */
	uint64_t descs_iova; /* struct mr_kv_desc[count], each written after its block */
	uint32_t layer;
	uint32_t block;    /* the first one's index in the sequence */
	uint32_t count;    /* 1 to MR_KV_DESCS_MAX */
	uint32_t owner;    /* for the descriptors: the receiving slot's */
	uint32_t receiver; /* its generation */
	uint32_t reserved0;
	uint64_t reserved[1];
};
MR_LPU_SIZE(mr_lpu_cmd_kv_read, 64);
MR_LPU_AT(mr_lpu_cmd_kv_read, descs_iova, 24);
MR_LPU_AT(mr_lpu_cmd_kv_read, owner, 44);

/*
 * Opens slot @slot with @generation, as SLOT_SET does, over the first @positions positions of slot
 * @from. Whole blocks below are shared by reference; the block in which @positions ends is copied
 * within SRAM; blocks for the rest of param.positions are reserved. @from is as it was, and may go on
 * or close at once. Sampling and history are the param's: none of @from's is taken over.
 *   E_INVALID        a reserved field set; a history_iova without a history_count
 *   E_RANGE          @slot, @from, param_bytes, a param's number or an id of the history
 *   E_EXISTS         @slot is open
 *   E_STALE          @from is not open, or its generation is another
 *   E_BUSY           a command of another queue uses @from
 *   E_DMA_FAULT      the param or the history is not mapped
 *   E_CONTEXT_FULL   param.positions is more than the program's context, or less than @positions
 *   E_TRUNCATED      some layer of @from lacks KV for a position below @positions
 *   E_KV_EXHAUSTED   fewer blocks are free than are needed beyond the shared ones
 * Afterwards a block that more than one slot holds may not be written: KV_WRITE into it, and a DECODE
 * or SCORE whose position lies in it, is E_BUSY. It may be again when one slot is left.
 */
struct mr_lpu_cmd_kv_fork {
	struct mr_lpu_head head;
	uint32_t slot; /* the new one */
	uint32_t generation;
	uint64_t param_iova;  /* struct mr_lpu_slot_param, read before the completion */
	uint32_t param_bytes; /* its size */
	uint32_t from;
	uint32_t from_generation;
	uint32_t positions; /* 0 to param.positions */
	uint64_t reserved[3];
};
MR_LPU_SIZE(mr_lpu_cmd_kv_fork, 64);
MR_LPU_AT(mr_lpu_cmd_kv_fork, param_iova, 16);
MR_LPU_AT(mr_lpu_cmd_kv_fork, from_generation, 32);

/* Closes a slot and frees its KV: the blocks that no other slot holds. */
struct mr_lpu_cmd_kv_free {
	struct mr_lpu_head head;
	uint32_t slot;
	uint32_t generation;
	uint64_t reserved[6];
};
MR_LPU_SIZE(mr_lpu_cmd_kv_free, 64);

/*
 * @steps steps for each of @count entries; one record an entry and step, in order of step, then
 * entry. A slot that made one of its stop tokens keeps its place, and its cycles, until the DECODE
 * ends, and makes no more records. All entries are checked before the first step: a refused DECODE
 * has made no record. result: records made.
 */
struct mr_lpu_cmd_decode {
	struct mr_lpu_head head;
	uint64_t entries_iova; /* struct mr_lpu_decode_entry[count], read before the first record */
	uint32_t count; /* 1 to the program's batch and to record_entries; a slot may appear once */
	uint32_t steps; /* 1 to steps_max */
	uint32_t logits_stride; /* bytes between the logits of two steps, a multiple of 4, at least
				 * 4 * vocabulary; 0 where no entry asks for logits */
	uint32_t mask_stride;   /* bytes between the masks of two steps, a multiple of 4; 0 where no
				 * entry has one */
	uint32_t top;           /* n of the top-n, 0 to top_max; 0 where no entry asks for them */
	uint32_t reserved0;
	uint64_t reserved[3];
};
MR_LPU_SIZE(mr_lpu_cmd_decode, 64);
MR_LPU_AT(mr_lpu_cmd_decode, top, 32);
MR_LPU_AT(mr_lpu_cmd_decode, entries_iova, 8);
MR_LPU_AT(mr_lpu_cmd_decode, logits_stride, 24);

struct mr_lpu_decode_entry {
	uint32_t slot;
	uint32_t generation;
	uint32_t position;    /* of @token: KV for all positions below must be there (E_TRUNCATED);
			       * what the slot holds from here on is forgotten */
	uint32_t token;       /* fed at step 0 */
	uint64_t forced_iova; /* u32[forced_count], fed at step 1, 2, ... instead of the sampled ids
			       */
	uint64_t logits_iova; /* 0 = none; else where float[vocabulary] of step 0 goes, 4-byte
				 aligned */
	uint64_t
		mask_iova; /* optional, 0 = none; else where struct mr_lpu_mask of step 0 lies, 4-byte
			     * aligned */
	uint32_t forced_count; /* 0, or steps - 1; stop tokens stop a forced slot too */
	uint32_t flags;        /* none defined: 0 */
	uint64_t top_iova; /* optional, 0 = none; else where struct mr_lpu_top[top] of step 0 goes,
				* those of the next step after it; 8-byte aligned */
	uint64_t reserved[1];
};
MR_LPU_SIZE(mr_lpu_decode_entry, 64);
MR_LPU_AT(mr_lpu_decode_entry, forced_iova, 16);
MR_LPU_AT(mr_lpu_decode_entry, forced_count, 40);
MR_LPU_AT(mr_lpu_decode_entry, top_iova, 48);

/*
 * What SAMPLE may choose: bit i of word i / 32 of allowed[ceil(vocabulary / 32)], which follows this
 * header. The host writes @position last (release); the device reads it first (acquire), at SAMPLE, so that
 * the host can make the mask while the step runs. Another position than the record's: E_MASK_LATE, and no
 * token. A mask that allows none: E_RANGE.
 */
struct mr_lpu_mask {
	uint32_t position; /* of the token to be made */
};
MR_LPU_SIZE(mr_lpu_mask, 4);

/* One of the best tokens under the unmodified logits, best first, ties by ascending id. */
struct mr_lpu_top {
	uint32_t token;
	float logprob; /* ln p(token) */
};
MR_LPU_SIZE(mr_lpu_top, 8);

/*
 * Log-probabilities of given tokens: feeds tokens[0] to [count - 2] at @position and on, and makes a
 * record for each of tokens[1] to [count - 1] with that token, its position, and its log-probability
 * after all before it. Sampling, stop tokens and history play no part and stay as they are; a
 * record's status is 0. KV of what was fed is in the slot afterwards, as DECODE would have left it.
 * The tokens run in passes of as many as the program's batch or the record ring holds, whichever is
 * less; a pass of n tokens costs the cycles of a step of n slots, row i with the blocks up to its own
 * position. A pass waits until there is record credit for all of it. All is checked before the first
 * pass. result: records made.
 *   E_INVALID        a reserved field set
 *   E_NOT_ACTIVE     no program
 *   E_RANGE          @slot, @count or a token
 *   E_STALE          @slot is not open, or its generation is another
 *   E_BUSY           a command of another queue uses the slot, or @position lies in a shared block
 *   E_CONTEXT_FULL   @position + count - 1 is more than the slot has reserved
 *   E_TRUNCATED      KV is missing below @position
 *   E_DMA_FAULT      the tokens are not mapped
 */
struct mr_lpu_cmd_score {
	struct mr_lpu_head head;
	uint32_t slot;
	uint32_t generation;
	uint64_t tokens_iova; /* u32[count], read before the first record */
	uint32_t count;       /* 2 to identify.score_max */
	uint32_t position;    /* of tokens[0]; what the slot holds from here on is forgotten */
	uint64_t reserved[4];
};
MR_LPU_SIZE(mr_lpu_cmd_score, 64);
MR_LPU_AT(mr_lpu_cmd_score, tokens_iova, 16);
MR_LPU_AT(mr_lpu_cmd_score, position, 28);

/*
 * Runs one epoch of a program over activations from the host: what a model that is split between devices
 * sends each step. Layout only: no payload kind of today has such an epoch, and a device without one says
 * E_NOT_SUPPORTED. result: rows written.
 */
struct mr_lpu_cmd_exec {
	struct mr_lpu_head head;
	uint32_t epoch;      /* index into the container's EPOCH table */
	uint32_t rows;       /* 1 to the program's batch */
	uint64_t in_iova;    /* activations of row 0, 64-byte aligned */
	uint64_t out_iova;   /* where those of row 0 go, 64-byte aligned */
	uint32_t in_stride;  /* bytes between two rows, a multiple of 64 */
	uint32_t out_stride; /* the same */
	uint64_t reserved[3];
};
MR_LPU_SIZE(mr_lpu_cmd_exec, 64);
MR_LPU_AT(mr_lpu_cmd_exec, in_iova, 16);
MR_LPU_AT(mr_lpu_cmd_exec, in_stride, 32);

#include <millrace/lpu_log.h> /* IDENTIFY's answer, the log pages, the firmware image */

#endif /* MILLRACE_LPU_SPEC_H */
