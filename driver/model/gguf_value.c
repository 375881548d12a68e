// SPDX-License-Identifier: Apache-2.0
/* GGUF metadata values: reading them off the file, walking arrays, and typed look-ups by key. */
#include "driver/model/gguf_value.h"

#include <string.h>

#include <millrace/status.h>

static const struct {
	const char *name;
	unsigned char bytes; /* of a value in the file; the least, where it varies */
} type_info[MR_GGUF_TYPES] = {
	[MR_GGUF_U8] = {"u8", 1},         [MR_GGUF_I8] = {"i8", 1},     [MR_GGUF_U16] = {"u16", 2},
	[MR_GGUF_I16] = {"i16", 2},       [MR_GGUF_U32] = {"u32", 4},   [MR_GGUF_I32] = {"i32", 4},
	[MR_GGUF_F32] = {"f32", 4},       [MR_GGUF_BOOL] = {"bool", 1}, [MR_GGUF_U64] = {"u64", 8},
	[MR_GGUF_STRING] = {"string", 8}, [MR_GGUF_I64] = {"i64", 8},   [MR_GGUF_F64] = {"f64", 8},
	[MR_GGUF_ARRAY] = {"array", 12},
};

const char *mr_gguf_type_name(uint32_t type)
{
	return type < MR_GGUF_TYPES ? type_info[type].name : "?";
}

static size_t left(const struct mr_gguf_span *span)
{
	return (size_t)(span->end - span->at);
}

/* The file is little-endian, as is every host that this driver runs on. */
static int take(struct mr_gguf_span *span, void *out, size_t bytes)
{
	if (left(span) < bytes)
		return MR_E_TRUNCATED;
	memcpy(out, span->at, bytes);
	span->at += bytes;
	return 0;
}

int mr_gguf_take_u32(struct mr_gguf_span *span, uint32_t *out)
{
	return take(span, out, sizeof(*out));
}

int mr_gguf_take_u64(struct mr_gguf_span *span, uint64_t *out)
{
	return take(span, out, sizeof(*out));
}

int mr_gguf_take_string(struct mr_gguf_span *span, struct mr_gguf_string *out)
{
	uint64_t bytes;

	if (mr_gguf_take_u64(span, &bytes) || bytes > left(span))
		return MR_E_TRUNCATED;
	out->data = (const char *)span->at;
	out->bytes = bytes;
	span->at += bytes;
	return 0;
}

static int take_array(struct mr_gguf_span *span, unsigned depth, struct mr_gguf_array *out)
{
	struct mr_gguf_value item;
	uint32_t type;
	int rc;

	if (depth >= MR_GGUF_MAX_DEPTH)
		return MR_E_TOO_LARGE;
	if (mr_gguf_take_u32(span, &type) || mr_gguf_take_u64(span, &out->count))
		return MR_E_TRUNCATED;
	if (type >= MR_GGUF_TYPES)
		return MR_E_FORMAT;
	/* This bounds both the walk below and count * size by what the file holds. */
	if (out->count > left(span) / type_info[type].bytes)
		return MR_E_TRUNCATED;
	out->item = type;
	out->data = span->at;
	if (type != MR_GGUF_STRING && type != MR_GGUF_ARRAY) {
		span->at += out->count * type_info[type].bytes;
	} else {
		for (uint64_t i = 0; i < out->count; i++) {
			rc = mr_gguf_take_value(span, type, depth + 1, &item);
			if (rc)
				return rc;
		}
	}
	out->bytes = (size_t)(span->at - out->data);
	return 0;
}

int mr_gguf_take_value(struct mr_gguf_span *span, uint32_t type, unsigned depth,
		       struct mr_gguf_value *out)
{
	uint64_t raw = 0;
	float f32;

	if (type >= MR_GGUF_TYPES)
		return MR_E_FORMAT;
	out->type = type;
	if (type == MR_GGUF_STRING)
		return mr_gguf_take_string(span, &out->string);
	if (type == MR_GGUF_ARRAY)
		return take_array(span, depth, &out->array);
	if (take(span, &raw, type_info[type].bytes))
		return MR_E_TRUNCATED;

