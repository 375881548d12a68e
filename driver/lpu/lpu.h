/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LPU driver: brings a device behind a bus up (identify, queues, records), loads a program compiled
 * for its chip, and serves struct mr_device on top.
 *
 * What it says of its own beside device.h: a DECODE whose entries ask for more logits rows (entries x steps)
 * than 32 MiB hold is MR_E_TOO_LARGE; slot_close never fails for an open slot; where the device refuses a
 * slot_open or kv_fork that was accepted here, work on that slot ends with the device's reason; reset brings the device up
 * again with its program, and every command under way ends with MR_E_DEVICE. A device that makes no progress
 * is dealt with as recover.h says: a command that was aborted for it ends with MR_E_TIMEOUT, and poll says
 * MR_E_TIMEOUT or MR_E_DEVICE where only a reset is left. The model must stay until the device is closed: a
 * function-level reset takes the program away, and it is loaded again.
 */
#ifndef MR_DRIVER_LPU_LPU_H
#define MR_DRIVER_LPU_LPU_H

#include <stddef.h>

#include "driver/device.h"

struct mr_arena;
struct mr_bus; /* driver/bus/bus.h */
struct mr_lpu_identify;

struct mr_lpu_options {
	struct mr_arena *arena; /* queues, records, readback; must outlive the device */
	struct mr_bus *bus;     /* owned by the device once open succeeds, closed with it */
	uint32_t queue_entries; /* of the I/O queue; 0 = 1024 */
	uint32_t slots;         /* to ask for; 0 = all that the device has */
	uint32_t context;       /* positions a slot the program is compiled for; 0 = the model's */
	uint32_t batch_max;     /* 0 = 64 */
	uint64_t timeout_ms;    /* for admin commands, and without progress; 0 = 5000 */
	uint32_t
		coalesce; /* MR_LPU_COALESCE(entries, us) of lpu_spec.h, where the device can; 0 = off */
	int no_shadow; /* 1 = every doorbell by the bus, also where the device has shadow doorbells */
	/* Nanoseconds of a clock that never goes back, for every time limit; NULL = CLOCK_MONOTONIC. */
	uint64_t (*now_ns)(void *arg);
	void *clock_arg;
	/* A line for an operator: events that the device tells, resets. NULL = silent. */
	void (*log)(void *arg, const char *line);
	void *log_arg;
};

/*
 * Returns 0, MR_E_VERSION (not a device this driver knows), MR_E_TIMEOUT, MR_E_PROTOCOL, MR_E_NO_MEMORY or
 * what the bus said.
 */
int mr_lpu_open(const struct mr_lpu_options *options, struct mr_device **dev);

/*
 * After work->load failed: one sentence with the numbers ("does not fit: ... bytes of matrices, ..."), or
 * "". @dev is one that mr_lpu_open made; valid until its next load or close.
 */
const char *mr_lpu_why(const struct mr_device *dev);

/* What the device said of itself when it was opened; lives as long as @dev. */
const struct mr_lpu_identify *mr_lpu_identity(const struct mr_device *dev);

/*
 * Sends a program container of any payload kind as it is, has it verified and activates it: only the device looks
 * into it. The device then runs it until another is loaded; this driver's slots are for programs that work->load
 * made. A set-up call; what is between @percent's calls is bytes sent. 0, MR_E_BUSY, or what the device said.
 */
int mr_lpu_load_container(struct mr_device *dev, const void *container, size_t bytes,
			  void (*percent)(void *arg, unsigned percent), void *arg);

/*
 * Posts a read of @count KV blocks (1 to MR_KV_DESCS_MAX) of @layer from @block on into the arena, with
 * descriptors that name @owner and @generation, as kv_import of another device or slot takes them. DONE of
 * @tag says when they are there; then *@descs holds them, and they and the blocks stay until the next call.
 * MR_E_BUSY while an earlier read is under way; MR_E_STALE, MR_E_RANGE, MR_E_FULL, MR_E_NOT_SUPPORTED. The
 * event's status is MR_E_TRUNCATED where a block holds no KV.
 */
int mr_lpu_kv_read(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		   uint32_t count, uint32_t owner, uint32_t generation,
		   const struct mr_kv_desc **descs, uint64_t tag);

/*
 * Posts a FENCE: DONE of @tag comes when all that was posted before has ended. The least that a device can be asked
 * for, so a round trip of it is the way's own. MR_E_FULL.
 */
int mr_lpu_fence(struct mr_device *dev, uint64_t tag);

/*
 * Reads the device's log @log (MR_LPU_LOG_* of lpu_spec.h) from its start: how many bytes came, at most
 * @bytes, or a negative status. A set-up call: it waits for the device, and sleeps meanwhile.
 */
int mr_lpu_log(struct mr_device *dev, uint32_t log, void *out, uint32_t bytes);

/*
 * A feature of the device (MR_LPU_FEATURE_* of lpu_spec.h; COALESCE is that of the one I/O queue). A reset puts
 * back all but what mr_lpu_options said. Set-up calls, as the next one. MR_E_NOT_SUPPORTED where the device
 * has it not, or for setting SHADOW.
 */
int mr_lpu_feature_get(struct mr_device *dev, uint32_t feature, uint32_t *value);
int mr_lpu_feature_set(struct mr_device *dev, uint32_t feature, uint32_t value);

/*
 * Sends a firmware image in pieces and has it verified into @slot; activate makes a slot's firmware run from the
 * next reset on. 0, MR_E_NOT_SUPPORTED, MR_E_TOO_LARGE, or what the device said of it; then what runs goes on
 * running. update is both. @percent may be NULL.
 */
int mr_lpu_firmware_download(struct mr_device *dev, const void *image, size_t bytes, uint32_t slot,
			     void (*percent)(void *arg, unsigned percent), void *arg);
int mr_lpu_firmware_activate(struct mr_device *dev, uint32_t slot);
int mr_lpu_firmware_update(struct mr_device *dev, const void *image, size_t bytes, uint32_t slot);

#endif /* MR_DRIVER_LPU_LPU_H */
