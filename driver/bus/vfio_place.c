// SPDX-License-Identifier: Apache-2.0
/* See vfio_pci.h: a function's place in sysfs. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/bus/vfio_pci.h"

static int all_hex(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isxdigit((unsigned char)text[i]))
			return 0;
	return 1;
}

/* "01:00.0" or "0000:01:00.0", nothing else, to the long form that sysfs uses. */
static int address_of(const char *text, char out[20])
{
	size_t n = strlen(text);
	const char *tail = n >= 7 ? text + n - 7 : text;
	size_t domain = (size_t)(tail - text);

	if (n < 7 || !all_hex(tail, 2) || tail[2] != ':' || !all_hex(tail + 3, 2) ||
	    tail[5] != '.' || tail[3] > '1' || tail[6] < '0' || tail[6] > '7')
		return MR_E_INVALID;
	if (domain && (domain < 5 || domain > 9 || tail[-1] != ':' || !all_hex(text, domain - 1)))
		return MR_E_INVALID;
	snprintf(out, 20, "%s%s", domain ? "" : "0000:", text);
	for (char *c = out; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return 0;
}

/* The last part of what the link @path points at, or "". */
static void link_name(const char *path, char *out, size_t bytes)
{
	char target[512];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	const char *name;
	size_t length;

	out[0] = 0;
	if (n <= 0)
		return;
	target[n] = 0;
	name = strrchr(target, '/');
	name = name ? name + 1 : target;
	length = strlen(name);
	if (length >= bytes)
		return;
	memcpy(out, name, length + 1);
}

static int number_in(const char *path)
{
	FILE *file = fopen(path, "re");
	int n = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%d", &n) != 1)
		n = -1;
	fclose(file);
	return n;
}

int mr_vfio_find(const char *sysfs, const char *address, struct mr_vfio_place *out)
{
	char folder[256], path[300], group[16], *end;
	int status;

	memset(out, 0, sizeof(*out));
	out->group = out->node = -1;
	status = address_of(address, out->address);
	if (status)
		return status;
	snprintf(folder, sizeof(folder), "%s/bus/pci/devices/%s", sysfs, out->address);
	if (access(folder, F_OK))
		return MR_E_NOT_FOUND;
	snprintf(path, sizeof(path), "%s/driver", folder);
	link_name(path, out->driver, sizeof(out->driver));
	snprintf(path, sizeof(path), "%s/iommu_group", folder);
	link_name(path, group, sizeof(group));
	if (group[0] >= '0' && group[0] <= '9') {
		long n = strtol(group, &end, 10);

		out->group = *end || n > 1 << 30 ? -1 : (int)n;
	}
	snprintf(path, sizeof(path), "%s/numa_node", folder);
	out->node = number_in(path);
	return 0;
}

/* The kernel's drivers that do no DMA of their own: they leave a group viable. */
static int harmless(const char *driver)
{
	return !driver[0] || !strcmp(driver, "vfio-pci") || !strcmp(driver, "pci-stub") ||
	       !strcmp(driver, "pcieport");
}

int mr_vfio_group_others(const char *sysfs, int group, char *text, size_t bytes)
{
	char path[256];
	struct dirent *entry;
	size_t used = 0;
	DIR *folder;
	int n = 0;

	text[0] = 0;
	snprintf(path, sizeof(path), "%s/kernel/iommu_groups/%d/devices", sysfs, group);
	folder = opendir(path);
	if (!folder)
		return MR_E_NOT_FOUND;
	while ((entry = readdir(folder))) {
		struct mr_vfio_place place;

		if (mr_vfio_find(sysfs, entry->d_name, &place) || harmless(place.driver))
			continue;
		n++;
		if (used < bytes)
			used += (size_t)snprintf(text + used, bytes - used, "%s%s (%s)",
						 used ? ", " : "", place.address, place.driver);
	}
	closedir(folder);
	return n;
}
