// SPDX-License-Identifier: Apache-2.0
/*
 * The part of `millrace model vectors` that a device must do: logits, forced greedy steps, log-probabilities,
 * perplexity. All prompts go together, several slots in one DECODE.
 *
 * A prompt of n tokens is fed with the reference's greedy ids behind it, g tokens less the last one: after
 * token n-1 come the `top` and the first forced step, after each greedy id the next one. The log-softmax is done
 * here, in double, so that only the logits are the device's.
 */
#include <json-c/json.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/model/model.h"
#include "tools/forced.h"
#include "tools/vectors.h"

#define TOP 40u

const char *const vector_kinds[VECTOR_KINDS] = {"tokens", "chat", "logits", "ppl"};

/* One prompt, or the perplexity text (then without greedy ids). */
struct item {
	uint32_t *tokens; /* prompt, then greedy ids */
	uint32_t prompt, greedy;
	uint32_t *forced; /* greedy entries */
	double *logprob;  /* ln p(tokens[i + 1] | tokens[0..i]) for i < prompt - 1 */
	uint32_t top_count;
	uint32_t top_ids[TOP];
	float top_logits[TOP];
	crypto_hash_sha256_state hash; /* of the logits from position prompt - 1 on */
	unsigned char digest[2][crypto_hash_sha256_BYTES]; /* [1]: of the run after a prefill */
};

struct device_run {
	struct mr_device *dev;
	struct item *items;
	uint32_t count;
	uint32_t vocab;
	uint32_t bad_sampled; /* steps whose sampled id was not the argmax of the logits */
	const char *phase;
	int tty;
};

static void on_progress(void *arg, uint64_t done, uint64_t all)
{
	const struct device_run *r = arg;

	if (r->tty)
		fprintf(stderr, "\r%s: %s: %llu of %llu tokens%s", r->dev->caps.name, r->phase,
			(unsigned long long)done, (unsigned long long)all,
			done == all ? "\r\033[K" : "");
}

static void on_step(void *arg, const struct tool_forced_step *step)
{
	struct device_run *r = arg;
	struct item *it = &r->items[step->sequence];
	uint32_t best = tool_argmax(step->logits, r->vocab);

	if (step->position + 1 < it->prompt) {
		uint32_t next = it->tokens[step->position + 1];

		it->logprob[step->position] =
			(double)step->logits[next] - tool_log_sum_exp(step->logits, r->vocab);
		return;
	}
	crypto_hash_sha256_update(&it->hash, (const unsigned char *)step->logits,
				  (unsigned long long)r->vocab * sizeof(float));
	if (step->sampled != best)
		r->bad_sampled++;
	if (step->position + 1 - it->prompt < it->greedy)
		it->forced[step->position + 1 - it->prompt] = step->sampled;
	if (step->position + 1 > it->prompt)
		return;
	it->top_count = tool_top(step->logits, r->vocab, it->top_ids, TOP);
	for (uint32_t i = 0; i < it->top_count; i++)
		it->top_logits[i] = step->logits[it->top_ids[i]];
}

/* Array @key of @in appended to @out at @at; -1 for an id that the model does not have. */
static int read_ids(struct json_object *in, const char *key, uint32_t vocab, uint32_t *out)
{
	struct json_object *a = json_object_object_get(in, key);

	for (size_t i = 0; i < vector_length(a); i++) {
		int64_t id = json_object_get_int64(vector_at(a, i));

		if (id < 0 || id >= (int64_t)vocab)
			return -1;
		out[i] = (uint32_t)id;
	}
	return 0;
}

