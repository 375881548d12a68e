// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes what driver/model reads. Input that starts with "GGUF" is opened as a model, and where that succeeds
 * its tokeniser, chat and detokeniser run on the input's own bytes; any other input is text for the tokeniser
 * of tests/tiny.gguf, whose answers must hold together.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/model/chat.h"
#include "driver/model/gguf.h"
#include "driver/model/model.h"
#include "driver/model/tokenizer.h"

#define TEXT_BYTES ((size_t)4096)
#define IDS        (3 * TEXT_BYTES)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_gguf: %s\n", what);
	abort();
}

/* Text to ids and back: never more than there is room for, never an id out of range. */
static void drive(const struct mr_model *m, struct mr_token_work *work, const char *text,
		  size_t bytes)
{
	static uint32_t ids[IDS];
	struct mr_chat_message message = {"user", text, bytes};
	struct mr_detok detok = {0};
	char out[MR_DETOK_MAX];
	size_t capped;
	int n;

	for (unsigned flags = 0; flags <= (MR_ENCODE_CONTROL | MR_ENCODE_START); flags++) {
		n = mr_encode(m->tokenizer, work, text, bytes, flags, ids, IDS);
		check(n >= 0 && (size_t)n <= 3 * bytes + 1,
		      "text has at most three tokens a byte, and BOS");
		for (int i = 0; i < n; i++) {
			check(ids[i] < m->shape.vocab, "an id is in the vocabulary");
			check(flags || !mr_token_is_control(m->tokenizer, ids[i]),
			      "plain text has no control token");
			check(mr_detok_push(m->tokenizer, &detok, ids[i], out) <= sizeof(out),
			      "a push fits");
			check(detok.held_bytes <= 3, "at most three bytes are held");
		}
		check(mr_detok_flush(&detok, out) <= 3, "a flush is one character");
		capped = (size_t)n / 2;
		check(n == 0 || mr_encode(m->tokenizer, work, text, bytes, flags, ids, capped) < 0,
		      "ids that do not fit are refused");
	}
	n = mr_chat_encode(m, work, &message, 1, 1, ids, IDS);
	check(n >= 0 || !m->chat.known || bytes > TEXT_BYTES - 256, "a chat is rendered");
	n = mr_chat_continue(m, work, m->chat.end + (bytes & 1), text, bytes, ids, IDS);
	check(n >= 0 || !m->chat.known || bytes > TEXT_BYTES - 256, "a chat goes on");
	n = mr_chat_render(m, &message, 1, 1, (char *)ids, sizeof(ids));
	check(m->chat.known ? n > 0 : n < 0, "a chat is shown");
}

/* What the commands list of a file. */
static void list(const struct mr_model *m)
{
	const struct mr_gguf *g = m->gguf;
	enum mr_packing packing;
	struct mr_tensor found;

	for (uint32_t i = 0; i < mr_gguf_pair_count(g); i++) {
		const struct mr_gguf_pair *p = mr_gguf_pair_at(g, i);
		check(p->key.data != NULL && mr_gguf_type_name(p->value.type) != NULL, "a key");
	}
	for (uint32_t i = 0; i < mr_gguf_tensor_count(g); i++) {
		const struct mr_tensor *t = mr_gguf_tensor_at(g, i);
		check(!mr_model_tensor(m, t->name, &found), "a tensor that is not found");
		check(mr_tensor_type_name(t->type) != NULL, "a type without a name");
		if (!mr_model_packing(t->type, &packing))
			check(packing < MR_PACK_BF16_TILES, "a packing that is none");
	}
	check(mr_model_tensor(m, "", &found) != 0, "a tensor without a name");
}

/* The same from a file: the same verdict. */
static void as_file(const uint8_t *data, size_t size, int status)
{
	struct mr_model *m = NULL;
	char path[32], why[256];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	check(fd >= 0 && write(fd, data, size) == (ssize_t)size, "memfd");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	check(mr_model_open(path, &m, why, sizeof(why)) == status, "a file is read otherwise");
	mr_model_close(m);
	close(fd);
}

static void as_model(const uint8_t *data, size_t size)
{
	/* Aligned as a mapping is, and of the input's size, so that ASan sees a read past its end. */
	uint8_t *copy = malloc(size);
	struct mr_model *m = NULL;
	struct mr_token_work *work;
	char why[256];
	int rc;

	if (!copy)
		return;
	memcpy(copy, data, size);
	rc = mr_model_open_memory(copy, size, &m, why, sizeof(why));
	check(!rc == !!m, "a model or a refusal");
	check(!rc || strlen(why) < sizeof(why), "a refusal has a sentence");
	if (!rc)
		list(m);
	as_file(data, size, rc);
	if (!rc && !mr_token_work_create(m->tokenizer, TEXT_BYTES, &work)) {
		drive(m, work, (const char *)copy, size < TEXT_BYTES ? size : TEXT_BYTES);
		mr_token_work_destroy(work);
	}
	mr_model_close(m);
	free(copy);
}

static void as_text(const uint8_t *data, size_t size)
{
	static struct mr_model *tiny;
	static struct mr_token_work *work;
	char *copy;

	if (!tiny)
		check(!mr_model_open("tests/tiny.gguf", &tiny, NULL, 0) &&
			      !mr_token_work_create(tiny->tokenizer, TEXT_BYTES, &work),
		      "tests/tiny.gguf opens; run from the top of the tree");
	if (size > TEXT_BYTES)
		size = TEXT_BYTES;
	copy = malloc(size + !size);
	if (!copy)
		return;
	memcpy(copy, data, size);
	drive(tiny, work, copy, size);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size >= 4 && !memcmp(data, "GGUF", 4))
		as_model(data, size);
	else
		as_text(data, size);
	return 0;
}
