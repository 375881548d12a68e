#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetches the kernel of the test guests once and prints the folder where it lies: Debian's cloud kernel for
# amd64, out of its package, not installed: vmlinuz, and in modules/ those of VFIO, numbered in the order in
# which they are loaded. Kept in $MR_CACHE (default ~/.cache/millrace). No root needed.
set -eu
cache=${MR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace}
dir=$cache/guest-kernel
if [ -e "$dir/ok" ]; then
	echo "$dir"
	exit 0
fi
fail() {
	echo "millrace: $1" >&2
	exit 1
}
command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "the guests' kernel needs apt-get and dpkg"
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/kernel.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
# The package that the current meta-package names; its version changes with each update of Debian.
name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
	sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
[ -n "$name" ] || fail "apt knows no linux-image-cloud-amd64 (run apt-get update)"
echo "fetching $name (27 MB)" >&2
(cd "$tmp" && apt-get -q download "$name" >"$tmp/log" 2>&1) ||
	fail "apt-get download $name failed: $(tail -n 1 "$tmp/log")"
dpkg -x "$tmp"/linux-image-*.deb "$tmp/x"
mkdir -p "$tmp/kernel/modules"
cp "$tmp"/x/boot/vmlinuz-* "$tmp/kernel/vmlinuz"
n=10
for m in virt/lib/irqbypass drivers/vfio/vfio drivers/vfio/vfio_virqfd drivers/vfio/vfio_iommu_type1 \
	drivers/vfio/pci/vfio-pci-core drivers/vfio/pci/vfio-pci; do
	n=$((n + 1))
	for f in "$tmp"/x/lib/modules/*/kernel/"$m".ko*; do
		to=$tmp/kernel/modules/$n-${m##*/}.ko
		case $f in
		*.xz) xz -dc "$f" >"$to" ;;
		*.ko) cp "$f" "$to" ;;
		*) ;; # built in, or of a kernel that has no such module
		esac
	done
done
[ -e "$tmp/kernel/modules/16-vfio-pci.ko" ] || fail "$name has no vfio-pci module"
echo "$name" >"$tmp/kernel/ok"
rm -rf "$dir"
mv "$tmp/kernel" "$dir"
echo "$dir"
