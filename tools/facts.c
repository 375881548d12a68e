// SPDX-License-Identifier: Apache-2.0
/*
 * The machine's facts, printed wherever figures are: a figure without them cannot be compared with
 * anything. Read from CPUID (the model's name may be masked by a hypervisor, the bits are not),
 * sysfs and procfs; what cannot be read is left out, never guessed.
 */
#include <cpuid.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tools/tools.h"

#define TEXT_MAX 256

enum cpuid_register { EAX, EBX, ECX, EDX };

/* The CPUID bits that choose a kernel path, or that a reader of a figure would ask for. */
static const struct {
	const char *name;
	unsigned leaf, subleaf, reg, bit;
} cpu_flags[] = {
	{"avx2", 7, 0, EBX, 5},         {"fma", 1, 0, ECX, 12},
	{"f16c", 1, 0, ECX, 29},        {"avx512f", 7, 0, EBX, 16},
	{"avx512_vnni", 7, 0, ECX, 11}, {"avx512_bf16", 7, 1, EAX, 5},
	{"avx512_fp16", 7, 0, EDX, 23}, {"avx_vnni", 7, 1, EAX, 4},
	{"amx_int8", 7, 0, EDX, 25},    {"amx_bf16", 7, 0, EDX, 22},
	{"hypervisor", 1, 0, ECX, 31},
};

static int has_flag(size_t i)
{
	unsigned r[4] = {0};

	if (!__get_cpuid_count(cpu_flags[i].leaf, cpu_flags[i].subleaf, &r[EAX], &r[EBX], &r[ECX],
			       &r[EDX]))
		return 0;
	return r[cpu_flags[i].reg] >> cpu_flags[i].bit & 1;
}

/* CPUID's brand string without the blanks around it. */
static void cpu_name(char out[49])
{
	unsigned r[12] = {0};
	char raw[49] = "";
	char *p = raw;
	size_t n;

	for (unsigned i = 0; i < 3; i++)
		if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2],
				 &r[4 * i + 3]))
			break;
	memcpy(raw, r, 48);
	while (*p == ' ')
		p++;
	n = strlen(p);
	while (n && p[n - 1] == ' ')
		n--;
	memcpy(out, p, n);
	out[n] = 0;
}

static void cpu_signature(unsigned *family, unsigned *model, unsigned *stepping)
{
	unsigned a = 0, b, c, d;

	__get_cpuid(1, &a, &b, &c, &d);
	*family = a >> 8 & 15;
	*model = a >> 4 & 15;
	*stepping = a & 15;
	if (*family == 6 || *family == 15)
		*model += (a >> 16 & 15) << 4;
	if (*family == 15)
		*family += a >> 20 & 255;
}

/* The first line of a small file without its newline; 0 where it cannot be read. */
static int read_line(const char *path, char out[TEXT_MAX])
{
	FILE *f = fopen(path, "re");
	int ok = f && fgets(out, TEXT_MAX, f);

	if (f)
		fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = 0;
	return ok;
}

static void add_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static void add_number(struct json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_uint64(value));
}

static void add_file(struct json_object *o, const char *key, const char *path)
{
	char text[TEXT_MAX];

	if (read_line(path, text))
		add_number(o, key, strtoull(text, NULL, 10));
}

/* {"L1d": "48K", "L2": ...} of CPU 0. */
static struct json_object *caches(void)
{
	struct json_object *o = json_object_new_object();

	for (int i = 0; i < 8; i++) {
		char path[128], level[TEXT_MAX], type[TEXT_MAX], size[TEXT_MAX], key[16];
		const char *base = "/sys/devices/system/cpu/cpu0/cache/index";

		snprintf(path, sizeof(path), "%s%d/level", base, i);
		if (!read_line(path, level))
			break;
		snprintf(path, sizeof(path), "%s%d/type", base, i);
		if (!read_line(path, type))
			continue;
		snprintf(path, sizeof(path), "%s%d/size", base, i);
		if (!read_line(path, size))
			continue;
		snprintf(key, sizeof(key), "L%.2s%s", level,
			 !strcmp(type, "Data")          ? "d"
			 : !strcmp(type, "Instruction") ? "i"
							: "");
		add_text(o, key, size);
	}
	return o;
}

