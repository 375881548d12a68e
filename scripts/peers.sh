#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: peers.sh   installs the engines that `millrace bench cpu` is compared with into a virtual environment
# outside the tree (MR_CACHE, default ~/.cache/millrace; llama.cpp is compiled there, some 15 minutes on two
# cores) and prints the --peer options for them, one a line.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${MR_CACHE:-$HOME/.cache/millrace}/peers
mkdir -p "$dir"
[ -x "$dir/env/bin/python" ] || python3 -m venv "$dir/env"
pip=$dir/env/bin/pip
"$pip" show openvino-genai >/dev/null 2>&1 ||
	nice "$pip" install -q numpy openvino-genai==2026.4.1.0 >&2
# With gcc 12 and AMX on, llama.cpp dies of its tile configuration: left off there.
"$pip" show llama-cpp-python >/dev/null 2>&1 || {
	grep -q amx_int8 /proc/cpuinfo && amx=-DGGML_AMX_TILE=OFF\ -DGGML_AMX_INT8=OFF\ -DGGML_AMX_BF16=OFF
	CMAKE_ARGS=${amx:-} nice "$pip" install -q --no-binary llama-cpp-python \
		llama-cpp-python==0.3.36 >&2
}
for engine in llama.cpp openvino; do
	printf -- '--peer\n%s/env/bin/python %s/peer.py %s\n' "$dir" "$here" "$engine"
done
