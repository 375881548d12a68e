// SPDX-License-Identifier: Apache-2.0
/* See load_trace.h. Both formats fill one set of fields, a line's worth, which is checked and added in one place. */
#include "tools/load_trace.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <millrace/status.h>

#define TOKENS_MAX   (1u << 20)
#define SECONDS_MAX  1e7
#define ENTRIES_MAX  10000000u
#define NUMBER_BYTES 32 /* of a number's text */
#define JSON_DEPTH   2

enum field { ARRIVAL, PROMPT_TOKENS, PROMPT, ANSWER_TOKENS, CLASS, CLIENT, FIELDS };
static const char *const field_names[FIELDS] = {"arrival",       "prompt_tokens", "prompt",
						"answer_tokens", "class",         "client"};

/* One field's bytes, in the file or in @scratch. NULL = not there. */
struct value {
	const char *text;
	size_t bytes;
};

struct reader {
	struct load_trace *trace;
	const char *at, *end;
	uint32_t line;
	uint32_t entries_room, texts_room;
	bool has_class, has_client; /* the first request has */
	int columns[FIELDS];        /* CSV: which field each column is */
	int column_count;
	char *scratch; /* CSV: fields in quotes, without them; as large as the file */
	size_t scratch_used;
};

static int __attribute__((format(printf, 3, 4)))
wrong(struct reader *r, int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(r->trace->error, sizeof(r->trace->error), format, args);
	va_end(args);
	r->trace->error_line = r->line;
	return status;
}

int load_label(struct load_labels *labels, const char *name, size_t bytes)
{
	if (!bytes || bytes >= LOAD_LABEL_BYTES)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < labels->count; i++)
		if (strlen(labels->name[i]) == bytes && !memcmp(labels->name[i], name, bytes))
			return (int)i;
	if (labels->count == LOAD_LABELS_MAX)
		return MR_E_TOO_LARGE;
	for (size_t i = 0; i < bytes; i++)
		labels->name[labels->count][i] = name[i];
	labels->name[labels->count][bytes] = '\0';
	return (int)labels->count++;
}

static int field_of(const char *name, size_t bytes)
{
	for (int i = 0; i < FIELDS; i++)
		if (strlen(field_names[i]) == bytes && !memcmp(field_names[i], name, bytes))
			return i;
	return -1;
}

/* Digits, point and exponent only: strtod alone would take blanks, signs, hexadecimal, nan and inf. */
static bool decimal(const struct value *v, double *out)
{
	char text[NUMBER_BYTES], *end;

	if (!v->bytes || v->bytes >= sizeof(text) || !isdigit((unsigned char)v->text[0]))
		return false;
	for (size_t i = 0; i < v->bytes; i++) {
		text[i] = v->text[i];
		if (!memchr("0123456789.eE+-", text[i], 15))
			return false;
	}
	text[v->bytes] = '\0';
	*out = strtod(text, &end);
	return !*end && isfinite(*out);
}

static int take_count(struct reader *r, enum field field, const struct value *v, uint32_t *out)
{
	double n;

	if (!decimal(v, &n) || n < 1 || n > TOKENS_MAX || n != floor(n))
		return wrong(r, MR_E_RANGE, "%s takes a whole number from 1 to %u",
			     field_names[field], TOKENS_MAX);
	*out = (uint32_t)n;
	return 0;
}

static int take_label(struct reader *r, enum field field, const struct value *v, uint16_t *out)
{
	struct load_labels *labels = field == CLASS ? &r->trace->classes : &r->trace->clients;
	int index;

	for (size_t i = 0; i < v->bytes; i++)
		if (!isalnum((unsigned char)v->text[i]) && !memchr("-_.", v->text[i], 3))
			return wrong(r, MR_E_RANGE, "%s is of letters, digits, '-', '_' and '.'",
				     field_names[field]);
	index = load_label(labels, v->text, v->bytes);
	if (index == MR_E_TOO_LARGE)
		return wrong(r, index, "more than %u different names of a %s", LOAD_LABELS_MAX,
			     field_names[field]);
	if (index < 0)
		return wrong(r, index, "%s is a name of 1 to %d characters", field_names[field],
			     LOAD_LABEL_BYTES - 1);
	*out = (uint16_t)index;
	return 0;
}

