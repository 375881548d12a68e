#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: install.sh install|uninstall BUILD DESTDIR PREFIX VERSION
set -eu
what=$1 build=$2 root=$4 prefix=$3$4 version=$5
pages=$(cd Documentation/man 2>/dev/null && ls ./*.rst 2>/dev/null | sed 's|^\./||' || true)
if [ "$what" = install ]; then
	install -Dm755 "$build/bin/millrace" "$prefix/bin/millrace"
	install -Dm644 "$build/lib/libmillrace.a" "$prefix/lib/libmillrace.a"
	install -Dm755 "$build/lib/libmillrace.so" "$prefix/lib/libmillrace.so.$version"
	ln -sf "libmillrace.so.$version" "$prefix/lib/libmillrace.so.0"
	ln -sf libmillrace.so.0 "$prefix/lib/libmillrace.so"
	for h in userlib/include/millrace/*.h; do
		install -Dm644 "$h" "$prefix/include/millrace/$(basename "$h")"
	done
	for c in firmware-sim/chips/*; do
		install -Dm644 "$c" "$prefix/share/millrace/chips/$(basename "$c")"
	done
	install -Dm644 scripts/70-millrace-vfio.rules "$prefix/lib/udev/rules.d/70-millrace-vfio.rules"
	mkdir -p "$prefix/lib/pkgconfig"
	cat >"$prefix/lib/pkgconfig/millrace.pc" <<PC
prefix=$root
Name: millrace
Description: Low-latency token rings
Version: $version
Libs: -L\${prefix}/lib -lmillrace
Cflags: -I\${prefix}/include
PC
	if command -v rst2man >/dev/null; then
		for p in $pages; do
			out=$prefix/share/man/man1/${p%.rst}
			mkdir -p "${out%/*}"
			rst2man "Documentation/man/$p" "$out"
		done
	else
		echo "man pages not installed: rst2man (package python3-docutils) is missing"
	fi
else
	rm -f "$prefix/bin/millrace" "$prefix"/lib/libmillrace.a "$prefix"/lib/libmillrace.so* \
		"$prefix/lib/pkgconfig/millrace.pc" "$prefix/lib/udev/rules.d/70-millrace-vfio.rules"
	rm -rf "$prefix/include/millrace" "$prefix/share/millrace"
	for p in $pages; do
		rm -f "$prefix/share/man/man1/${p%.rst}"
	done
fi
