/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chip files: what one chip of an LPU is, as data. The compiler predicts from it, the simulator
 * executes from it, a container names it by hash; a device hands out its own (GET_LOG,
 * MR_LPU_LOG_CHIP).
 *
 * Text, UTF-8, at most MR_CHIP_BYTES_MAX. A line is `key value source`, blanks between; '#' starts
 * a comment line. Every key below must come exactly once, and every value must say where it is
 * from: a document's name, or `assumed` and why. The hash is over keys and values, so comments and
 * sources may change without making containers foreign.
 */
#ifndef MR_USERLIB_SPEC_CHIP_H
#define MR_USERLIB_SPEC_CHIP_H

#include <stddef.h>
#include <stdint.h>

#define MR_CHIP_BYTES_MAX 65536u

/* X(key, smallest, largest, "meaning, unit") */
#define MR_CHIP_VALUES(X)                                                                       \
	X(cycle_ps, 1, 1000000, "picoseconds a cycle")                                          \
	X(sram_bytes, 65536, 1ull << 40, "SRAM of one chip")                                    \
	X(sram_slices, 1, 4096, "slices that the SRAM is divided into")                         \
	X(sram_banks, 1, 64, "banks of a slice")                                                \
	X(sram_cycle_bytes, 1, 1 << 24, "bytes read from SRAM in a cycle")                      \
	X(plane_count, 1, 1024, "matrix planes")                                                \
	X(plane_rows, 1, 65536, "inputs of a plane")                                            \
	X(plane_cols, 1, 65536, "outputs of a plane")                                           \
	X(plane_latency, 0, 65536, "cycles from a plane's last input to its first output")      \
	X(install_cycle_bytes, 1, 1 << 24, "bytes of weights installed in planes in a cycle")   \
	X(vector_lanes, 1, 1 << 20, "elements that the vector unit takes in a cycle")           \
	X(vector_latency, 0, 65536, "cycles through the vector unit")                           \
	X(link_mbps, 1, 1 << 30, "megabits a second from a chip to the next")                   \
	X(hop_ps, 0, 1ull << 40, "picoseconds from a chip to the next, first bit to first bit") \
	X(sample_cycles, 0, 1 << 20, "cycles of SAMPLE beside its passes over the logits")      \
	X(record_cycles, 0, 1 << 20, "cycles to hand a record to the host's DMA")               \
	X(power_mw, 0, 1ull << 40, "milliwatts at full load")                                   \
	X(price_cents, 0, 1ull << 40, "US cents a chip")                                        \
	X(streams, 8, 128, "stream registers that units hand rows through")                     \
	X(mem_latency, 1, 65536, "cycles from SRAM to a stream, and from a stream to SRAM")     \
	X(read_ports, 3, 256, "READs and GATHERs that may be under way at a time")              \
	X(write_ports, 1, 256, "WRITEs and SCATTERs that may be under way at a time")           \
	X(vector_alus, 1, 256, "vector instructions that may be under way at a time")           \
	X(links, 1, 4096, "links of a chip to others")

#define MR_CHIP_TYPE_Q4_1 1u  /* q4_1 x q8 -> f32 */
#define MR_CHIP_TYPE_Q8_0 2u  /* q8_0 x q8 -> f32 */
#define MR_CHIP_TYPE_I8   4u  /* int8 x int8 -> int32 */
#define MR_CHIP_TYPE_F16  8u  /* FP16 x FP16 -> FP32 */
#define MR_CHIP_TYPE_F8   16u /* FP8 x FP8 -> FP32 */

struct mr_chip {
	char name[32];    /* key `name`: letters, digits, '-', '_', '.' */
	char classes[16]; /* key `class`: the numeric class that it computes, "D" */
	uint32_t types; /* key `types`: comma-separated: q4_1xq8, q8_0xq8, i8xi8, f16xf16, f8xf8 */
	uint32_t assumed; /* how many of the values are marked assumed */
#define MR_CHIP_FIELD(key, lo, hi, text) uint64_t key;
	MR_CHIP_VALUES(MR_CHIP_FIELD)
#undef MR_CHIP_FIELD
	uint8_t hash[32]; /* SHA-256 of name, class, types and values in the order above */
};

/*
 * Reads a chip file's text. Returns 0, MR_E_TOO_LARGE, MR_E_FORMAT (unknown, repeated or missing
 * key, no source, not a number) or MR_E_RANGE. Where it fails, @why (may be NULL) gets one sentence
 * with the line's number. Any thread.
 */
int mr_chip_parse(const char *text, size_t bytes, struct mr_chip *chip, char *why,
		  size_t why_bytes);

#endif /* MR_USERLIB_SPEC_CHIP_H */
