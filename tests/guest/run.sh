#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots a guest whose only program is tests/guest, and says what it said. Exit 0: all its checks passed.
# usage: run.sh "TESTS" [QEMU option...]; MR_QEMU=program, MR_BIN=folder beside tests/, MR_GUEST_APPEND=more of the
# kernel's command line, MR_GUEST_FILES=files to put into the guest's root. TCG: correct, and slow.
set -eu
cd "$(dirname "$0")/../.."
tests=$1
shift
program=${MR_BIN:-build/bin}/../tests/guest
qemu=${MR_QEMU:-qemu-system-x86_64}
command -v "${qemu%% *}" >/dev/null || { echo "skipped: no ${qemu%% *} here"; exit 77; }
[ -x "$program" ] || { echo "skipped: $program is not built"; exit 77; }
kernel=$(sh scripts/guest-kernel.sh 2>&1) || { echo "skipped: $(echo "$kernel" | tail -n 1)"; exit 77; }
kernel=$(echo "$kernel" | tail -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# An initramfs: newc, uncompressed.
python3 - "$work/initrd" "$program" "$kernel/modules" ${MR_GUEST_FILES:-} <<'PY'
import os
import sys

out, program, modules, *files = sys.argv[1:]
entries = [("init", 0o100755, program), ("modules", 0o040755, None)]
entries += [(f"modules/{m}", 0o100644, f"{modules}/{m}") for m in sorted(os.listdir(modules))]
entries += [(os.path.basename(f), 0o100644, f) for f in files]
with open(out, "wb") as f:
    for inode, (name, mode, path) in enumerate(entries + [("TRAILER!!!", 0, None)], 1):
        data = open(path, "rb").read() if path else b""
        fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % x for x in fields) + name.encode() + b"\0"
        f.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))
PY

# panic=-1: the guest ends by a reboot, and QEMU with it.
timeout -k 2 "${MR_GUEST_SECONDS:-60}" $qemu -accel tcg,thread=multi -cpu max -nographic -no-reboot \
	-nodefaults -serial stdio "$@" -kernel "$kernel/vmlinuz" -initrd "$work/initrd" \
	-append "console=ttyS0 panic=-1 quiet intel_iommu=on,sm_off ${MR_GUEST_APPEND:-} -- $tests" \
	</dev/null >"$work/out" 2>"$work/err" && rc=0 || rc=$?
# Without the firmware's escape sequences.
sed -n 's|\r$||; /^.*\(== \|ok: \|FAILED\|guest: \)/,$p' "$work/out" | sed 's|^.*\(== \)|\1|'
if [ $rc != 0 ]; then
	cat "$work/err" >&2
	echo "FAILED: QEMU ended with $rc" >&2
	exit 1
fi
grep -aq '^guest: all passed' "$work/out" || { cat "$work/err" >&2; exit 1; }
