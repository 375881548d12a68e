/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weight layouts: rows interleaved by 16, so that a vector lane is an output row. Made once at load (by
 * driver/cpu) or at compile time (by driver/compile); the LPU's chip `mr1` holds the first two in SRAM.
 *
 * Rows are padded to a multiple of 16 with zeros; cols is a multiple of 32, of 256 with the _K types. For
 * each group of 16 rows, for each block of 32 or 256 columns in order:
 *   Q4_1X16, 320 bytes: 256 of nibbles, then 16 FP16 scales, then 16 FP16 minima. Nibble bytes are 4
 *     groups g of 64; byte 4r+j of group g holds, for row r, column 4g+j in its low nibble and column
 *     16+4g+j in its high nibble.
 *   Q8_0X16, 544 bytes: 512 of int8 in 8 groups g of 64 (byte 4r+j of group g is row r, column 4g+j),
 *     then 16 FP16 scales.
 *   Q4_0X16, 288 bytes: 256 of nibbles as Q4_1X16's, then 16 FP16 scales; a weight is nibble - 8.
 *   Q4_KX16, 2,368 bytes for 256 columns: 16 FP16 scales of scales, 16 FP16 scales of minima, then for
 *     each 32 columns 256 of nibbles as Q4_1X16's, 16 bytes of scales, 16 of minima.
 *   Q5_KX16, 2,880 bytes: the same with 64 bytes of fifth bits between nibbles and scales; of byte 4r+j,
 *     bit g belongs to column 4g+j and bit 4+g to column 16+4g+j.
 *   Q6_KX16, 3,360 bytes: 16 FP16 scales of scales, then for each 32 columns 256 of nibbles, 64 of upper
 *     bits for columns 0 to 15 and 64 for 16 to 31 (bits 2g and 2g+1 of byte 4r+j), 16 int8 scales for
 *     columns 0 to 15 and 16 for 16 to 31; a weight is value - 32.
 *   F32X16, F16X16, BF16X16: for each column the 16 rows' values.
 *   BF16_TILES, 1,024 bytes for 32 columns: 16 rows of a tile, of 64 bytes; tile row k holds, for each of
 *     the 16 rows in turn, columns 2k and 2k+1. Made from any of the others, values rounded to BF16.
 */
#ifndef MR_KERNELS_CPU_PACK_H
#define MR_KERNELS_CPU_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/layer.h"

#define MR_Q4_1X16_BYTES   320u /* of 16 rows by 32 columns */
#define MR_Q8_0X16_BYTES   544u
#define MR_Q4_0X16_BYTES   288u
#define MR_F32X16_BYTES    2048u
#define MR_F16X16_BYTES    1024u
#define MR_BF16_TILE_BYTES 1024u
#define MR_Q4_KX16_STEP    288u /* of 32 columns, without what all 256 share */
#define MR_Q5_KX16_STEP    352u
#define MR_Q6_KX16_STEP    416u
#define MR_Q4_KX16_BYTES   (64u + 8 * MR_Q4_KX16_STEP) /* of 16 rows by 256 columns */
#define MR_Q5_KX16_BYTES   (64u + 8 * MR_Q5_KX16_STEP)
#define MR_Q6_KX16_BYTES   (32u + 8 * MR_Q6_KX16_STEP)

/* Bytes of a packed matrix; a multiple of 32. */
size_t mr_pack_bytes(enum mr_packing packing, uint32_t rows, uint32_t cols);

/* Packs a (rows, cols) matrix as the file has it, of the type that the packing names, into @dst. */
void mr_pack(enum mr_packing packing, const void *gguf_blocks, uint32_t rows, uint32_t cols,
	     void *dst);

/* Rows [@row0, @row1) of @m, multiples of 16 or its end, as MR_PACK_BF16_TILES into @dst, the whole matrix's. */
void mr_pack_tiles(const struct mr_matrix *m, uint32_t row0, uint32_t row1, void *dst);

/* Row @row as (cols) floats: the same bits as the reference dequantisation of the file's type. */
void mr_unpack_row(const struct mr_matrix *m, uint32_t row, float *x);

#endif /* MR_KERNELS_CPU_PACK_H */
