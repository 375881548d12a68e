// SPDX-License-Identifier: Apache-2.0
/* The log pages as `millrace lpu log` shows them: units, names, and a device that says what cannot be. */
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The program's own parts are in no archive. */
#include "tools/lpu_pages.c"

static char *text;

static const char *shown(const char *name, const void *data, size_t bytes)
{
	const struct lpu_page *page = lpu_page_find(name);
	size_t n = 0;
	FILE *f;

	free(text);
	text = NULL;
	assert_non_null(page);
	assert_int_equal(lpu_page_check(page, bytes), 0);
	f = open_memstream(&text, &n);
	lpu_page_print(f, page, data, bytes);
	fclose(f);
	return text;
}

static void has(const char *line)
{
	if (!strstr(text, line))
		fail_msg("no '%s' in:\n%s", line, text);
}

static void numbers_have_units(void **state)
{
	const struct mr_lpu_power p = {.power_mw = 275500,
				       .temperature_mk = 361250,
				       .over_mk = 358150,
				       .energy_mj = 1234567};
	const struct mr_lpu_health h = {.uptime_ms = 61005, .ecc_corrected = 3, .chips_up = 2};
	const struct mr_lpu_counters c = {.dma_read_bytes = 4096, .records = 12};

	shown("power", &p, sizeof(p));
	has("  power              275.500 W\n");
	has("  power peak         not measured\n");
	has("  temperature        361.2 K (88.1 C)\n");
	has("  energy             1234.567 J\n");
	has("  over               358.1 K (85.0 C)\n");
	has("  under              none\n");
	shown("health", &h, sizeof(h));
	has("  uptime             61.005 s\n");
	has("  ecc corrected      3\n");
	has("  power              not measured\n");
	shown("counters", &c, sizeof(c));
	has("  dma read           4096 bytes\n");
	has("  records            12\n");
}

static void a_crash_is_decoded_and_its_text_is_harmless(void **state)
{
	struct mr_lpu_crash c = {.number = 2,
				 .time_ms = 1500,
				 .cause = MR_LPU_CRASH_RING,
				 .queue = 1,
				 .opcode = MR_LPU_DECODE,
				 .iova = 0x1000,
				 .firmware = "f\x1b[2J"};

	memset(c.text, 'x', sizeof(c.text)); /* no NUL */
	shown("crash", &c, sizeof(c));
	has("cause              2, RING: a ring or the shadow doorbells could not be reached\n");
	has("  opcode             0x86 DECODE\n");
	has("  iova               0x1000\n");
	has("  firmware           f.[2J\n");
	assert_null(strchr(text, 0x1b));
	c.cause = 77;
	c.opcode = 0xdead;
	shown("crash", &c, sizeof(c));
	has("77, a cause that the specification does not name\n");
	has("0xdead opcode\n");
	shown("crash", &c, 0);
	has("  none since power-on\n");
}

static void errors_and_firmware_are_lists(void **state)
{
	const struct mr_lpu_error e[2] = {
		{.number = 4, .time_ms = 20, .opcode = MR_LPU_GET_LOG, .status = 3},
		{.number = 5, .opcode = 0xff, .status = 999},
	};
	struct mr_lpu_firmware_log f = {.slots = 9, .running = 1, .next = 2, .version = {"a", "b"}};

	shown("errors", e, sizeof(e));
	has("0.020 s  queue 0   0x04 GET_LOG");
	has("E_NOT_SUPPORTED\n");
	has("E_UNKNOWN\n");
	shown("errors", e, 0);
	has("  none\n");
	memset(f.version[3], 'z', sizeof(f.version[3]));
	shown("firmware", &f, sizeof(f)); /* nine slots: more than there can be */
	has("  slot 1             a, runs\n");
	has("  slot 2             b, runs after the next reset\n");
	has("  slot 3             empty\n");
	has("  slot 4             zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\n");
	assert_null(strstr(text, "slot 5"));
}

static void a_page_of_another_length_is_refused(void **state)
{
	for (size_t i = 0; i < 7; i++) {
		const struct lpu_page *p = &lpu_pages[i];
		if (p->log == MR_LPU_LOG_CHIP)
			continue;
		assert_int_equal(lpu_page_check(p, 63), MR_E_TRUNCATED);
	}
	assert_int_equal(lpu_page_check(lpu_page_find("health"), 0), MR_E_TRUNCATED);
	assert_null(lpu_page_find("smell"));
}

static void json_has_the_devices_numbers(void **state)
{
	const struct mr_lpu_power p = {.temperature_mk = 361250};
	const struct mr_lpu_crash c = {.cause = MR_LPU_CRASH_ASSERT, .text = "t\n"};
	struct json_object *o = lpu_page_json(lpu_page_find("power"), &p, sizeof(p));

	assert_non_null(strstr(json_object_to_json_string(o), "\"temperature_mk\": 361250"));
	json_object_put(o);
	o = lpu_page_json(lpu_page_find("crash"), &c, sizeof(c));
	assert_non_null(strstr(json_object_to_json_string(o), "\"cause\": 3"));
	assert_non_null(strstr(json_object_to_json_string(o), "\"text\": \"t.\""));
	json_object_put(o);
	assert_null(lpu_page_json(lpu_page_find("crash"), &c, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_have_units),
		cmocka_unit_test(a_crash_is_decoded_and_its_text_is_harmless),
		cmocka_unit_test(errors_and_firmware_are_lists),
		cmocka_unit_test(a_page_of_another_length_is_refused),
		cmocka_unit_test(json_has_the_devices_numbers),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(text);
	return failed;
}
