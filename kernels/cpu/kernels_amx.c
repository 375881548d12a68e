// SPDX-License-Identifier: Apache-2.0
/* Class D with int8 tiles, and class P-amx-bf16, on a CPU that has AMX. */
#include "kernels/cpu/amx_table.h"

static const struct mr_kernels prompt =
	AMX_TABLE("amx", "P-amx-bf16", round_bf16, matmul_bf16, 1, NULL);

const struct mr_kernels mr_kernels_amx = AMX_TABLE("amx", "D", quantize, matmul_int8, 0, &prompt);
