/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tile unit (AMX, palette 1: eight tiles of up to 16 rows of 64 bytes) as the few operations that
 * amx_int8.h and amx_bf16.h are written in. They are the CPU's instructions, or, in an object built with
 * MR_TILE_EMULATED (tests only), calls of a unit in C that does what Intel's manual says of them.
 *
 * A thread configures the unit at the start of a product and releases it at the end, so that the kernel
 * has no tiles to save on a switch elsewhere. Tile numbers are constants.
 */
#ifndef MR_KERNELS_CPU_TILE_H
#define MR_KERNELS_CPU_TILE_H

#include <immintrin.h>
#include <stdint.h>

#define MR_TILE_ROWS  16u
#define MR_TILE_BYTES 64u /* of a row */

/* What LDTILECFG reads. A tile with 0 rows is not there. */
struct mr_tile_config {
	uint8_t palette, start_row, reserved[14];
	uint16_t row_bytes[8], reserved_bytes[8];
	uint8_t rows[8], reserved_rows[8];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct mr_tile_config) == 64, "LDTILECFG reads 64 bytes");

#ifdef MR_TILE_EMULATED

void mr_tile_emulated_configure(const struct mr_tile_config *config);
void mr_tile_emulated_release(void);
void mr_tile_emulated_zero(int to);
void mr_tile_emulated_load(int to, const void *from, long stride);
void mr_tile_emulated_store(int from, void *to, long stride);
void mr_tile_emulated_dot_int8(int to, int a, int b);
void mr_tile_emulated_dot_bf16(int to, int a, int b);

#define mr_tile_configure(config)       mr_tile_emulated_configure(config)
#define mr_tile_release()               mr_tile_emulated_release()
#define mr_tile_zero(to)                mr_tile_emulated_zero(to)
#define mr_tile_load(to, from, stride)  mr_tile_emulated_load(to, from, stride)
#define mr_tile_store(from, to, stride) mr_tile_emulated_store(from, to, stride)
#define mr_tile_dot_int8(to, a, b)      mr_tile_emulated_dot_int8(to, a, b)
#define mr_tile_dot_bf16(to, a, b)      mr_tile_emulated_dot_bf16(to, a, b)

#else

/*
 * gcc 12's _tile_loadconfig tells the optimiser of 8 of the 64 bytes that LDTILECFG reads, so that the rest of
 * a configuration on the stack may never be written; its TILELOADD of no memory at all.
 */
#define mr_tile_configure(config) \
	__asm__ __volatile__("ldtilecfg %0" : : "m"(*(const struct mr_tile_config *)(config)))
#define MR_TILE_STORES_DONE() __asm__ __volatile__("" : : : "memory")

#define mr_tile_release() _tile_release()
#define mr_tile_zero(to)  _tile_zero(to)
/* Rows of a tile, @stride bytes apart. */
#define mr_tile_load(to, from, stride)         \
	do {                                   \
		MR_TILE_STORES_DONE();         \
		_tile_loadd(to, from, stride); \
	} while (0)
#define mr_tile_store(from, to, stride) _tile_stored(from, to, stride)
/* to[m][n] += sum over k of a[m][k] * b[k / 4][4n + k % 4], int8 to int32 */
#define mr_tile_dot_int8(to, a, b)      _tile_dpbssd(to, a, b)
/* to[m][n] += sum over k of a[m][k] * b[k / 2][2n + k % 2], BF16 to FP32: numerics.rst says in what order */
#define mr_tile_dot_bf16(to, a, b)      _tile_dpbf16ps(to, a, b)

#endif

#endif /* MR_KERNELS_CPU_TILE_H */
