// SPDX-License-Identifier: Apache-2.0
/*
 * What the VFIO bus reads before and around the kernel's calls: configuration space, sysfs on made-up
 * trees, and each step of opening that can fail without a device. The calls themselves: tests/guest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/bus/vfio.h"

/* ---- configuration space ---------------------------------------------------------------------- */

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v & 0xffff);
	put16(p + 2, v >> 16);
}

/* 1234:5678 with MSI-X (5 vectors, BAR4 + 0x800), MSI (4 of them) and PCI Express with FLR. */
static void sound(uint8_t config[MR_VFIO_CONFIG_BYTES])
{
	memset(config, 0, MR_VFIO_CONFIG_BYTES);
	put16(config, 0x1234);
	put16(config + 2, 0x5678);
	put16(config + 4, 0x0007);
	put16(config + 6, 0x0010);
	config[0x34] = 0x42; /* the low two bits are to be left out */
	put16(config + 0x40, 0x6011);
	put16(config + 0x42, 4);
	put32(config + 0x44, 0x804);
	put16(config + 0x60, 0xe005);
	put16(config + 0x62, 2 << 1);
	put16(config + 0xe0, 0x0010);
	put32(config + 0xe4, 1u << 28);
}

static void reads_capabilities(void **state)
{
	uint8_t config[MR_VFIO_CONFIG_BYTES];
	struct mr_vfio_function f;

	sound(config);
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), 0);
	assert_int_equal(f.vendor, 0x1234);
	assert_int_equal(f.device, 0x5678);
	assert_int_equal(f.command, 7);
	assert_int_equal(f.msix, 0x40);
	assert_int_equal(f.msix_vectors, 5);
	assert_int_equal(f.msix_bar, 4);
	assert_int_equal(f.msix_offset, 0x800);
	assert_int_equal(f.msi, 0x60);
	assert_int_equal(f.msi_vectors, 4);
	assert_int_equal(f.express, 0xe0);
	assert_int_equal(f.flr, 1);

	put32(config + 0xe4, 0);
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), 0);
	assert_int_equal(f.flr, 0);
	config[0xe1] = 0xf0; /* and AF behind it, which can do it too */
	put32(config + 0xf0, 0x03060013);
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), 0);
	assert_int_equal(f.flr, 1);

	put16(config + 6, 0); /* no list */
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), 0);
	assert_int_equal(f.msix_vectors + f.msi_vectors + f.flr, 0);
}

static void refuses_bad_lists(void **state)
{
	uint8_t config[MR_VFIO_CONFIG_BYTES];
	struct mr_vfio_function f;

	sound(config);
	assert_int_equal(mr_vfio_config_parse(config, 63, &f), MR_E_TRUNCATED);
	config[0xe1] = 0x40; /* a circle */
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_FORMAT);
	config[0xe1] = 0xe0; /* a small one */
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_FORMAT);
	config[0xe1] = 0x10; /* into the header */
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_FORMAT);
	sound(config);
	assert_int_equal(mr_vfio_config_parse(config, 0xe0, &f),
			 MR_E_FORMAT); /* beyond what could be read */
	assert_int_equal(mr_vfio_config_parse(config, 0xe4, &f),
			 MR_E_FORMAT); /* a capability cut off */
	config[0x61] = 0xfc;           /* MSI-X needs 12 bytes, 4 are left */
	put16(config + 0xfc, 0x0011);
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_FORMAT);
	sound(config);
	put32(config + 0x44, 0x806); /* BAR6 */
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_FORMAT);
	sound(config);
	put16(config + 0x62, 6 << 1); /* 64 messages */
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_FORMAT);
	sound(config);
	config[0x0e] = 0x81;
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_NOT_SUPPORTED);
	memset(config, 0xff, sizeof(config));
	assert_int_equal(mr_vfio_config_parse(config, sizeof(config), &f), MR_E_DISCONNECTED);
}

/* ---- sysfs ------------------------------------------------------------------------------------ */

struct tree {
	char root[64], sysfs[80], dev[80];
};

static void make_folder(const struct tree *t, const char *name)
{
	char path[320];

	snprintf(path, sizeof(path), "%s/%s", t->root, name);
	for (char *c = path + 1; *c; c++) {
		if (*c != '/')
			continue;
		*c = 0;
		assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
		*c = '/';
	}
	assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
}