/* Makes room for one more element of @size bytes. */
static bool grow(void **array, uint32_t count, uint32_t *room, size_t size)
{
	uint32_t wanted = *room ? 2 * *room : 64;
	void *more;

	if (count < *room)
		return true;
	more = reallocarray(*array, wanted, size);
	if (!more)
		return false;
	*array = more;
	*room = wanted;
	return true;
}

static int take_text(struct reader *r, const struct value *v, uint32_t *index)
{
	struct load_trace *t = r->trace;
	char *copy;

	if (!v->bytes)
		return wrong(r, MR_E_RANGE, "the prompt is empty");
	if (v->bytes > LOAD_TRACE_TEXT_MAX)
		return wrong(r, MR_E_TOO_LARGE, "the prompt is longer than %u bytes",
			     LOAD_TRACE_TEXT_MAX);
	if (!grow((void **)&t->texts, t->text_count, &r->texts_room, sizeof(*t->texts)))
		return MR_E_NO_MEMORY;
	copy = malloc(v->bytes);
	if (!copy)
		return MR_E_NO_MEMORY;
	memcpy(copy, v->text, v->bytes);
	t->texts[t->text_count] = (struct load_prompt){copy, (uint32_t)v->bytes};
	*index = t->text_count++;
	return 0;
}

static int take_arrival(struct reader *r, const struct value *v, uint64_t *out)
{
	struct load_trace *t = r->trace;
	double seconds;

	if (!v->text)
		return wrong(r, MR_E_FORMAT, "no arrival");
	if (!decimal(v, &seconds) || seconds > SECONDS_MAX)
		return wrong(r, MR_E_RANGE, "arrival takes seconds from 0 to %.0f", SECONDS_MAX);
	*out = (uint64_t)(seconds * 1e9 + 0.5);
	if (t->count && *out < t->entries[t->count - 1].arrival_ns)
		return wrong(r, MR_E_RANGE, "arrival is before that of the request above");
	return 0;
}

static int add(struct reader *r, const struct value v[FIELDS])
{
	struct load_trace *t = r->trace;
	struct load_trace_entry e = {0};
	int status = take_arrival(r, &v[ARRIVAL], &e.arrival_ns);

	if (status)
		return status;
	if (!v[PROMPT].text == !v[PROMPT_TOKENS].text)
		return wrong(r, MR_E_FORMAT, "one of prompt and prompt_tokens is needed");
	if (v[PROMPT].text)
		status = take_text(r, &v[PROMPT], &e.prompt);
	else
		status = take_count(r, PROMPT_TOKENS, &v[PROMPT_TOKENS], &e.prompt_tokens);
	if (!status && v[ANSWER_TOKENS].text)
		status = take_count(r, ANSWER_TOKENS, &v[ANSWER_TOKENS], &e.answer_tokens);
	if (!status && v[CLASS].text)
		status = take_label(r, CLASS, &v[CLASS], &e.class);
	if (!status && v[CLIENT].text)
		status = take_label(r, CLIENT, &v[CLIENT], &e.client);
	if (status)
		return status;
	if (!t->count) {
		r->has_class = v[CLASS].text != NULL;
		r->has_client = v[CLIENT].text != NULL;
	}
	if (r->has_class != (v[CLASS].text != NULL) || r->has_client != (v[CLIENT].text != NULL))
		return wrong(r, MR_E_FORMAT, "class and client are in every request or in none");
	if (t->count == ENTRIES_MAX)
		return wrong(r, MR_E_TOO_LARGE, "more than %u requests", ENTRIES_MAX);
	if (!grow((void **)&t->entries, t->count, &r->entries_room, sizeof(e)))
		return MR_E_NO_MEMORY;
	t->entries[t->count++] = e;
	return 0;
}

