// SPDX-License-Identifier: Apache-2.0
/*
 * A model's numbers out of a GGUF's metadata, for the architectures that are read: bounds of each, what
 * is not computed here, and how RoPE is scaled.
 */
#include "driver/model/shape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/gguf.h"
#include "driver/model/why.h"
#include "kernels/cpu/math.h"

static const struct mr_architecture architectures[] = {
	{.name = "llama", .qkv_bias = -1},
	{.name = "qwen2", .half_pairs = 1, .qkv_bias = 1},
	{.name = "qwen3", .half_pairs = 1, .qk_norm = 1},
};

/* A key of the model's architecture, such as "llama.block_count". */
struct key {
	char name[96];
};

static struct key key_of(const struct mr_model *m, const char *rest)
{
	struct key key;

	snprintf(key.name, sizeof(key.name), "%s.%s", m->architecture, rest);
	return key;
}

int mr_shape_u32(const struct mr_gguf *g, const char *key, uint32_t least, uint32_t most,
		 uint32_t *out, const struct mr_why *why)
{
	int rc = mr_gguf_get_u32(g, key, out);

	if (rc == MR_E_NOT_FOUND)
		return mr_why(why, MR_E_FORMAT, "the file has no key %s", key);
	if (rc == MR_E_FORMAT)
		return mr_why(why, MR_E_MODEL, "%s is no single integer", key);
	if (rc)
		return mr_why(why, MR_E_RANGE, "%s is negative or above 32 bits", key);
	if (*out < least || *out > most)
		return mr_why(why, MR_E_RANGE, "%s is %u, outside %u to %u", key, *out, least,
			      most);
	return 0;
}

int mr_shape_u32_or(const struct mr_gguf *g, const char *key, uint32_t fallback, uint32_t least,
		    uint32_t most, uint32_t *out, const struct mr_why *why)
{
	*out = fallback;
	return mr_gguf_find(g, key) ? mr_shape_u32(g, key, least, most, out, why) : 0;
}

static int read_u32(const struct mr_model *m, const char *rest, uint32_t least, uint32_t most,
		    uint32_t *out, const struct mr_why *why)
{
	return mr_shape_u32(m->gguf, key_of(m, rest).name, least, most, out, why);
}

static int read_u32_or(const struct mr_model *m, const char *rest, uint32_t fallback,
		       uint32_t least, uint32_t most, uint32_t *out, const struct mr_why *why)
{
	return mr_shape_u32_or(m->gguf, key_of(m, rest).name, fallback, least, most, out, why);
}

static int read_float(const struct mr_model *m, const char *rest, float least, float most,
		      float *out, const struct mr_why *why)
{
	struct key key = key_of(m, rest);

	if (mr_gguf_get_float(m->gguf, key.name, out))
		return mr_why(why, MR_E_FORMAT, "the file has no float %s", key.name);
	if (!(*out >= least && *out <= most)) /* not a number is outside too */
		return mr_why(why, MR_E_RANGE, "%s lies outside %g to %g", key.name, (double)least,
			      (double)most);
	return 0;
}

static int read_float_or(const struct mr_model *m, const char *rest, float fallback, float least,
			 float most, float *out, const struct mr_why *why)
{
	*out = fallback;
	if (!mr_gguf_find(m->gguf, key_of(m, rest).name))
		return 0;
	return read_float(m, rest, least, most, out, why);
}

const struct mr_architecture *mr_architecture_of(const struct mr_gguf *gguf,
						 const struct mr_why *why, int *rc)
{
	struct mr_gguf_string s;

	if (mr_gguf_get_string(gguf, "general.architecture", &s)) {
		*rc = mr_why(why, MR_E_FORMAT, "the file has no string general.architecture");
		return NULL;
	}
	for (size_t i = 0; i < sizeof(architectures) / sizeof(architectures[0]); i++) {
		const struct mr_architecture *a = &architectures[i];

		if (s.bytes == strlen(a->name) && !memcmp(s.data, a->name, s.bytes))
			return a;
	}
	*rc = mr_why(why, MR_E_MODEL, "architecture %s; llama, qwen2 and qwen3 are supported",
		     mr_show(s.data, s.bytes).text);
	return NULL;
}

