// SPDX-License-Identifier: Apache-2.0
/* Fuzzes the readers of chip files and shape files: an input is one, then the other. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userlib/spec/chip.h"
#include "userlib/spec/shape.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_shape: %s\n", what);
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct mr_shape_file shape;
	struct mr_chip chip;
	char why[32];

	if (!mr_chip_parse((const char *)data, size, &chip, why, sizeof(why)))
		check(strlen(chip.name) < sizeof(chip.name) && chip.cycle_ps && chip.plane_rows,
		      "a chip without its values");
	if (!mr_shape_parse((const char *)data, size, &shape, why, sizeof(why))) {
		check(shape.count && shape.count <= MR_SHAPE_PRODUCTS_MAX && shape.type, "a shape");
		for (uint32_t i = 0; i < shape.count; i++)
			check(shape.product[i].m && shape.product[i].k && shape.product[i].n &&
				      shape.product[i].times &&
				      strlen(shape.product[i].name) < sizeof(shape.product[i].name),
			      "a product");
	}
	return 0;
}
