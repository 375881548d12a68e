// SPDX-License-Identifier: Apache-2.0
/*
 * The tokeniser's tables, made from a GGUF's vocabulary and merges, and what is read straight off
 * them. Nothing in the file is trusted: every token must be spelled in the byte-level alphabet,
 * every merge must join two tokens to a third, nothing may be there twice.
 */
#include "driver/model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/gguf.h"
#include "driver/model/unicode.h"
#include "driver/model/why.h"

#define VOCAB_MAX    (1u << 20)
#define SPECIALS_MAX 1024u
/* Both tables are at most half full, where chains stay far shorter: a longer one was made on
 * purpose. */
#define PROBES_MAX 512u

/* What only loading needs. */
struct loading {
	struct mr_tokenizer *t;
	const struct mr_gguf *gguf;
	const struct mr_why *why;
	int16_t byte_of[324]; /* character of the byte-level alphabet -> byte, or -1 */
};

/* The byte-level alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 onwards.
 */
static void fill_alphabet(int16_t byte_of[324])
{
	int other = 0x100;

	memset(byte_of, 0xff, 324 * sizeof(*byte_of));
	for (int b = 0; b < 256; b++) {
		int printable = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);

		byte_of[printable ? b : other++] = (int16_t)b;
	}
}

/* Turns a token's spelling into the bytes it stands for. Returns their number, or -1. */
static long spell(const struct loading *l, const struct mr_gguf_string *s, unsigned char *out,
		  size_t cap)
{
	const unsigned char *at = (const unsigned char *)s->data, *end = at + s->bytes;
	size_t n = 0;

	while (at < end) {
		struct mr_utf8 c = mr_utf8_next(at, end);

		if (c.state != MR_UTF8_OK || c.code >= 324 || l->byte_of[c.code] < 0 || n == cap)
			return -1;
		out[n++] = (unsigned char)l->byte_of[c.code];
		at += c.bytes;
	}
	return (long)n;
}

