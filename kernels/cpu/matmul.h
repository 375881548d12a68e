/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paths' tables and the matrix products that have a file of their own. For select.c and the
 * kernels_*.c only; everyone else asks mr_kernels_select.
 */
#ifndef MR_KERNELS_CPU_MATMUL_H
#define MR_KERNELS_CPU_MATMUL_H

#include "kernels/cpu/kernels.h"

extern const struct mr_kernels mr_kernels_scalar, mr_kernels_avx2, mr_kernels_avx512,
	mr_kernels_amx;

/* mr_kernels.matmul */
void mr_matmul_avx2(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		    uint32_t row0, uint32_t row1, const void *next);
void mr_matmul_avx512(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		      uint32_t row0, uint32_t row1, const void *next);
void mr_matmul_p_avx512(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
			uint32_t row0, uint32_t row1, const void *next);

/* mr_kernels.attention_rows of class P-avx512 */
void mr_attention_rows_avx512(const struct mr_attention_rows *a, float *scratch);

#endif /* MR_KERNELS_CPU_MATMUL_H */
