/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FP16 (IEEE binary16) to FP32 and back, one value at a time, by F16C, which every CPU that this
 * project supports has. To FP16 rounds to nearest even whatever MXCSR says. And FP32 to BF16.
 */
#ifndef MR_KERNELS_CPU_HALF_H
#define MR_KERNELS_CPU_HALF_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static inline float mr_half_to_float(uint16_t h)
{
	return _cvtsh_ss(h);
}

static inline uint16_t mr_float_to_half(float f)
{
	return (uint16_t)_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* FP32's upper half, rounded to nearest even; NaN stays NaN. */
static inline uint16_t mr_float_to_bf16(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, 4);
	if ((bits & 0x7fffffff) > 0x7f800000)
		return (uint16_t)((bits | 0x400000) >> 16);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif /* MR_KERNELS_CPU_HALF_H */
