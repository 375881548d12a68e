#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages named as arguments where they are not there yet. As root or through
# sudo; where neither is possible it says exactly what is missing and fails.
set -eu
missing=
for p in "$@"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ]; then
	as_root=
elif sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
	as_root="sudo"
else
	echo "millrace: these packages are missing and this user may not install them:$missing" >&2
	echo "millrace: run as root: apt-get install --no-install-recommends$missing" >&2
	exit 1
fi
echo "installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A fresh machine has no package lists yet.
if ! { $as_root apt-get -q update && DEBIAN_FRONTEND=noninteractive $as_root \
	apt-get -q install -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "millrace: the packages could not be installed (above: the end of apt's output)" >&2
	exit 1
fi
