// SPDX-License-Identifier: Apache-2.0
/*
 * Text to token ids: special tokens, then words (split.c), then byte-pair merges word by word.
 *
 * A word that is a token, and whose merges lead to that token, is one table look-up; any other is
 * merged with a heap of candidate pairs, n log n in the word's length.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/tokenizer_impl.h"
#include "driver/model/unicode.h"

#define TEXT_BYTES_MAX ((size_t)64 << 20)
#define NONE           UINT32_MAX

/* A piece of the word during merging; pieces form a list in text order. */
struct symbol {
	uint32_t id; /* NO_ID: a byte without a token; it parts its neighbours and yields nothing */
	uint32_t rank; /* of merging with the next; NO_ID where they do not merge, or when absorbed
			*/
	uint32_t prev, next;
};

struct mr_token_work {
	size_t text_bytes;
	unsigned char *text;    /* where mr_encode_joined joins its parts */
	struct symbol *symbols; /* 3 a byte of text: an ill-formed byte becomes the 3 of U+FFFD */
	uint64_t *heap; /* rank << 32 | symbol; 2 a symbol: a merge takes one and adds two */
};

int mr_token_work_create(const struct mr_tokenizer *t, size_t text_bytes,
			 struct mr_token_work **out)
{
	struct mr_token_work *work;
	size_t room;

	(void)t;
	if (text_bytes > TEXT_BYTES_MAX)
		return MR_E_TOO_LARGE;
	room = text_bytes + TEXT_SLACK;
	work = calloc(1, sizeof(*work));
	if (!work)
		return MR_E_NO_MEMORY;
	work->text_bytes = text_bytes;
	work->text = malloc(room);
	work->symbols = malloc(3 * room * sizeof(*work->symbols));
	work->heap = malloc(6 * room * sizeof(*work->heap));
	if (!work->text || !work->symbols || !work->heap) {
		mr_token_work_destroy(work);
		return MR_E_NO_MEMORY;
	}
	*out = work;
	return 0;
}

void mr_token_work_destroy(struct mr_token_work *work)
{
	if (!work)
		return;
	free(work->text);
	free(work->symbols);
	free(work->heap);
	free(work);
}

