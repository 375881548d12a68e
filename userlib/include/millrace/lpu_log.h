/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second part of lpu_spec.h, which includes it: what the device tells of itself by IDENTIFY and
 * GET_LOG, and the header of a firmware image. Included by driver/, firmware-sim/ and tests; C11 and C++17.
 *
 * "Since power-on" outlives every reset, function-level reset included.
 */
#ifndef MILLRACE_LPU_LOG_H
#define MILLRACE_LPU_LOG_H

#include <millrace/lpu_spec.h>

#define MR_LPU_KV_FP16 1u

struct mr_lpu_identify {
	uint32_t magic;   /* MR_LPU_MAGIC */
	uint32_t version; /* as the register */
	char vendor[32];  /* NUL-terminated, as the texts below */
	char product[32]; /* the chip's name: "mr1" */
	char firmware[32];
	char classes[4][16]; /* numeric classes that it computes: "D" */
	uint32_t chips;
	uint32_t slots_max;        /* 1 to 65536 */
	uint32_t queues_max;       /* I/O queues, 1 or more */
	uint32_t ring_entries_max; /* of any ring */
	uint32_t batch_max;        /* entries of a DECODE */
	uint32_t steps_max;        /* steps of a DECODE */
	uint32_t context_max;      /* positions a slot */
	uint32_t kv_block_tokens;  /* MR_KV_BLOCK_TOKENS */
	uint32_t kv_type;          /* MR_LPU_KV_FP16 */
	uint32_t chip_bytes;       /* of the log MR_LPU_LOG_CHIP */
	uint64_t sram_bytes;       /* of one chip */
	uint64_t cycle_ps;         /* picoseconds a cycle */
	uint64_t opcodes_admin;    /* bit n: admin opcode n is built */
	uint64_t opcodes_io;       /* bit n: I/O opcode 0x80 + n is built */
	uint8_t chip_hash[32];     /* SHA-256 of the parsed chip file: a container must carry it */
	uint32_t score_max;        /* tokens of a SCORE; 0 = no SCORE */
	uint32_t async_max;        /* ASYNC_EVENTs outstanding; 0 = no ASYNC_EVENT */
	uint32_t options;          /* MR_LPU_OPTION_* */
	uint32_t top_max;          /* n of a DECODE's top-n; 0 = none */
	uint64_t features;         /* bit n: feature n is there */
	uint64_t logs;             /* bit n: log n is there */
	uint64_t firmware_max;     /* bytes of a firmware image; 0 = no FIRMWARE */
	uint32_t firmware_slots;   /* 0 to MR_LPU_FIRMWARE_SLOTS_MAX */
	uint32_t reserved0;
	uint64_t reserved[24];
};
#define MR_LPU_OPTION_MASK 1u /* DECODE takes token masks */

MR_LPU_SIZE(mr_lpu_identify, 512);
MR_LPU_AT(mr_lpu_identify, classes, 104);
MR_LPU_AT(mr_lpu_identify, chips, 168);
MR_LPU_AT(mr_lpu_identify, sram_bytes, 208);
MR_LPU_AT(mr_lpu_identify, chip_hash, 240);
MR_LPU_AT(mr_lpu_identify, score_max, 272);
MR_LPU_AT(mr_lpu_identify, features, 288);
MR_LPU_AT(mr_lpu_identify, firmware_slots, 312);

/* MR_LPU_LOG_COUNTERS: since power-on. */
struct mr_lpu_counters {
	uint64_t commands; /* read from all queues */
	uint64_t completions;
	uint64_t records;
	uint64_t refused;      /* commands that ended with a status */
	uint64_t bad_opcode;   /* of those: not supported */
	uint64_t bad_reserved; /* reserved field or unknown flag set */
	uint64_t bad_range;
	uint64_t bad_kv; /* stale, short or corrupt descriptors */
	uint64_t bad_container;
	uint64_t bad_doorbell; /* indices that no ring could mean: ignored */
	uint64_t dma_faults;
	uint64_t dma_read_bytes; /* from host memory */
	uint64_t dma_write_bytes;
	uint64_t steps;         /* decode steps carried out */
	uint64_t cycles;        /* of all epochs */
	uint64_t credit_stalls; /* times that a step or pass waited for record credit */
	uint64_t kv_blocks;     /* of the active program, and how many of them are reserved now; */
	uint64_t kv_blocks_used;
	uint64_t kv_blocks_shared; /* of these, held by more than one slot now */
	uint64_t forks;            /* KV_FORKs carried out */
	uint64_t fork_copies;      /* blocks that they copied */
	uint64_t score_passes;     /* passes of SCOREs carried out */
	uint64_t score_records;    /* of records: those of SCOREs */
	uint64_t kv_read_blocks;   /* that KV_READs wrote to host memory */
	uint64_t aborted;          /* commands that ended with E_CANCELLED */
	uint64_t events;           /* ASYNC_EVENTs that told something */
	uint64_t interrupts;       /* vectors raised */
	uint64_t masked;           /* tokens chosen under a token mask */
	uint64_t mask_late;        /* DECODEs that ended with E_MASK_LATE */
	uint64_t violations;       /* passes whose cycles were not the CLAIM */
	uint64_t reserved[2];
};
MR_LPU_SIZE(mr_lpu_counters, 256);
MR_LPU_AT(mr_lpu_counters, kv_blocks, 128);

