// SPDX-License-Identifier: Apache-2.0
/* The load generator's parts that need no server: arrivals, trace files, figures from records. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The program's own parts are in no archive. */
#include "tools/load_figures.c"
#include "tools/load_plan.c"
#include "tools/load_trace.c"
#include "tools/summary.c"

/* ---- arrivals ---- */

static struct load_options options(void)
{
	static struct load_prompt prompt = {(char *)"x", 1};

	return (struct load_options){.concurrency = 1,
				     .clients = 1,
				     .max_tokens = 4,
				     .prompts = &prompt,
				     .prompt_count = 1};
}

static void gaps_of_poisson(void **state)
{
	/* Mean and standard deviation of the gaps are both 1 / rate; 4 standard errors for each seed. */
	for (uint64_t seed = 0; seed < 8; seed++) {
		struct load_random random = {seed};
		double sum = 0, squares = 0, mean, deviation, least = 1e300;
		const int n = 200000;

		for (int i = 0; i < n; i++) {
			double gap = load_gap_ns(&random, 250.0) * 1e-9;

			least = gap < least ? gap : least;
			sum += gap;
			squares += gap * gap;
		}
		mean = sum / n;
		deviation = sqrt(squares / n - mean * mean);
		assert_true(least >= 0);
		assert_true(fabs(mean * 250.0 - 1) < 4 / sqrt(n));
		assert_true(fabs(deviation * 250.0 - 1) < 4 * sqrt(2.0 / n));
	}
}

/* How often each number of arrivals falls into an interval says more than gaps: variance = mean. */
static void counts_of_poisson(void **state)
{
	struct load_options o = options();
	struct load_plan plan;
	double sum = 0, squares = 0, variance;
	uint32_t counts[1000] = {0};

	o.rate = 1000;
	o.seconds = 10;
	o.sampling.seed = 5;
	assert_int_equal(load_plan_make(&o, &plan), 0);
	assert_true(plan.open);
	assert_int_equal(plan.span_ns, 10000000000u);
	for (uint32_t i = 0; i < plan.count; i++) {
		assert_true(i == 0 || plan.requests[i].due_ns >= plan.requests[i - 1].due_ns);
		assert_true(plan.requests[i].due_ns < 10000000000u);
		counts[plan.requests[i].due_ns / 10000000u]++;
	}
	for (int i = 0; i < 1000; i++) {
		sum += counts[i];
		squares += (double)counts[i] * counts[i];
	}
	variance = squares / 1000 - sum / 1000 * (sum / 1000);
	assert_true(fabs(sum - 10000) < 400);
	assert_true(fabs(variance / 10 - 1) < 0.2);
	load_plan_free(&plan);
}

static void the_seed_makes_the_arrivals(void **state)
{
	struct load_options o = options();
	struct load_plan a, b, c;

	o.rate = 50;
	o.requests = 100;
	o.sampling.seed = 7;
	assert_int_equal(load_plan_make(&o, &a), 0);
	assert_int_equal(load_plan_make(&o, &b), 0);
	o.sampling.seed = 8;
	assert_int_equal(load_plan_make(&o, &c), 0);
	assert_int_equal(a.count, 100);
	assert_memory_equal(a.requests, b.requests, 100 * sizeof(*a.requests));
	assert_memory_not_equal(a.requests, c.requests, 100 * sizeof(*a.requests));
	load_plan_free(&a);
	load_plan_free(&b);
	load_plan_free(&c);
}

static void a_mix_has_its_share(void **state)
{
	struct load_options o = options();
	struct load_plan plan;
	uint32_t longs = 0;

	o.prompt_count = 0;
	o.mix_short = 16;
	o.mix_long = 8000;
	o.mix_every = 10;
	o.requests = 100;
	o.clients = 3;
	assert_int_equal(load_plan_make(&o, &plan), 0);
	for (uint32_t i = 0; i < 100; i++) {
		longs += plan.requests[i].class;
		assert_int_equal(plan.requests[i].prompt, LOAD_RANDOM);
		assert_int_equal(plan.requests[i].prompt_tokens,
				 plan.requests[i].class ? 8000 : 16);
		assert_int_equal(plan.requests[i].client, i % 3);
	}
	assert_int_equal(longs, 10);
	assert_int_equal(plan.longest, 8000);
	assert_string_equal(plan.classes.name[1], "long");
	load_plan_free(&plan);
}