static uint32_t word_hash(const unsigned char *bytes, size_t count)
{
	uint64_t h = count, part;

	for (; count >= 8; bytes += 8, count -= 8) {
		memcpy(&part, bytes, 8);
		h = (h ^ part) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	for (part = 0; count; count--)
		part = part << 8 | bytes[count - 1];
	h = (h ^ part) * 0xbf58476d1ce4e5b9u;
	return (uint32_t)(h >> 32);
}

uint32_t mr_tokenizer_word(const struct mr_tokenizer *t, const unsigned char *bytes, size_t count)
{
	for (uint32_t i = word_hash(bytes, count);; i++) {
		uint32_t id = t->words[i & t->word_mask];

		if (id == NO_ID)
			return NO_ID;
		if (t->start[id + 1] - t->start[id] == count &&
		    !memcmp(t->bytes + t->start[id], bytes, count))
			return id;
	}
}

/* The least power of two that is at least twice @n. */
static uint32_t slots_for(uint32_t n)
{
	uint32_t slots = 16;

	while (slots < 2 * (uint64_t)n)
		slots *= 2;
	return slots;
}

static int add_word(struct loading *l, uint32_t id)
{
	struct mr_tokenizer *t = l->t;
	const unsigned char *bytes = t->bytes + t->start[id];
	size_t count = t->start[id + 1] - t->start[id];
	uint32_t i = word_hash(bytes, count), probes = 0;

	for (; t->words[i & t->word_mask] != NO_ID; i++) {
		uint32_t other = t->words[i & t->word_mask];

		if (t->start[other + 1] - t->start[other] == count &&
		    !memcmp(t->bytes + t->start[other], bytes, count))
			return mr_why(l->why, MR_E_FORMAT, "tokens %u and %u are the same", other,
				      id);
		if (++probes == PROBES_MAX)
			return mr_why(l->why, MR_E_FORMAT, "token %u: too many tokens share a hash",
				      id);
	}
	t->words[i & t->word_mask] = id;
	if (count == 1)
		t->byte_id[bytes[0]] = id;
	return 0;
}

/* Makes room for tokens whose spellings take @text_bytes; a spelling is never shorter than its
 * bytes. */
static int make_room(struct loading *l, uint32_t vocab, size_t text_bytes)
{
	struct mr_tokenizer *t = l->t;
	uint32_t slots = slots_for(vocab);

	t->vocab = vocab;
	t->word_mask = slots - 1;
	t->bytes = malloc(text_bytes + 1);
	t->start = malloc(((size_t)vocab + 1) * sizeof(*t->start));
	t->type = malloc(vocab);
	t->whole = calloc(vocab, 1);
	t->words = malloc(slots * sizeof(*t->words));
	t->specials = malloc(SPECIALS_MAX * sizeof(*t->specials));
	if (!t->bytes || !t->start || !t->type || !t->whole || !t->words || !t->specials)
		return mr_why(l->why, MR_E_NO_MEMORY, "no memory for %u tokens", vocab);
	memset(t->words, 0xff, slots * sizeof(*t->words));
	memset(t->byte_id, 0xff, sizeof(t->byte_id));
	return 0;
}

/* Token @id: its bytes go to the end of what is there. */
static int add_token(struct loading *l, uint32_t id, const struct mr_gguf_string *text,
		     int64_t type)
{
	struct mr_tokenizer *t = l->t;
	unsigned char *bytes = t->bytes + t->start[id];
	long count;

	if (type != TOKEN_NORMAL && type != TOKEN_CONTROL && type != TOKEN_USER &&
	    type != TOKEN_UNUSED)
		return mr_why(l->why, MR_E_MODEL, "token %u has type %lld, which is not supported",
			      id, (long long)type);
	if (!text->bytes)
		return mr_why(l->why, MR_E_FORMAT, "token %u is empty", id);
	t->type[id] = (unsigned char)type;
	if (type == TOKEN_NORMAL) {
		count = spell(l, text, bytes, TOKEN_BYTES_MAX);
		if (count < 0)
			return mr_why(
				l->why, MR_E_FORMAT,
				"token %u, %s, is longer than %u bytes or not in the byte-level "
				"alphabet",
				id, mr_show(text->data, text->bytes).text, TOKEN_BYTES_MAX);
	} else {
		if (text->bytes > TOKEN_BYTES_MAX ||
		    (type != TOKEN_UNUSED && t->special_count == SPECIALS_MAX))
			return mr_why(l->why, MR_E_TOO_LARGE,
				      "special token %u is longer than %u bytes or one too many",
				      id, TOKEN_BYTES_MAX);
		count = (long)text->bytes;
		memcpy(bytes, text->data, text->bytes);
	}
	if (type == TOKEN_CONTROL || type == TOKEN_USER) {
		t->specials[t->special_count++] = id;
		t->special_lead[bytes[0]] = 1;
		t->user_count += type == TOKEN_USER;
	}
	t->start[id + 1] = t->start[id] + (uint32_t)count;
	return type == TOKEN_NORMAL ? add_word(l, id) : 0;
}

static int read_tokens(struct loading *l)
{
	struct mr_gguf_array texts, types;
	struct mr_gguf_cursor text_at, type_at;
	struct mr_gguf_value text, type;
	uint32_t vocab;
	int rc;

	if (mr_gguf_get_array(l->gguf, "tokenizer.ggml.tokens", MR_GGUF_STRING, &texts))
		return mr_why(l->why, MR_E_FORMAT, "tokenizer.ggml.tokens is no array of strings");
	if (mr_gguf_get_array(l->gguf, "tokenizer.ggml.token_type", MR_GGUF_I32, &types))
		return mr_why(l->why, MR_E_FORMAT, "tokenizer.ggml.token_type is no array of i32");
	if (texts.count != types.count)
		return mr_why(l->why, MR_E_FORMAT,
			      "tokenizer.ggml.tokens and token_type differ in length");
	if (!texts.count || texts.count > VOCAB_MAX)
		return mr_why(l->why, MR_E_RANGE, "a vocabulary of %llu tokens; 1 to %u are read",
			      (unsigned long long)texts.count, VOCAB_MAX);
	if (texts.bytes > UINT32_MAX)
		return mr_why(l->why, MR_E_TOO_LARGE, "tokenizer.ggml.tokens is above 4 GiB");
	vocab = (uint32_t)texts.count;
	/* An item is its length, 8 bytes, and its text. */
	rc = make_room(l, vocab, texts.bytes - 8 * (size_t)vocab);
	if (rc)
		return rc;

	text_at = mr_gguf_walk(&texts);
	type_at = mr_gguf_walk(&types);
	l->t->start[0] = 0;
	for (uint32_t id = 0; id < vocab; id++) {
		if (mr_gguf_next(&text_at, &text) != 1 || mr_gguf_next(&type_at, &type) != 1)
			return mr_why(l->why, MR_E_FORMAT,
				      "tokenizer.ggml.tokens changed while read");
		rc = add_token(l, id, &text.string, type.i);
		if (rc)
			return rc;
	}
	return 0;
}

/* Puts the merge of rank @rank into the table. */
static int add_merge(struct loading *l, uint32_t rank, const struct mr_gguf_string *text)
{
	struct mr_tokenizer *t = l->t;
	const char *space = memchr(text->data, ' ', text->bytes);
	unsigned char bytes[2 * TOKEN_BYTES_MAX];
	struct mr_gguf_string part[2];
	uint32_t id[2], i, probes = 0;
	long count[2];

	if (!space)
		return mr_why(l->why, MR_E_FORMAT, "merge %u, %s, has no space", rank,
			      mr_show(text->data, text->bytes).text);
	part[0] = (struct mr_gguf_string){text->data, (size_t)(space - text->data)};
	part[1] = (struct mr_gguf_string){space + 1, text->bytes - part[0].bytes - 1};
	count[0] = spell(l, &part[0], bytes, TOKEN_BYTES_MAX);
	count[1] = count[0] < 0 ? -1 : spell(l, &part[1], bytes + count[0], TOKEN_BYTES_MAX);
	if (count[1] < 0)
		return mr_why(l->why, MR_E_FORMAT,
			      "merge %u, %s, is not in the byte-level alphabet", rank,
			      mr_show(text->data, text->bytes).text);
	id[0] = mr_tokenizer_word(t, bytes, (size_t)count[0]);
	id[1] = mr_tokenizer_word(t, bytes + count[0], (size_t)count[1]);
	t->merged[rank] = mr_tokenizer_word(t, bytes, (size_t)(count[0] + count[1]));
	if (id[0] == NO_ID || id[1] == NO_ID || t->merged[rank] == NO_ID)
		return mr_why(l->why, MR_E_FORMAT, "merge %u, %s, does not join tokens to a token",
			      rank, mr_show(text->data, text->bytes).text);

	for (i = merge_hash(id[0], id[1]); t->merges[i & t->merge_mask].rank != NO_ID; i++) {
		const struct merge_slot *slot = &t->merges[i & t->merge_mask];

		if (slot->left == id[0] && slot->right == id[1])
			return mr_why(l->why, MR_E_FORMAT, "merges %u and %u are the same",
				      slot->rank, rank);
		if (++probes == PROBES_MAX)
			return mr_why(l->why, MR_E_FORMAT, "merge %u: too many merges share a hash",
				      rank);
	}
	t->merges[i & t->merge_mask] = (struct merge_slot){id[0], id[1], rank};
	return 0;
}

static int read_merges(struct loading *l)
{
	struct mr_tokenizer *t = l->t;
	struct mr_gguf_array texts;
	struct mr_gguf_cursor at;
	struct mr_gguf_value text;
	uint32_t slots;

	if (mr_gguf_get_array(l->gguf, "tokenizer.ggml.merges", MR_GGUF_STRING, &texts))
		return mr_why(l->why, MR_E_FORMAT, "tokenizer.ggml.merges is no array of strings");
	if (texts.count > VOCAB_MAX)
		return mr_why(l->why, MR_E_RANGE, "%llu merges; at most %u are read",
			      (unsigned long long)texts.count, VOCAB_MAX);
	slots = slots_for((uint32_t)texts.count);
	t->merge_mask = slots - 1;
	t->merges = malloc(slots * sizeof(*t->merges));
	t->merged = malloc((texts.count + 1) * sizeof(*t->merged));
	if (!t->merges || !t->merged)
		return mr_why(l->why, MR_E_NO_MEMORY, "no memory for %u merges",
			      (uint32_t)texts.count);
	memset(t->merges, 0xff, slots * sizeof(*t->merges));

	at = mr_gguf_walk(&texts);
	for (uint32_t rank = 0; rank < texts.count; rank++) {
		int rc;

		if (mr_gguf_next(&at, &text) != 1)
			return mr_why(l->why, MR_E_FORMAT,
				      "tokenizer.ggml.merges changed while read");
		rc = add_merge(l, rank, &text.string);
		if (rc)
			return rc;
	}
	return 0;
}

static int longer_first(const void *a, const void *b, void *tokenizer)
{
	const struct mr_tokenizer *t = tokenizer;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	uint32_t x_bytes = t->start[x + 1] - t->start[x], y_bytes = t->start[y + 1] - t->start[y];

	if (x_bytes != y_bytes)
		return x_bytes > y_bytes ? -1 : 1;
	return x < y ? -1 : 1;
}

static int check_specials(struct loading *l)
{
	struct mr_tokenizer *t = l->t;
	size_t bytes, next_bytes;

	qsort_r(t->specials, t->special_count, sizeof(*t->specials), longer_first, t);
	for (uint32_t i = 0; i + 1 < t->special_count; i++)
		for (uint32_t j = i + 1; j < t->special_count; j++) {
			const char *a = mr_token_bytes(t, t->specials[i], &bytes);
			const char *b = mr_token_bytes(t, t->specials[j], &next_bytes);

			if (bytes != next_bytes)
				break;
			if (!memcmp(a, b, bytes))
				return mr_why(l->why, MR_E_FORMAT,
					      "special tokens %u and %u are the same",
					      t->specials[i], t->specials[j]);
		}
	return 0;
}

/*
 * Finds the tokens that a word made of their bytes encodes to: nearly all, in a trained vocabulary;
 * by definition all with llama-bpe, which looks a word up before it merges.
 */
static int mark_whole(struct loading *l)
{
	struct mr_tokenizer *t = l->t;
	struct mr_token_work *work;
	uint32_t id = NO_ID;
	int rc = mr_token_work_create(t, TOKEN_BYTES_MAX, &work);

	if (rc)
		return mr_why(l->why, rc, "no memory");
	for (uint32_t i = 0; i < t->vocab; i++)
		if (t->type[i] == TOKEN_NORMAL)
			t->whole[i] =
				t->pre == MR_PRE_LLAMA_BPE ||
				(mr_tokenizer_merge(t, work, t->bytes + t->start[i],
						    t->start[i + 1] - t->start[i], &id, 1) == 1 &&
				 id == i);
	mr_token_work_destroy(work);
	return 0;
}

static int equals(const struct mr_gguf_string *s, const char *want)
{
	return s->bytes == strlen(want) && !memcmp(s->data, want, s->bytes);
}

/* The kind of tokeniser, and how it splits. */
static int read_kind(struct loading *l)
{
	static const char *const names[] = {
		[MR_PRE_GPT2] = "gpt-2",
		[MR_PRE_SMOLLM] = "smollm",
		[MR_PRE_LLAMA_BPE] = "llama-bpe",
		[MR_PRE_QWEN2] = "qwen2",
	};
	struct mr_gguf_string s;

	if (mr_gguf_get_string(l->gguf, "tokenizer.ggml.model", &s))
		return mr_why(l->why, MR_E_FORMAT, "tokenizer.ggml.model is no string");
	if (!equals(&s, "gpt2"))
		return mr_why(l->why, MR_E_MODEL,
			      "tokenizer.ggml.model is %s; only gpt2 is supported",
			      mr_show(s.data, s.bytes).text);
	if (mr_gguf_get_string(l->gguf, "tokenizer.ggml.pre", &s))
		return mr_why(l->why, MR_E_FORMAT, "tokenizer.ggml.pre is no string");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (equals(&s, names[i])) {
			l->t->pre = (enum mr_pre)i;
			return 0;
		}
	}
	return mr_why(l->why, MR_E_MODEL,
		      "tokenizer.ggml.pre is %s; gpt-2, smollm, llama-bpe and qwen2 are supported",
		      mr_show(s.data, s.bytes).text);
}