/* An entry of MR_LPU_LOG_ERRORS: a command that ended with a status. The log holds the latest of them. */
struct mr_lpu_error {
	uint64_t number;  /* of all since power-on, from 1; health.errors is the latest one's */
	uint64_t time_ms; /* since power-on */
	uint32_t request;
	uint16_t queue; /* 0 = admin */
	uint16_t opcode;
	uint16_t status;    /* as in the completion */
	uint16_t reserved0; /* 0 */
	uint32_t reserved1; /* 0 */
};
#define MR_LPU_ERRORS_MAX 64u /* entries of the log at most */
MR_LPU_SIZE(mr_lpu_error, 32);
MR_LPU_AT(mr_lpu_error, request, 16);
MR_LPU_AT(mr_lpu_error, status, 24);

/* MR_LPU_LOG_HEALTH: as it is when the log is read. What the device cannot measure is 0. */
struct mr_lpu_health {
	uint64_t uptime_ms;       /* since power-on */
	uint64_t errors;          /* commands that ended with a status, since power-on */
	uint64_t ecc_corrected;   /* words of SRAM, since power-on */
	uint64_t ecc_uncorrected; /* the same; any is an E_DEVICE of the command that met it */
	uint32_t power_mw;        /* milliwatts of the group */
	uint32_t temperature_mk;  /* millikelvin of the hottest chip */
	uint32_t chips_up;        /* of identify.chips */
	uint32_t resets;          /* times that CONTROL.ENABLE went from 1 to 0, since power-on */
	uint64_t reserved[8];
};
MR_LPU_SIZE(mr_lpu_health, 112);
MR_LPU_AT(mr_lpu_health, power_mw, 32);
MR_LPU_AT(mr_lpu_health, reserved, 48);

/* MR_LPU_LOG_FIRMWARE: what is in the slots, and what runs. */
#define MR_LPU_FIRMWARE_SLOTS_MAX 4u
struct mr_lpu_firmware_log {
	uint32_t slots;      /* as identify.firmware_slots */
	uint32_t running;    /* slot, from 1 */
	uint32_t next;       /* slot that the next reset starts; may be the same */
	uint32_t updates;    /* images verified into a slot, since power-on */
	char version[4][32]; /* of slot 1, 2, ...; "" = empty */
	uint64_t reserved[6];
};
MR_LPU_SIZE(mr_lpu_firmware_log, 192);
MR_LPU_AT(mr_lpu_firmware_log, version, 16);

/* What a firmware image begins with; @bytes of code follow. */
#define MR_LPU_FIRMWARE_MAGIC  0x57464c4du /* "MLFW" */
#define MR_LPU_FIRMWARE_FORMAT 1u
struct mr_lpu_firmware_image {
	uint32_t magic;
	uint32_t format;    /* MR_LPU_FIRMWARE_FORMAT */
	uint64_t bytes;     /* of code, after this header */
	char product[32];   /* as identify.product */
	char version[32];   /* NUL-terminated, not empty */
	uint8_t sha256[32]; /* of the code */
	uint64_t reserved[2];
};
MR_LPU_SIZE(mr_lpu_firmware_image, 128);
MR_LPU_AT(mr_lpu_firmware_image, product, 16);
MR_LPU_AT(mr_lpu_firmware_image, sha256, 80);

/* MR_LPU_LOG_CRASH: the latest time that the device gave up (STATUS.FATAL). It outlives resets. */
struct mr_lpu_crash {
	uint64_t number;   /* crashes since power-on */
	uint64_t time_ms;  /* of this one, since power-on */
	uint32_t cause;    /* MR_LPU_CRASH_* */
	uint32_t queue;    /* that was served, 0 = admin or none */
	uint32_t opcode;   /* of its latest command */
	uint32_t request;  /* the same */
	uint64_t iova;     /* RING: that could not be reached */
	uint64_t steps;    /* as in the counters then */
	char firmware[32]; /* that ran */
	char text[128];    /* of the firmware's own, for its maker; NUL-terminated */
	uint64_t reserved[6];
};
MR_LPU_SIZE(mr_lpu_crash, 256);
MR_LPU_AT(mr_lpu_crash, cause, 16);
MR_LPU_AT(mr_lpu_crash, firmware, 48);
MR_LPU_AT(mr_lpu_crash, text, 80);
#define MR_LPU_CRASH_ADMIN  1u /* the admin registers were not sound when ENABLE was set */
#define MR_LPU_CRASH_RING   2u /* a ring or the shadow doorbells could not be reached */
#define MR_LPU_CRASH_ASSERT 3u /* the firmware found its own state wrong */

/* MR_LPU_LOG_POWER. What the device cannot measure is 0. */
struct mr_lpu_power {
	uint32_t power_mw;       /* milliwatts of the group, now */
	uint32_t power_peak_mw;  /* highest since power-on */
	uint32_t temperature_mk; /* millikelvin of the hottest chip, now */
	uint32_t temperature_peak_mk;
	uint32_t over_mk; /* thresholds, as the features say */
	uint32_t under_mk;
	uint64_t energy_mj; /* millijoules since power-on */
	uint64_t reserved[4];
};
MR_LPU_SIZE(mr_lpu_power, 64);
MR_LPU_AT(mr_lpu_power, energy_mj, 24);

#endif /* MILLRACE_LPU_LOG_H */