static void plans_have_bounds(void **state)
{
	struct load_options o = options();
	struct load_plan plan;

	o.requests = 10000000;
	o.max_tokens = 1u << 20;
	assert_int_equal(load_plan_make(&o, &plan), -1);
	load_plan_free(&plan);
	o.requests = 0;
	o.rate = 1e6;
	o.seconds = 1e6;
	assert_int_equal(load_plan_make(&o, &plan), -1);
	load_plan_free(&plan);
	o.rate = 0.001;
	o.seconds = 0.001;
	assert_int_equal(load_plan_make(&o, &plan), -1); /* no arrival in that time */
	load_plan_free(&plan);
	/* A closed loop by time keeps a bounded number. */
	o.rate = 0;
	o.max_tokens = 64;
	assert_int_equal(load_plan_make(&o, &plan), 0);
	assert_true(plan.bounded && plan.count >= 1 && plan.tokens <= LOAD_TOKENS_MAX);
	load_plan_free(&plan);
}

/* ---- trace files ---- */

static void traces_are_read_alike(void **state)
{
	struct load_trace csv, json;

	assert_int_equal(load_trace_read(MR_TEST_DATA "/traces/mixed.csv", &csv), 0);
	assert_int_equal(load_trace_read(MR_TEST_DATA "/traces/mixed.jsonl", &json), 0);
	assert_int_equal(csv.count, 10);
	assert_int_equal(json.count, 10);
	assert_memory_equal(csv.entries, json.entries, 10 * sizeof(*csv.entries));
	assert_memory_equal(&csv.classes, &json.classes, sizeof(csv.classes));
	assert_memory_equal(&csv.clients, &json.clients, sizeof(csv.clients));
	assert_int_equal(csv.text_count, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(csv.texts[i].bytes, json.texts[i].bytes);
		assert_memory_equal(csv.texts[i].text, json.texts[i].text, csv.texts[i].bytes);
	}
	assert_int_equal(csv.entries[3].arrival_ns, 40000000);
	assert_int_equal(csv.entries[3].prompt_tokens, 300);
	assert_int_equal(csv.entries[3].answer_tokens, 4);
	assert_string_equal(csv.classes.name[csv.entries[3].class], "document");
	assert_string_equal(csv.clients.name[csv.entries[3].client], "cid");
	load_trace_free(&csv);
	load_trace_free(&json);
}

static void traces_may_have_odd_ends(void **state)
{
	static const char csv[] = "prompt,arrival\r\n\"two\nlines\",0.5\r\n\r\nx,1";
	static const char json[] =
		"{\"arrival\": 2, \"prompt_tokens\": 7, \"client\": 3}\r\n\n \t\n";
	struct load_trace t;

	assert_int_equal(load_trace_parse(csv, sizeof(csv) - 1, &t), 0);
	assert_int_equal(t.count, 2);
	assert_int_equal(t.texts[0].bytes, 9);
	assert_memory_equal(t.texts[0].text, "two\nlines", 9);
	assert_int_equal(t.entries[1].arrival_ns, 1000000000);
	load_trace_free(&t);
	assert_int_equal(load_trace_parse(json, sizeof(json) - 1, &t), 0);
	assert_int_equal(t.entries[0].prompt_tokens, 7);
	assert_string_equal(t.clients.name[0], "3");
	load_trace_free(&t);
}

struct bad {
	const char *text;
	int status;
	uint32_t line;
	const char *words; /* part of what is said */
};

