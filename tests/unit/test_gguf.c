// SPDX-License-Identifier: Apache-2.0
/*
 * The GGUF reader: every type of value, every named refusal, and hostile files. Files are built byte by byte
 * in memory of exactly their size, so that under ASan a read beyond the end is seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/model/gguf.h"

static char why[256];

/* A file under construction. */
struct file {
	uint8_t data[4096];
	size_t bytes;
};

static void put(struct file *f, const void *data, size_t bytes)
{
	assert_true(f->bytes + bytes <= sizeof(f->data));
	memcpy(f->data + f->bytes, data, bytes);
	f->bytes += bytes;
}

static void put32(struct file *f, uint32_t v)
{
	put(f, &v, 4);
}

static void put64(struct file *f, uint64_t v)
{
	put(f, &v, 8);
}

static void put_text(struct file *f, const char *text)
{
	put64(f, strlen(text));
	put(f, text, strlen(text));
}

static void start(struct file *f, uint64_t tensors, uint64_t keys)
{
	f->bytes = 0;
	put(f, "GGUF", 4);
	put32(f, 3);
	put64(f, tensors);
	put64(f, keys);
}

static void put_key(struct file *f, const char *key, uint32_t type)
{
	put_text(f, key);
	put32(f, type);
}

static void put_tensor(struct file *f, const char *name, uint64_t cols, uint64_t rows,
		       uint32_t type, uint64_t offset)
{
	put_text(f, name);
	put32(f, 2);
	put64(f, cols);
	put64(f, rows);
	put32(f, type);
	put64(f, offset);
}

static void pad(struct file *f, size_t alignment, size_t data)
{
	static const uint8_t zeros[2048];

	put(f, zeros, -f->bytes % alignment + data);
}

/* Opens a copy of exactly @bytes; closes it again where @out is NULL. */
static int open_copy(const void *data, size_t bytes, struct mr_gguf **out, void **copy)
{
	struct mr_gguf *gguf = NULL;
	int rc;

	*copy = malloc(bytes ? bytes : 1);
	memcpy(*copy, data, bytes);
	why[0] = 0;
	rc = mr_gguf_open_memory(*copy, bytes, &gguf, why, sizeof(why));
	if (rc)
		assert_true(strlen(why) > 5); /* a sentence */
	if (out && !rc) {
		*out = gguf;
		return 0;
	}
	mr_gguf_close(gguf);
	free(*copy);
	return rc;
}

static int try_open(const struct file *f)
{
	void *copy;

	return open_copy(f->data, f->bytes, NULL, &copy);
}

static void check_refused(const struct file *f, int status, const char *names)
{
	int rc = try_open(f);

	if (rc != status || !strstr(why, names))
		fail_msg("%s: \"%s\", want %s and \"%s\"", mr_status_name(rc), why,
			 mr_status_name(status), names);
}

static void scalars(void **state)
{
	static const struct {
		const char *key;
		uint32_t type;
		const char *bytes;
		size_t count;
		int64_t want;
	} ints[] = {
		{"u8", MR_GGUF_U8, "\xff", 1, 255},
		{"i8", MR_GGUF_I8, "\xff", 1, -1},
		{"u16", MR_GGUF_U16, "\xff\xff", 2, 65535},
		{"i16", MR_GGUF_I16, "\xfe\xff", 2, -2},
		{"u32", MR_GGUF_U32, "\xff\xff\xff\xff", 4, 4294967295},
		{"i32", MR_GGUF_I32, "\xfd\xff\xff\xff", 4, -3},
		{"u64", MR_GGUF_U64, "\1\0\0\0\1\0\0\0", 8, 4294967297},
		{"i64", MR_GGUF_I64, "\xfc\xff\xff\xff\xff\xff\xff\xff", 8, -4},
	};
	struct file f;
	struct mr_gguf *g;
	void *copy;
	float f32 = 0.5f, got;
	double f64 = -0.25;
	uint32_t u;
	int b;

	start(&f, 0, 11);
	for (size_t i = 0; i < 8; i++) {
		put_key(&f, ints[i].key, ints[i].type);
		put(&f, ints[i].bytes, ints[i].count);
	}
	put_key(&f, "f32", MR_GGUF_F32);
	put(&f, &f32, 4);
	put_key(&f, "f64", MR_GGUF_F64);
	put(&f, &f64, 8);
	put_key(&f, "bool", MR_GGUF_BOOL);
	put(&f, "\1", 1);
	assert_int_equal(open_copy(f.data, f.bytes, &g, &copy), 0);
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(mr_gguf_find(g, ints[i].key)->type, ints[i].type);
		assert_true(mr_gguf_find(g, ints[i].key)->i == ints[i].want);
		assert_int_equal(mr_gguf_get_u32(g, ints[i].key, &u),
				 ints[i].want < 0 || ints[i].want > UINT32_MAX ? MR_E_RANGE : 0);
		assert_string_equal(mr_gguf_type_name(ints[i].type), ints[i].key);
	}
	assert_int_equal(mr_gguf_get_float(g, "f32", &got), 0);
	assert_true(got == 0.5f);
	assert_int_equal(mr_gguf_get_float(g, "f64", &got), 0);
	assert_true(got == -0.25f);
	assert_int_equal(mr_gguf_get_bool(g, "bool", &b), 0);
	assert_int_equal(b, 1);
	assert_int_equal(mr_gguf_get_bool(g, "u8", &b), MR_E_FORMAT);
	assert_int_equal(mr_gguf_get_u32(g, "f32", &u), MR_E_FORMAT);
	assert_int_equal(mr_gguf_get_u32(g, "u", &u), MR_E_NOT_FOUND);
	assert_int_equal(mr_gguf_get_u32(g, "u64x", &u), MR_E_NOT_FOUND);
	assert_int_equal(mr_gguf_pair_count(g), 11);
	assert_memory_equal(mr_gguf_pair_at(g, 8)->key.data, "f32", 3);
	mr_gguf_close(g);
	free(copy);
}

