# SPDX-License-Identifier: Apache-2.0
# What integration scripts that run `millrace serve` on tests/tiny.gguf share, from the repository's root:
#   . tests/support/server.sh
# $work is a folder of the script's own; it and a server that still runs go away at the end. A script ends with
# exit $bad.
# shellcheck shell=sh disable=SC2034
dir=${MR_BIN:-build/bin}
bin=$dir/millrace
tiny=tests/tiny.gguf
work=$(mktemp -d)
server=
cleanup() {
	[ -n "$server" ] && kill_server
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}
# start_server OPTION...: until it says that it serves; its stderr is $work/log, its process $server
start_server() {
	: >"$work/log" # before the shell of the server does: the last one's line must not be taken for its own
	"$bin" serve -m "$tiny" --quiet "$@" 2>"$work/log" &
	server=$!
	tries=0
	until grep -q '^millrace: serving' "$work/log"; do
		if ! kill -0 "$server" 2>/dev/null || [ $tries -gt 600 ]; then
			say "serve $* did not start: $(cat "$work/log")"
			exit 1
		fi
		tries=$((tries + 1))
		sleep 0.05
	done
}
# stop_server: it has to leave with status 0
stop_server() {
	kill -TERM "$server"
	wait "$server" || say "the server ended with status $?: $(cat "$work/log")"
	server=
}
kill_server() {
	kill -9 "$server" 2>/dev/null
	wait "$server" 2>/dev/null
	server=
}
