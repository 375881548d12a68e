// SPDX-License-Identifier: Apache-2.0
/* The metrics' descriptions, made from metrics.def. Their storage is driver/counters.c. */
#include "driver/metrics.h"

const struct mr_metric_info mr_metric_info[MR_METRIC_COUNT] = {
#define X(id, unit, owner, help) {#id, unit, #owner, help},
#include "driver/metrics.def"
#undef X
};
