#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetches a QEMU that has vfio-user-pci (11, of trixie-backports) once, and prints the program to run: Debian's
# packages with all that they depend on, unpacked into a folder of the cache and run through their own loader. Nothing
# is installed, mounted or chrooted, and no root is needed. Kept in $MR_CACHE (default ~/.cache/millrace), 180 MB.
set -eu
cache=${MR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace}
dir=$cache/guest-qemu
if [ -e "$dir/ok" ]; then
	echo "$dir/qemu"
	exit 0
fi
fail() {
	echo "millrace: $1" >&2
	exit 1
}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
command -v apt-get >/dev/null && command -v dpkg >/dev/null && [ -e $keys ] ||
	fail "QEMU 11 is fetched by apt-get and dpkg, and checked against $keys"
# The mirror that this machine uses for Debian already.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
	sed -n 's|^Debian \(.*/debian/*\)$|\1|p' | head -n 1)
mirror=${MR_DEBIAN:-${mirror:-http://deb.debian.org/debian/}}
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/qemu.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/state/lists/partial" "$tmp/cache/archives/partial" "$tmp/empty" "$tmp/new/root"
: >"$tmp/status"
for suite in trixie trixie-backports; do
	echo "deb [signed-by=$keys] $mirror $suite main"
done >"$tmp/sources.list"
# An apt of its own, for which nothing is installed: it fetches every package that is needed, libc included.
cat >"$tmp/apt.conf" <<CONF
Dir::State "$tmp/state";
Dir::State::status "$tmp/status";
Dir::Cache "$tmp/cache";
Dir::Etc::sourcelist "$tmp/sources.list";
Dir::Etc::sourceparts "$tmp/empty";
Dir::Etc::preferences "$tmp/empty/none";
Dir::Etc::preferencesparts "$tmp/empty";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
CONF
export APT_CONFIG="$tmp/apt.conf"
echo "fetching QEMU 11 (38 MB)" >&2
{ apt-get -q update && apt-get -q -y --download-only -t trixie-backports install qemu-system-x86; } \
	>"$tmp/log" 2>&1 || fail "apt-get could not fetch it: $(grep -a '^E:' "$tmp/log" | head -n 1)"
for deb in "$tmp"/cache/archives/*.deb; do
	dpkg -x "$deb" "$tmp/new/root"
done
cat >"$tmp/new/qemu" <<'RUN'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \
	"$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
RUN
chmod 755 "$tmp/new/qemu"
"$tmp/new/qemu" -device vfio-user-pci,help >/dev/null 2>&1 || fail "what was fetched has no vfio-user-pci"
"$tmp/new/qemu" --version | head -n 1 >"$tmp/new/ok"
rm -rf "$dir"
mv "$tmp/new" "$dir"
echo "$dir/qemu"
