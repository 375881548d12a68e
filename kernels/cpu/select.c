// SPDX-License-Identifier: Apache-2.0
/* Which path runs: asked by name, by the environment's MR_CPU, or the widest that the CPU has. */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xmmintrin.h>

#include "kernels/cpu/matmul.h"

#define ARCH_REQ_XCOMP_PERM 0x1023 /* <asm/prctl.h> of Linux 5.16 and later */
#define XFEATURE_XTILEDATA  18
#define MXCSR_DEFAULT       0x1f80 /* all exceptions masked, round to nearest even, subnormals kept */

const struct mr_kernels *const mr_kernels_all[] = {
	&mr_kernels_scalar, &mr_kernels_avx2, &mr_kernels_avx512, &mr_kernels_amx, NULL,
};

/* clang 14's __builtin_cpu_supports does not know the name. AVX, which fma implies, brings the registers. */
static int has_f16c(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/*
 * AMX with int8 and BF16, and tiles that the operating system saves (XCR0 bits 17 and 18), once a process
 * has asked for room for them: for itself and all its threads.
 */
static int has_amx(void)
{
	const unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25, state = 1u << 17 | 1u << 18;
	unsigned a, b, c, d, low, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 0;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted)
		return 0;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & state) == state &&
	       syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static int has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512vnni");
}

/* gcc's test reads CPUID and XCR0: the operating system must save the registers too. */
int mr_kernels_runnable(const struct mr_kernels *kern)
{
	if (!__builtin_cpu_supports("fma") || !has_f16c())
		return 0;
	if (kern == &mr_kernels_avx2)
		return __builtin_cpu_supports("avx2");
	if (kern == &mr_kernels_avx512)
		return has_avx512();
	if (kern == &mr_kernels_amx)
		return has_avx512() && has_amx();
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
