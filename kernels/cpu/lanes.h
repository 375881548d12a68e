/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct lanes: 16 FP32 values that are worked on together, the unit in which class D states its
 * order of operations. Three versions with the same bits, picked by the compiler's flags, which
 * follow from the suffix of the file that is compiled (kernels_avx2.c, ...): lanes_scalar.h is the
 * one to read for the meaning.
 *
 * Included by lanes_kernels.h only.
 */
#ifndef MR_KERNELS_CPU_LANES_H
#define MR_KERNELS_CPU_LANES_H

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#include "kernels/cpu/lanes_avx512.h"
#elif defined(__AVX2__)
#include "kernels/cpu/lanes_avx2.h"
#else
#include "kernels/cpu/lanes_scalar.h"
#endif

#endif /* MR_KERNELS_CPU_LANES_H */
