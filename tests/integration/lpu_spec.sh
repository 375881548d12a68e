#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Documentation/lpu-spec.rst and lpu_spec.h with lpu_log.h say the same, in both directions: every structure with
# every field and its type, every register, doorbell, opcode, number and status. And its rules: each "must"
# stands in a rule, each rule says "must", ids are defined once and count up without a gap. The comparison is
# then shown headers and pages with a fault each, and has to find it.
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/compare.py" <<'PY'
import re
import sys

TYPES = {"uint8_t": "u8", "uint16_t": "u16", "uint32_t": "u32", "uint64_t": "u64", "float": "f32",
         "char": "char", "struct mr_lpu_head": "head", "struct mr_sampling": "sampling"}
DOORBELLS = ("SQ_TAIL", "CQ_HEAD", "RECORD_HEAD", "ARM")
page, headers = sys.argv[1], sys.argv[2:]
faults = []


def code_of(paths):
    """The headers without comments, lines joined where they go on."""
    text = "".join(open(p, encoding="utf-8").read() for p in paths)
    named = set(re.findall(r"\bE_[A-Z_]+", text))
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " "), named


def header_structs(code):
    out = {}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\n\};", code, re.S):
        fields = []
        for line in body.split(";"):
            m = re.match(r"^\s*(struct \w+|\w+)\s+(.*)$", line.strip(), re.S)
            for one in (m[2].split(",") if m else []):
                f = re.match(r"^\s*(\w+)((?:\[\d+\])*)\s*$", one)
                if not f or m[1] not in TYPES:
                    faults.append(f"struct {name}: a field that is not understood: {line.strip()}")
                    continue
                fields.append((TYPES[m[1]] + f[2], f[1]))
        out[name] = fields
    return out


def header_numbers(code):
    out = {}
    for name, value in re.findall(r"^#define (MR_\w+)[ \t]+(0x[0-9a-f]+|\d+)u?[ \t]*$", code, re.M):
        out[name] = int(value, 0)
    for name, value in re.findall(r"^\s*(MR_LPU_\w+) = (0x[0-9a-f]+),", code, re.M):
        out["opcode " + name[7:]] = int(value, 0)
    return out


def page_says(text):
    structs, numbers, statuses, name = {}, {}, set(), None
    for line in text.split("\n"):
        title = re.match(r"^\.\. table:: ``struct (\w+)``, \d+ bytes$", line)
        row = re.match(r"^   (\d+) +(\w+(?:\[\d+\])*) +``(\w+)``", line)
        if title or (line.strip() and not line.startswith("   ")):
            name = None
        if title:
            name = title[1]
            structs[name] = []
        elif row and name:
            structs[name].append((row[2], row[3]))
        number = re.match(r"^   ``(MR_\w+)`` +(0x[0-9a-f]+|\d+)(?: |$)", line)
        if number:
            numbers[number[1]] = int(number[2], 0)
        place = re.match(r"^(0x[0-9a-f]+) +([A-Z_]+) ", line)
        if place:
            kind = ("MR_LPU_REG_" if len(place[1]) == 5 else
                    "MR_LPU_DB_" if place[2] in DOORBELLS else "opcode ")
            numbers[kind + place[2]] = int(place[1], 0)
        status = re.match(r"^\| ``MR_(E_\w+)``", line)
        if status:
            statuses.add(status[1])
    return structs, numbers, statuses


def rules(text):
    seen, rule, said, start = {}, None, "", 0
    for number, line in enumerate(text.split("\n") + [""], 1):
        head = re.match(r"^:LPU-([A-Z]+)-(\d+): ", line)
        if head or not (rule and line.startswith("   ") and line.strip()):
            if rule and not re.search(r"\bmust\b", said):
                faults.append(f"{page}:{start}: {rule} says no \"must\"")
            rule, said = None, ""
        if head:
            rule, start = f"LPU-{head[1]}-{head[2]}", number
            seen.setdefault(head[1], []).append(int(head[2]))
        if rule:
            said += line + "\n"
        elif re.search(r"\bmust\b", line):
            faults.append(f"{page}:{number}: a \"must\" without a rule")
    for letter, ids in seen.items():
        if sorted(ids) != list(range(1, len(ids) + 1)):
            faults.append(f"rules LPU-{letter} are not 1 to {len(ids)}, each once: {ids}")
    return sum(len(ids) for ids in seen.values())


