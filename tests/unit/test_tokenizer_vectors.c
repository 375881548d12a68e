// SPDX-License-Identifier: Apache-2.0
/* Tokeniser and chat template of the real model against the public vectors: every item, no tolerance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "driver/model/chat.h"
#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "support/real_model.h"

#define TEXT_BYTES 65536
#define IDS        65536

static struct mr_model *model;
static struct mr_token_work *work;
static uint32_t ids[IDS];

static int open_model(void **state)
{
	const char *path = real_model_path();
	char why[200];

	if (!path)
		return 0;
	if (mr_model_open(path, &model, why, sizeof(why))) {
		print_error("%s\n", why);
		return -1;
	}
	return mr_token_work_create(model->tokenizer, TEXT_BYTES, &work);
}

static int close_model(void **state)
{
	mr_token_work_destroy(work);
	mr_model_close(model);
	return 0;
}

static void need_model(void)
{
	if (model)
		return;
	printf("skipped: the real model is not there: make model\n");
	skip();
}

static struct json_object *read_list(const char *path)
{
	struct json_object *list = json_object_from_file(path);

	assert_non_null(list);
	assert_true(json_object_is_type(list, json_type_array));
	return list;
}

static int same(struct json_object *want, const uint32_t *got, int count)
{
	if ((int)json_object_array_length(want) != count)
		return 0;
	for (int i = 0; i < count; i++)
		if (json_object_get_int64(json_object_array_get_idx(want, i)) != got[i])
			return 0;
	return 1;
}

/* The item's bytes, from "text" or "hex". */
static size_t item_bytes(struct json_object *item, char *out)
{
	struct json_object *text;
	size_t n = 0;

	if (json_object_object_get_ex(item, "text", &text)) {
		n = (size_t)json_object_get_string_len(text);
		assert_true(n <= TEXT_BYTES);
		memcpy(out, json_object_get_string(text), n);
		return n;
	}
	assert_true(json_object_object_get_ex(item, "hex", &text));
	for (const char *hex = json_object_get_string(text); hex[2 * n]; n++) {
		unsigned byte;

		assert_int_equal(sscanf(hex + 2 * n, "%2x", &byte), 1);
		out[n] = (char)byte;
	}
	return n;
}

/* With control tokens recognised: the first answer; as plain text: the first or one of the others. */
static void tokens(void **state)
{
	static char text[TEXT_BYTES];
	struct json_object *list, *also;
	int wrong = 0;

	need_model();
	list = read_list("tests/vectors/tokens.json");
	assert_true(json_object_array_length(list) > 100);
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		struct json_object *want = json_object_object_get(item, "tokens");
		size_t bytes = item_bytes(item, text);
		int plain_ok, n = mr_encode(model->tokenizer, work, text, bytes, MR_ENCODE_CONTROL,
					    ids, IDS);
		int control_ok = same(want, ids, n);

		n = mr_encode(model->tokenizer, work, text, bytes, 0, ids, IDS);
		plain_ok = same(want, ids, n);
		if (json_object_object_get_ex(item, "also_ok", &also))
			for (size_t k = 0; k < json_object_array_length(also); k++)
				plain_ok |= same(json_object_array_get_idx(also, k), ids, n);
		if (control_ok && plain_ok)
			continue;
		print_error("%s: differs %s\n",
			    json_object_get_string(json_object_object_get(item, "id")),
			    control_ok ? "as plain text" : "with control tokens");
		wrong++;
	}
	json_object_put(list);
	assert_int_equal(wrong, 0);
}

static size_t read_messages(struct json_object *list, struct mr_chat_message *out, size_t cap)
{
	size_t n = json_object_array_length(list);

	assert_true(n <= cap);
	for (size_t i = 0; i < n; i++) {
		struct json_object *m = json_object_array_get_idx(list, i);
		struct json_object *content = json_object_object_get(m, "content");

		out[i].role = json_object_get_string(json_object_object_get(m, "role"));
		out[i].content = json_object_get_string(content);
		out[i].bytes = (size_t)json_object_get_string_len(content);
	}
	return n;
}

static void chats(void **state)
{
	static char rendered[TEXT_BYTES];
	struct mr_chat_message messages[16];
	struct json_object *list;

	need_model();
	list = read_list("tests/vectors/chat.json");
	assert_true(json_object_array_length(list) >= 2);
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		struct json_object *text = json_object_object_get(item, "rendered");
		size_t count =
			read_messages(json_object_object_get(item, "messages"), messages, 16);
		int answer = json_object_get_boolean(
			json_object_object_get(item, "add_generation_prompt"));
		int n;

		n = mr_chat_render(model, messages, count, answer, rendered, sizeof(rendered));
		assert_int_equal(n, json_object_get_string_len(text));
		assert_memory_equal(rendered, json_object_get_string(text), n);
		n = mr_chat_encode(model, work, messages, count, answer, ids, IDS);
		assert_true(same(json_object_object_get(item, "tokens"), ids, n));
	}
	json_object_put(list);
}

/* Every id's bytes, pushed through the detokeniser one by one, are the text again. */
static void back_to_text(void **state)
{
	static char text[TEXT_BYTES], back[TEXT_BYTES + MR_DETOK_MAX];
	struct json_object *list;
	size_t round_trips = 0;

	need_model();
	list = read_list("tests/vectors/tokens.json");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		struct mr_detok detok = {0};
		size_t bytes = item_bytes(item, text), made = 0;
		int n = mr_encode(model->tokenizer, work, text, bytes, 0, ids, IDS);

		/* Ill-formed text and bytes without a token do not come back. */
		if (json_object_object_get(item, "hex") || memchr(text, 0x04, bytes) ||
		    memchr(text, 0x06, bytes) || memchr(text, 0x13, bytes))
			continue;
		for (int k = 0; k < n; k++)
			made += mr_detok_push(model->tokenizer, &detok, ids[k], back + made);
		made += mr_detok_flush(&detok, back + made);
		assert_int_equal(made, bytes);
		assert_memory_equal(back, text, bytes);
		round_trips++;
	}
	json_object_put(list);
	assert_true(round_trips > 100);
}

static void what_the_file_says(void **state)
{
	need_model();
	assert_int_equal(model->shape.layers, 30);
	assert_int_equal(model->shape.width, 576);
	assert_int_equal(model->shape.ffn, 1536);
	assert_int_equal(model->shape.heads, 9);
	assert_int_equal(model->shape.kv_heads, 3);
	assert_int_equal(model->shape.head_dim, 64);
	assert_int_equal(model->shape.vocab, 49152);
	assert_int_equal(model->shape.context, 8192);
	assert_true(model->shape.rope_base == 100000.0f);
	assert_true(model->shape.rms_eps == 1e-5f);
	assert_ptr_equal(model->output.data, model->token_embd.data);
	assert_int_equal(model->eos, 2);
	assert_int_equal(model->bos, 1);
	assert_int_equal(model->stop_count, 3);
	assert_int_equal(model->stop[0], 2);
	assert_int_equal(model->stop[1], 0);
	assert_int_equal(model->stop[2], 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_file_says),
		cmocka_unit_test(tokens),
		cmocka_unit_test(chats),
		cmocka_unit_test(back_to_text),
	};

	return cmocka_run_group_tests(tests, open_model, close_model);
}
