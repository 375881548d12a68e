/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands of `millrace` share: how a command is declared, how devices are opened from options,
 * the machine's facts, latency summaries. One command, one file: tools/cmd_<name>.c.
 */
#ifndef MR_TOOLS_TOOLS_H
#define MR_TOOLS_TOOLS_H

#include <stdint.h>
#include <stdio.h>

#include "driver/device.h"
#include "driver/mem/arena.h"

struct mr_kernels;

/* A command of the program. The linker gathers them, so that adding a file adds a command. */
struct tool_command {
	const char *name;
	const char *summary; /* one line for --help */
	/* argv[0] is the command's name; returns an exit status. */
	int (*run)(int argc, char **argv);
};
#define TOOL_COMMAND(ident, text, fn)                                               \
	static const struct tool_command tool_command_##ident = {#ident, text, fn}; \
	static const struct tool_command *const tool_command_ref_##ident            \
		__attribute__((used, section("tool_commands"))) = &tool_command_##ident

/* Exit statuses of every command. */
enum { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_USAGE = 2 };

/* How devices are opened; filled from a command's options. Zero means the default. */
struct tool_devices_options {
	const char *device; /* "lpu" (default), "cpu", "nil": the decode device */
	const char
		*lpu; /* where the LPU is: "local" (default), "vfio-user:SOCKET", "vfio:ADDRESS" */
	const char *kernels; /* of the CPU backend; NULL = the widest */
	const char *chip;    /* chip file of the simulated LPU; NULL = mr1 */
	uint32_t chips;      /* of the simulated LPU; 0 = 2 */
	const char *
		fault; /* "sram-zero=TENSOR", ...: of the simulated LPU (firmware-sim/sim.h); NULL = none */
	const char *perturb; /* "mxm.latency=+1", ...: of the simulated LPU; NULL = none */
	double paced; /* of the simulated LPU: wall time for its time; 0 = as quick as it computes */
	const char *record;        /* file for a trace of the LPU's bus; NULL = none */
	enum mr_numerics numerics; /* of the CPU backend */
	int numerics_asked;        /* by name: say so where there is nothing to choose */
	uint32_t threads; /* of the CPU backend; 0 = as many as suit it (tools/devices.c) */
	uint32_t
		spin_us; /* of the simulated LPU: it looks for work so long before it sleeps; 0 = 30 */
	int chip_cpu;    /* CPU + 1 that its thread is pinned to; 0 = none */
	uint32_t slots, context;
	int loop_busy; /* the caller's loop never sleeps: leave it a core */
	int no_huge;
	int quiet;       /* no progress on stderr */
	int arena_log;   /* tell stderr of every region: pages, node, IOVA */
	int decode_only; /* open no prefill device of its own: prefill = decode */
	int apart;       /* of the CPU backend: each work has passes of its own */
};

/*
 * The options of a command line that fill the struct above. A command puts TOOL_DEVICE_LONG_OPTIONS into its
 * getopt_long table, TOOL_DEVICE_HELP into its --help, and offers what getopt_long returns to
 * tool_device_option: 1 = taken, 0 = not one of them, -1 = refused, after one line on stderr.
 */
enum {
	TOOL_OPT_DEVICE = 0x100,
	TOOL_OPT_KERNELS,
	TOOL_OPT_NUMERICS,
	TOOL_OPT_THREADS,
	TOOL_OPT_CHIP,
	TOOL_OPT_CHIPS,
	TOOL_OPT_FAULT,
	TOOL_OPT_PERTURB,
	TOOL_OPT_PACED,
	TOOL_OPT_LPU,
	TOOL_OPT_NO_HUGE,
	TOOL_OPT_RECORD,
	TOOL_OPT_OWN = 0x200 /* a command's own long options start here */
};
/* clang-format off: a list of initialisers, not a block of code */
#define TOOL_DEVICE_LONG_OPTIONS                                          \
	{"device", required_argument, NULL, TOOL_OPT_DEVICE},             \
		{"kernels", required_argument, NULL, TOOL_OPT_KERNELS},   \
		{"numerics", required_argument, NULL, TOOL_OPT_NUMERICS}, \
		{"threads", required_argument, NULL, TOOL_OPT_THREADS},   \
		{"chip", required_argument, NULL, TOOL_OPT_CHIP},         \
		{"chips", required_argument, NULL, TOOL_OPT_CHIPS},       \
		{"fault", required_argument, NULL, TOOL_OPT_FAULT},       \
		{"lpu", required_argument, NULL, TOOL_OPT_LPU},           \
		{"perturb", required_argument, NULL, TOOL_OPT_PERTURB},   \
		{"paced", optional_argument, NULL, TOOL_OPT_PACED},       \
		{"record", required_argument, NULL, TOOL_OPT_RECORD},     \
	{                                                                 \
		"no-huge", no_argument, NULL, TOOL_OPT_NO_HUGE            \
	}