/* An array of two arrays of strings, one of them empty, then a key that must still be found. */
static void nested_arrays(void **state)
{
	struct file f;
	struct mr_gguf *g;
	struct mr_gguf_array outer;
	struct mr_gguf_cursor at, in;
	struct mr_gguf_value v, s;
	void *copy;
	uint32_t after = 0;

	start(&f, 0, 2);
	put_key(&f, "nested", MR_GGUF_ARRAY);
	put32(&f, MR_GGUF_ARRAY);
	put64(&f, 2);
	put32(&f, MR_GGUF_STRING);
	put64(&f, 2);
	put_text(&f, "mill");
	put_text(&f, "");
	put32(&f, MR_GGUF_STRING);
	put64(&f, 0);
	put_key(&f, "after", MR_GGUF_U32);
	put32(&f, 77);
	assert_int_equal(open_copy(f.data, f.bytes, &g, &copy), 0);
	assert_int_equal(mr_gguf_get_u32(g, "after", &after), 0);
	assert_int_equal(after, 77);
	assert_int_equal(mr_gguf_get_array(g, "nested", MR_GGUF_STRING, &outer), MR_E_FORMAT);
	assert_int_equal(mr_gguf_get_array(g, "nested", MR_GGUF_ARRAY, &outer), 0);
	at = mr_gguf_walk(&outer);
	assert_int_equal(mr_gguf_next(&at, &v), 1);
	in = mr_gguf_walk(&v.array);
	assert_int_equal(mr_gguf_next(&in, &s), 1);
	assert_int_equal(s.string.bytes, 4);
	assert_memory_equal(s.string.data, "mill", 4);
	assert_int_equal(mr_gguf_next(&in, &s), 1);
	assert_int_equal(s.string.bytes, 0);
	assert_int_equal(mr_gguf_next(&in, &s), 0);
	assert_int_equal(mr_gguf_next(&at, &v), 1);
	assert_int_equal(v.array.count, 0);
	assert_int_equal(mr_gguf_next(&at, &v), 0);
	mr_gguf_close(g);
	free(copy);

	/* One level too many. */
	start(&f, 0, 1);
	put_key(&f, "deep", MR_GGUF_ARRAY);
	for (int depth = 0; depth < MR_GGUF_MAX_DEPTH; depth++) {
		put32(&f, MR_GGUF_ARRAY);
		put64(&f, 1);
	}
	put32(&f, MR_GGUF_U8);
	put64(&f, 0);
	check_refused(&f, MR_E_TOO_LARGE, "deep");
}

