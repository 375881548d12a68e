// SPDX-License-Identifier: Apache-2.0
/* Classes D and P-avx512 on AVX-512: the kernels of lanes_kernels.h, the products of matmul_avx512.c. */
#include "kernels/cpu/lanes_attention.h"
#include "kernels/cpu/lanes_kernels.h"
#include "kernels/cpu/lanes_rows.h"
#include "kernels/cpu/matmul.h"

/* Class D's, and the sums of blocks as class P-avx512's products want them. */
static void quantize_scaled(const float *x, struct mr_q8 *out)
{
	size_t blocks = (size_t)out->rows * out->cols / 32;

	quantize(x, out);
	for (size_t b = 0; b < blocks; b++)
		out->scaled_sum[b] = out->scale[b] * (float)out->sum[b];
}

#define TABLE(class_name, quantize_fn, matmul_fn, rows_fn, prompt_table)                        \
	{                                                                                       \
		.name = "avx512", .numerics = class_name, .prompt = prompt_table,               \
		.quantize = quantize_fn, .matmul = matmul_fn, .rmsnorm = rmsnorm, .rope = rope, \
		.swiglu = swiglu, .add = add, .attention = attention, .attend = attend,         \
		.merge = merge, .attention_rows = rows_fn, .to_half = to_half, LANES_ROWS,      \
	}

static const struct mr_kernels prompt =
	TABLE("P-avx512", quantize_scaled, mr_matmul_p_avx512, mr_attention_rows_avx512, NULL);

const struct mr_kernels mr_kernels_avx512 = TABLE("D", quantize, mr_matmul_avx512, NULL, &prompt);