static void heap_push(uint64_t *heap, size_t count, uint64_t item)
{
	size_t i = count;

	while (i && heap[(i - 1) / 2] > item) {
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = item;
}

/* Takes the least of @count items. */
static uint64_t heap_pop(uint64_t *heap, size_t count)
{
	uint64_t least = heap[0], item = heap[count - 1];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < count - 1) {
		if (child + 1 < count - 1 && heap[child + 1] < heap[child])
			child++;
		if (heap[child] >= item)
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = item;
	return least;
}

/* The word's bytes as symbols, each ill-formed part as U+FFFD; returns their number. */
static uint32_t fill_symbols(const struct mr_tokenizer *t, struct symbol *symbols,
			     const unsigned char *at, const unsigned char *end)
{
	uint32_t n = 0;

	while (at < end) {
		struct mr_utf8 c = mr_utf8_next(at, end);
		const unsigned char *bytes = at;
		uint32_t count = c.bytes;

		if (c.state != MR_UTF8_OK) {
			bytes = (const unsigned char *)MR_REPLACEMENT;
			count = sizeof(MR_REPLACEMENT) - 1;
		}
		for (uint32_t i = 0; i < count; i++, n++)
			symbols[n] = (struct symbol){t->byte_id[bytes[i]], NO_ID, n - 1, n + 1};
		at += c.bytes;
	}
	symbols[n - 1].next = NONE;
	return n;
}

/* Ranks the pair that starts at @i anew, and makes it a candidate where it merges. */
static size_t rank_pair(const struct mr_tokenizer *t, struct mr_token_work *work, uint32_t i,
			size_t heap_count)
{
	struct symbol *s = &work->symbols[i];

	s->rank = s->next == NONE ? NO_ID : merge_rank(t, s->id, work->symbols[s->next].id);
	if (s->rank == NO_ID)
		return heap_count;
	heap_push(work->heap, heap_count, (uint64_t)s->rank << 32 | i);
	return heap_count + 1;
}

size_t mr_tokenizer_merge(const struct mr_tokenizer *t, struct mr_token_work *work,
			  const unsigned char *word, size_t bytes, uint32_t *ids, size_t cap)
{
	struct symbol *symbols = work->symbols;
	size_t candidates = 0, made = 0;
	uint32_t n;

	if (!bytes)
		return 0;
	n = fill_symbols(t, symbols, word, word + bytes);
	for (uint32_t i = 0; i < n; i++)
		candidates = rank_pair(t, work, i, candidates);

	while (candidates) {
		uint64_t best = heap_pop(work->heap, candidates--);
		uint32_t left = (uint32_t)best, right;

		/* A pair that changed since it was pushed has another rank by now. */
		if (symbols[left].rank != best >> 32)
			continue;
		right = symbols[left].next;
		symbols[left].id = t->merged[best >> 32];
		symbols[left].next = symbols[right].next;
		symbols[right].rank = NO_ID;
		if (symbols[left].next != NONE)
			symbols[symbols[left].next].prev = left;
		candidates = rank_pair(t, work, left, candidates);
		if (left)
			candidates = rank_pair(t, work, symbols[left].prev, candidates);
	}
	for (uint32_t i = 0; i != NONE; i = symbols[i].next) {
		if (symbols[i].id == NO_ID)
			continue;
		if (made < cap)
			ids[made] = symbols[i].id;
		made++;
	}
	return made;
}

/* Appends the ids of plain text. Returns the new count, or MR_E_CONTEXT_FULL. */
static long encode_plain(const struct mr_tokenizer *t, struct mr_token_work *work,
			 const unsigned char *at, const unsigned char *end, uint32_t *ids,
			 size_t cap, size_t count)
{
	while (at < end) {
		int ill;
		size_t bytes = mr_tokenizer_split(t->pre, at, end, &ill);
		uint32_t id = ill ? NO_ID : mr_tokenizer_word(t, at, bytes);

		if (id != NO_ID && t->whole[id]) {
			if (count < cap)
				ids[count] = id;
			count++;
		} else {
			count += mr_tokenizer_merge(t, work, at, bytes, ids + count, cap - count);
		}
		if (count > cap)
			return MR_E_CONTEXT_FULL;
		at += bytes;
	}
	return (long)count;
}

/*
 * The longest special token that the text spells at @at: of those of the user, and where @control
 * of control tokens too. NO_ID where it spells none.
 */
static uint32_t special_at(const struct mr_tokenizer *t, const unsigned char *at,
			   const unsigned char *end, int control, size_t *bytes)
{
	if (!t->special_lead[*at])
		return NO_ID;
	for (uint32_t i = 0; i < t->special_count; i++) {
		uint32_t id = t->specials[i];

		*bytes = t->start[id + 1] - t->start[id];
		if (*bytes <= (size_t)(end - at) && (control || t->type[id] != TOKEN_CONTROL) &&
		    !memcmp(at, t->bytes + t->start[id], *bytes))
			return id;
	}
	return NO_ID;
}

/* Appends the ids of a text. Returns the new count, or MR_E_CONTEXT_FULL. */
static long encode_text(const struct mr_tokenizer *t, struct mr_token_work *work,
			const unsigned char *at, const unsigned char *end, int control,
			uint32_t *ids, size_t cap, size_t count)
{
	const unsigned char *plain = at;

	while ((control || t->user_count) && at < end) {
		size_t spelled = 0;
		uint32_t id = special_at(t, at, end, control, &spelled);
		long made;

		if (id == NO_ID) {
			at++;
			continue;
		}
		made = encode_plain(t, work, plain, at, ids, cap, count);
		if (made < 0 || (size_t)made == cap)
			return MR_E_CONTEXT_FULL;
		count = (size_t)made;
		ids[count++] = id;
		at += spelled;
		plain = at;
	}
	return encode_plain(t, work, plain, end, ids, cap, count);
}

int mr_encode(const struct mr_tokenizer *t, struct mr_token_work *work, const char *text,
	      size_t bytes, unsigned flags, uint32_t *ids, size_t cap)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t count = 0;

	if (bytes > work->text_bytes)
		return MR_E_TOO_LARGE;
	if (flags & ~(MR_ENCODE_CONTROL | MR_ENCODE_START))
		return MR_E_INVALID;
	if (cap > INT_MAX)
		cap = INT_MAX;
	if (flags & MR_ENCODE_START && t->start_id != NO_ID) {
		if (!cap)
			return MR_E_CONTEXT_FULL;
		ids[count++] = t->start_id;
	}
	return (int)encode_text(t, work, at, at + bytes, flags & MR_ENCODE_CONTROL, ids, cap,
				count);
}

int mr_encode_joined(const struct mr_tokenizer *t, struct mr_token_work *work,
		     const struct text_part *parts, size_t parts_count, uint32_t *ids, size_t cap)
{
	size_t bytes = 0;

	for (size_t i = 0; i < parts_count; i++) {
		if (parts[i].bytes > work->text_bytes + TEXT_SLACK - bytes)
			return MR_E_TOO_LARGE;
		if (parts[i].bytes) /* an empty part may be NULL */
			memcpy(work->text + bytes, parts[i].data, parts[i].bytes);
		bytes += parts[i].bytes;
	}
	return (int)encode_text(t, work, work->text, work->text + bytes, 0, ids,
				cap < INT_MAX ? cap : INT_MAX, 0);
}