static void bad_headers(void **state)
{
	struct file f;
	struct mr_gguf *g;

	start(&f, 0, 0);
	assert_int_equal(try_open(&f), 0);
	f.data[0] = 'g';
	check_refused(&f, MR_E_FORMAT, "GGUF");
	start(&f, 0, 0);
	f.data[4] = 2;
	check_refused(&f, MR_E_VERSION, "version 2");
	memcpy(f.data + 4, "\0\0\0\3", 4);
	check_refused(&f, MR_E_VERSION, "big-endian");
	start(&f, MR_GGUF_MAX_ENTRIES + 1, 0);
	check_refused(&f, MR_E_TOO_LARGE, "65537 tensors");
	start(&f, 0, UINT64_MAX);
	check_refused(&f, MR_E_TOO_LARGE, "keys");
	start(&f, 1, 1);
	check_refused(&f, MR_E_TRUNCATED, "1 tensors and 1 keys");
	assert_int_equal(mr_gguf_open("tests", &g, why, sizeof(why)), MR_E_FORMAT);
	assert_int_equal(mr_gguf_open("tests/no-such.gguf", &g, NULL, 0), MR_E_NOT_FOUND);
	assert_int_equal(mr_gguf_open("/dev/null", &g, why, sizeof(why)), MR_E_FORMAT);
	assert_int_equal(mr_gguf_open_memory(f.data + 1, 8, &g, why, sizeof(why)), MR_E_INVALID);
}

static void bad_keys(void **state)
{
	struct file f;

	start(&f, 0, 1);
	put_key(&f, "odd.type", MR_GGUF_TYPES);
	put64(&f, 0);
	check_refused(&f, MR_E_FORMAT, "odd.type");
	start(&f, 0, 1);
	put_key(&f, "odd.bool", MR_GGUF_BOOL);
	put(&f, "\2", 1);
	check_refused(&f, MR_E_FORMAT, "odd.bool");
	start(&f, 0, 2);
	for (int i = 0; i < 2; i++) {
		put_key(&f, "twice", MR_GGUF_U32);
		put32(&f, 1);
	}
	check_refused(&f, MR_E_FORMAT, "twice is there twice");
	start(&f, 0, 1);
	put64(&f, UINT64_MAX); /* length of the key's name */
	put64(&f, 0);
	check_refused(&f, MR_E_TRUNCATED, "key 0");
	start(&f, 0, 1);
	put_key(&f, "", MR_GGUF_U64);
	put64(&f, 0);
	check_refused(&f, MR_E_FORMAT, "key 0");
	/* Lengths whose products wrap around: 2^61 u64 values are 0 bytes modulo 2^64. */
	start(&f, 0, 1);
	put_key(&f, "wraps", MR_GGUF_ARRAY);
	put32(&f, MR_GGUF_U64);
	put64(&f, 1ull << 61);
	check_refused(&f, MR_E_TRUNCATED, "wraps");
	/* A name that would drive a terminal is shown as printable text. */
	start(&f, 0, 1);
	put_key(&f, "\x1b[2J\n", 99);
	put64(&f, 0);
	check_refused(&f, MR_E_FORMAT, "?[2J?");
}

static void tensors(void **state)
{
	struct file f;
	struct mr_gguf *g;
	const struct mr_tensor *t;
	void *copy;

	start(&f, 2, 1);
	put_key(&f, "general.alignment", MR_GGUF_U32);
	put32(&f, 64);
	put_tensor(&f, "b", 64, 3, MR_TENSOR_Q4_1, 64);
	put_tensor(&f, "a", 7, 1, MR_TENSOR_F32, 0);
	pad(&f, 64, 64 + 3 * 40);
	assert_int_equal(open_copy(f.data, f.bytes, &g, &copy), 0);
	t = mr_gguf_tensor(g, "b");
	assert_non_null(t);
	assert_ptr_equal(t, mr_gguf_tensor_at(g, 0));
	assert_int_equal(t->rows, 3);
	assert_int_equal(t->cols, 64);
	assert_int_equal(t->bytes, 120);
	assert_ptr_equal(t->data, (uint8_t *)copy + f.bytes - 120);
	t = mr_gguf_tensor(g, "a");
	assert_int_equal(t->bytes, 28);
	assert_int_equal(t->rows, 1);
	assert_null(mr_gguf_tensor(g, "c"));
	mr_gguf_close(g);
	free(copy);
	f.bytes--;
	check_refused(&f, MR_E_TRUNCATED, "tensor b");
}

/* One tensor with @cols, @rows, @type and @offset, 160 bytes of data. */
static void one_tensor(struct file *f, uint64_t cols, uint64_t rows, uint32_t type, uint64_t offset)
{
	start(f, 1, 0);
	put_tensor(f, "w", cols, rows, type, offset);
	pad(f, 32, 160);
}