	switch (out->type) {
	case MR_GGUF_I8:
		out->i = (int8_t)raw;
		break;
	case MR_GGUF_I16:
		out->i = (int16_t)raw;
		break;
	case MR_GGUF_I32:
		out->i = (int32_t)raw;
		break;
	case MR_GGUF_F32:
		memcpy(&f32, &raw, sizeof(f32));
		out->f = f32;
		break;
	case MR_GGUF_F64:
		memcpy(&out->f, &raw, sizeof(out->f));
		break;
	case MR_GGUF_BOOL:
		if (raw > 1)
			return MR_E_FORMAT;
		out->u = raw;
		break;
	default: /* U8 to U64 and I64 are their bits */
		out->u = raw;
	}
	return 0;
}

struct mr_gguf_cursor mr_gguf_walk(const struct mr_gguf_array *array)
{
	return (struct mr_gguf_cursor){array->data, array->data + array->bytes, array->count,
				       array->item};
}

int mr_gguf_next(struct mr_gguf_cursor *cursor, struct mr_gguf_value *item)
{
	struct mr_gguf_span span = {cursor->at, cursor->end};
	int rc;

	if (!cursor->left)
		return 0;
	rc = mr_gguf_take_value(&span, cursor->item, 1, item);
	if (rc)
		return rc;
	cursor->at = span.at;
	cursor->left--;
	return 1;
}

int mr_gguf_get_u32(const struct mr_gguf *gguf, const char *key, uint32_t *out)
{
	const struct mr_gguf_value *v = mr_gguf_find(gguf, key);

	if (!v)
		return MR_E_NOT_FOUND;
	switch (v->type) {
	case MR_GGUF_I8:
	case MR_GGUF_I16:
	case MR_GGUF_I32:
	case MR_GGUF_I64:
		if (v->i < 0)
			return MR_E_RANGE;
		break;
	case MR_GGUF_U8:
	case MR_GGUF_U16:
	case MR_GGUF_U32:
	case MR_GGUF_U64:
		break;
	default:
		return MR_E_FORMAT;
	}
	if (v->u > UINT32_MAX)
		return MR_E_RANGE;
	*out = (uint32_t)v->u;
	return 0;
}

int mr_gguf_get_float(const struct mr_gguf *gguf, const char *key, float *out)
{
	const struct mr_gguf_value *v = mr_gguf_find(gguf, key);

	if (!v)
		return MR_E_NOT_FOUND;
	if (v->type != MR_GGUF_F32 && v->type != MR_GGUF_F64)
		return MR_E_FORMAT;
	*out = (float)v->f;
	return 0;
}

int mr_gguf_get_bool(const struct mr_gguf *gguf, const char *key, int *out)
{
	const struct mr_gguf_value *v = mr_gguf_find(gguf, key);

	if (!v)
		return MR_E_NOT_FOUND;
	if (v->type != MR_GGUF_BOOL)
		return MR_E_FORMAT;
	*out = (int)v->u;
	return 0;
}

int mr_gguf_get_string(const struct mr_gguf *gguf, const char *key, struct mr_gguf_string *out)
{
	const struct mr_gguf_value *v = mr_gguf_find(gguf, key);

	if (!v)
		return MR_E_NOT_FOUND;
	if (v->type != MR_GGUF_STRING)
		return MR_E_FORMAT;
	*out = v->string;
	return 0;
}

int mr_gguf_get_array(const struct mr_gguf *gguf, const char *key, enum mr_gguf_type item,
		      struct mr_gguf_array *out)
{
	const struct mr_gguf_value *v = mr_gguf_find(gguf, key);

	if (!v)
		return MR_E_NOT_FOUND;
	if (v->type != MR_GGUF_ARRAY || v->array.item != item)
		return MR_E_FORMAT;
	*out = v->array;
	return 0;
}
