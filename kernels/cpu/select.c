// SPDX-License-Identifier: Apache-2.0
/* Which path runs: asked by name, by the environment's MR_CPU, or the widest that the CPU has. */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <xmmintrin.h>

#include "kernels/cpu/matmul.h"

#define MXCSR_DEFAULT 0x1f80 /* all exceptions masked, round to nearest even, subnormals kept */

const struct mr_kernels *const mr_kernels_all[] = {
	&mr_kernels_scalar,
	&mr_kernels_avx2,
	&mr_kernels_avx512,
	NULL,
};

/* clang 14's __builtin_cpu_supports does not know the name. AVX, which fma implies, brings the registers. */
static int has_f16c(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* gcc's test reads CPUID and XCR0: the operating system must save the registers too. */
int mr_kernels_runnable(const struct mr_kernels *kern)
{
	if (!__builtin_cpu_supports("fma") || !has_f16c())
		return 0;
	if (kern == &mr_kernels_avx2)
		return __builtin_cpu_supports("avx2");
	if (kern == &mr_kernels_avx512)
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
		       __builtin_cpu_supports("avx512vnni");
	return 1;
}

const struct mr_kernels *mr_kernels_select(const char *name)
{
	const struct mr_kernels *widest = NULL;

	if (!name)
		name = getenv("MR_CPU");
	for (int i = 0; mr_kernels_all[i]; i++) {
		if (!mr_kernels_runnable(mr_kernels_all[i]))
			continue;
		if (name && !strcmp(name, mr_kernels_all[i]->name))
			return mr_kernels_all[i];
		widest = mr_kernels_all[i];
	}
	return name ? NULL : widest;
}

void mr_numerics_enter(void)
{
	_mm_setcsr(MXCSR_DEFAULT);
}