/* Keys that other models of these architectures compute by; none, or 0, is what is computed here. */
static int refuse_unknown(const struct mr_model *m, const struct mr_why *why)
{
	static const char *const keys[] = {
		"expert_count",
		"attention.sliding_window",
		"attention.scale",
		"attention.clamp_kqv",
		"attention.max_alibi_bias",
		"attn_logit_softcapping",
		"final_logit_softcapping",
		"logit_scale",
		"embedding_scale",
		"residual_scale",
		"rope.scaling.yarn_log_multiplier",
		"rope.scaling.yarn_ext_factor",
		"rope.scaling.yarn_attn_factor",
		"rope.scaling.alpha",
	};
	int causal = 1;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct key key = key_of(m, keys[i]);
		const struct mr_gguf_value *v = mr_gguf_find(m->gguf, key.name);
		int zero = v && (v->type == MR_GGUF_F32 || v->type == MR_GGUF_F64
					 ? v->f == 0
					 : v->type < MR_GGUF_F32 && v->u == 0);

		if (v && !zero)
			return mr_why(why, MR_E_MODEL, "%s is not supported", key.name);
	}
	mr_gguf_get_bool(m->gguf, key_of(m, "attention.causal").name, &causal);
	if (!causal)
		return mr_why(why, MR_E_MODEL, "%s false is not supported",
			      key_of(m, "attention.causal").name);
	return 0;
}

int mr_shape_read(struct mr_model *m, uint32_t vocab, const struct mr_why *why)
{
	struct mr_shape *s = &m->shape;
	uint32_t same;
	int rc;

	s->vocab = vocab;
	if ((rc = refuse_unknown(m, why)) ||
	    (rc = read_u32(m, "block_count", 1, 1024, &s->layers, why)) ||
	    (rc = read_u32(m, "context_length", 1, 1u << 24, &s->context, why)) ||
	    (rc = read_u32(m, "embedding_length", 32, 1u << 16, &s->width, why)) ||
	    (rc = read_u32(m, "feed_forward_length", 32, 1u << 20, &s->ffn, why)) ||
	    (rc = read_u32(m, "attention.head_count", 1, 1024, &s->heads, why)) ||
	    (rc = read_u32_or(m, "attention.head_count_kv", s->heads, 1, s->heads, &s->kv_heads,
			      why)) ||
	    (rc = read_u32_or(m, "attention.key_length", s->width / s->heads, 16, 1024,
			      &s->head_dim, why)) ||
	    (rc = read_float(m, "attention.layer_norm_rms_epsilon", 1e-12f, 1e-1f, &s->rms_eps,
			     why)) ||
	    (rc = read_float_or(m, "rope.freq_base", 10000.0f, 1.0f, 1e12f, &s->rope_base, why)) ||
	    (rc = read_u32_or(m, "attention.value_length", s->head_dim, s->head_dim, s->head_dim,
			      &same, why)) ||
	    (rc = read_u32_or(m, "rope.dimension_count", s->head_dim, s->head_dim, s->head_dim,
			      &same, why)) ||
	    (rc = read_u32_or(m, "vocab_size", vocab, vocab, vocab, &same, why)))
		return rc;
	if (s->width % 32 || s->ffn % 32 || s->head_dim % 16 || !s->head_dim ||
	    s->heads * s->head_dim % 32 || s->heads % s->kv_heads)
		return mr_why(
			why, MR_E_MODEL,
			"width %u, ffn %u, %u heads of %u over %u KV heads: width, ffn and heads "
			"together must be multiples of 32, a head of 16, and KV heads divide heads",
			s->width, s->ffn, s->heads, s->head_dim, s->kv_heads);
	return 0;
}

/* What the keys under rope.scaling say. */
struct scaling {
	float factor; /* positions are divided by it; 1 = no scaling */
	int yarn;
	uint32_t original; /* yarn: the context that the model was first trained for */
	float beta_fast, beta_slow, attention;
};

