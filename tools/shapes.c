// SPDX-License-Identifier: Apache-2.0
/* The files of tools/shapes/, taken in by the assembler, for `millrace lpu validate`. */
#include <stddef.h>
#include <string.h>

#include "tools/shapes.h"

#define SHAPE_FILE(label, file)                             \
	__asm__(".pushsection .rodata\n"                    \
		"tool_shape_" #label ":\n"                  \
		".incbin \"tools/shapes/" file ".shape\"\n" \
		"tool_shape_" #label "_end:\n"              \
		".popsection\n");                           \
	extern const char tool_shape_##label[], tool_shape_##label##_end[]

SHAPE_FILE(resnet50, "resnet50");
SHAPE_FILE(resnet101, "resnet101");
SHAPE_FILE(resnet152, "resnet152");
SHAPE_FILE(bert_large, "bert-large");
SHAPE_FILE(product, "product");

static const struct {
	const char *name, *text, *end;
} shapes[] = {
	{"resnet50", tool_shape_resnet50, tool_shape_resnet50_end},
	{"resnet101", tool_shape_resnet101, tool_shape_resnet101_end},
	{"resnet152", tool_shape_resnet152, tool_shape_resnet152_end},
	{"bert-large", tool_shape_bert_large, tool_shape_bert_large_end},
	{"product", tool_shape_product, tool_shape_product_end},
};

int tool_shape(const char *name, struct mr_shape_file *out, char *why, size_t why_bytes)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (!strcmp(shapes[i].name, name))
			return mr_shape_parse(shapes[i].text,
					      (size_t)(shapes[i].end - shapes[i].text), out, why,
					      why_bytes);
	return MR_E_NOT_FOUND;
}
