#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The program's edge: every command has --help and a line in millrace's own, wrong use ends with status 2
# and what would be right, a missing model and a full disk are errors with a name.
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

expect 0 '^usage: millrace <command>' "$bin" --help
expect 0 '^millrace [0-9]+\.[0-9]+\.[0-9]+$' "$bin" --version
expect 2 'no command given' "$bin"
expect 2 "no command 'benhc'; did you mean 'bench'\?" "$bin" benhc
expect 2 "no command 'xyzzyxyzzy' \(" "$bin" xyzzyxyzzy
expect 2 "no option '--frob'" "$bin" --frob

# Names are sorted, and each command answers --help, alone and through `help`, on stdout.
names=$("$bin" --help | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p')
[ "$(echo "$names" | sort)" = "$names" ] || { echo "FAILED: names are not sorted: $names"; bad=1; }
n=0
for name in $names; do
	expect 0 "^usage: millrace $name" "$bin" "$name" --help
	expect 0 "^usage: millrace $name" "$bin" help "$name"
	[ -n "$("$bin" "$name" --help 2>/dev/null)" ] || { echo "FAILED: $name --help prints on stderr"; bad=1; }
	expect 2 . "$bin" "$name" --no-such-option
	n=$((n + 1))
done
for name in bench model; do
	echo "$names" | grep -qx $name || { echo "FAILED: no command $name among $names"; bad=1; }
done
[ $n -ge 2 ] || { echo "FAILED: $n commands"; bad=1; }
for sub in logits vectors; do
	expect 0 "^usage: millrace model $sub" "$bin" model $sub --help
	expect 2 . "$bin" model $sub --no-such-option
	expect 2 '\-\-device is lpu, cpu or nil' "$bin" model $sub --device gpu x
done

# A command's manual page and its --help (those of its subcommands with it) name the same options.
options() {
	grep -oE '(^|[^-a-z])--[a-z][a-z-]+' | grep -oE -- '--[a-z-]+' | grep -vx -- --help | sort -u
}
for name in $names; do
	page=Documentation/man/millrace-$name.1.rst
	if [ ! -e "$page" ]; then
		echo "FAILED: no manual page $page"
		bad=1
		continue
	fi
	{
		"$bin" "$name" --help
		[ "$name" = model ] && for sub in info tokenize logits vectors; do "$bin" model $sub --help; done
		[ "$name" = lpu ] && for sub in $("$bin" lpu --help | awk '/^  [a-z]/{print $1}'); do "$bin" lpu "$sub" --help; done
	} | options >"$work/help"
	options <"$page" >"$work/page"
	diff "$work/help" "$work/page" >"$work/diff" && continue
	echo "FAILED: --help of $name (<) and its manual page (>) differ:"
	cat "$work/diff"
	bad=1
done

# Models that are not there, or are none. The cache is looked for in three places.
expect 1 "no model at $work/none/SmolLM2.*make model" env -u MR_MODEL MR_CACHE="$work/none" "$bin" model logits -p x
expect 1 "no model at $work/xdg/millrace/SmolLM2" \
	env -u MR_MODEL -u MR_CACHE XDG_CACHE_HOME="$work/xdg" "$bin" model logits -p x
expect 1 "no model at $work/home/.cache/millrace/SmolLM2" \
	env -u MR_MODEL -u MR_CACHE -u XDG_CACHE_HOME HOME="$work/home" "$bin" model logits -p x
expect 1 'E_NOT_FOUND' env MR_MODEL="$work/none.gguf" "$bin" model logits -p x
expect 1 'Makefile.*E_FORMAT' "$bin" model logits -m Makefile -p x

# Tokens and devices.
expect 2 'takes one of --tokens and -p' "$bin" model logits -m $tiny
expect 2 'takes one of --tokens and -p' "$bin" model logits -m $tiny --tokens 1 -p x
for ids in '' '1,' ',1' '1,,2' '1;2' '-1' ' 1' 702 4294967296 99999999999999999999999; do
	expect 1 '--tokens takes a whole number from 0 to 701' "$bin" model logits -m $tiny --tokens "$ids"
done
expect 1 'no token in it' "$bin" model logits -m $tiny -p ''
expect 1 'E_NOT_FOUND|E_IO' "$bin" model logits -m $tiny --chip "$work/no.chip" --tokens 1
expect 1 "kernels 'sse9': .* it has scalar avx2.*E_NOT_SUPPORTED" "$bin" model logits -m $tiny --kernels sse9 --tokens 1
expect 1 "kernels 'sse9' \\(MR_CPU\\): " env MR_CPU=sse9 "$bin" bench cpu -m $tiny --runs 1 --only kernels
expect 2 "exact, strict or fast, not 'loose'" "$bin" model logits -m $tiny --numerics loose --tokens 1

# A path is run when it is asked for, and refused by name where the CPU lacks it.
for path in scalar avx2 avx512 amx; do
	case $path in
	scalar | avx2) flags=avx2 ;;
	avx512) flags=avx512_vnni ;;
	amx) flags='amx_int8' ;;
	esac
	if grep -qw "$flags" /proc/cpuinfo; then
		expect 0 "\"prefill\":\"cpu:$path\"" env MR_CPU=$path "$bin" run -m $tiny --device cpu --json -n 1 -p x
	else
		echo "skipped: this CPU has no $flags: kernels $path are refused"
		expect 1 "kernels '$path' \\(MR_CPU\\): .*E_NOT_SUPPORTED" \
			env MR_CPU=$path "$bin" run -m $tiny --device cpu -n 1 -p x
	fi