code, named = code_of(headers)
text = open(page, encoding="utf-8").read()
structs, numbers = header_structs(code), header_numbers(code)
page_structs, page_numbers, statuses = page_says(text)
for name in sorted(structs.keys() | page_structs.keys()):
    if structs.get(name) != page_structs.get(name):
        faults.append(f"struct {name}: the headers say {structs.get(name)}, the page {page_structs.get(name)}")
for name in sorted(numbers.keys() | page_numbers.keys()):
    if numbers.get(name) != page_numbers.get(name):
        faults.append(f"{name}: the headers say {numbers.get(name)}, the page {page_numbers.get(name)}")
faults += [f"{name} is named in the headers and not in the table of statuses" for name in sorted(named - statuses)]
count = rules(text)
if len(structs) < 30 or len(numbers) < 90 or count < 200:
    faults.append(f"found only {len(structs)} structures, {len(numbers)} numbers, {count} rules")
print("\n".join(faults) if faults else
      f"{len(structs)} structures, {len(numbers)} numbers, {len(statuses)} statuses, {count} rules")
sys.exit(bool(faults))
PY
page=Documentation/lpu-spec.rst
spec=userlib/include/millrace/lpu_spec.h
log=userlib/include/millrace/lpu_log.h
bad=0
python3 "$work/compare.py" $page $spec $log || bad=1

# A fault each: FILE SCRIPT, applied to a copy, must be found.
tried=0
finds() {
	file=$1
	shift
	sed "$@" "$file" >"$work/copy"
	if cmp -s "$file" "$work/copy"; then
		echo "lpu_spec: this changes nothing in $file: $*"
		bad=1
	fi
	p=$page s=$spec l=$log
	case $file in
	"$page") p=$work/copy ;;
	"$spec") s=$work/copy ;;
	*) l=$work/copy ;;
	esac
	if python3 "$work/compare.py" "$p" "$s" "$l" >/dev/null; then
		echo "lpu_spec: not found in $file: $*"
		bad=1
	fi
	tried=$((tried + 1))
}
finds $spec 's/^	uint32_t receiver; .*/&\n	uint32_t more;/'
finds $spec 's/uint32_t asleep; /uint64_t asleep; /'
finds $spec 's/^#define MR_LPU_FEATURE_SHADOW .*/&\n#define MR_LPU_FEATURE_MORE 8u/'
finds $spec 's/^#define MR_LPU_REG_REFUSED .*/&\n#define MR_LPU_REG_MORE 0x040u/'
finds $spec 's/^	MR_LPU_FENCE = 0x89.*/&\n	MR_LPU_MORE = 0x8a,/'
finds $spec 's/^ \*   E_CANCELLED .*/&\n *   E_DEADLINE too late/'
finds $log 's/uint64_t mask_late; .*/uint64_t mask_lost;/'
finds $log 's/^#define MR_LPU_CRASH_ASSERT 3u/#define MR_LPU_CRASH_ASSERT 4u/'
finds $log 's/^struct mr_lpu_power {/struct mr_lpu_more {\n	uint32_t a;\n};\n&/'
finds $page '/``kv_read_blocks``/d'
finds $page 's/^0x0a    RESET/0x0b    RESET/'
finds $page '/^   ``MR_LPU_EVENT_CRASH``/d'
finds $page 's/^:LPU-Q-7:/:LPU-Q-6:/'
finds $page 's/^:LPU-EV-6: An event must name/:LPU-EV-6: An event names/'
finds $page 's/^The result is how many records were made\.$/The result must be right./'
[ $bad = 0 ] && echo "lpu_spec: $tried faults of $tried found"
exit $bad
