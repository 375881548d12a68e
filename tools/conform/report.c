// SPDX-License-Identifier: Apache-2.0
/* What a run found: TAP, a line a rule of the page, and the report that goes with a release. */
#include <json-c/json.h>
#include <string.h>
#include <time.h>

#include "tools/conform/conform.h"

struct counts {
	int passed, failed, skipped, unseen, host;
};

static int of_host(const struct conform_rule *r)
{
	return !strncmp(r->id, "LPU-H-", 6);
}

static struct counts count(const struct conform *t)
{
	struct counts n = {0};

	for (const struct conform_rule *r = conform_rules; r->id; r++) {
		if (t->only && strcmp(t->only, r->id))
			continue;
		n.passed += r->state == CONFORM_PASS;
		n.skipped += r->state == CONFORM_SKIP;
		n.host += of_host(r);
		n.unseen += r->state == CONFORM_NONE && r->unseen;
		n.failed += r->state == CONFORM_FAIL ||
			    (r->state == CONFORM_NONE && !r->unseen && !of_host(r));
	}
	return n;
}

static const char *reason(const struct conform_rule *r)
{
	return r->state == CONFORM_NONE   ? of_host(r)  ? "binds the host"
					    : r->unseen ? r->unseen
							: "no check looks at it"
	       : r->state == CONFORM_PASS ? ""
					  : r->why;
}

int conform_tap(struct conform *t, FILE *out)
{
	struct counts n = count(t);
	int number = 0, rules = 0;
	const struct mr_lpu_identify *id = &t->id;

	for (const struct conform_rule *r = conform_rules; r->id; r++)
		rules += !t->only || !strcmp(t->only, r->id);
	fprintf(out, "TAP version 13\n1..%d\n", rules);
	fprintf(out, "# device: %.32s %.32s, firmware %.32s, %u chips\n", id->vendor, id->product,
		id->firmware, id->chips);
	for (const struct conform_rule *r = conform_rules; r->id; r++) {
		if (t->only && strcmp(t->only, r->id))
			continue;
		int bad = r->state == CONFORM_FAIL ||
			  (r->state == CONFORM_NONE && !r->unseen && !of_host(r));
		fprintf(out, "%sok %d - %s %s%s%s\n", bad ? "not " : "", ++number, r->id, r->text,
			r->state == CONFORM_SKIP || (r->state == CONFORM_NONE && !bad) ? " # SKIP "
										       : "",
			r->state == CONFORM_SKIP || (r->state == CONFORM_NONE && !bad) ? reason(r)
										       : "");
		if (bad)
			fprintf(out, "# %s\n", reason(r));
	}
	fprintf(out,
		"# %d rules hold, %d do not, %d skipped, %d that no host can see, %d of the host\n",
		n.passed, n.failed, n.skipped, n.unseen, n.host);
	return n.failed;
}

static void text(struct json_object *o, const char *key, const char *value, int max)
{
	json_object_object_add(o, key,
			       json_object_new_string_len(value, (int)strnlen(value, (size_t)max)));
}

static void number(struct json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)value));
}

static struct json_object *device_json(const struct mr_lpu_identify *id)
{
	struct json_object *o = json_object_new_object();
	char hash[65];

	for (int i = 0; i < 32; i++)
		snprintf(hash + 2 * i, 3, "%02x", id->chip_hash[i]);
	text(o, "vendor", id->vendor, 32);
	text(o, "product", id->product, 32);
	text(o, "firmware", id->firmware, 32);
	text(o, "chip_hash", hash, 64);
	number(o, "version", id->version);
	number(o, "chips", id->chips);
	number(o, "queues", id->queues_max);
	number(o, "slots", id->slots_max);
	number(o, "opcodes_admin", id->opcodes_admin);
	number(o, "opcodes_io", id->opcodes_io);
	number(o, "features", id->features);
	number(o, "logs", id->logs);
	return o;
}

static struct json_object *profile_json(const struct conform_profile *p)
{
	struct json_object *o = json_object_new_object();

	number(o, "wait_ms", p->wait_ms);
	number(o, "quiet_ms", p->quiet_ms);
	number(o, "scenario_ms", p->scenario_ms);
	number(o, "bit_equal", p->bit_equal);
	number(o, "cycles", p->cycles);
	number(o, "fuzz", p->fuzz);
	number(o, "seed", p->seed);
	json_object_object_add(o, "logits_abs", json_object_new_double(p->logits_abs));
	json_object_object_add(o, "logprob_abs", json_object_new_double(p->logprob_abs));
	return o;
}

int conform_json(struct conform *t, const char *bus_name, FILE *out)
{
	static const char *const result[] = {"unseen", "ok", "skipped", "failed"};
	struct json_object *o = json_object_new_object(), *counts = json_object_new_object();
	struct json_object *rules = json_object_new_array();
	struct counts n = count(t);
	char date[32], version[24];
	time_t now = time(NULL);
	struct tm utc;

	gmtime_r(&now, &utc);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
	snprintf(version, sizeof(version), "%d.%d.%d", MR_VERSION_MAJOR, MR_VERSION_MINOR,
		 MR_VERSION_PATCH);
	text(o, "millrace", version, 24);
	json_object_object_add(o, "specification", json_object_new_string("1.0"));
	text(o, "date", date, 32);
	json_object_object_add(o, "bus", json_object_new_string(bus_name));
	json_object_object_add(o, "device", device_json(&t->id));
	json_object_object_add(o, "profile", profile_json(&t->profile));
	number(counts, "holds", (uint64_t)n.passed);
	number(counts, "fails", (uint64_t)n.failed);
	number(counts, "skipped", (uint64_t)n.skipped);
	number(counts, "unseen", (uint64_t)n.unseen);
	number(counts, "host", (uint64_t)n.host);
	number(counts, "observations", t->observations);
	json_object_object_add(o, "counts", counts);
	for (const struct conform_rule *r = conform_rules; r->id; r++) {
		if (t->only && strcmp(t->only, r->id))
			continue;
		struct json_object *one = json_object_new_object();
		int unchecked = r->state == CONFORM_NONE && !r->unseen && !of_host(r);
		text(one, "id", r->id, 32);
		json_object_object_add(one, "result",
				       json_object_new_string(of_host(r)  ? "host"
							      : unchecked ? "failed"
									  : result[r->state]));
		text(one, "why", reason(r), 256);
		json_object_array_add(rules, one);
	}
	json_object_object_add(o, "rules", rules);
	fprintf(out, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
	return n.failed;
}
