#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: bench.sh BIN [options]   runs `BIN bench` on the demo's model, fetched where it is not there yet.
set -eu
bin=$1
shift
MR_MODEL=$(sh "$(dirname "$0")/model.sh")
export MR_MODEL
exec "$bin" bench "$@"