static int item_read(struct item *it, struct json_object *in, uint32_t vocab)
{
	struct json_object *tokens = json_object_object_get(in, "tokens");
	struct json_object *greedy = json_object_object_get(in, "greedy");

	if (!json_object_is_type(tokens, json_type_array) || !vector_length(tokens))
		return MR_E_FORMAT;
	if (greedy && !json_object_is_type(greedy, json_type_array))
		return MR_E_FORMAT;
	it->prompt = (uint32_t)vector_length(tokens);
	it->greedy = greedy ? (uint32_t)vector_length(greedy) : 0;
	it->tokens = calloc(it->prompt + it->greedy, sizeof(*it->tokens));
	it->logprob = calloc(it->prompt, sizeof(*it->logprob));
	it->forced = calloc(it->greedy + 1, sizeof(*it->forced));
	if (!it->tokens || !it->logprob || !it->forced)
		return MR_E_NO_MEMORY;
	if (read_ids(in, "tokens", vocab, it->tokens) ||
	    (greedy && read_ids(in, "greedy", vocab, it->tokens + it->prompt)))
		return MR_E_RANGE;
	return 0;
}

/* Feeds all items, their first prompt - 1 tokens by prefill where @with_prefill. */
static int feed(struct device_run *r, int with_prefill)
{
	struct tool_forced *in = calloc(r->count, sizeof(*in));
	int status;

	if (!in)
		return MR_E_NO_MEMORY;
	r->phase = with_prefill ? "prefill and decode" : "forced decode";
	for (uint32_t i = 0; i < r->count; i++) {
		struct item *it = &r->items[i];

		/* The last greedy id is never fed: what would come after it nobody compares. */
		in[i].tokens = it->tokens;
		in[i].count = it->prompt + (it->greedy ? it->greedy - 1 : 0);
		in[i].prefill = with_prefill ? it->prompt - 1 : 0;
		crypto_hash_sha256_init(&it->hash);
	}
	status = tool_forced_run(r->dev, in, r->count, on_step, on_progress, r);
	for (uint32_t i = 0; i < r->count; i++)
		crypto_hash_sha256_final(&r->items[i].hash, r->items[i].digest[with_prefill]);
	free(in);
	return status;
}

static double mean_nll(const struct item *it)
{
	double sum = 0;

	for (uint32_t i = 0; i + 1 < it->prompt; i++)
		sum -= it->logprob[i];
	return sum / (it->prompt - 1);
}

static void add_nll(struct json_object *o, const struct item *it)
{
	struct json_object *each = json_object_new_array();

	json_object_object_add(o, "nll", it->prompt > 1 ? tool_json_number(mean_nll(it)) : NULL);
	for (uint32_t i = 0; i + 1 < it->prompt; i++)
		json_object_array_add(each, tool_json_number(it->logprob[i]));
	json_object_object_add(o, "logprobs", each);
}

static struct json_object *item_json(const struct item *it, struct json_object *in)
{
	struct json_object *o = json_object_new_object(), *top = json_object_new_array();
	struct json_object *forced = json_object_new_array(), *checks = json_object_new_array();
	struct json_object *wanted = json_object_object_get(in, "logprob_checks");

	for (uint32_t i = 0; i < it->top_count; i++) {
		struct json_object *pair = json_object_new_array();

		json_object_array_add(pair, json_object_new_uint64(it->top_ids[i]));
		json_object_array_add(pair, tool_json_number((double)it->top_logits[i]));
		json_object_array_add(top, pair);
	}
	for (uint32_t i = 0; i < it->greedy; i++)
		json_object_array_add(forced, json_object_new_uint64(it->forced[i]));
	for (size_t i = 0; i < vector_length(wanted); i++) {
		struct json_object *w = vector_at(wanted, i), *c;
		uint64_t at = json_object_get_uint64(vector_at(w, 0));

		if (at + 1 >= it->prompt)
			continue;
		c = json_object_new_array();
		json_object_array_add(c, json_object_new_uint64(at));
		json_object_array_add(c, json_object_new_uint64(it->tokens[at + 1]));
		json_object_array_add(c, tool_json_number(it->logprob[at]));
		json_object_array_add(checks, c);
	}
	json_object_object_add(o, "id", json_object_get(json_object_object_get(in, "id")));
	json_object_object_add(o, "top", top);
	json_object_object_add(o, "forced", forced);
	add_nll(o, it);
	json_object_object_add(o, "logprob_checks", checks);
	return o;
}