static void make_file(const struct tree *t, const char *name, const char *text)
{
	char path[320];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", t->root, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void make_link(const struct tree *t, const char *name, const char *target)
{
	char path[320];

	snprintf(path, sizeof(path), "%s/%s", t->root, name);
	unlink(path);
	assert_int_equal(symlink(target, path), 0);
}

/* A function as the kernel shows it; NULL driver = none, group < 0 = none. */
static void make_function(const struct tree *t, const char *address, const char *driver, int group,
			  const char *node)
{
	char name[200], target[200];

	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s", address);
	make_folder(t, name);
	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s/numa_node", address);
	if (node)
		make_file(t, name, node);
	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s/driver", address);
	snprintf(target, sizeof(target), "../../../bus/pci/drivers/%s", driver ? driver : "");
	if (driver)
		make_link(t, name, target);
	if (group < 0)
		return;
	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s/iommu_group", address);
	snprintf(target, sizeof(target), "../../../kernel/iommu_groups/%d", group);
	make_link(t, name, target);
	snprintf(name, sizeof(name), "sys/kernel/iommu_groups/%d/devices/%s", group, address);
	make_folder(t, name);
}

static int make_tree(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	snprintf(t->root, sizeof(t->root), "/tmp/millrace-vfio-XXXXXX");
	assert_non_null(mkdtemp(t->root));
	snprintf(t->sysfs, sizeof(t->sysfs), "%s/sys", t->root);
	snprintf(t->dev, sizeof(t->dev), "%s/dev", t->root);
	make_folder(t, "dev");
	make_function(t, "0000:01:00.0", "vfio-pci", 7, "1\n");
	make_function(t, "0000:01:00.1", "snd_hda_intel", 7, "1\n");
	make_function(t, "0000:01:00.2", NULL, 7, "-1\n");
	make_function(t, "0000:00:01.0", "pcieport", 7, "0\n");
	make_function(t, "0000:02:00.0", "nvme", 8, NULL);
	make_function(t, "0000:03:00.0", "vfio-pci", -1, "0\n");
	make_function(t, "0001:0a:1f.7", "vfio-pci", 9, "not a number\n");
	*state = t;
	return 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
	return remove(path);
}

static int remove_tree(void **state)
{
	struct tree *t = *state;

	nftw(t->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(t);
	return 0;
}

static void finds_functions(void **state)
{
	static const char *const bad[] = {"",
					  "01:00",
					  "1:00.0",
					  "01:00.8",
					  "01:20.0",
					  "0000:01:00.0 ",
					  "../0:01:00.0",
					  ":01:00.0",
					  "000g:01:00.0",
					  "0000:01:00.0/",
					  "123456789:01:00.0"};
	const struct tree *t = *state;
	struct mr_vfio_place place;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(mr_vfio_find(t->sysfs, bad[i], &place), MR_E_INVALID);
	assert_int_equal(mr_vfio_find(t->sysfs, "01:00.0", &place), 0);
	assert_string_equal(place.address, "0000:01:00.0");
	assert_string_equal(place.driver, "vfio-pci");
	assert_int_equal(place.group, 7);
	assert_int_equal(place.node, 1);
	assert_int_equal(mr_vfio_find(t->sysfs, "0000:02:00.0", &place), 0);
	assert_string_equal(place.driver, "nvme");
	assert_int_equal(place.group, 8);
	assert_int_equal(place.node, -1);
	assert_int_equal(mr_vfio_find(t->sysfs, "0001:0A:1F.7", &place), 0);
	assert_string_equal(place.address, "0001:0a:1f.7");
	assert_int_equal(place.node, -1);
	assert_int_equal(mr_vfio_find(t->sysfs, "0000:03:00.0", &place), 0);
	assert_int_equal(place.group, -1);
	assert_int_equal(mr_vfio_find(t->sysfs, "04:00.0", &place), MR_E_NOT_FOUND);
}

static void names_who_shares_a_group(void **state)
{
	const struct tree *t = *state;
	char text[100];

	assert_int_equal(mr_vfio_group_others(t->sysfs, 7, text, sizeof(text)), 1);
	assert_string_equal(text, "0000:01:00.1 (snd_hda_intel)");
	assert_int_equal(mr_vfio_group_others(t->sysfs, 7, text, 8), 1);
	assert_string_equal(text, "0000:01");
	assert_int_equal(mr_vfio_group_others(t->sysfs, 9, text, sizeof(text)), 0);
	assert_int_equal(mr_vfio_group_others(t->sysfs, 99, text, sizeof(text)), MR_E_NOT_FOUND);
}

/* ---- opening ---------------------------------------------------------------------------------- */

static void refused(const struct tree *t, const char *address, int status, const char *says)
{
	const struct mr_vfio_options o = {
		.address = address,
		.vendor = MR_VFIO_ANY_ID,
		.device = MR_VFIO_ANY_ID,
		.sysfs = t->sysfs,
		.dev = t->dev,
	};
	struct mr_bus *bus;
	char why[400];

	assert_int_equal(mr_bus_vfio_open(&o, &bus, why, sizeof(why)), status);
	assert_null(bus);
	if (!strstr(why, says))
		fail_msg("'%s' does not say '%s'", why, says);
}

static void says_what_to_do(void **state)
{
	const struct tree *t = *state;
	char path[120];

	refused(t, "nonsense", MR_E_INVALID, "0000:01:00.0");
	refused(t, "04:00.0", MR_E_NOT_FOUND, "lspci");
	refused(t, "03:00.0", MR_E_NOT_SUPPORTED, "intel_iommu=on");
	refused(t, "02:00.0", MR_E_BUSY, "driver nvme has it: bind the device to vfio-pci");
	refused(t, "01:00.2", MR_E_NOT_FOUND, "bind the device to vfio-pci");
	refused(t, "01:00.0", MR_E_NOT_FOUND, "modprobe vfio-pci");
	make_file(t, "dev/vfio", "");
	refused(t, "01:00.0", MR_E_VERSION, "another version of VFIO");
	snprintf(path, sizeof(path), "%s/vfio", t->dev);
	assert_int_equal(chmod(path, 0), 0);
	if (geteuid())
		refused(t, "01:00.0", MR_E_PERMISSION, "70-millrace-vfio.rules");
	else
		print_message("skipped: root opens any file, so a refused /dev/vfio/vfio was not "
			      "tried\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_capabilities),
		cmocka_unit_test(refuses_bad_lists),
		cmocka_unit_test_setup_teardown(finds_functions, make_tree, remove_tree),
		cmocka_unit_test_setup_teardown(names_who_shares_a_group, make_tree, remove_tree),
		cmocka_unit_test_setup_teardown(says_what_to_do, make_tree, remove_tree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
