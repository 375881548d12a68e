// SPDX-License-Identifier: Apache-2.0
/* Class D on AVX2: the kernels of lanes_kernels.h and the product of matmul_avx2.c. */
#include "kernels/cpu/lanes_attention.h"
#include "kernels/cpu/lanes_kernels.h"
#include "kernels/cpu/lanes_rows.h"
#include "kernels/cpu/matmul.h"

const struct mr_kernels mr_kernels_avx2 = {
	.name = "avx2",
	.numerics = "D",
	.quantize = quantize,
	.matmul = mr_matmul_avx2,
	.rmsnorm = rmsnorm,
	.rope = rope,
	.swiglu = swiglu,
	.add = add,
	.attention = attention,
	.attend = attend,
	.merge = merge,
	.to_half = to_half,
	LANES_ROWS,
};
