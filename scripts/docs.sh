#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: docs.sh OUT: builds Documentation/ as HTML into OUT; a warning is an error, a reference to nothing too.
set -eu
out=$1
if ! command -v sphinx-build >/dev/null; then
	echo "skipped: no sphinx-build here (package python3-sphinx), so no HTML was made" >&2
	exit 77
fi
mkdir -p "$out"
sphinx-build -q -n -W --keep-going -b html -d "$out/.doctrees" Documentation "$out"
echo "$out/index.html"
