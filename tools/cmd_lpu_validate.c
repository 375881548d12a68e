// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace lpu validate`: the model of time against published figures of two LPUs (Documentation/lpu-model.rst). Every
 * figure here is computed from a chip file and a shape file; none was fitted to a published one.
 */
#include <getopt.h>
#include <math.h>
#include <string.h>

#include "driver/compile/product.h"
#include "tools/lpu.h"
#include "tools/lpu_program.h"
#include "tools/shapes.h"

#define GATE 0.20 /* how far a gated figure may be from the published one */

static const char usage[] = "usage: millrace lpu validate\n\n"
			    "Compares the model of time with published figures: arithmetic checks, "
			    "gates (exit status 1\n"
			    "where one is missed) and brackets.\n\n"
			    "  --help\n";

struct validate {
	struct mr_chip tsp, lp;
	int missed;
};

static double cycle_s(const struct mr_chip *c)
{
	return (double)c->cycle_ps / 1e12;
}

static uint64_t up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

/* ---- arithmetic ---- */

static void check(struct validate *v, const char *what, double got, double want, double within)
{
	int ok = fabs(got / want - 1) <= within;

	printf("  %-58s %10.4g %10.4g  %s\n", what, got, want, ok ? "ok" : "MISSED");
	v->missed += !ok;
}

static void arithmetic(struct validate *v)
{
	const struct mr_chip *c = &v->tsp;
	double macs = (double)(c->plane_count * c->plane_rows * c->plane_cols);

	printf("arithmetic checks: parameters multiplied as the source does; they validate "
	       "nothing\n");
	printf("  %-58s %10s %10s\n", "", "ours", "published");
	check(v, "int8, TOPS at 900 MHz", macs * 2 * 0.9e9 / 1e12, 737, 0.01);
	check(v, "int8, TOPS at 1 GHz", macs * 2 * 1e9 / 1e12, 820, 0.01);
	check(v, "FP16, TFLOPS at 900 MHz: half the inputs, two cycles a row",
	      macs / 4 * 2 * 0.9e9 / 1e12, 184, 0.01);
	check(v, "SRAM, TB/s at 1 GHz: two banks a slice",
	      (double)(c->sram_cycle_bytes * c->sram_banks) * 1e9 / 1e12, 56.3, 0.01);
	check(v, "a vector of 328 bytes on a link, ns", 328 * 8e6 / (double)c->link_mbps / 1e3,
	      26.2, 0.01);
	check(v, "all-reduce over 256 chips in 3 hops, us", 3 * (double)c->hop_ps / 1e6, 2.1, 0.05);
	check(v, "70 billion weights in int8 over 576 chips of 230 MB", 70e9 <= 576 * 230e6, 1, 0);
	check(v, "and in FP16 (they do not fit)", 140e9 <= 576 * 230e6 ? 1 : 2, 2, 0);
	check(v, "LPU 3: a rack of 256 chips, GB", 256 * (double)v->lp.sram_bytes / 1e9, 128, 0.01);
	check(v, "LPU 3: a rack's SRAM, PB/s",
	      256 * (double)v->lp.sram_cycle_bytes / cycle_s(&v->lp) / 1e15, 40, 0.05);
}

/* ---- gates ---- */

static void gate(struct validate *v, const char *what, double got, double want, const char *unit)
{
	int ok = fabs(got / want - 1) <= GATE;

	printf("  %-44s %9.1f %9.1f %-9s %+6.1f%%  %s\n", what, got, want, unit,
	       100 * (got / want - 1), ok ? "ok" : "MISSED");
	v->missed += !ok;
}

/*
 * Cycles of a layer's product. Where its tiles leave planes free, rows are shared out over them. What the next layer
 * cannot begin under: it reads what this one's last row made, which goes from SRAM through the planes, two vector
 * instructions (requantise, activate or add) and back.
 */
