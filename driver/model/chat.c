// SPDX-License-Identifier: Apache-2.0
/* The chat templates that are known, and their rendering to ids and to text. */
#include "driver/model/chat.h"

#include <limits.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/gguf.h"
#include "driver/model/tokenizer_impl.h"

#define START          "<|im_start|>"
#define END            "<|im_end|>"
#define DEFAULT_SYSTEM "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

/* The template of SmolLM2-Instruct, to the letter. */
static const char known_template[] =
	"{% for message in messages %}"
	"{% if loop.first and messages[0]['role'] != 'system' %}"
	"{{ '" START "system\n" DEFAULT_SYSTEM END "\n' }}"
	"{% endif %}"
	"{{'" START "' + message['role'] + '\n' + message['content'] + '" END "' + '\n'}}"
	"{% endfor %}"
	"{% if add_generation_prompt %}{{ '" START "assistant\n' }}{% endif %}";

static const struct mr_chat_message default_system = {"system", DEFAULT_SYSTEM,
						      sizeof(DEFAULT_SYSTEM) - 1};

struct mr_chat_ids mr_chat_recognise(const struct mr_model *model)
{
	struct mr_chat_ids ids = {0};
	struct mr_gguf_string text;

	if (mr_gguf_get_string(model->gguf, "tokenizer.chat_template", &text) ||
	    text.bytes != sizeof(known_template) - 1 ||
	    memcmp(text.data, known_template, text.bytes) ||
	    mr_tokenizer_control(model->tokenizer, START, &ids.start) ||
	    mr_tokenizer_control(model->tokenizer, END, &ids.end))
		return ids;
	ids.known = 1;
	return ids;
}

static int needs_default(const struct mr_chat_message *messages, size_t count)
{
	return count && strcmp(messages[0].role, "system");
}

/* Ids on their way out. Once status is not 0, nothing more is added. */
struct ids_out {
	const struct mr_model *model;
	struct mr_token_work *work;
	uint32_t *ids;
	size_t count, cap;
	int status;
};

static void put_id(struct ids_out *out, uint32_t id)
{
	if (out->status)
		return;
	if (out->count == out->cap) {
		out->status = MR_E_CONTEXT_FULL;
		return;
	}
	out->ids[out->count++] = id;
}

/* The parts as one plain text: merges may cross from one into the next. */
static void put_text(struct ids_out *out, const struct text_part *parts, size_t parts_count)
{
	int n;

	if (out->status)
		return;
	n = mr_encode_joined(out->model->tokenizer, out->work, parts, parts_count,
			     out->ids + out->count, out->cap - out->count);
	if (n < 0)
		out->status = n;
	else
		out->count += (size_t)n;
}

static void put_message(struct ids_out *out, const struct mr_chat_message *m)
{
	const struct text_part text[] = {
		{m->role, strlen(m->role)}, {"\n", 1}, {m->content, m->bytes}};

	put_id(out, out->model->chat.start);
	put_text(out, text, 3);
	put_id(out, out->model->chat.end);
	put_text(out, &text[1], 1);
}

int mr_chat_encode(const struct mr_model *model, struct mr_token_work *work,
		   const struct mr_chat_message *messages, size_t count, int add_generation_prompt,
		   uint32_t *ids, size_t cap)
{
	static const struct text_part answer = {"assistant\n", 10};
	struct ids_out out = {model, work, ids, 0, cap > INT_MAX ? INT_MAX : cap, 0};

	if (!model->chat.known)
		return MR_E_MODEL;
	if (needs_default(messages, count))
		put_message(&out, &default_system);
	for (size_t i = 0; i < count; i++)
		put_message(&out, &messages[i]);
	if (add_generation_prompt) {
		put_id(&out, model->chat.start);
		put_text(&out, &answer, 1);
	}
	return out.status ? out.status : (int)out.count;
}

int mr_chat_continue(const struct mr_model *model, struct mr_token_work *work, uint32_t last,
		     const char *content, size_t bytes, uint32_t *ids, size_t cap)
{
	static const struct text_part answer = {"assistant\n", 10}, line = {"\n", 1};
	const struct mr_chat_message message = {"user", content, bytes};
	struct ids_out out = {model, work, ids, 0, cap > INT_MAX ? INT_MAX : cap, 0};

	if (!model->chat.known)
		return MR_E_MODEL;
	if (last != model->chat.end)
		put_id(&out, model->chat.end);
	put_text(&out, &line, 1);
	put_message(&out, &message);
	put_id(&out, model->chat.start);
	put_text(&out, &answer, 1);
	return out.status ? out.status : (int)out.count;
}

/* Text on its way out; full says that some of it had no room. */
struct text_out {
	char *text;
	size_t bytes, cap;
	int full;
};

static void put_bytes(struct text_out *out, const char *text, size_t bytes)
{
	out->full |= bytes > out->cap - out->bytes;
	if (out->full || !bytes)
		return;
	memcpy(out->text + out->bytes, text, bytes);
	out->bytes += bytes;
}

static void put_rendered(struct text_out *out, const struct mr_chat_message *m)
{
	put_bytes(out, START, sizeof(START) - 1);
	put_bytes(out, m->role, strlen(m->role));
	put_bytes(out, "\n", 1);
	put_bytes(out, m->content, m->bytes);
	put_bytes(out, END "\n", sizeof(END "\n") - 1);
}

int mr_chat_render(const struct mr_model *model, const struct mr_chat_message *messages,
		   size_t count, int add_generation_prompt, char *text, size_t cap)
{
	static const char answer[] = START "assistant\n";
	struct text_out out = {text, 0, cap > INT_MAX ? INT_MAX : cap, 0};

	if (!model->chat.known)
		return MR_E_MODEL;
	if (needs_default(messages, count))
		put_rendered(&out, &default_system);
	for (size_t i = 0; i < count; i++)
		put_rendered(&out, &messages[i]);
	if (add_generation_prompt)
		put_bytes(&out, answer, sizeof(answer) - 1);
	return out.full ? MR_E_TOO_LARGE : (int)out.bytes;
}
