#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds each fuzz target with clang's libFuzzer, ASan and UBSan, and runs it for some seconds over a copy
# of its corpus. usage: fuzz.sh SECONDS fuzz_X...
set -eu
seconds=$1
shift
command -v clang >/dev/null || { echo "millrace: make fuzz needs clang and libclang-rt-14-dev" >&2; exit 1; }
flags="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -DMR_ASAN=1 -Wno-error"
make --no-print-directory -j"$(nproc)" CC=clang O=build-fuzz EXTRA_CFLAGS="$flags" \
	build-fuzz/lib/libmrdrv.a build-fuzz/lib/libmrsim.a build-fuzz/lib/libmillrace.a \
	build-fuzz/lib/libmrspec.a build-fuzz/lib/libmrkern.a \
	$(for t in "$@"; do echo "build-fuzz/obj/tests/fuzz/$t.o"; done)
mkdir -p build-fuzz/bin build-fuzz/work
for t in "$@"; do
	clang -fsanitize=fuzzer,address,undefined -o "build-fuzz/bin/$t" "build-fuzz/obj/tests/fuzz/$t.o" \
		-Wl,--start-group build-fuzz/lib/*.a -Wl,--end-group \
		$(pkg-config --libs libdpdk hwloc libpcre2-8 libsodium json-c) -lnuma -lm -lpthread
	mkdir -p "build-fuzz/work/$t"
	echo "== $t, $seconds s"
	"build-fuzz/bin/$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 \
		-verbosity=0 -artifact_prefix="build-fuzz/work/$t-" "build-fuzz/work/$t" "tests/fuzz/corpus/${t#fuzz_}"
done
echo "no target failed; new inputs lie in build-fuzz/work"
