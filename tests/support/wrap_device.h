/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device around another one, for tests: hands events out late, makes chosen calls or events fail, and
 * looks at every import. What it is not told to disturb, it forwards.
 */
#ifndef MR_TESTS_WRAP_DEVICE_H
#define MR_TESTS_WRAP_DEVICE_H

#include "driver/device.h"

/* Makes one call fail: the @after-th from now (0 = the next) returns @status. */
struct wrap_fault {
	int32_t status; /* 0 = none */
	uint32_t after;
	int in_event; /* 1 = the call passes and its DONE carries the status */
};

struct wrap_device {
	struct mr_device dev; /* give this to the orchestrator */
	struct mr_device *inner;
	uint32_t lag;  /* 0 = none; else a poll hands out fewer than @lag events, by @seed */
	uint64_t seed; /* of a xorshift generator */
	struct wrap_fault prefill, import, decode;
	/* Sees each import before the device does; may change memory, the descriptors too. */
	void (*on_import)(void *arg, struct mr_kv_desc *descs, uint32_t count);
	/* Sees each event on its way out. */
	void (*on_event)(void *arg, const struct mr_event *event);
	void *arg;
	int32_t lost; /* not 0: poll and reset return it */
	uint64_t in_event_tag[3];
	int32_t in_event_status[3];
	uint32_t decodes, imports, prefills, most_entries, most_steps;
};

/* @inner stays the caller's. The wrap takes its caps as they are now. */
void wrap_device(struct wrap_device *wrap, struct mr_device *inner);
uint64_t wrap_random(uint64_t *seed);

#endif /* MR_TESTS_WRAP_DEVICE_H */
