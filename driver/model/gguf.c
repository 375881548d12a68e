// SPDX-License-Identifier: Apache-2.0
/*
 * The GGUF reader: maps the file, reads header, keys and tensor descriptions, and indexes both by
 * name. Look-ups are binary searches over sorted indexes, which also find repeated names: no order
 * of names in a hostile file costs more than n log n.
 */
#include "driver/model/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/model/gguf_value.h"
#include "driver/model/why.h"

#define MAGIC             0x46554747u /* "GGUF" */
#define VERSION           3u
#define DEFAULT_ALIGNMENT 32u
#define MAX_ALIGNMENT     (1u << 20)
#define LEAST_PAIR        (8 + 4 + 1)         /* bytes: key length, type, a u8 */
#define LEAST_TENSOR      (8 + 4 + 8 + 4 + 8) /* name length, dimensions, one of them, type, offset */

struct mr_gguf {
	const uint8_t *data;
	size_t bytes;
	int mapped; /* data is ours to unmap */
	struct mr_gguf_pair *pairs;
	struct mr_tensor *tensors;
	char *names;                            /* of all tensors, each NUL-terminated */
	const struct mr_gguf_pair **pair_index; /* by key */
	const struct mr_tensor **tensor_index;  /* by name */
	uint32_t pair_count, tensor_count;
	uint32_t alignment;
};

/* Types that the format knows; bytes is 0 where this reader refuses the type. */
static const struct {
	const char *name;
	unsigned short block, bytes; /* values in a block, and its length */
} tensor_types[] = {
	[MR_TENSOR_F32] = {"F32", 1, 4},
	[MR_TENSOR_F16] = {"F16", 1, 2},
	[MR_TENSOR_Q4_0] = {"Q4_0", 32, 18},
	[MR_TENSOR_Q4_1] = {"Q4_1", 32, 20},
	[6] = {"Q5_0"},
	[7] = {"Q5_1"},
	[MR_TENSOR_Q8_0] = {"Q8_0", 32, 34},
	[9] = {"Q8_1"},
	[10] = {"Q2_K"},
	[11] = {"Q3_K"},
	[MR_TENSOR_Q4_K] = {"Q4_K", 256, 144},
	[MR_TENSOR_Q5_K] = {"Q5_K", 256, 176},
	[MR_TENSOR_Q6_K] = {"Q6_K", 256, 210},
	[15] = {"Q8_K"},
	[16] = {"IQ2_XXS"},
	[17] = {"IQ2_XS"},
	[18] = {"IQ3_XXS"},
	[19] = {"IQ1_S"},
	[20] = {"IQ4_NL"},
	[21] = {"IQ3_S"},
	[22] = {"IQ2_S"},
	[23] = {"IQ4_XS"},
	[24] = {"I8"},
	[25] = {"I16"},
	[26] = {"I32"},
	[27] = {"I64"},
	[28] = {"F64"},
	[29] = {"IQ1_M"},
	[MR_TENSOR_BF16] = {"BF16", 1, 2},
	[34] = {"TQ1_0"},
	[35] = {"TQ2_0"},
	[39] = {"MXFP4"},
};
#define TENSOR_TYPES (sizeof(tensor_types) / sizeof(tensor_types[0]))

const char *mr_tensor_type_name(uint32_t type)
{
	return type < TENSOR_TYPES && tensor_types[type].name ? tensor_types[type].name : "?";
}