static void bad_traces_are_refused_by_name(void **state)
{
	static const struct bad bad[] = {
		{"", MR_E_FORMAT, 1, "unknown column"},
		{"arrival,prompt\n", MR_E_TRUNCATED, 1, "no request"},
		{"prompt\nx\n", MR_E_FORMAT, 1, "no column arrival"},
		{"arrival,frob\n0,1\n", MR_E_FORMAT, 1, "unknown column 'frob'"},
		{"arrival,prompt,arrival\n0,x,0\n", MR_E_FORMAT, 1, "column arrival comes twice"},
		{"arrival,prompt\n0\n", MR_E_FORMAT, 2, "fewer fields"},
		{"arrival,prompt\n0,x,y\n", MR_E_FORMAT, 2, "more fields"},
		{"arrival,prompt\n0,x\n1,\"y\n", MR_E_TRUNCATED, 3, "does not end"},
		{"arrival,prompt\n0,x\"y\n", MR_E_FORMAT, 2, "quote"},
		{"arrival,prompt\n0,\"x\"y\n", MR_E_FORMAT, 2, "quote"},
		{"arrival,prompt\n,x\n", MR_E_FORMAT, 2, "no arrival"},
		{"arrival,prompt\n-1,x\n", MR_E_RANGE, 2, "arrival takes seconds"},
		{"arrival,prompt\nnan,x\n", MR_E_RANGE, 2, "arrival takes seconds"},
		{"arrival,prompt\n0x1,x\n", MR_E_RANGE, 2, "arrival takes seconds"},
		{"arrival,prompt\n1e8,x\n", MR_E_RANGE, 2, "arrival takes seconds"},
		{"arrival,prompt\n2,x\n1,\"a\nb\"\n", MR_E_RANGE, 3, "before"},
		{"arrival,prompt\n2,\"a\nb\"\n1,x\n", MR_E_RANGE, 4, "before"},
		{"arrival,prompt,prompt_tokens\n0,,\n", MR_E_FORMAT, 2, "one of prompt"},
		{"arrival,prompt,prompt_tokens\n0,x,1\n", MR_E_FORMAT, 2, "one of prompt"},
		{"arrival,prompt_tokens\n0,0\n", MR_E_RANGE, 2, "prompt_tokens takes"},
		{"arrival,prompt_tokens\n0,1.5\n", MR_E_RANGE, 2, "prompt_tokens takes"},
		{"arrival,prompt_tokens\n0,1048577\n", MR_E_RANGE, 2, "prompt_tokens takes"},
		{"arrival,prompt_tokens,answer_tokens\n0,1,0\n", MR_E_RANGE, 2, "answer_tokens"},
		{"arrival,prompt_tokens,class\n0,1,a b\n", MR_E_RANGE, 2, "class is of letters"},
		{"arrival,prompt_tokens,class\n0,1,a\n0,1,\n", MR_E_FORMAT, 3, "every request"},
		{"arrival,prompt_tokens,client\n0,1,\n0,1,a\n", MR_E_FORMAT, 3, "every request"},
		{"arrival,prompt_tokens,client\n0,1,12345678901234567890123456789012\n", MR_E_RANGE,
		 2, "client is a name"},
		{"arrival,prompt_tokens,class\n0,1,a\n0,1,b\n0,1,c\n0,1,d\n0,1,e\n0,1,f\n0,1,g\n"
		 "0,1,h\n0,1,i\n",
		 MR_E_TOO_LARGE, 10, "different names"},
		{"{}", MR_E_FORMAT, 1, "no arrival"},
		{"{\"arrival\": 0", MR_E_FORMAT, 1, "not a JSON object"},
		{"{\"arrival\": 0, \"prompt\": \"x\"} 3", MR_E_FORMAT, 1, "not a JSON object"},
		{"{\"arrival\": 0, \"prompt\": \"x\"}\n[1]", MR_E_FORMAT, 2, "not a JSON object"},
		{"{\"arrival\": 0, \"prompt\": 7}", MR_E_FORMAT, 1, "prompt is not a string"},
		{"{\"arrival\": \"0\", \"prompt\": \"x\"}", MR_E_FORMAT, 1, "arrival is not a num"},
		{"{\"arrival\": null, \"prompt\": \"x\"}", MR_E_FORMAT, 1, "arrival is not a num"},
		{"{\"arrival\": -1, \"prompt\": \"x\"}", MR_E_RANGE, 1, "arrival takes seconds"},
		{"{\"arrival\": 1e400, \"prompt\": \"x\"}", MR_E_RANGE, 1, "arrival takes seconds"},
		{"{\"arrival\": 0, \"prompt\": \"\"}", MR_E_RANGE, 1, "the prompt is empty"},
		{"{\"arrival\": 0, \"prompts\": \"x\"}", MR_E_FORMAT, 1, "unknown field 'prompts'"},
		{"{\"arrival\": 0, \"prompt_tokens\": [1]}", MR_E_FORMAT, 1, "not a JSON object"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct load_trace t;
		int status = load_trace_parse(bad[i].text, strlen(bad[i].text), &t);

		if (status != bad[i].status || t.error_line != bad[i].line ||
		    !strstr(t.error, bad[i].words))
			fail_msg("%s\ngave %s, line %u: %s", bad[i].text, mr_status_name(status),
				 t.error_line, t.error);
		load_trace_free(&t);
	}
}

static void files_that_are_none(void **state)
{
	struct load_trace t;

	assert_int_equal(load_trace_read(MR_TEST_DATA "/traces/none.csv", &t), MR_E_NOT_FOUND);
	load_trace_free(&t);
	assert_int_equal(load_trace_read(MR_TEST_DATA "/traces", &t), MR_E_IO);
	load_trace_free(&t);
}

static void a_plan_follows_its_trace(void **state)
{
	struct load_options o = options();
	struct load_plan plan;

	o.prompt_count = 0;
	o.trace = MR_TEST_DATA "/traces/mixed.csv";
	o.seconds = 0.1;
	assert_int_equal(load_plan_make(&o, &plan), 0);
	assert_int_equal(plan.count, 7); /* the eighth is due at 0.1 s */
	assert_true(plan.open);
	assert_int_equal(plan.longest, 300);
	assert_int_equal(plan.tokens, 6 * 24 + 4);
	load_plan_free(&plan);
	o.requests = 3;
	assert_int_equal(load_plan_make(&o, &plan), 0);
	assert_int_equal(plan.count, 3);
	load_plan_free(&plan);
}

/* ---- figures ---- */

#define MS 1000000u

/*
 * Two short answers and a long prompt. The generator came late with the second: its own delay counts in TTFT and
 * in the end-to-end time, and not in the time from sending.
 */
static void figures_count_from_the_arrival(void **state)
{
	uint64_t at0[] = {11 * MS, 12 * MS, 28 * MS, 33 * MS}, at1[] = {70 * MS}, at2[] = {31 * MS};
	struct load_record records[] = {
		{.due_ns = 10 * MS,
		 .sent_ns = 10 * MS,
		 .at = at0,
		 .tokens = 4,
		 .end_ns = 34 * MS,
		 .ended = 1},
		{.due_ns = 20 * MS,
		 .sent_ns = 60 * MS,
		 .at = at1,
		 .tokens = 1,
		 .end_ns = 71 * MS,
		 .ended = 1},
		{.due_ns = 25 * MS,
		 .sent_ns = 25 * MS,
		 .at = at2,
		 .tokens = 1,
		 .end_ns = 31 * MS,
		 .ended = 1},
		{.due_ns = 26 * MS,
		 .sent_ns = 26 * MS,
		 .ended = 1,
		 .status = MR_E_QUOTA,
		 .end_ns = 27 * MS},
	};
	struct load_request requests[] = {{.class = 0}, {.class = 0}, {.class = 1}, {.class = 0}};
	struct load_plan plan = {.requests = requests, .count = 5, .open = 1, .span_ns = 50 * MS};
	struct load_run run = {.plan = &plan,
			       .records = records,
			       .sent = 4,
			       .token_count = 6,
			       .begin_ns = 10 * MS,
			       .end_ns = 110 * MS};
	struct load_figures f;
	uint32_t limit;

	load_label(&plan.classes, "short", 5);
	load_label(&plan.classes, "long", 4);
	assert_int_equal(load_figures(&run, &f), 0);
	assert_int_equal(f.all.ttft.max, 50 * MS);
	assert_int_equal(f.all.ttft_sent.max, 10 * MS);
	assert_int_equal(f.all.total.max, 51 * MS);
	assert_int_equal(f.lag.max, 40 * MS);
	assert_int_equal(f.late, 1);
	assert_int_equal(f.good, 3);
	assert_int_equal(f.failed, 1);
	assert_int_equal(f.unsent, 1);
	assert_int_equal(load_count_status(&run, MR_E_QUOTA, &limit), 1);
	assert_int_equal(f.class[0].ttft.n, 2);
	assert_int_equal(f.class[0].itl.n, 3);
	/* The long prompt waits from 25 to 31 ms: beside the gaps from 12 to 28 and from 28 to 33 ms. */
	assert_int_equal(f.class[0].itl_beside.n, 2);
	assert_int_equal(f.class[0].itl_beside.min, 5 * MS);
	assert_int_equal(f.class[0].itl_beside.max, 16 * MS);
	assert_int_equal(f.class[1].itl.n, 0);
	assert_true(fabs(f.offered_per_s - 100) < 1e-9);
	assert_true(fabs(f.served_per_s - 30) < 1e-9);
	/* In a closed loop nothing is due before it is sent. */
	plan.open = 0;
	assert_int_equal(load_figures(&run, &f), 0);
	assert_int_equal(f.lag.n, 0);
}

/* What the load itself ended is no failure of the server. */
static void figures_tell_cut_from_failed(void **state)
{
	struct load_record records[] = {
		{.ended = 1, .cut = 1, .status = MR_E_CANCELLED},
		{.cut = 1},
		{.ended = 1, .cut = 1},
		{.ended = 1, .status = MR_E_CANCELLED},
	};
	struct load_request requests[4] = {0};
	struct load_plan plan = {.requests = requests, .count = 4};
	struct load_run run = {.plan = &plan, .records = records, .sent = 4, .end_ns = 1};
	struct load_figures f;

	assert_int_equal(load_figures(&run, &f), 0);
	assert_int_equal(f.cut, 2);
	assert_int_equal(f.failed, 1);
	assert_int_equal(f.good, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gaps_of_poisson),
		cmocka_unit_test(counts_of_poisson),
		cmocka_unit_test(the_seed_makes_the_arrivals),
		cmocka_unit_test(a_mix_has_its_share),
		cmocka_unit_test(plans_have_bounds),
		cmocka_unit_test(traces_are_read_alike),
		cmocka_unit_test(traces_may_have_odd_ends),
		cmocka_unit_test(bad_traces_are_refused_by_name),
		cmocka_unit_test(files_that_are_none),
		cmocka_unit_test(a_plan_follows_its_trace),
		cmocka_unit_test(figures_count_from_the_arrival),
		cmocka_unit_test(figures_tell_cut_from_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
