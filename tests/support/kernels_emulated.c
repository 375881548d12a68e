// SPDX-License-Identifier: Apache-2.0
/* The source of the amx path over the emulated tile unit. */
#define MR_TILE_EMULATED
#include "kernels/cpu/amx_table.h"
#include "support/tile_emulated.h"

static const struct mr_kernels prompt =
	AMX_TABLE("amx-emulated", "P-amx-bf16", round_bf16, matmul_bf16, 1, NULL);

const struct mr_kernels kernels_emulated =
	AMX_TABLE("amx-emulated", "D", quantize, matmul_int8, 0, &prompt);