/* Two paths to the same bits, and one sampler: -1 after one line on stderr where they are not. */
static int check(const struct device_run *r, int two_paths)
{
	if (r->bad_sampled) {
		fprintf(stderr, "millrace: %s: %u sampled ids are not the argmax of their logits\n",
			r->dev->caps.name, r->bad_sampled);
		return -1;
	}
	for (uint32_t i = 0; two_paths && i < r->count; i++)
		if (memcmp(r->items[i].digest[0], r->items[i].digest[1],
			   sizeof(r->items[i].digest[0]))) {
			fprintf(stderr,
				"millrace: %s: item %u: logits after prefill differ from those "
				"after decode\n",
				r->dev->caps.name, i);
			return -1;
		}
	return 0;
}

static int run(struct device_run *r, struct json_object *logits, struct json_object *ppl,
	       struct json_object *out)
{
	size_t n = vector_length(logits);
	int prefill = (r->dev->caps.stages & MR_STAGE_PREFILL) != 0, status = 0;
	int one_class = !strcmp(r->dev->caps.class_prefill, r->dev->caps.class_decode);

	for (uint32_t i = 0; !status && i < r->count; i++)
		status = item_read(&r->items[i], i < n ? vector_at(logits, i) : ppl, r->vocab);
	if (status) {
		fprintf(stderr, "millrace: the reference vectors: %s (%s)\n", mr_strerror(status),
			mr_status_name(status));
		return -1;
	}
	status = feed(r, 0);
	if (!status && prefill)
		status = feed(r, 1);
	if (status) {
		fprintf(stderr, "millrace: %s: %s: %s (%s)\n", r->dev->caps.name, r->phase,
			mr_strerror(status), mr_status_name(status));
		return -1;
	}
	if (check(r, prefill && one_class))
		return -1;
	if (logits) {
		struct json_object *list = json_object_new_array();

		for (size_t i = 0; i < n; i++)
			json_object_array_add(list, item_json(&r->items[i], vector_at(logits, i)));
		json_object_object_add(out, vector_kinds[VECTOR_LOGITS], list);
	}
	if (ppl) {
		struct json_object *o = json_object_new_object();

		add_nll(o, &r->items[n]);
		json_object_object_add(out, vector_kinds[VECTOR_PPL], o);
	}
	return 0;
}

/* The longest sequence fed, and one more: the sampled token's position. */
static uint32_t context_needed(struct json_object *logits, struct json_object *ppl)
{
	size_t most = 0;

	for (size_t i = 0; i < vector_length(logits); i++) {
		struct json_object *in = vector_at(logits, i);
		size_t n = vector_length(json_object_object_get(in, "tokens")) +
			   vector_length(json_object_object_get(in, "greedy"));

		most = n > most ? n : most;
	}
	if (vector_length(json_object_object_get(ppl, "tokens")) > most)
		most = vector_length(json_object_object_get(ppl, "tokens"));
	return (uint32_t)most + 1;
}

int vectors_on_device(const struct tool_devices_options *options, const struct mr_model *model,
		      struct json_object *logits, struct json_object *ppl, struct json_object *out)
{
	struct tool_devices_options o = *options;
	struct device_run r = {.tty = isatty(STDERR_FILENO)};
	struct tool_devices devices;
	int bad;

	r.count = (uint32_t)vector_length(logits) + (ppl != NULL);
	o.slots = r.count;
	o.decode_only = 1;
	o.context = context_needed(logits, ppl);
	if (o.context > model->shape.context) {
		fprintf(stderr, "millrace: the vectors need a context of %u, the model has %u\n",
			o.context, model->shape.context);
		return -1;
	}
	r.items = calloc(r.count, sizeof(*r.items));
	if (!r.items || tool_devices_open(&o, model, &devices)) {
		free(r.items);
		return -1;
	}
	r.dev = devices.decode;
	r.vocab = devices.decode->caps.vocab;
	bad = run(&r, logits, ppl, out);
	tool_devices_close(&devices);
	for (uint32_t i = 0; i < r.count; i++) {
		free(r.items[i].tokens);
		free(r.items[i].logprob);
		free(r.items[i].forced);
	}
	free(r.items);
	return bad;
}
