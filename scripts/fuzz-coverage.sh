#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Replays committed corpora in a build that counts lines, and says of each parser how many of its lines ran. Less
# than 80 in a hundred fails. usage: fuzz-coverage.sh [fuzz_X...] (all)
set -eu
cd "$(dirname "$0")/.."
least=80
# A fuzz target, then the parsers that its corpus is to reach. A target includes what is in no archive (tools/).
targets='
fuzz_container userlib/spec/chip.c userlib/spec/container.c userlib/spec/verify.c
fuzz_container userlib/spec/replay.c userlib/spec/replay_rules.c
fuzz_gguf driver/model/gguf.c driver/model/gguf_value.c driver/model/shape.c driver/model/model.c
fuzz_gguf driver/model/tokenizer.c driver/model/encode.c driver/model/split.c driver/model/unicode.c
fuzz_gguf driver/model/detok.c driver/model/chat.c
fuzz_lpu firmware-sim/regs.c firmware-sim/queue.c firmware-sim/admin.c firmware-sim/features.c firmware-sim/events.c
fuzz_lpu firmware-sim/abort.c firmware-sim/log.c firmware-sim/firmware.c firmware-sim/program.c firmware-sim/kv.c
fuzz_lpu firmware-sim/decode.c firmware-sim/score.c firmware-sim/choice.c firmware-sim/shadow.c firmware-sim/dma.c
fuzz_lpu_driver driver/lpu/admin.c driver/lpu/events.c driver/lpu/poll.c driver/lpu/read.c driver/lpu/queue.c
fuzz_lpu_driver driver/lpu/decode.c driver/lpu/score.c driver/lpu/slots.c driver/lpu/program.c driver/lpu/manage.c
fuzz_lpu_driver driver/lpu/lifeline.c driver/lpu/recover.c driver/lpu/lpu.c
fuzz_observe driver/counters_read.c driver/trace_read.c tools/timeline.c tools/top_view.c
fuzz_ring driver/ring/sqe.c driver/ring/request.c driver/ring/cq.c
fuzz_shape userlib/spec/shape.c
fuzz_trace tools/load_trace.c
fuzz_vfio_config driver/bus/vfio_config.c
fuzz_vfio_user firmware-sim/vfio_user.c firmware-sim/vfio_user_dma.c firmware-sim/vfio_user_irq.c
fuzz_vfio_user firmware-sim/vfio_user_pci.c
fuzz_vfio_user_client driver/bus/vfio_user.c driver/bus/vfio_user_link.c driver/bus/pci.c
fuzz_wire driver/net/wire.c driver/net/frame.c driver/net/assemble.c
'
out=build-coverage
only=" $* "
# A cache of compilers would keep the notes that gcov reads under another build's name.
export CCACHE_DISABLE=1
wanted=$(echo "$targets" | awk -v only="$only" 'NF && (only ~ /^ *$/ || index(only, " " $1 " "))')
make --no-print-directory -j"$(nproc)" O=$out CFLAGS='-O0 -g --coverage' \
	$(echo "$wanted" | awk -v o=$out '!seen[$1]++ { print o "/tests/" $1 }')
bad=0 last=
while read -r target files; do
	if [ "$target" != "$last" ]; then
		find $out -name '*.gcda' -delete
		"$out/tests/$target" "tests/fuzz/corpus/${target#fuzz_}" >/dev/null
		last=$target
	fi
	for f in $files; do
		object=$f
		case $f in tools/*) object=tests/fuzz/$target.c ;; esac
		percent=$(gcov -n -o "$out/obj/$(dirname "$object")" "$out/obj/${object%.c}.o" 2>/dev/null |
			grep -A1 "^File '$f'" | sed -n 's/^Lines executed:\([0-9]*\).*/\1/p')
		mark=
		[ "${percent:-0}" -ge $least ] || { bad=1 mark='  below the floor'; }
		printf '%3s%%  %-34s %s%s\n' "${percent:-0}" "$f" "${target#fuzz_}" "$mark"
	done
done <<END
$wanted
END
[ $bad = 0 ] || { echo "a parser has fewer than $least% of its lines covered by its corpus" >&2; exit 1; }