static int compare_strings(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
	size_t n = a_bytes < b_bytes ? a_bytes : b_bytes;
	int order = n ? memcmp(a, b, n) : 0;

	return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int compare_pairs(const void *a, const void *b)
{
	const struct mr_gguf_string *x = &(*(const struct mr_gguf_pair *const *)a)->key;
	const struct mr_gguf_string *y = &(*(const struct mr_gguf_pair *const *)b)->key;

	return compare_strings(x->data, x->bytes, y->data, y->bytes);
}

static int compare_tensors(const void *a, const void *b)
{
	return strcmp((*(const struct mr_tensor *const *)a)->name,
		      (*(const struct mr_tensor *const *)b)->name);
}

static int read_header(struct mr_gguf *g, struct mr_gguf_span *span, const struct mr_why *why)
{
	uint32_t magic = 0, version = 0;
	uint64_t tensors = 0, pairs = 0;

	if (mr_gguf_take_u32(span, &magic) || magic != MAGIC)
		return mr_why(why, MR_E_FORMAT, "not a GGUF file: it does not start with GGUF");
	if (mr_gguf_take_u32(span, &version))
		return mr_why(why, MR_E_TRUNCATED, "the file ends within its header");
	if (version == __builtin_bswap32(VERSION))
		return mr_why(why, MR_E_VERSION, "the file is big-endian");
	if (version != VERSION)
		return mr_why(why, MR_E_VERSION, "GGUF version %u; only version %u is read",
			      version, VERSION);
	if (mr_gguf_take_u64(span, &tensors) || mr_gguf_take_u64(span, &pairs))
		return mr_why(why, MR_E_TRUNCATED, "the file ends within its header");
	if (tensors > MR_GGUF_MAX_ENTRIES || pairs > MR_GGUF_MAX_ENTRIES)
		return mr_why(why, MR_E_TOO_LARGE,
			      "%llu tensors and %llu keys; the limit of each is %u",
			      (unsigned long long)tensors, (unsigned long long)pairs,
			      MR_GGUF_MAX_ENTRIES);
	if (pairs * LEAST_PAIR + tensors * LEAST_TENSOR > (size_t)(span->end - span->at))
		return mr_why(why, MR_E_TRUNCATED,
			      "the file is too short for %u tensors and %u keys", (unsigned)tensors,
			      (unsigned)pairs);
	g->tensor_count = (uint32_t)tensors;
	g->pair_count = (uint32_t)pairs;
	return 0;
}

static int read_pairs(struct mr_gguf *g, struct mr_gguf_span *span, const struct mr_why *why)
{
	g->pairs = calloc(g->pair_count + 1, sizeof(*g->pairs));
	g->pair_index = calloc(g->pair_count + 1, sizeof(*g->pair_index));
	if (!g->pairs || !g->pair_index)
		return mr_why(why, MR_E_NO_MEMORY, "no memory for %u keys", g->pair_count);

	for (uint32_t i = 0; i < g->pair_count; i++) {
		struct mr_gguf_pair *pair = &g->pairs[i];
		uint32_t type = MR_GGUF_TYPES;
		int rc;

		if (mr_gguf_take_string(span, &pair->key))
			return mr_why(why, MR_E_TRUNCATED,
				      "the file ends within the name of key %u", i);
		if (!pair->key.bytes || pair->key.bytes > MR_GGUF_MAX_NAME)
			return mr_why(why, MR_E_FORMAT, "the name of key %u is %zu bytes long", i,
				      pair->key.bytes);
		rc = mr_gguf_take_u32(span, &type);
		if (!rc)
			rc = mr_gguf_take_value(span, type, 0, &pair->value);
		if (rc)
			return mr_why(why, rc, "key %s, of type %s: %s",
				      mr_show(pair->key.data, pair->key.bytes).text,
				      mr_gguf_type_name(type), mr_strerror(rc));
		g->pair_index[i] = pair;
	}
	qsort(g->pair_index, g->pair_count, sizeof(*g->pair_index), compare_pairs);
	for (uint32_t i = 1; i < g->pair_count; i++)
		if (!compare_pairs(&g->pair_index[i - 1], &g->pair_index[i]))
			return mr_why(
				why, MR_E_FORMAT, "key %s is there twice",
				mr_show(g->pair_index[i]->key.data, g->pair_index[i]->key.bytes)
					.text);
	return 0;
}

/* Name, dimensions, type and offset of one tensor; its data is placed once the header's end is
 * known. */
static int read_tensor(struct mr_tensor *t, char *name, uint64_t *offset, struct mr_gguf_span *span,
		       const struct mr_why *why)
{
	struct mr_gguf_string given;
	uint64_t dims[4] = {1, 1, 1, 1};
	uint32_t dim_count = 0, type = 0;

	if (mr_gguf_take_string(span, &given))
		return mr_why(why, MR_E_TRUNCATED, "the file ends within the name of a tensor");
	if (!given.bytes || given.bytes > MR_GGUF_MAX_NAME || memchr(given.data, 0, given.bytes))
		return mr_why(why, MR_E_FORMAT, "a tensor's name is %zu bytes long or holds a NUL",
			      given.bytes);
	memcpy(name, given.data, given.bytes);
	name[given.bytes] = 0;
	t->name = name;
	if (mr_gguf_take_u32(span, &dim_count))
		return mr_why(why, MR_E_TRUNCATED, "the file ends within tensor %s",
			      mr_show(name, given.bytes).text);
	if (dim_count < 1 || dim_count > 4)
		return mr_why(why, MR_E_FORMAT, "tensor %s has %u dimensions",
			      mr_show(name, given.bytes).text, dim_count);
	for (uint32_t d = 0; d < dim_count; d++)
		if (mr_gguf_take_u64(span, &dims[d]))
			return mr_why(why, MR_E_TRUNCATED, "the file ends within tensor %s",
				      mr_show(name, given.bytes).text);
	if (mr_gguf_take_u32(span, &type) || mr_gguf_take_u64(span, offset))
		return mr_why(why, MR_E_TRUNCATED, "the file ends within tensor %s",
			      mr_show(name, given.bytes).text);
	if (type >= TENSOR_TYPES || !tensor_types[type].bytes)
		return mr_why(why, MR_E_MODEL,
			      "tensor %s is of type %s (%u), which is not supported",
			      mr_show(name, given.bytes).text, mr_tensor_type_name(type), type);
	if (dims[2] != 1 || dims[3] != 1)
		return mr_why(why, MR_E_MODEL, "tensor %s has more than two dimensions",
			      mr_show(name, given.bytes).text);
	if (!dims[0] || !dims[1] || dims[0] > UINT32_MAX || dims[1] > UINT32_MAX ||
	    dims[0] % tensor_types[type].block)
		return mr_why(why, MR_E_FORMAT, "tensor %s cannot be %llu by %llu values of %s",
			      mr_show(name, given.bytes).text, (unsigned long long)dims[1],
			      (unsigned long long)dims[0], mr_tensor_type_name(type));
	t->type = type;
	t->cols = (uint32_t)dims[0];
	t->rows = (uint32_t)dims[1];
	return 0;
}

/* Points @t at its data, @offset bytes into the @room bytes at @base. */
static int place_tensor(struct mr_tensor *t, uint64_t offset, const uint8_t *base, uint64_t room,
			uint32_t alignment, const struct mr_why *why)
{
	uint64_t row =
		t->cols / tensor_types[t->type].block * (uint64_t)tensor_types[t->type].bytes;
	uint64_t bytes;

	if (offset % alignment)
		return mr_why(why, MR_E_FORMAT, "tensor %s is not aligned to %u bytes",
			      mr_show(t->name, strlen(t->name)).text, alignment);
	if (__builtin_mul_overflow(row, t->rows, &bytes) || offset > room || bytes > room - offset)
		return mr_why(why, MR_E_TRUNCATED,
			      "the file ends before the data of tensor %s does",
			      mr_show(t->name, strlen(t->name)).text);
	t->data = base + offset;
	t->bytes = bytes;
	return 0;
}

static int read_tensors(struct mr_gguf *g, struct mr_gguf_span *span, const struct mr_why *why)
{
	uint64_t *offsets = calloc(g->tensor_count + 1, sizeof(*offsets));
	uint64_t header;
	int rc = 0;

	g->tensors = calloc(g->tensor_count + 1, sizeof(*g->tensors));
	g->tensor_index = calloc(g->tensor_count + 1, sizeof(*g->tensor_index));
	g->names = calloc(g->tensor_count + 1, MR_GGUF_MAX_NAME + 1);
	if (!offsets || !g->tensors || !g->tensor_index || !g->names) {
		rc = mr_why(why, MR_E_NO_MEMORY, "no memory for %u tensors", g->tensor_count);
		goto out;
	}
	for (uint32_t i = 0; i < g->tensor_count && !rc; i++) {
		g->tensor_index[i] = &g->tensors[i];
		rc = read_tensor(&g->tensors[i], g->names + (size_t)i * (MR_GGUF_MAX_NAME + 1),
				 &offsets[i], span, why);
	}
	if (rc)
		goto out;

	/* The data starts at the first aligned byte after the descriptions; a file may end before
	 * it. */
	header = (uint64_t)(span->at - g->data);
	header += -header % g->alignment;
	for (uint32_t i = 0; i < g->tensor_count && !rc; i++)
		rc = place_tensor(&g->tensors[i], offsets[i], g->data + header,
				  header < g->bytes ? g->bytes - header : 0, g->alignment, why);
	if (rc)
		goto out;

	qsort(g->tensor_index, g->tensor_count, sizeof(*g->tensor_index), compare_tensors);
	for (uint32_t i = 1; i < g->tensor_count && !rc; i++)
		if (!compare_tensors(&g->tensor_index[i - 1], &g->tensor_index[i]))
			rc = mr_why(
				why, MR_E_FORMAT, "tensor %s is there twice",
				mr_show(g->tensor_index[i]->name, strlen(g->tensor_index[i]->name))
					.text);
out:
	free(offsets);
	return rc;
}

static int read_alignment(struct mr_gguf *g, const struct mr_why *why)
{
	int rc = mr_gguf_get_u32(g, "general.alignment", &g->alignment);

	if (rc == MR_E_NOT_FOUND) {
		g->alignment = DEFAULT_ALIGNMENT;
		return 0;
	}
	/* 8 at least: F32 tensors are read in place. */
	if (rc || g->alignment < 8 || g->alignment > MAX_ALIGNMENT ||
	    (g->alignment & (g->alignment - 1)))
		return mr_why(why, MR_E_FORMAT,
			      "general.alignment is not a power of two from 8 to %u",
			      MAX_ALIGNMENT);
	return 0;
}

/* Takes over the mapping: whatever happens, it is unmapped by mr_gguf_close or here. */
static int open_span(const void *data, size_t bytes, int mapped, struct mr_gguf **gguf,
		     const struct mr_why *why)
{
	struct mr_gguf_span span = {data, (const uint8_t *)data + bytes};
	struct mr_gguf *g = calloc(1, sizeof(*g));
	int rc;

	if (!g) {
		if (mapped)
			munmap((void *)(uintptr_t)data, bytes);
		return mr_why(why, MR_E_NO_MEMORY, "no memory");
	}
	g->data = data;
	g->bytes = bytes;
	g->mapped = mapped;
	rc = read_header(g, &span, why);
	if (!rc)
		rc = read_pairs(g, &span, why);
	if (!rc)
		rc = read_alignment(g, why);
	if (!rc)
		rc = read_tensors(g, &span, why);
	if (rc) {
		mr_gguf_close(g);
		return rc;
	}
	*gguf = g;
	return 0;
}

int mr_gguf_open_memory(const void *data, size_t bytes, struct mr_gguf **gguf, char *why_text,
			size_t why_bytes)
{
	const struct mr_why why = {why_text, why_bytes};

	if ((uintptr_t)data % 8)
		return mr_why(&why, MR_E_INVALID, "the memory is not 8-byte aligned");
	return open_span(data, bytes, 0, gguf, &why);
}

int mr_gguf_open(const char *path, struct mr_gguf **gguf, char *why_text, size_t why_bytes)
{
	const struct mr_why why = {why_text, why_bytes};
	/* O_NONBLOCK: opening a FIFO must not wait for a writer. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	void *map;

	if (fd < 0)
		return mr_why(&why,
			      errno == ENOENT   ? MR_E_NOT_FOUND
			      : errno == EACCES ? MR_E_PERMISSION
						: MR_E_IO,
			      "%s", strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return mr_why(&why, MR_E_FORMAT, "not a regular file");
	}
	if (!st.st_size) {
		close(fd);
		return mr_why(&why, MR_E_FORMAT, "the file is empty");
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return mr_why(&why, MR_E_IO, "the file cannot be mapped: %s", strerror(errno));
	return open_span(map, (size_t)st.st_size, 1, gguf, &why);
}

void mr_gguf_close(struct mr_gguf *g)
{
	if (!g)
		return;
	if (g->mapped)
		munmap((void *)(uintptr_t)g->data, g->bytes);
	free(g->pairs);
	free(g->pair_index);
	free(g->tensors);
	free(g->tensor_index);
	free(g->names);
	free(g);
}

size_t mr_gguf_file_bytes(const struct mr_gguf *g)
{
	return g->bytes;
}

uint32_t mr_gguf_pair_count(const struct mr_gguf *g)
{
	return g->pair_count;
}

const struct mr_gguf_pair *mr_gguf_pair_at(const struct mr_gguf *g, uint32_t index)
{
	return &g->pairs[index];
}

const struct mr_gguf_value *mr_gguf_find(const struct mr_gguf *g, const char *key)
{
	const struct mr_gguf_pair want = {.key = {key, strlen(key)}}, *probe = &want;
	const struct mr_gguf_pair **hit;

	hit = bsearch(&probe, g->pair_index, g->pair_count, sizeof(*hit), compare_pairs);
	return hit ? &(*hit)->value : NULL;
}

uint32_t mr_gguf_tensor_count(const struct mr_gguf *g)
{
	return g->tensor_count;
}

const struct mr_tensor *mr_gguf_tensor_at(const struct mr_gguf *g, uint32_t index)
{
	return &g->tensors[index];
}

const struct mr_tensor *mr_gguf_tensor(const struct mr_gguf *g, const char *name)
{
	const struct mr_tensor want = {.name = name}, *probe = &want;
	const struct mr_tensor **hit;

	hit = bsearch(&probe, g->tensor_index, g->tensor_count, sizeof(*hit), compare_tensors);
	return hit ? *hit : NULL;
}
