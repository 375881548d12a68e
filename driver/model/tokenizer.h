/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level BPE: text to token ids and back, as the model's file describes it.
 *
 * A tokenizer is constant after creation and may be shared by threads; a struct mr_token_work is
 * one thread's scratch memory, made once, so that encoding allocates nothing. Text is bytes with a
 * length: NULs and ill-formed UTF-8 are input, not errors (each maximal ill-formed subpart reads as
 * U+FFFD).
 */
#ifndef MR_DRIVER_MODEL_TOKENIZER_H
#define MR_DRIVER_MODEL_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

struct mr_gguf;
struct mr_tokenizer;
struct mr_token_work;

int mr_tokenizer_create(const struct mr_gguf *gguf, struct mr_tokenizer **tokenizer, char *why,
			size_t why_bytes);
void mr_tokenizer_destroy(struct mr_tokenizer *tokenizer);
uint32_t mr_tokenizer_vocab(const struct mr_tokenizer *tokenizer);

/* Scratch for texts of up to @text_bytes, some 100 bytes a byte; 0, MR_E_TOO_LARGE (64 MiB) or
 * MR_E_NO_MEMORY. */
int mr_token_work_create(const struct mr_tokenizer *tokenizer, size_t text_bytes,
			 struct mr_token_work **work);
void mr_token_work_destroy(struct mr_token_work *work);

#define MR_ENCODE_CONTROL 1u /* text that spells a control token is that token; else it is text */
#define MR_ENCODE_START   2u /* BOS comes first where the model's file asks for it: a prompt starts */

/*
 * Encodes @bytes bytes of @text into at most @cap ids at @ids. Returns the number of ids,
 * MR_E_TOO_LARGE (more than @work holds), MR_E_CONTEXT_FULL (more than @cap ids; @ids is then
 * undefined) or MR_E_INVALID (unknown flags). n log n in the longest word; allocates nothing.
 */
int mr_encode(const struct mr_tokenizer *tokenizer, struct mr_token_work *work, const char *text,
	      size_t bytes, unsigned flags, uint32_t *ids, size_t cap);

/* The bytes of one id (not NUL-terminated, may be part of a character); NULL for an id not in the
 * vocabulary. */
const char *mr_token_bytes(const struct mr_tokenizer *tokenizer, uint32_t id, size_t *bytes);
/* Whether the id stands for no text: a control token, or one that the file calls unused. */
int mr_token_is_control(const struct mr_tokenizer *tokenizer, uint32_t id);
/* The control token spelled @text, such as "<|im_end|>". 0 or MR_E_NOT_FOUND. */
int mr_tokenizer_control(const struct mr_tokenizer *tokenizer, const char *text, uint32_t *id);

/* A stream of ids turned into text; holds back an incomplete UTF-8 character until the rest comes.
 */
struct mr_detok {
	unsigned char held[4];
	unsigned held_bytes;
};
#define MR_DETOK_MAX 1024 /* bytes that one push can yield */

/* Writes the text that @id completes to @out (MR_DETOK_MAX bytes); returns its length. Control ids
 * give none. */
size_t mr_detok_push(const struct mr_tokenizer *tokenizer, struct mr_detok *state, uint32_t id,
		     char *out);
/* At the end: U+FFFD for what is still held, if anything. */
size_t mr_detok_flush(struct mr_detok *state, char *out);

#endif /* MR_DRIVER_MODEL_TOKENIZER_H */
