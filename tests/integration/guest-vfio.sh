#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Real VFIO, in a guest: the bus of driver/bus/vfio.c on QEMU's edu and nvme behind an emulated Intel IOMMU.
# What is checked: tests/guest/{edu,refuse,nvme}.c.
set -u
out=$(mktemp)
trap 'rm -f "$out"' EXIT
sh tests/guest/run.sh "edu refuse nvme" -machine q35 -m 384 -smp 2 -device intel-iommu,intremap=on \
	-device pcie-root-port,id=rp1,chassis=1 -device edu,bus=rp1 \
	-device pcie-root-port,id=rp2,chassis=2 -drive if=none,id=disk,driver=null-co,size=16M \
	-device nvme,serial=1,drive=disk,bus=rp2 \
	-device pcie-root-port,id=rp3,chassis=3 -device edu,bus=rp3,addr=0.0,multifunction=on \
	-drive if=none,id=more,driver=null-co,size=16M -device nvme,serial=2,drive=more,bus=rp3,addr=0.1 \
	>"$out" 2>&1
rc=$?
cat "$out"
[ $rc = 0 ] || exit $rc
# The IOMMU saw the DMA that it was to stop, and the kernel said so.
bad=0
for want in 'MSI$' 'DMA to an unmapped IOVA' 'bus mastering follows' 'the same by system calls' 'it is back' 'RLIMIT_MEMLOCK is 64 KiB' 'not viable' \
	'function-level reset 2'; do
	grep -aq "^ok: .*$want" "$out" || { echo "FAILED: the guest did not say '$want'"; bad=1; }
done
exit $bad