/* ---- JSON lines ---- */

static int json_fields(struct reader *r, struct json_object *o, struct value v[FIELDS])
{
	json_object_object_foreach(o, name, item)
	{
		int field = field_of(name, strlen(name));
		bool text = field == PROMPT || field == CLASS || field == CLIENT;

		if (field < 0)
			return wrong(r, MR_E_FORMAT, "unknown field '%.40s'", name);
		if (text ? !json_object_is_type(item, json_type_string) &&
				    (field == PROMPT || !json_object_is_type(item, json_type_int))
			 : !json_object_is_type(item, json_type_int) &&
				    !json_object_is_type(item, json_type_double))
			return wrong(r, MR_E_FORMAT, "%s is not a %s", name,
				     text ? "string" : "number");
		v[field].text = json_object_get_string(item);
		v[field].bytes = json_object_is_type(item, json_type_string)
					 ? (size_t)json_object_get_string_len(item)
					 : strlen(v[field].text);
	}
	return 0;
}

static int json_line(struct reader *r, struct json_tokener *tokener, const char *line, size_t bytes)
{
	struct value v[FIELDS] = {0};
	struct json_object *o;
	int status;

	if (bytes > INT32_MAX)
		return wrong(r, MR_E_TOO_LARGE, "the line is too long");
	json_tokener_reset(tokener);
	o = json_tokener_parse_ex(tokener, line, (int)bytes);
	/* A number or an unended object wants more; an end of input is what it gets. */
	if (!o || json_tokener_get_parse_end(tokener) != bytes ||
	    !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		return wrong(r, MR_E_FORMAT, "not a JSON object");
	}
	status = json_fields(r, o, v);
	if (!status)
		status = add(r, v);
	json_object_put(o);
	return status;
}

static int read_json(struct reader *r)
{
	struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH);
	int status = 0;

	if (!tokener)
		return MR_E_NO_MEMORY;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	for (r->line = 1; !status && r->at < r->end; r->line++) {
		const char *stop = memchr(r->at, '\n', (size_t)(r->end - r->at));
		const char *next = stop ? stop + 1 : r->end, *line = r->at;

		stop = stop ? stop : r->end;
		while (line < stop && memchr(" \t\r", *line, 3))
			line++;
		while (stop > line && memchr(" \t\r", stop[-1], 3))
			stop--;
		if (line < stop)
			status = json_line(r, tokener, line, (size_t)(stop - line));
		r->at = next;
	}
	json_tokener_free(tokener);
	return status;
}

/* ---- CSV ---- */

/* A field in quotes, into scratch; @at is behind the first quote, and then behind the last. */
static int quoted(struct reader *r, struct value *v)
{
	v->text = r->scratch + r->scratch_used;
	for (; r->at < r->end; r->at++) {
		if (*r->at == '"' && (++r->at == r->end || *r->at != '"')) {
			v->bytes = (size_t)(r->scratch + r->scratch_used - v->text);
			return 0;
		}
		r->scratch[r->scratch_used++] = *r->at;
	}
	return wrong(r, MR_E_TRUNCATED, "a quoted field does not end");
}

/* One field. *@last: the row ends behind it. */
static int csv_field(struct reader *r, struct value *v, bool *last)
{
	const char *begin = r->at;
	int status = 0;

	if (r->at < r->end && *r->at == '"') {
		r->at++;
		status = quoted(r, v);
		if (status)
			return status;
	} else {
		while (r->at < r->end && !memchr(",\n\"", *r->at, 3))
			r->at++;
		v->text = begin;
		v->bytes = (size_t)(r->at - begin);
		if (v->bytes && begin[v->bytes - 1] == '\r' && (r->at == r->end || *r->at == '\n'))
			v->bytes--;
	}
	if (r->at < r->end && *r->at == '\r')
		r->at++;
	*last = r->at == r->end || *r->at == '\n';
	if (!*last && *r->at != ',')
		return wrong(r, MR_E_FORMAT, "a quote in the middle of a field");
	if (r->at < r->end)
		r->at++;
	return 0;
}

