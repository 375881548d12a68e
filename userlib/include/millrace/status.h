/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Status codes: one name for everything that can go wrong, on every boundary.
 *
 * Calls return 0 or a count on success and a negative enum mr_status on failure; the same numbers
 * travel in ring CQEs, in wire datagrams and in device completions (there as the positive
 * magnitude, because the fields are unsigned). Nothing here depends on errno.
 *
 * Growth: values are append-only and never reused; a reader that does not know a value must treat
 * it as MR_E_INTERNAL. Included by C11 and C++17, by driver/, userlib/, firmware-sim/ and clients.
 */
#ifndef MILLRACE_STATUS_H
#define MILLRACE_STATUS_H

#define MR_VERSION_MAJOR 0
#define MR_VERSION_MINOR 1
#define MR_VERSION_PATCH 0

/* X(name, value, "what happened; what the caller does next") */
#define MR_STATUS_LIST(X)                                                                    \
	X(OK, 0, "success")                                                                  \
	X(E_INVALID, -1, "invalid argument; correct the call")                               \
	X(E_NO_MEMORY, -2, "out of memory; free some or ask for less")                       \
	X(E_NOT_SUPPORTED, -3, "not supported by this device or version; ask its caps")      \
	X(E_NOT_FOUND, -4, "no such file, sequence, device or key")                          \
	X(E_EXISTS, -5, "already there")                                                     \
	X(E_BUSY, -6, "in use; try again later")                                             \
	X(E_FULL, -7, "queue or pool full; take completions, then try again")                \
	X(E_EMPTY, -8, "nothing there")                                                      \
	X(E_TIMEOUT, -9, "a deadline passed while waiting")                                  \
	X(E_IO, -10, "the operating system refused an input or output; see errno")           \
	X(E_PERMISSION, -11, "not permitted to this user or client")                         \
	X(E_PROTOCOL, -12, "the other side broke the protocol")                              \
	X(E_VERSION, -13, "version or feature not understood")                               \
	X(E_CHECKSUM, -14, "checksum, hash or authentication tag does not match")            \
	X(E_TRUNCATED, -15, "input ends early")                                              \
	X(E_FORMAT, -16, "input is not of the format it claims")                             \
	X(E_RANGE, -17, "a value lies outside its range")                                    \
	X(E_TOO_LARGE, -18, "larger than the limit stated for it")                           \
	X(E_CONTEXT_FULL, -19, "the prompt and its answer do not fit the context")           \
	X(E_KV_EXHAUSTED, -20, "no KV blocks left; wait for sequences to end")               \
	X(E_SRAM_FULL, -21, "does not fit the device's SRAM; more chips or a smaller model") \
	X(E_STALE, -22, "generation or owner does not match: the slot or block was reused")  \
	X(E_CANCELLED, -23, "ended by CANCEL")                                               \
	X(E_DISCONNECTED, -24, "the other side went away")                                   \
	X(E_DEVICE, -25, "the device reports an internal fault; reset it")                   \
	X(E_DMA_FAULT, -26, "DMA to an IOVA that is not mapped with this access")            \
	X(E_NOT_ACTIVE, -27, "no program is active on the device")                           \
	X(E_DEADLINE, -28, "the deadline cannot be met")                                     \
	X(E_MASK_LATE, -29, "the token mask was not in SRAM by SAMPLE; no token was made")   \
	X(E_QUOTA, -30, "the client's quota is used up")                                     \
	X(E_MODEL, -31, "the model's architecture or tensor type is not supported")          \
	X(E_INTERNAL, -32, "a bug: please report it")                                        \
	X(E_SCHEDULE_VIOLATION, -33, "a device's cycles were not what its program claims")

enum mr_status {
#define MR_STATUS_ENUM(name, value, text) MR_##name = value,
	MR_STATUS_LIST(MR_STATUS_ENUM)
#undef MR_STATUS_ENUM
};

/* The sentence for @status; never NULL, static storage. Any thread. */
static inline const char *mr_strerror(int status)
{
	switch (status) {
#define MR_STATUS_TEXT(name, value, text) \
	case value:                       \
		return text;
		MR_STATUS_LIST(MR_STATUS_TEXT)
#undef MR_STATUS_TEXT
	default:
		return "unknown status";
	}
}

/* The short name for @status, such as "E_STALE"; never NULL, static storage. Any thread. */
static inline const char *mr_status_name(int status)
{
	switch (status) {
#define MR_STATUS_NAME(name, value, text) \
	case value:                       \
		return #name;
		MR_STATUS_LIST(MR_STATUS_NAME)
#undef MR_STATUS_NAME
	default:
		return "E_UNKNOWN";
	}
}

#endif /* MILLRACE_STATUS_H */
