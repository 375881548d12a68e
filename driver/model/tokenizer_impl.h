/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokeniser's tables, between tokenizer.c (which makes and reads them) and encode.c (which runs
 * on them). All are constant after mr_tokenizer_create.
 */
#ifndef MR_DRIVER_MODEL_TOKENIZER_IMPL_H
#define MR_DRIVER_MODEL_TOKENIZER_IMPL_H

#include "driver/model/tokenizer.h"

#define NO_ID \
	UINT32_MAX /* no token; also an empty slot, and the rank of a pair that never merges */

/* The file's token types; others are refused. */
#define TOKEN_NORMAL  1u
#define TOKEN_CONTROL 3u
#define TOKEN_USER    4u /* text that spells it is always this token, and it is that text */
#define TOKEN_UNUSED  5u /* no text gives it, and it gives no text */
/* More than any word of a vocabulary; keeps a push of the detokeniser below MR_DETOK_MAX. */
#define TOKEN_BYTES_MAX 256u

/* A slot of the open-addressed table of merges, keyed by (left, right). */
struct merge_slot {
	uint32_t left, right;
	uint32_t rank;
};

/* How a text is cut into words, by the names that the file format has for them: see mr_tokenizer_split. */
enum mr_pre { MR_PRE_GPT2, MR_PRE_SMOLLM, MR_PRE_LLAMA_BPE, MR_PRE_QWEN2 };

struct mr_tokenizer {
	uint32_t vocab;
	uint32_t byte_id[256]; /* of the one-byte token, or NO_ID */
	unsigned char *bytes;  /* of all tokens, one after another */
	uint32_t *start;       /* (vocab + 1) offsets into bytes */
	unsigned char *type;   /* (vocab) TOKEN_* */
	unsigned char *whole;  /* (vocab) the token's own bytes, as a word, encode to it alone */
	uint32_t *words;       /* open-addressed: normal tokens by their bytes */
	uint32_t word_mask;
	struct merge_slot *merges;
	uint32_t merge_mask;
	uint32_t *merged;   /* rank -> the token that the merge makes */
	uint32_t *specials; /* ids of control and user tokens, longest first */
	uint32_t special_count;
	uint32_t user_count;             /* of specials */
	unsigned char special_lead[256]; /* a special token starts with this byte */
	uint32_t start_id;               /* what a prompt starts with, or NO_ID */
	enum mr_pre pre;
};

static inline uint32_t merge_hash(uint32_t left, uint32_t right)
{
	uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;

	return (uint32_t)(h >> 32);
}

/* The rank of merging @left and @right; NO_ID where they do not merge. */
static inline uint32_t merge_rank(const struct mr_tokenizer *t, uint32_t left, uint32_t right)
{
	for (uint32_t i = merge_hash(left, right);; i++) {
		const struct merge_slot *slot = &t->merges[i & t->merge_mask];

		if (slot->left == left && slot->right == right)
			return slot->rank;
		if (slot->rank == NO_ID)
			return NO_ID;
	}
}

/* The normal token that is these bytes; NO_ID where none is. */
uint32_t mr_tokenizer_word(const struct mr_tokenizer *t, const unsigned char *bytes, size_t count);

/*
 * The length of the word at @at, below @end, as a search for these patterns cuts them:
 *   gpt-2      's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   smollm     the text is split at every \p{N} first, then each part by gpt-2's pattern, whose
 *              look-ahead does not see beyond the part
 *   llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
 *              | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *   qwen2      the same with \p{N} in place of \p{N}{1,3}
 * @ill is set where the word holds ill-formed UTF-8.
 */
size_t mr_tokenizer_split(enum mr_pre pre, const unsigned char *at, const unsigned char *end,
			  int *ill);

/*
 * Byte-pair encodes one word by merges alone, without the short cut of `whole`. At most @cap ids go
 * to @ids; returns their number, which may be more.
 */
size_t mr_tokenizer_merge(const struct mr_tokenizer *t, struct mr_token_work *work,
			  const unsigned char *word, size_t bytes, uint32_t *ids, size_t cap);

struct text_part {
	const char *data;
	size_t bytes;
};
/* As mr_encode without flags, of the parts joined; they may be TEXT_SLACK bytes longer than @work's
 * texts. */
int mr_encode_joined(const struct mr_tokenizer *t, struct mr_token_work *work,
		     const struct text_part *parts, size_t parts_count, uint32_t *ids, size_t cap);
#define TEXT_SLACK \
	128u /* a chat message's role, newline or default text, on top of its content \
	      */

#endif /* MR_DRIVER_MODEL_TOKENIZER_IMPL_H */