/* Whether a prompt starts with BOS. Without a word from the file, llama-bpe's do: as llama.cpp has it. */
static int read_start(struct loading *l)
{
	struct mr_tokenizer *t = l->t;
	int add = t->pre == MR_PRE_LLAMA_BPE, rc;

	t->start_id = NO_ID;
	rc = mr_gguf_get_bool(l->gguf, "tokenizer.ggml.add_bos_token", &add);
	if (rc && rc != MR_E_NOT_FOUND)
		return mr_why(l->why, rc, "tokenizer.ggml.add_bos_token is no bool");
	if (!add)
		return 0;
	if (mr_gguf_get_u32(l->gguf, "tokenizer.ggml.bos_token_id", &t->start_id) ||
	    t->start_id >= t->vocab)
		return mr_why(l->why, MR_E_RANGE,
			      "tokenizer.ggml.bos_token_id, which prompts start with, is missing "
			      "or outside the vocabulary");
	return 0;
}

int mr_tokenizer_create(const struct mr_gguf *gguf, struct mr_tokenizer **tokenizer, char *why_text,
			size_t why_bytes)
{
	const struct mr_why why = {why_text, why_bytes};
	struct loading l = {.t = calloc(1, sizeof(*l.t)), .gguf = gguf, .why = &why};
	int rc;

	if (!l.t)
		return mr_why(&why, MR_E_NO_MEMORY, "no memory");
	fill_alphabet(l.byte_of);
	rc = read_kind(&l);
	if (!rc)
		rc = read_tokens(&l);
	if (!rc)
		rc = read_start(&l);
	if (!rc)
		rc = read_merges(&l);
	if (!rc)
		rc = check_specials(&l);
	if (!rc)
		rc = mark_whole(&l);
	if (rc) {
		mr_tokenizer_destroy(l.t);
		return rc;
	}
	*tokenizer = l.t;
	return 0;
}

