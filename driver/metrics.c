// SPDX-License-Identifier: Apache-2.0
/* The counters' storage and their descriptions, both made from metrics.def. */
#include "driver/metrics.h"

uint64_t mr_metrics[MR_METRIC_COUNT] __attribute__((aligned(64)));

const struct mr_metric_info mr_metric_info[MR_METRIC_COUNT] = {
#define X(id, unit, owner, help) {#id, unit, #owner, help},
#include "driver/metrics.def"
#undef X
};