/* clang-format on */
#define TOOL_DEVICE_HELP                                                                         \
	"  --device NAME     decode device: lpu (default), cpu or nil\n"                         \
	"  --lpu BUS         how the LPU is reached: local (default: simulated in this "         \
	"process),\n"                                                                            \
	"                    vfio-user:SOCKET ('millrace lpu sim'), or\n"                        \
	"                    vfio:ADDRESS (a PCI function bound to vfio-pci); both take\n"       \
	"                    @VENDOR:DEVICE behind it\n"                                         \
	"  --record FILE     trace of the LPU's bus, for 'millrace lpu replay'\n"                \
	"  --kernels NAME    CPU kernels: scalar, avx2, avx512, amx (default: the widest there " \
	"is)\n"                                                                                  \
	"  --numerics HOW    exact (default), strict or fast: see the man page\n"                \
	"  --threads N       compute threads of the CPU backend (default: see the man page)\n"   \
	"  --chip FILE       chip of the simulated LPU: a chip file, mr1 (default) or tiny\n"    \
	"  --chips N         its chips, 1 to 64 (default: 2)\n"                                  \
	"  --fault LIST      its faults: sram-zero=TENSOR, sram-flip=TENSOR:OFFSET, or of the "  \
	"device\n"                                                                               \
	"                    ('millrace lpu fault --help')\n"                                    \
	"  --perturb CHANGE  its latencies beside the chip file: mem, mxm, vxm or "              \
	"c2c.latency=+N\n"                                                                       \
	"  --paced[=SCALE]   no token before SCALE (1) times the time that its cycles take\n"    \
	"  --no-huge         4 KiB pages only\n"
/* "exact", "strict", "fast" */
const char *tool_numerics_name(enum mr_numerics numerics);
int tool_device_option(int option, const char *value, struct tool_devices_options *out);

/* A whole number in [min, max] from @text; 0, or -1 after one line on stderr that names @option. */
int tool_parse_number(const char *option, const char *text, uint64_t min, uint64_t max,
		      uint64_t *out);

/* The arena, the prefill device and the decode device, opened and loaded with @model. */
struct tool_devices {
	struct mr_arena *arena;
	struct mr_device *prefill; /* CPU, or the same as decode */
	struct mr_device *decode;
	struct mr_bus_record_stats *record; /* NULL = the LPU's bus is not recorded */
	const char *record_path;
};
/* Returns 0 or a status, after one line on stderr that says what failed. */
int tool_devices_open(const struct tool_devices_options *options, const struct mr_model *model,
		      struct tool_devices *out);
void tool_devices_close(struct tool_devices *devices);

struct mr_bus;
struct mr_bus_record_stats;
/*
 * The bus of @options->lpu alone, within a record of it where @options->record says so; @stats is the record's.
 * Returns 0 or a status, after one line on stderr.
 */
int tool_bus_open(const struct tool_devices_options *options, struct mr_bus_record_stats *stats,
		  struct mr_bus **bus);
/* The arena that suits @options->lpu, empty. */
int tool_arena_open(const struct tool_devices_options *options, struct mr_arena **arena);
/*
 * The LPU of @options without a model, as out->decode = out->prefill, in whatever state its bus finds it: it is disabled and enabled
 * again, which ends a FATAL; *@fatal (may be NULL) is then why it was so, else 0.
 */
int tool_lpu_open(const struct tool_devices_options *options, struct tool_devices *out,
		  uint32_t *fatal);

/*
 * The path of that name, or of $MR_CPU, or the widest; NULL after one line on stderr that names the one that
 * this CPU lacks and those that it has.
 */
const struct mr_kernels *tool_kernels(const char *name);
/* "numerics exact: prompts in P-amx-bf16 (212 MB of weights for them), generated tokens in D" */
void tool_numerics_line(enum mr_numerics numerics, const struct tool_devices *devices, char *out,
			size_t bytes);

/* Threads that --threads defaults to where the CPU decodes: the cores this process may use, at most 16. */
uint32_t tool_threads_default(void);

/* Opens a model, or says on stderr why not. NULL path = MR_MODEL, then the cache that `make model` fills. */
struct mr_model *tool_model_open(const char *path);

/* The machine's facts: CPU flags, cores, caches, kernel, load, huge pages. The same wherever figures are. */
struct json_object *tool_facts_json(void);
void tool_facts_print(FILE *out);

/* A JSON number of @value to 9 digits, which name a float; not finite: NaN or Infinity, as Python reads them. */
struct json_object *tool_json_number(double value);

/* A hiccup meter: gaps in the time stamp counter seen by a spinning or sampling thread. */
struct tool_hiccup;
struct tool_hiccup *tool_hiccup_start(void);
/* Stops it; *p99_ns and *max_ns are its gaps. NULL is allowed. */
void tool_hiccup_stop(struct tool_hiccup *meter, uint64_t *p99_ns, uint64_t *max_ns);

/* Sorts @samples in place and gives percentiles (nearest rank). */
struct tool_summary {
	uint64_t n, min, p50, p90, p99, max;
};
struct tool_summary tool_summarise(uint64_t *samples, uint64_t n);

/* Set by SIGINT and SIGTERM once tool_catch_signals was called; loops read it. */
extern volatile int tool_stop;
void tool_catch_signals(void);

#endif /* MR_TOOLS_TOOLS_H */
