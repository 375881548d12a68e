// SPDX-License-Identifier: Apache-2.0
#include "userlib/spec/shape.h"

#include <stdio.h>

#include <millrace/status.h>

#include "userlib/spec/chip.h"
#include "userlib/spec/why.h"
#include "userlib/spec/words.h"

struct reader {
	struct mr_shape_file *out;
	struct mr_spec_why why;
	unsigned line;
};

static int take_name(struct reader *r, struct word w, char *to, size_t room)
{
	if (!word_is_name(w))
		return mr_spec_why(&r->why, MR_E_FORMAT, "line %u: not a name", r->line);
	if (w.bytes >= room)
		return mr_spec_why(&r->why, MR_E_RANGE, "line %u: the name is too long", r->line);
	memcpy(to, w.at, w.bytes);
	return 0;
}

static int take_type(struct reader *r, struct word w)
{
	r->out->type = word_is(w, "i8")     ? MR_CHIP_TYPE_I8
		       : word_is(w, "f16")  ? MR_CHIP_TYPE_F16
		       : word_is(w, "f8")   ? MR_CHIP_TYPE_F8
		       : word_is(w, "q4_1") ? MR_CHIP_TYPE_Q4_1
		       : word_is(w, "q8_0") ? MR_CHIP_TYPE_Q8_0
					    : 0;
	return r->out->type ? 0
			    : mr_spec_why(&r->why, MR_E_FORMAT, "line %u: unknown type", r->line);
}

static int take_product(struct reader *r, const char *p, const char *end)
{
	struct mr_shape_product *to = &r->out->product[r->out->count];
	uint32_t *sizes[] = {&to->m, &to->k, &to->n, &to->times};
	int status;

	if (!r->out->name[0] || !r->out->type)
		return mr_spec_why(&r->why, MR_E_FORMAT, "line %u: name and type come first",
				   r->line);
	if (r->out->count == MR_SHAPE_PRODUCTS_MAX)
		return mr_spec_why(&r->why, MR_E_TOO_LARGE, "line %u: more than %u products",
				   r->line, MR_SHAPE_PRODUCTS_MAX);
	status = take_name(r, next_word(&p, end), to->name, sizeof(to->name));
	for (int i = 0; !status && i < 4; i++) {
		uint64_t v;

		if (word_number(next_word(&p, end), &v) < 0)
			return mr_spec_why(&r->why, MR_E_FORMAT,
					   "line %u: a product is `product name m k n times`",
					   r->line);
		if (!v || v > MR_SHAPE_SIZE_MAX)
			return mr_spec_why(&r->why, MR_E_RANGE, "line %u: not within 1 to %u",
					   r->line, MR_SHAPE_SIZE_MAX);
		*sizes[i] = (uint32_t)v;
	}
	if (!status && next_word(&p, end).bytes)
		status =
			mr_spec_why(&r->why, MR_E_FORMAT, "line %u: more than four sizes", r->line);
	r->out->count += !status;
	return status;
}

static int take_line(struct reader *r, const char *p, const char *end)
{
	struct word key = next_word(&p, end);

	if (!key.bytes || key.at[0] == '#')
		return 0;
	if (word_is(key, "product"))
		return take_product(r, p, end);
	int is_name = word_is(key, "name"), is_type = word_is(key, "type");
	struct word value = next_word(&p, end);

	if (!(is_name || is_type) || (is_name ? r->out->name[0] != 0 : r->out->type != 0) ||
	    next_word(&p, end).bytes)
		return mr_spec_why(&r->why, MR_E_FORMAT,
				   "line %u: unknown, repeated or with too many words", r->line);
	return is_name ? take_name(r, value, r->out->name, sizeof(r->out->name))
		       : take_type(r, value);
}

int mr_shape_parse(const char *text, size_t bytes, struct mr_shape_file *out, char *why,
		   size_t why_bytes)
{
	struct reader r = {.out = out, .why = {why, why_bytes}};
	const char *p = text, *end = text + bytes;

	memset(out, 0, sizeof(*out));
	if (bytes > MR_SHAPE_BYTES_MAX)
		return mr_spec_why(&r.why, MR_E_TOO_LARGE, "larger than %u bytes",
				   MR_SHAPE_BYTES_MAX);
	while (p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		int status;

		if (!eol)
			eol = end;
		r.line++;
		status = take_line(&r, p, eol);
		if (status)
			return status;
		p = eol + (eol < end);
	}
	if (!out->count)
		return mr_spec_why(&r.why, MR_E_FORMAT, "no product");
	return 0;
}