static uint64_t layer_cycles(const struct mr_chip *c, const struct mr_shape_product *p)
{
	uint64_t half = 1; /* FP16: half the inputs, two cycles a row */
	uint64_t tiles = up(p->k, c->plane_rows / half) * up(p->n, c->plane_cols);
	uint64_t copies = tiles < c->plane_count ? c->plane_count / tiles : 1;
	uint64_t passes = up(tiles * copies, c->plane_count);
	uint64_t install =
		up(c->plane_rows * c->plane_cols * c->plane_count, c->install_cycle_bytes);
	uint64_t unhidden = 2 * c->mem_latency + c->plane_latency + 2 * c->vector_latency;

	return passes * (install + up(p->m, copies)) + unhidden;
}

static double images(struct validate *v, const char *name)
{
	static struct mr_shape_file shape;
	uint64_t cycles = 0;

	if (tool_shape(name, &shape, NULL, 0))
		return 0;
	for (uint32_t i = 0; i < shape.count; i++)
		cycles += shape.product[i].times * layer_cycles(&v->tsp, &shape.product[i]);
	/* The source's clock is 900 MHz; the chip file's 1111 ps are within a per mille of it. */
	return 1 / ((double)cycles * cycle_s(&v->tsp));
}

static void product(struct validate *v)
{
	static struct mr_shape_file shape;
	struct mr_product_plan plan;
	char why[256] = "";

	if (tool_shape("product", &shape, why, sizeof(why)))
		return;
	for (int k = 0; k < 2; k++) {
		int status = mr_product_plan(&shape, &v->tsp, 8, k, &plan, why, sizeof(why));
		double us = (double)plan.cycles * cycle_s(&v->tsp) * 1e6;

		if (status) {
			printf("  the product, %s: %s (%s)\n", k ? "K split" : "columns split", why,
			       mr_status_name(status));
			v->missed++;
			continue;
		}
		if (!k) {
			gate(v, "[800x32576]x[32576x8192] FP16, 8 chips", us, 330, "us");
			printf("    by columns, results to one chip: %u instructions, verified; "
			       "largest chip %.1f of %.1f MB\n",
			       plan.instructions, (double)plan.sram_bytes / 1e6,
			       (double)v->tsp.sram_bytes / 1e6);
		} else {
			printf("    split by K instead, sums reduced afterwards: %.1f us, "
			       "verified: %s\n",
			       us,
			       us > 330 * (1 + GATE) ? "outside the gate, which so tells them apart"
						     : "inside too: the gate tells nothing");
		}
	}
}

static void gates(struct validate *v)
{
	const struct mr_chip *c = &v->tsp;

	printf("\ngates: within %.0f%% of the published figure\n", 100 * GATE);
	printf("  %-44s %9s %9s\n", "", "ours", "published");
	product(v);
	gate(v, "ResNet-50, batch 1, int8", images(v, "resnet50"), 20400, "images/s");
	gate(v, "ResNet-101 (projected by the source)", images(v, "resnet101"), 14300, "images/s");
	gate(v, "ResNet-152 (projected by the source)", images(v, "resnet152"), 10700, "images/s");
	printf("    unhidden cycles a layer: %llu = SRAM out and in, planes, two vector "
	       "instructions\n",
	       (unsigned long long)(2 * c->mem_latency + c->plane_latency + 2 * c->vector_latency));
}

/* ---- brackets ---- */

/* Tokens a second where @weights bytes are installed for each, in @ways chips at a time, with @hops between. */
static double tokens(const struct mr_chip *c, double weights, double ways, double hops)
{
	double install = (double)c->install_cycle_bytes * 0.9e9;

	return 1 / (weights / install / ways + hops * (double)c->hop_ps / 1e12);
}

static void bracket(const char *what, double got, const char *published, const char *why)
{
	printf("  %-40s %9.0f  %-16s %s\n", what, got, published, why);
}

