#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `millrace model info` and `tokenize`: what they print, on which stream, and their exit statuses.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

# expect STATUS PATTERN COMMAND...: the status, and a line of stdout and stderr together that matches
expect() {
	status=$1 pattern=$2
	shift 2
	"$@" >"$work/out" 2>&1
	rc=$?
	[ $rc = "$status" ] && grep -aqE -- "$pattern" "$work/out" && return
	echo "FAILED: $* gave status $rc, want $status and $pattern:"
	cat "$work/out"
	bad=1
}

expect 0 '^layers +2 of width 96, ffn 160$' "$bin" model info "$tiny"
expect 0 '"vocab":702,.*"stop":\[2,0,4\]' "$bin" model info --json "$tiny"
expect 0 '^usage: millrace model info' "$bin" model info --help
expect 1 'E_NOT_FOUND' "$bin" model info tests/no-such.gguf
expect 1 'does not start with GGUF \(E_FORMAT\)' "$bin" model info Makefile
expect 2 'takes one file' "$bin" model info "$tiny" "$tiny"
expect 0 '^ +2  "<\|im_end\|>"  control$' "$bin" model tokenize -m "$tiny" --control 'a<|im_end|>'
expect 0 '^\{"tokens":\[\]\}$' "$bin" model tokenize -m "$tiny" --json ''
expect 2 'takes one text' "$bin" model tokenize -m "$tiny"
expect 2 "unrecognized option '--colour'" "$bin" model tokenize --colour x
expect 2 "no subcommand 'inof'" "$bin" model inof
expect 0 'tokenize  text to token ids' "$bin" model --help

# stdin may hold any byte; an argument and stdin give the same ids.
expect 0 '^\{"tokens":\[81,[0-9]+,82\]\}$' sh -c "printf 'a\\000b' | $bin model tokenize -m $tiny --json -"
"$bin" model tokenize -m "$tiny" --json 'The water of the mill' >"$work/argument"
printf 'The water of the mill' | "$bin" model tokenize -m "$tiny" --json - >"$work/stdin"
cmp "$work/argument" "$work/stdin" || bad=1

# A file that is cut off is refused by name.
head -c 40000 "$tiny" >"$work/cut.gguf"
expect 1 'the file ends before the data of tensor .* \(E_TRUNCATED\)' "$bin" model info "$work/cut.gguf"
exit $bad