static struct json_object *huge_pages(void)
{
	static const struct {
		const char *key, *path;
	} files[] = {
		{"2M", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"},
		{"2M_free", "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"},
		{"1G", "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"},
		{"1G_free", "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages"},
	};
	struct json_object *o = json_object_new_object();
	char text[TEXT_MAX];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		add_file(o, files[i].key, files[i].path);
	if (read_line("/sys/kernel/mm/transparent_hugepage/enabled", text)) {
		char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;

		if (close) {
			*close = 0;
			add_text(o, "transparent", open + 1);
		}
	}
	return o;
}

static unsigned numa_nodes(void)
{
	unsigned n = 0;
	char path[64];

	for (;; n++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u", n);
		if (access(path, F_OK))
			return n;
	}
}

struct json_object *tool_facts_json(void)
{
	struct json_object *o = json_object_new_object(), *flags = json_object_new_array();
	struct json_object *load = json_object_new_array();
	char name[49], signature[48];
	unsigned family, model, stepping;
	struct utsname kernel;
	struct sysinfo memory;
	double average[3];

	cpu_name(name);
	cpu_signature(&family, &model, &stepping);
	snprintf(signature, sizeof(signature), "family %u model %u stepping %u", family, model,
		 stepping);
	add_text(o, "cpu", name);
	add_text(o, "signature", signature);
	for (size_t i = 0; i < sizeof(cpu_flags) / sizeof(cpu_flags[0]); i++)
		if (has_flag(i))
			json_object_array_add(flags, json_object_new_string(cpu_flags[i].name));
	json_object_object_add(o, "flags", flags);
	add_number(o, "cpus", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
	add_number(o, "numa_nodes", numa_nodes());
	json_object_object_add(o, "caches", caches());
	if (!sysinfo(&memory))
		add_number(o, "memory_bytes", (uint64_t)memory.totalram * memory.mem_unit);
	json_object_object_add(o, "huge_pages", huge_pages());
	if (!uname(&kernel))
		add_text(o, "kernel", kernel.release);
	for (int i = 0, n = getloadavg(average, 3); i < n; i++) {
		char text[32];

		snprintf(text, sizeof(text), "%.2f", average[i]);
		json_object_array_add(load, json_object_new_double_s(average[i], text));
	}
	json_object_object_add(o, "load", load);
	return o;
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) ? json_object_get_string(v) : "?";
}

/* "key value, key value" of an object, or "value value" of an array. */
static void print_flat(FILE *out, struct json_object *o)
{
	if (json_object_is_type(o, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(o); i++)
			fprintf(out, " %s",
				json_object_get_string(json_object_array_get_idx(o, i)));
	} else {
		const char *comma = "";

		json_object_object_foreach(o, key, value)
		{
			fprintf(out, "%s %s %s", comma, key, json_object_get_string(value));
			comma = ",";
		}
	}
	fputc('\n', out);
}

void tool_facts_print(FILE *out)
{
	struct json_object *o = tool_facts_json();
	uint64_t bytes = json_object_get_uint64(json_object_object_get(o, "memory_bytes"));

	fprintf(out, "machine  %s (%s)\n", text_of(o, "cpu"), text_of(o, "signature"));
	fprintf(out, "  flags ");
	print_flat(out, json_object_object_get(o, "flags"));
	fprintf(out, "  cpus   %s, NUMA nodes %s, memory %.1f GiB\n", text_of(o, "cpus"),
		text_of(o, "numa_nodes"), (double)bytes / (1u << 30));
	fprintf(out, "  caches");
	print_flat(out, json_object_object_get(o, "caches"));
	fprintf(out, "  huge  ");
	print_flat(out, json_object_object_get(o, "huge_pages"));
	fprintf(out, "  kernel %s, load", text_of(o, "kernel"));
	print_flat(out, json_object_object_get(o, "load"));
	json_object_put(o);
}
