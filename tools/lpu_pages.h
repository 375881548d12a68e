/* SPDX-License-Identifier: Apache-2.0 */
/* The log pages of an LPU for people and as JSON. Used by `millrace lpu log` and `firmware`, and by tests. */
#ifndef MR_TOOLS_LPU_PAGES_H
#define MR_TOOLS_LPU_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <millrace/lpu_spec.h>

struct json_object;

#define LPU_PAGE_BYTES 65536u /* room that holds any page */

struct lpu_page {
	const char *name; /* "counters" */
	uint32_t log;     /* MR_LPU_LOG_* */
};
extern const struct lpu_page lpu_pages[7];

/* The page of that name, or NULL. */
const struct lpu_page *lpu_page_find(const char *name);
/*
 * Is @bytes a length that the page has? 0, or MR_E_TRUNCATED. The calls below are for those that it is for. The
 * device is not trusted: its texts are made printable, its numbers without a name shown as numbers.
 */
int lpu_page_check(const struct lpu_page *page, size_t bytes);
void lpu_page_print(FILE *out, const struct lpu_page *page, const void *data, size_t bytes);
struct json_object *lpu_page_json(const struct lpu_page *page, const void *data, size_t bytes);

/* "the firmware's own state" and the like, for MR_LPU_CRASH_*. */
const char *lpu_crash_cause(uint32_t cause);

#endif /* MR_TOOLS_LPU_PAGES_H */
