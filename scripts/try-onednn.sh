#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: try-onednn.sh [BUILD]   times oneDNN's matrix product beside ours at a prompt's shapes, on one thread,
# and says whether its bits depend on the number of rows. Needs oneDNN 2 (Debian 12's libdnnl-dev), which
# nothing else here uses, and a build (default: build).
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
[ -f "$build/lib/libmrkern.a" ] || { echo "try-onednn: no $build/lib/libmrkern.a: run make first" >&2; exit 1; }
[ -f /usr/include/dnnl.h ] || { echo "skipped: oneDNN is not installed (package libdnnl-dev)"; exit 77; }
grep -qE 'DNNL_VERSION_MAJOR +2$' /usr/include/oneapi/dnnl/dnnl_version.h ||
	{ echo "skipped: this is for oneDNN 2, the one that is installed is another"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${CC:-gcc}" -std=gnu17 -O2 -D_GNU_SOURCE -march=x86-64-v3 -ffp-contract=off -Wall -Wextra -I. -Iuserlib/include \
	-o "$work/try" tests/onednn/try_onednn.c "$build/lib/libmrkern.a" -ldnnl -lm -lpthread
flags=$(grep -m 1 '^flags' /proc/cpuinfo | tr ' ' '\n' | grep -E '^(avx2|avx512_vnni|avx512_bf16|amx_int8|amx_bf16)$' | tr '\n' ' ')
echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1): $flags; load $(cut -d' ' -f1-3 /proc/loadavg)"
OMP_NUM_THREADS=1 "$work/try"