void mr_tokenizer_destroy(struct mr_tokenizer *t)
{
	if (!t)
		return;
	free(t->bytes);
	free(t->start);
	free(t->type);
	free(t->whole);
	free(t->words);
	free(t->merges);
	free(t->merged);
	free(t->specials);
	free(t);
}

uint32_t mr_tokenizer_vocab(const struct mr_tokenizer *t)
{
	return t->vocab;
}

const char *mr_token_bytes(const struct mr_tokenizer *t, uint32_t id, size_t *bytes)
{
	*bytes = 0;
	if (id >= t->vocab)
		return NULL;
	*bytes = t->start[id + 1] - t->start[id];
	return (const char *)t->bytes + t->start[id];
}

int mr_token_is_control(const struct mr_tokenizer *t, uint32_t id)
{
	return id < t->vocab && (t->type[id] == TOKEN_CONTROL || t->type[id] == TOKEN_UNUSED);
}

int mr_tokenizer_control(const struct mr_tokenizer *t, const char *text, uint32_t *id)
{
	size_t want = strlen(text), bytes;

	for (uint32_t i = 0; i < t->special_count; i++) {
		const char *spelled = mr_token_bytes(t, t->specials[i], &bytes);

		if (t->type[t->specials[i]] == TOKEN_CONTROL && bytes == want &&
		    !memcmp(spelled, text, want)) {
			*id = t->specials[i];
			return 0;
		}
	}
	return MR_E_NOT_FOUND;
}
