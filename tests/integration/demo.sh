#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demo as `make demo` runs it, on the real model: every prompt goes over UDP through DPDK to a server
# that prefills on the CPU and decodes on the LPU. Its greedy ids must be those of `millrace run --device
# cpu` for the same prompts, and the figures that its table is made of must be there.
bin=${MR_BIN:-build/bin}
[ -n "${MR_MODEL:-}" ] || { echo "skipped: the real model is not there (make model)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=24
DEMO_TOKENS=$n sh scripts/demo.sh "$bin/millrace" --json >"$work/demo.json" || exit 1
i=0
while IFS= read -r prompt; do
	"$bin/millrace" run --device cpu --quiet --ids -n $n -p "$prompt" >"$work/ids.$i" || exit 1
	i=$((i + 1))
done <scripts/demo-prompts.txt
python3 - "$work" $i <<'PY'
import json, sys
work, n = sys.argv[1], int(sys.argv[2])
demo = json.load(open(work + "/demo.json"))
prompts = open("scripts/demo-prompts.txt").read().splitlines()
answers = {a["prompt"]: a for a in demo["answers"]}
assert demo["answered"] == n == len(prompts), (demo["answered"], n)
for i, prompt in enumerate(prompts):
    want = [int(x) for x in open("%s/ids.%d" % (work, i)).read().split()]
    got = answers[prompt]["ids"]
    assert want and got == want, (prompt, got, want)
for figure in ("ttft_ns", "itl_ns"):
    assert 0 < demo[figure]["p50"] <= demo[figure]["p99"] <= demo[figure]["max"], demo[figure]
assert demo["tokens_per_s"] > 0 and demo["tokens"] == sum(len(a["ids"]) for a in demo["answers"])
assert all(a["cycles"] > 0 for a in demo["answers"]), "the LPU counted no cycles"
print("%d answers, %d tokens: the same ids as run --device cpu" % (n, demo["tokens"]))
PY
