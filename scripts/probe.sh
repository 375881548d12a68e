#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Says what this machine has for the build, one line each, and how to get what is missing.
# Exit status 1 where something that the build cannot do without is missing.
missing=
for p in "$@"; do
	if v=$(pkg-config --modversion "$p" 2>/dev/null); then
		[ -n "$V" ] && printf '  found   %s %s\n' "$p" "$v"
	else
		missing="$missing $p"
	fi
done
[ -e /usr/include/numa.h ] || missing="$missing libnuma"
if [ -n "$missing" ]; then
	printf '  missing %s: run "make deps", or install the packages that it names\n' "$missing" >&2
	exit 1
fi
command -v nvcc >/dev/null 2>&1 || printf '  no nvcc: the CUDA backend is not built, all else is\n'
exit 0
