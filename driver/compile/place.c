// SPDX-License-Identifier: Apache-2.0
/*
 * For a given number of KV blocks, filling each chip in order with as many layers as it holds is the
 * best that a pipeline can do; so the largest number of blocks is found by bisection.
 */
#include "driver/compile/place.h"

#define BLOCKS_MAX (1u << 24) /* what a container may say */

static int fill(const struct place_sizes *s, uint64_t sram, uint32_t chips, uint64_t blocks,
		struct placement *out)
{
	uint32_t layer = 0;

	for (uint32_t c = 0; c < chips; c++) {
		uint64_t used = s->each + (c == 0 ? s->embed : 0);
		if (c == chips - 1)
			used += chips == 1 ? s->head_tied : s->head;
		if (used > sram)
			return 0;
		out->first[c] = layer;
		while (layer < s->layers) {
			uint64_t more = s->layer[layer] + blocks * s->kv_layer;
			if (more > sram - used)
				break;
			used += more;
			layer++;
		}
		out->layers[c] = layer - out->first[c];
	}
	return layer == s->layers;
}

int mr_place_layers(const struct place_sizes *s, uint64_t sram, uint32_t chips, uint32_t least,
		    struct placement *out)
{
	uint64_t lo = least, hi = BLOCKS_MAX;

	if (!chips || chips > PLACE_CHIPS_MAX || !fill(s, sram, chips, lo, out))
		return 0;
	while (lo < hi) {
		uint64_t mid = (lo + hi + 1) / 2;
		if (fill(s, sram, chips, mid, out))
			lo = mid;
		else
			hi = mid - 1;
	}
	fill(s, sram, chips, lo, out);
	out->chips = chips;
	out->kv_blocks = (uint32_t)lo;
	return 1;
}
