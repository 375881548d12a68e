/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small assembler of LPU instructions, so that tests can be read. A line is an instruction; '#' starts a comment:
 *
 *   OP [type] [flag...] [key=value...]
 *
 * OP is a name of isa.h (of the ICU: NOP, LOOP, END). Types: f32 f16 q8 u32 q4_1 q8_0; registers of the ICU: slots, tiles,
 * blocks. Flags: SLOTS SLOT BLOCKS TILE. Keys: chip, peer, body, at (start), slope, every (interval), rows, cols, addr
 * (bytes), stride, imm0, imm1 (floats), a, b, c (source streams, or imm0, imm1), to (stream).
 */
#ifndef MR_TESTS_SUPPORT_ASSEMBLER_H
#define MR_TESTS_SUPPORT_ASSEMBLER_H

#include "userlib/spec/isa.h"

/* Fills up to @room instructions from @text and returns how many; a line that makes no sense fails the test. */
uint32_t assemble(const char *text, struct mr_isa *out, uint32_t room);

#endif /* MR_TESTS_SUPPORT_ASSEMBLER_H */
