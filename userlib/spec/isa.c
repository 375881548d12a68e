// SPDX-License-Identifier: Apache-2.0
#include "userlib/spec/isa.h"

const char *mr_isa_name(uint8_t op)
{
	switch (op) {
#define X(name, code)     \
	case MR_I_##name: \
		return #name;
		MR_ISA_OPS(X)
#undef X
	default:
		return "?";
	}
}
