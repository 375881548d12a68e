/* SPDX-License-Identifier: Apache-2.0 */
/* Shape files that are built in: "resnet50", "resnet101", "resnet152", "bert-large", "product". */
#ifndef MR_TOOLS_SHAPES_H
#define MR_TOOLS_SHAPES_H

#include <millrace/status.h>

#include "userlib/spec/shape.h"

/* As mr_shape_parse; MR_E_NOT_FOUND where there is no such shape. */
int tool_shape(const char *name, struct mr_shape_file *out, char *why, size_t why_bytes);

#endif /* MR_TOOLS_SHAPES_H */
