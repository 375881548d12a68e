/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of the amx path: class D with int8 tiles under its products, class P-amx-bf16 for prompts, and
 * everything else as on AVX-512. Written once over tile.h and compiled twice: kernels_amx.c for the CPU's
 * tile unit, tests/support/kernels_emulated.c for the emulated one.
 */
#ifndef MR_KERNELS_CPU_AMX_TABLE_H
#define MR_KERNELS_CPU_AMX_TABLE_H

#include "kernels/cpu/amx_bf16.h"
#include "kernels/cpu/amx_int8.h"
#include "kernels/cpu/lanes_attention.h"
#include "kernels/cpu/lanes_kernels.h"

#define AMX_TABLE(path, class_name, quantize_fn, matmul_fn, tiles_of_bf16, prompt_table)      \
	{                                                                                     \
		.name = path, .numerics = class_name, .prompt = prompt_table,                 \
		.tiles = tiles_of_bf16, .quantize = quantize_fn, .matmul = matmul_fn,         \
		.rmsnorm = rmsnorm, .rope = rope, .swiglu = swiglu, .add = add,               \
		.attention = attention, .attend = attend, .merge = merge, .to_half = to_half, \
	}

#endif /* MR_KERNELS_CPU_AMX_TABLE_H */
