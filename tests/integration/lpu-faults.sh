#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Faults of an LPU that is a process: by flag, by script, by control socket; the tokens stay those of a run
# without any, and the device says how many it had.
# sanitizers: yes
set -u
bin=${MR_BIN:-build/bin}/millrace
tiny=tests/tiny.gguf
work=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill -KILL "$server" 2>/dev/null; rm -rf "$work"' EXIT
bad=0
say() {
	echo "FAILED: $1"
	bad=1
}
# start [option...]
start() {
	: >"$work/sim"
	"$bin" lpu sim --socket "$work/s" --quiet "$@" >"$work/sim" 2>&1 </dev/null &
	server=$!
	tries=0
	until grep -q listening "$work/sim"; do
		tries=$((tries + 1))
		[ $tries -gt 400 ] && say "no socket: $(cat "$work/sim")" && exit 1
		sleep 0.05
	done
}
stop() {
	kill -TERM $server
	wait $server || say "lpu sim ended with status $?: $(cat "$work/sim")"
	server=
}
ids() {
	timeout 60 "$bin" run -m $tiny --lpu "$1" --ids --quiet -n 40 -p 'The mill grinds on, come what may.' </dev/null
}
# struck KIND: how many
struck() {
	"$bin" lpu fault --socket "$work/s" | sed -n "s/^$1=//p"
}

ids local >"$work/want" || say "run --lpu local"

# What a run meets on its way: each must be got over, and each strikes once.
start --fault repeated@completion:2,corrupted@completion:5,record@step:7,dma@command:9,ecc,link@command:20,assert@command:35
ids "vfio-user:$work/s" >"$work/got" 2>"$work/err" || say "run with faults: $(cat "$work/err")"
cmp "$work/want" "$work/got" || say "tokens differ with faults"
for kind in repeated corrupted record dma ecc link assert; do
	[ "$(struck $kind)" = 1 ] || say "$kind struck $(struck $kind) times"
done
[ "$(struck hang)" = 0 ] || say "a hang that nobody asked for"

# While it runs.
"$bin" lpu fault --socket "$work/s" garbage=1000,interrupt,ecc-lost || say "lpu fault"
ids "vfio-user:$work/s" >"$work/got" 2>"$work/err" || say "run after lpu fault: $(cat "$work/err")"
cmp "$work/want" "$work/got" || say "tokens differ after lpu fault"
[ "$(struck ecc-lost)" = 1 ] || say "lpu fault: no ecc-lost"
"$bin" lpu fault --socket "$work/s" melt 2>"$work/err" && say "lpu fault takes any word"
grep -q E_INVALID "$work/err" || say "lpu fault melt: $(cat "$work/err")"
stop

# By script, and by seed.
printf '# from the first steps on\nrecord@step:2\ndma@command:6\n' >"$work/script"
start --fault "@$work/script"
ids "vfio-user:$work/s" >"$work/got" || say "run with a script"
cmp "$work/want" "$work/got" || say "tokens differ with a script"
[ "$(struck record)$(struck dma)" = 11 ] || say "the script's faults did not strike"
stop
start --seed 7 --fault random=8:repeated+corrupted+record+dma+ecc+ecc-lost+link+assert+slow
for i in 1 2; do
	ids "vfio-user:$work/s" >"$work/got" 2>"$work/err" || say "run with random faults: $(cat "$work/err")"
	cmp "$work/want" "$work/got" || say "tokens differ with random faults"
done
"$bin" lpu fault --socket "$work/s" | awk -F= '{n += $2} END {exit (n < 3)}' || say "no random faults"
stop
"$bin" lpu sim --socket "$work/s" --fault melt 2>"$work/err" && say "lpu sim --fault melt"
grep -q E_INVALID "$work/err" || say "lpu sim --fault melt: $(cat "$work/err")"
# And of the one in the same process.
timeout 60 "$bin" run -m $tiny --ids --quiet -n 40 -p 'The mill grinds on, come what may.' \
	--fault record@step:3,assert@command:12 >"$work/got" </dev/null || say "run --fault"
cmp "$work/want" "$work/got" || say "tokens differ with run --fault"
exit $bad
