#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes down what QEMU's vfio-user-pci and our server say to each other while a guest binds the function to vfio-pci
# and runs the test `fence`: tests/transcripts/qemu.txt, which make check replays. Run it again when
# the server's answers are meant to change. usage: record.sh [FILE]
set -eu
cd "$(dirname "$0")/../.."
file=${1:-tests/transcripts/qemu.txt}
bin=${MR_BIN:-build/bin}
MR_QEMU=$(sh scripts/guest-qemu.sh)
export MR_QEMU
work=$(mktemp -d)
trap 'kill $server $tap 2>/dev/null || true; rm -rf "$work"' EXIT
server= tap=
"$bin/millrace" lpu sim --socket "$work/s" --quiet &
server=$!
until [ -S "$work/s" ]; do sleep 0.05; done
python3 tests/support/vfio_user_transcript.py record "$work/tap" "$work/s" "$work/talk" &
tap=$!
until [ -S "$work/tap" ]; do sleep 0.05; done
sh tests/guest/run.sh fence -machine q35,memory-backend=mem -m 512 -smp 2 \
	-object memory-backend-memfd,id=mem,size=512M,share=on -device intel-iommu,intremap=on,caching-mode=on \
	-device pcie-root-port,id=rp1,chassis=1 \
	-device '{"driver":"vfio-user-pci","bus":"rp1","socket":{"path":"'"$work/tap"'","type":"unix"}}'
wait $tap
{
	head -n 1 "$work/talk"
	echo "# The client: $($MR_QEMU --version | head -n 1), vfio-user-pci behind intel-iommu, kernel" \
		"$(cat "$(sh scripts/guest-kernel.sh)/ok"): the guest binds the function to vfio-pci and runs the test" \
		"fence of tests/guest."
	tail -n +2 "$work/talk"
} >"$file"
echo "$(grep -c '^>' "$file") messages of the client in $file"
