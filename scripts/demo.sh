#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The main job, as two processes: `millrace serve` behind a DPDK port (net_memif: no root, no huge pages
# needed) and `millrace load`, which sends prompts over UDP, prints the answers as they come and then one
# table. usage: demo.sh MILLRACE [--json]
#
# DEMO_TOKENS (48) bounds each answer; DEMO_ARGS is given to the server, such as "--device cpu".
set -eu
bin=$1
shift
here=$(dirname "$0")
model=$(sh "$here/model.sh")
work=$(mktemp -d)
server=
cleanup() {
	[ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

"$bin" keys new "$work/key" >/dev/null
: >"$work/log"
# shellcheck disable=SC2086
"$bin" serve -m "$model" --memif "$work/memif" --key "$work/key" ${DEMO_ARGS:-} 2>"$work/log" &
server=$!
tries=0
until grep -q '^millrace: serving' "$work/log"; do
	if ! kill -0 "$server" 2>/dev/null || [ $tries -gt 600 ]; then
		cat "$work/log" >&2
		echo "millrace: the server did not start" >&2
		exit 1
	fi
	tries=$((tries + 1))
	sleep 0.1
done
# With --json the output is one JSON object, ids and all, and nothing streams.
output=--stream
[ "${1:-}" = --json ] && output=--json || cat "$work/log" >&2
rc=0
"$bin" load -m "$model" --memif "$work/memif" --key "$work/key" --prompts "$here/demo-prompts.txt" \
	--chat --max-tokens "${DEMO_TOKENS:-48}" $output || rc=$?
if [ $rc != 0 ]; then
	echo "millrace: the server's log:" >&2
	cat "$work/log" >&2
fi
exit $rc