static int csv_header(struct reader *r)
{
	bool last = false, seen[FIELDS] = {false};

	while (!last) {
		struct value v;
		int status = csv_field(r, &v, &last), field;

		if (status)
			return status;
		field = field_of(v.text, v.bytes);
		if (field < 0)
			return wrong(r, MR_E_FORMAT, "unknown column '%.*s'",
				     v.bytes < 40 ? (int)v.bytes : 40, v.text);
		if (seen[field])
			return wrong(r, MR_E_FORMAT, "column %s comes twice", field_names[field]);
		seen[field] = true;
		r->columns[r->column_count++] = field;
	}
	if (!seen[ARRIVAL])
		return wrong(r, MR_E_FORMAT, "no column arrival");
	return 0;
}

static int csv_row(struct reader *r)
{
	struct value v[FIELDS] = {0};
	bool last = false;
	int n = 0, status;

	r->scratch_used = 0;
	for (; !last; n++) {
		struct value field;

		status = csv_field(r, &field, &last);
		if (status)
			return status;
		if (n == 0 && last && !field.bytes)
			return 0; /* an empty line */
		if (n < r->column_count && field.bytes)
			v[r->columns[n]] = field;
	}
	if (n != r->column_count)
		return wrong(r, MR_E_FORMAT, "%s fields than the first line names",
			     n < r->column_count ? "fewer" : "more");
	return add(r, v);
}

static int read_csv(struct reader *r)
{
	int status;

	r->scratch = malloc((size_t)(r->end - r->at) + 1);
	if (!r->scratch)
		return MR_E_NO_MEMORY;
	r->line = 1;
	status = csv_header(r);
	while (!status && r->at < r->end) {
		const char *row = r->at;

		r->line++;
		status = csv_row(r);
		/* Lines inside quotes. */
		for (row++; !status && row < r->at - 1; row++)
			r->line += *row == '\n';
	}
	free(r->scratch);
	return status;
}

int load_trace_parse(const char *text, size_t bytes, struct load_trace *trace)
{
	struct reader r = {.trace = trace, .at = text, .end = text + bytes, .line = 1};
	int status;

	*trace = (struct load_trace){0};
	if (bytes > LOAD_TRACE_BYTES_MAX)
		return wrong(&r, MR_E_TOO_LARGE, "more than %u bytes", LOAD_TRACE_BYTES_MAX);
	status = bytes && text[0] == '{' ? read_json(&r) : read_csv(&r);
	if (!status && !trace->count)
		return wrong(&r, MR_E_TRUNCATED, "no request in it");
	if (status == MR_E_NO_MEMORY)
		return wrong(&r, status, "out of memory");
	return status;
}

int load_trace_read(const char *path, struct load_trace *trace)
{
	FILE *file = fopen(path, "re");
	struct stat st;
	char *text = NULL;
	int status = MR_E_IO;

	*trace = (struct load_trace){0};
	if (!file) {
		snprintf(trace->error, sizeof(trace->error), "%s", strerror(errno));
		return errno == ENOENT ? MR_E_NOT_FOUND : MR_E_IO;
	}
	snprintf(trace->error, sizeof(trace->error), "cannot be read");
	if (!fstat(fileno(file), &st) && S_ISREG(st.st_mode) && st.st_size >= 0)
		text = malloc((size_t)st.st_size + 1);
	if (text && fread(text, 1, (size_t)st.st_size, file) == (size_t)st.st_size)
		status = load_trace_parse(text, (size_t)st.st_size, trace);
	free(text);
	fclose(file);
	return status;
}

void load_trace_free(struct load_trace *trace)
{
	for (uint32_t i = 0; i < trace->text_count; i++)
		free(trace->texts[i].text);
	free(trace->texts);
	free(trace->entries);
	*trace = (struct load_trace){0};
}