static void bad_tensors(void **state)
{
	struct file f;

	one_tensor(&f, 32, 8, MR_TENSOR_Q4_1, 0);
	assert_int_equal(try_open(&f), 0);
	one_tensor(&f, 32, 9, MR_TENSOR_Q4_1, 0);
	check_refused(&f, MR_E_TRUNCATED, "tensor w");
	one_tensor(&f, 32, 1, MR_TENSOR_Q4_1, 160);
	check_refused(&f, MR_E_TRUNCATED, "tensor w");
	one_tensor(&f, 32, 1, MR_TENSOR_Q4_1, -(uint64_t)32);
	check_refused(&f, MR_E_TRUNCATED, "tensor w");
	one_tensor(&f, 32, 1, MR_TENSOR_Q4_1, 16);
	check_refused(&f, MR_E_FORMAT, "aligned");
	one_tensor(&f, 33, 1, MR_TENSOR_Q4_1, 0);
	check_refused(&f, MR_E_FORMAT, "tensor w");
	one_tensor(&f, 0, 1, MR_TENSOR_Q8_0, 0);
	check_refused(&f, MR_E_FORMAT, "tensor w");
	one_tensor(&f, 32, 0, MR_TENSOR_Q8_0, 0);
	check_refused(&f, MR_E_FORMAT, "tensor w");
	one_tensor(&f, 1ull << 33, 1ull << 33, MR_TENSOR_F32, 0);
	check_refused(&f, MR_E_FORMAT, "tensor w");
	/* 2^31 rows of 2^33 bytes: 0 modulo 2^64. */
	one_tensor(&f, 1u << 31, 1u << 31, MR_TENSOR_F32, 0);
	check_refused(&f, MR_E_TRUNCATED, "tensor w");
	one_tensor(&f, 256, 1, 10, 0);
	check_refused(&f, MR_E_MODEL, "Q2_K");
	one_tensor(&f, 32, 1, 4, 0);
	check_refused(&f, MR_E_MODEL, "(4)");
	one_tensor(&f, 32, 1, UINT32_MAX, 0);
	check_refused(&f, MR_E_MODEL, "tensor w");

	start(&f, 2, 0);
	put_tensor(&f, "w", 8, 1, MR_TENSOR_F32, 0);
	put_tensor(&f, "w", 8, 1, MR_TENSOR_F32, 0);
	pad(&f, 32, 32);
	check_refused(&f, MR_E_FORMAT, "w is there twice");
	for (uint32_t dims = 0; dims < 6; dims++) {
		start(&f, 1, 0);
		put_text(&f, "cube");
		put32(&f, dims);
		for (uint32_t d = 0; d < dims; d++)
			put64(&f, 2);
		put32(&f, MR_TENSOR_F32);
		put64(&f, 0);
		pad(&f, 32, 128);
		if (dims < 1 || dims > 4)
			check_refused(&f, MR_E_FORMAT, "cube");
		else if (dims > 2)
			check_refused(&f, MR_E_MODEL, "cube");
		else
			assert_int_equal(try_open(&f), 0);
	}
}

static void bad_alignments(void **state)
{
	static const uint32_t values[] = {0, 1, 4, 24, 33, 1u << 21, 1u << 31};
	struct file f;

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		start(&f, 0, 1);
		put_key(&f, "general.alignment", MR_GGUF_U32);
		put32(&f, values[i]);
		check_refused(&f, MR_E_FORMAT, "general.alignment");
	}
	start(&f, 0, 1);
	put_key(&f, "general.alignment", MR_GGUF_STRING);
	put_text(&f, "32");
	check_refused(&f, MR_E_FORMAT, "general.alignment");
}

/* What is never printed beyond its buffer. */
static void why_is_cut(void **state)
{
	char small[8] = "xxxxxxx";
	struct mr_gguf *g;

	assert_int_equal(mr_gguf_open("tests/no-such.gguf", &g, small, 5), MR_E_NOT_FOUND);
	assert_int_equal(strlen(small), 4);
	assert_int_equal(small[5], 'x');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scalars),        cmocka_unit_test(nested_arrays),
		cmocka_unit_test(bad_headers),    cmocka_unit_test(bad_keys),
		cmocka_unit_test(tensors),        cmocka_unit_test(bad_tensors),
		cmocka_unit_test(bad_alignments), cmocka_unit_test(why_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