done
expect 0 '"class_prefill":"D","class_decode":"D"' \
	"$bin" run -m $tiny --device cpu --numerics strict --json -n 1 -p x
for how in exact fast; do
	expect 0 "cpu:avx2 has no class P; all is in class D, as with strict" \
		"$bin" run -m $tiny --device cpu --kernels avx2 --numerics $how -n 1 -p x
done
expect 1 'E_INVALID' "$bin" model logits -m $tiny --fault melt --tokens 1
expect 1 'E_NOT_FOUND' "$bin" bench -m "$work/no.gguf" --device nil
expect 2 "no benchmark 'dekode'" "$bin" bench dekode
expect 2 '--runs takes a whole number' "$bin" bench --runs 0
expect 0 '"decode":\[\{"batch":1,"tokens_s":\{"min":[1-9]' \
	"$bin" bench decode -m $tiny --device nil --runs 1 --json
expect 0 '^\{"model":"millrace tiny","device":"lpu:.*"top":\[\[[0-9]+,-?[0-9.]+\]\]' \
	"$bin" model logits -m $tiny --tokens 1,2,3 --top 1 --json

# Vectors: a folder that is none, files that are not what they should be.
expect 2 "takes tokens,chat,logits,ppl, not 'tonkes'" "$bin" model vectors -m $tiny --only tonkes tests/vectors
expect 1 'no/tokens.json' "$bin" model vectors -m $tiny "$work/no"
echo '{"a": 1}' >"$work/tokens.json"
expect 1 "not the reference vectors' format" "$bin" model vectors -m $tiny --only tokens "$work"
for item in '3' '{}' '{"tokens": 3}' '{"tokens": [1], "greedy": 7}' '{"tokens": []}'; do
	echo "[$item]" >"$work/logits.json"
	expect 1 'E_FORMAT' "$bin" model vectors -m $tiny --only logits "$work"
done
echo '[{"tokens": [1, 70000]}]' >"$work/logits.json"
expect 1 'E_RANGE' "$bin" model vectors -m $tiny --only logits "$work"
echo '[{"id": "x", "tokens": [1, 2, 3], "greedy": [4, 5], "logprob_checks": [[0, 2], 7, [9], []]}]' >"$work/logits.json"
expect 0 '"forced":\[[0-9]+,[0-9]+\],"nll":[0-9.]+,"logprobs":[^]]*],"logprob_checks":\[\[0,2,-[0-9.]+\]' \
	"$bin" model vectors --json -m $tiny --only logits "$work"

# Keys.
expect 0 '^\{"file":".*/key","id":"[0-9a-f]{16}"\}$' "$bin" keys new "$work/key" --json
expect 0 "^$("$bin" keys id "$work/key")\$" "$bin" keys id "$work/key"
expect 1 'never written over' "$bin" keys new "$work/key"
expect 2 '^usage: millrace keys' "$bin" keys new "$work/key" --jsn

# Output that cannot be written is a failure; a reader that has seen enough is none to speak of.
expect 1 'cannot write the output' sh -c "$bin --help >/dev/full"
(sleep 0.3; "$bin" --help 2>"$work/err"; echo $? >"$work/rc") | true
while [ ! -s "$work/rc" ]; do sleep 0.1; done
if [ "$(cat "$work/rc")" != 1 ] || [ -s "$work/err" ]; then
	echo "FAILED: a closed pipe: status $(cat "$work/rc"), $(cat "$work/err")"
	bad=1
fi
exit $bad