/* One chip at a time, or four side by side with two hops a layer: how it was split is not published. */
static double bert_us(struct validate *v, double ways)
{
	static struct mr_shape_file shape;
	const struct mr_chip *c = &v->tsp;
	double cycles = 0;

	if (tool_shape("bert-large", &shape, NULL, 0))
		return 0;
	for (uint32_t i = 0; i < shape.count; i++) {
		const struct mr_shape_product *p = &shape.product[i];
		uint64_t tiles = up(p->k, c->plane_rows / 2) * up(p->n, c->plane_cols);
		uint64_t copies = tiles < c->plane_count ? c->plane_count / tiles : 1;

		cycles += (double)p->times * (double)(up(tiles * copies, c->plane_count) *
						      (40 + 2 * up(p->m, copies)));
	}
	/* 24 layers of six dependent products each. */
	cycles = cycles / ways +
		 24 * 6 * (double)(2 * c->mem_latency + c->plane_latency + 2 * c->vector_latency);
	return cycles * cycle_s(c) * 1e6 + (ways > 1 ? 48 : 3) * (double)c->hop_ps / 1e6;
}

static void brackets(struct validate *v)
{
	static const char host[] = "service figure: host, software and batching around it";
	static const double reach[7][2] = {{1, 0.35}, {2, 0.75}, {3, 1.15}, {4, 1.60},
					   {5, 2.05}, {6, 2.50}, {7, 2.95}};
	const struct mr_chip *c = &v->tsp;
	/* 26 x 204 tiles of FP16 over 100 x 4 planes; 4 chips a column of tiles, whose sums go over one link. */
	double passes = (double)up(26 * 204, 400), rows = 800;
	double reduce = rows * 320 * 4 * 8e6 / (double)c->link_mbps / 1e6;

	printf("\nbrackets: not gated\n  %-40s %9s  %-16s %s\n", "", "ours", "published",
	       "the gap");
	bracket("the product on 100 chips, us",
		passes * (2 * rows + 40) * cycle_s(c) * 1e6 + reduce + 2 * (double)c->hop_ps / 1e6,
		"120", "sums of each column meet over one link; read off a plot");
	bracket("BERT-Large, 4 chips one after the other, us", bert_us(v, 1), "< 1225 (99%)",
		"length (384) and split assumed; the spread");
	bracket("  4 chips side by side", bert_us(v, 4), "< 1225 (99%)",
		"is the host's: a schedule has none");
	bracket("Llama-2-7B, tokens/s a user", tokens(c, 6.607e9, 1, 0), "750", host);
	bracket("Mixtral 8x7B, tokens/s a user", tokens(c, 12.75e9, 1, 0), "480", host);
	bracket("Llama-3-8B, tokens/s a user", tokens(c, 7.504e9, 1, 0), "750 to 1300", host);
	bracket("Llama-2-70B, by layers", tokens(c, 68.7e9, 1, 0), "300",
		"the split is not published:");
	bracket("  2 chips a layer, 2 hops a layer", tokens(c, 68.7e9, 2, 160), "300",
		"between two and four ways");
	bracket("  4 chips a layer", tokens(c, 68.7e9, 4, 160), "300", host);
	for (int i = 0; i < 7; i++)
		printf("  LPU 3's reach, %d hop%s, us %17s %9.2f  %-16.2f %s\n", (int)reach[i][0],
		       i ? "s" : " ", "", reach[i][0] * (double)v->lp.hop_ps / 1e6, reach[i][1],
		       i ? "a hop of the source's costs 0.40 to 0.45 after the first"
			 : "the parameter");
}

static int cmd_lpu_validate(int argc, char **argv)
{
	static const struct option table[] = {{"help", no_argument, NULL, 'h'}, {0}};
	struct validate v = {.missed = 0};
	int opt;

	while ((opt = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) < 0;
		return TOOL_USAGE;
	}
	if (optind != argc)
		return TOOL_USAGE;
	if (lpu_chip("tsp1", &v.tsp) || lpu_chip("lp30", &v.lp))
		return TOOL_FAILED;
	arithmetic(&v);
	gates(&v);
	brackets(&v);
	if (v.missed)
		printf("\n%d missed\n", v.missed);
	return v.missed ? TOOL_FAILED : TOOL_OK;
}

TOOL_LPU_COMMAND(validate, "the model of time against published figures", cmd_lpu_validate);
