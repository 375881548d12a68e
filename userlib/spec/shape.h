/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shape files: a workload that is not a model's file, as a list of matrix products. The compiler makes a
 * schedule of them, `millrace lpu validate` compares cycles with published figures.
 *
 * Text, at most MR_SHAPE_BYTES_MAX. A line is one of these; '#' starts a comment line:
 *
 *   name NAME               letters, digits, '-', '_', '.'
 *   type TYPE               of the products: i8, f16, f8, q4_1 or q8_0
 *   product NAME M K N TIMES
 *                           (M, K) activations times (K, N) weights, TIMES times one after the other,
 *                           each time with weights of its own
 *
 * name and type come once and before the first product; 1 to MR_SHAPE_PRODUCTS_MAX products.
 */
#ifndef MR_USERLIB_SPEC_SHAPE_H
#define MR_USERLIB_SPEC_SHAPE_H

#include <stddef.h>
#include <stdint.h>

#define MR_SHAPE_BYTES_MAX    65536u
#define MR_SHAPE_PRODUCTS_MAX 512u
#define MR_SHAPE_SIZE_MAX     (1u << 20) /* of M, K, N and TIMES */

struct mr_shape_product {
	char name[32];
	uint32_t m, k, n, times;
};

struct mr_shape_file {
	char name[32];
	uint32_t type; /* MR_CHIP_TYPE_* */
	uint32_t count;
	struct mr_shape_product product[MR_SHAPE_PRODUCTS_MAX];
};

/*
 * 0, MR_E_TOO_LARGE (bytes or products), MR_E_FORMAT (unknown, repeated, missing or misplaced line, not a
 * number) or MR_E_RANGE. @why (may be NULL) gets one sentence with the line's number. Any thread.
 */
int mr_shape_parse(const char *text, size_t bytes, struct mr_shape_file *out, char *why,
		   size_t why_bytes);

#endif /* MR_USERLIB_SPEC_SHAPE_H */
