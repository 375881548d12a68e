/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF version 3, read in place: metadata and tensors of a mapped file. Used by model.c,
 * tokenizer.c, tools/ and the fuzzer; knows nothing of architectures.
 *
 * The file is hostile input. Every count, length, offset, alignment and product is checked against
 * what the file has left before it is used; names are unique; whatever is wrong has a status and a
 * sentence. Strings and tensor data point into the mapping and live as long as the struct mr_gguf.
 * What was read is constant: any thread may look things up.
 *
 * Limits, refused by name beyond: MR_GGUF_MAX_ENTRIES keys and as many tensors, names of
 * MR_GGUF_MAX_NAME bytes, arrays nested MR_GGUF_MAX_DEPTH deep, tensors of two dimensions, and the
 * types of enum mr_tensor_type. Tensors may share bytes of the file: they are only ever read.
 */
#ifndef MR_DRIVER_MODEL_GGUF_H
#define MR_DRIVER_MODEL_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include "driver/model/model.h" /* struct mr_tensor */

#define MR_GGUF_MAX_ENTRIES 65536
#define MR_GGUF_MAX_NAME    127
#define MR_GGUF_MAX_DEPTH   8

/* Types of metadata values; the numbers are the file format's. */
enum mr_gguf_type {
	MR_GGUF_U8,
	MR_GGUF_I8,
	MR_GGUF_U16,
	MR_GGUF_I16,
	MR_GGUF_U32,
	MR_GGUF_I32,
	MR_GGUF_F32,
	MR_GGUF_BOOL,
	MR_GGUF_STRING,
	MR_GGUF_ARRAY,
	MR_GGUF_U64,
	MR_GGUF_I64,
	MR_GGUF_F64,
	MR_GGUF_TYPES
};
/* The type's name, such as "u32"; "?" for a number that is none. */
const char *mr_gguf_type_name(uint32_t type);

struct mr_gguf_string {
	const char *data; /* not NUL-terminated; may hold any byte */
	size_t bytes;
};

struct mr_gguf_array {
	enum mr_gguf_type item;
	uint64_t count;
	const uint8_t *data; /* the items one after another, unaligned; read them by a cursor */
	size_t bytes;
};

struct mr_gguf_value {
	enum mr_gguf_type type;
	union {
		uint64_t u; /* U8 to U64, BOOL (0 or 1) */
		int64_t i;  /* I8 to I64 */
		double f;   /* F32, F64 */
		struct mr_gguf_string string;
		struct mr_gguf_array array;
	};
};

struct mr_gguf_pair {
	struct mr_gguf_string key;
	struct mr_gguf_value value;
};

struct mr_gguf;

/*
 * Maps and reads @path, or reads @bytes of @data, which must be 8-byte aligned and outlive the
 * result. Returns 0, MR_E_NOT_FOUND, MR_E_PERMISSION, MR_E_IO (the file), MR_E_FORMAT (no GGUF, or
 * contradicts itself), MR_E_VERSION, MR_E_TRUNCATED, MR_E_TOO_LARGE (a limit above), MR_E_MODEL (a
 * tensor's type or dimensions are not supported) or MR_E_NO_MEMORY; where it fails, @why (may be
 * NULL) gets one sentence.
 */
int mr_gguf_open(const char *path, struct mr_gguf **gguf, char *why, size_t why_bytes);
int mr_gguf_open_memory(const void *data, size_t bytes, struct mr_gguf **gguf, char *why,
			size_t why_bytes);
void mr_gguf_close(struct mr_gguf *gguf); /* NULL is allowed */

/* Bytes of the whole file. */
size_t mr_gguf_file_bytes(const struct mr_gguf *gguf);

/* Metadata in the file's order; @index is below the count. */
uint32_t mr_gguf_pair_count(const struct mr_gguf *gguf);
const struct mr_gguf_pair *mr_gguf_pair_at(const struct mr_gguf *gguf, uint32_t index);
/* The value of @key; NULL where the file has no such key. */
const struct mr_gguf_value *mr_gguf_find(const struct mr_gguf *gguf, const char *key);

/*
 * The value of @key as a type: 0, MR_E_NOT_FOUND, MR_E_FORMAT (the value is of another kind) or
 * MR_E_RANGE (an integer beyond 32 bits). Integers of every width and sign are integers, F64 is a
 * float.
 */
int mr_gguf_get_u32(const struct mr_gguf *gguf, const char *key, uint32_t *out);
int mr_gguf_get_float(const struct mr_gguf *gguf, const char *key, float *out);
int mr_gguf_get_bool(const struct mr_gguf *gguf, const char *key, int *out);
int mr_gguf_get_string(const struct mr_gguf *gguf, const char *key, struct mr_gguf_string *out);
int mr_gguf_get_array(const struct mr_gguf *gguf, const char *key, enum mr_gguf_type item,
		      struct mr_gguf_array *out);

/*
 * Walks an array. mr_gguf_next returns 1 with the next item, 0 at the end, or MR_E_TRUNCATED,
 * MR_E_FORMAT: only where the file was changed after it was opened, since the reader has walked
 * every array once.
 */
struct mr_gguf_cursor {
	const uint8_t *at, *end;
	uint64_t left; /* items */
	enum mr_gguf_type item;
};
struct mr_gguf_cursor mr_gguf_walk(const struct mr_gguf_array *array);
int mr_gguf_next(struct mr_gguf_cursor *cursor, struct mr_gguf_value *item);

/* Tensors in the file's order, or by name (NULL where there is none). */
uint32_t mr_gguf_tensor_count(const struct mr_gguf *gguf);
const struct mr_tensor *mr_gguf_tensor_at(const struct mr_gguf *gguf, uint32_t index);
const struct mr_tensor *mr_gguf_tensor(const struct mr_gguf *gguf, const char *name);
/* A tensor type's name, such as "Q6_K", whether it is supported or not; "?" for a number that is
 * none. */
const char *mr_tensor_type_name(uint32_t type);

#endif /* MR_DRIVER_MODEL_GGUF_H */