static int read_scaling(const struct mr_model *m, struct scaling *out, const struct mr_why *why)
{
	struct key key = key_of(m, "rope.scaling.type");
	struct mr_gguf_string s = {"linear", 6}; /* the format's default, with factor 1 */
	int rc;

	*out = (struct scaling){.factor = 1};
	if (mr_gguf_get_string(m->gguf, key.name, &s) == MR_E_FORMAT)
		return mr_why(why, MR_E_FORMAT, "%s is no string", key.name);
	if (s.bytes == 4 && !memcmp(s.data, "none", 4))
		return 0;
	out->yarn = s.bytes == 4 && !memcmp(s.data, "yarn", 4);
	if (!out->yarn && (s.bytes != 6 || memcmp(s.data, "linear", 6)))
		return mr_why(why, MR_E_MODEL, "%s is %s; none, linear and yarn are supported",
			      key.name, mr_show(s.data, s.bytes).text);
	if ((rc = read_float_or(m, "rope.scale_linear", 1, 1, 1e6f, &out->factor, why)) ||
	    (rc = read_float_or(m, "rope.scaling.factor", out->factor, 1, 1e6f, &out->factor,
				why)) ||
	    (rc = read_u32_or(m, "rope.scaling.original_context_length", m->shape.context, 1,
			      1u << 24, &out->original, why)) ||
	    (rc = read_float_or(m, "rope.scaling.attn_factor", 1, 1e-3f, 1e3f, &out->attention,
				why)) ||
	    (rc = read_float_or(m, "rope.scaling.yarn_beta_fast", 32, 1e-3f, 1e6f, &out->beta_fast,
				why)) ||
	    (rc = read_float_or(m, "rope.scaling.yarn_beta_slow", 1, 1e-3f, 1e6f, &out->beta_slow,
				why)))
		return rc;
	return 0;
}

/* The pair, as a fraction, that turns @beta times within yarn's original context. */
static double yarn_pair(const struct mr_shape *s, const struct scaling *scale, double ln_base,
			double beta)
{
	const double tau = 0x1.921fb54442d18p+2;

	return s->head_dim * mr_log(scale->original / (beta * tau)) / (2 * ln_base);
}

int mr_shape_rope(struct mr_model *m, const float *factors, const struct mr_why *why)
{
	struct mr_shape *s = &m->shape;
	double ln_base = mr_log((double)s->rope_base), low = 0, high = 0;
	uint32_t pairs = s->head_dim / 2;
	struct scaling scale;
	int rc = read_scaling(m, &scale, why);

	if (rc || (!factors && !scale.yarn && scale.factor == 1))
		return rc;
	if (scale.yarn && !(s->rope_base > 1))
		return mr_why(why, MR_E_RANGE, "%s must be above 1 with yarn",
			      key_of(m, "rope.freq_base").name);
	m->rope_steps = calloc(pairs, sizeof(*m->rope_steps));
	if (!m->rope_steps)
		return mr_why(why, MR_E_NO_MEMORY, "no memory");
	if (scale.yarn) {
		low = fmax(0, floor(yarn_pair(s, &scale, ln_base, (double)scale.beta_fast)));
		high = fmin(s->head_dim - 1,
			    ceil(yarn_pair(s, &scale, ln_base, (double)scale.beta_slow)));
	}
	for (uint32_t i = 0; i < pairs; i++) {
		double step = mr_exp_double(-2.0 * i / s->head_dim * ln_base);
		/* From pairs that turn often, which keep their step, to those that turn seldom. */
		double ramp =
			!scale.yarn ? 1 : fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));

		if (factors) {
			if (!(factors[i] >= 1e-3f && factors[i] <= 1e6f))
				return mr_why(
					why, MR_E_RANGE,
					"rope_freqs.weight holds a factor outside 1e-3 to 1e6");
			step /= (double)factors[i];
		}
		m->rope_steps[i] = step * (1 - ramp) + step / (double)scale.factor * ramp;
	}
	s->rope_steps = m->rope_steps;
	s->rope_magnitude = 1;
	if (scale.yarn)
		s->rope_magnitude =
			(float)((double)scale.attention * (1 + 0.1 * mr_log((double)scale.factor)));
	return 0;
}
