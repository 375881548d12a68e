// SPDX-License-Identifier: Apache-2.0
/* CRC-32C against its published check value, and against itself in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "userlib/spec/crc32c.h"

static void check_value(void **state)
{
	assert_int_equal(mr_crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(mr_crc32c(0, "", 0), 0);
}

/* RFC 3720, B.4: 32 bytes of zeros, of ones, and counting up. */
static void iscsi_values(void **state)
{
	unsigned char b[32];

	for (int i = 0; i < 32; i++)
		b[i] = 0;
	assert_int_equal(mr_crc32c(0, b, 32), 0x8a9136aa);
	for (int i = 0; i < 32; i++)
		b[i] = 0xff;
	assert_int_equal(mr_crc32c(0, b, 32), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		b[i] = (unsigned char)i;
	assert_int_equal(mr_crc32c(0, b, 32), 0x46dd794e);
}

static void pieces(void **state)
{
	unsigned char b[67];

	for (int i = 0; i < 67; i++)
		b[i] = (unsigned char)(i * 37 + 11);
	for (size_t cut = 0; cut <= 67; cut++)
		assert_int_equal(mr_crc32c(mr_crc32c(0, b, cut), b + cut, 67 - cut),
				 mr_crc32c(0, b, 67));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(check_value),
		cmocka_unit_test(iscsi_values),
		cmocka_unit_test(pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
