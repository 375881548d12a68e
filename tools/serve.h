/* SPDX-License-Identifier: Apache-2.0 */
/* What `millrace serve` and `millrace run` share: the loop and how it sleeps, the counters and the trace. */
#ifndef MR_TOOLS_SERVE_H
#define MR_TOOLS_SERVE_H

#include <stdint.h>
#include <stdio.h>

#include "driver/front.h"
#include "driver/sched/sched.h"
#include "tools/tools.h"

#define SERVE_FRONTS_MAX 2

#define SERVE_PATH_BYTES 4096

/* What others can see of the server. The first part is its options. */
struct serve_observe {
	const char *counters; /* NULL = a file of its own choice */
	const char *trace;    /* NULL = none */
	int no_counters;
	/* its own */
	char path[SERVE_PATH_BYTES]; /* of the counters file; "" = none */
	struct mr_device *devices[2];
	uint32_t device_count;
};

/* Before devices are opened. 0, or a status after one line on stderr. */
int serve_observe_open(struct serve_observe *o);
void serve_observe_devices(struct serve_observe *o, const struct tool_devices *devices);
/* From the loop, each turn. */
void serve_observe_beat(struct serve_observe *o, uint64_t now_ns);
/* After the devices were closed. The files stay. */
void serve_observe_close(struct serve_observe *o);
/* The counters file of a running server, or else of the last one, among those of its own choice. */
int serve_observe_find(char *path, size_t bytes);

enum serve_poll { SERVE_BUSY, SERVE_ADAPTIVE, SERVE_SLEEP };

struct serve_loop {
	struct mr_sched *sched;
	struct mr_device *devices[2]; /* the second NULL where one does both stages */
	struct mr_front fronts[SERVE_FRONTS_MAX];
	uint32_t front_count;
	enum serve_poll poll;
	struct serve_observe *observe; /* NULL = nobody looks */
	/* the loop's own */
	int epoll;
	uint64_t idle_since; /* 0 = the last turn had work */
	uint64_t turn_began;
};

/* Fills in epoll; 0 or MR_E_IO. */
int serve_loop_open(struct serve_loop *loop);
void serve_loop_close(struct serve_loop *loop);
/* One turn of the fronts and the orchestrator, then sleep where there is nothing to do. Returns what was done. */
int serve_loop_turn(struct serve_loop *loop);

/* Every metric that is not zero, one a line. */
void serve_metrics_print(FILE *out);
/* Every metric, and the machine's facts, as one JSON object in the file @path. 0, or -1 and errno. */
int serve_metrics_write(const char *path);
/* The same as one line on stdout. */
void serve_metrics_json(void);

#endif /* MR_TOOLS_SERVE_H */
