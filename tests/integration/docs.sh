#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Documentation/ says what the code says: the metrics' page is what its script makes, every page is
# sound reST and in the index, and every status code is explained to clients or to device makers.
cd "$(dirname "$0")/../.." || exit 1
bad=0
say() {
	echo "docs: $1"
	bad=1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The metrics' page, and that the script refuses what it does not understand.
if python3 scripts/metrics-doc.py >"$work/metrics.rst"; then
	diff -u Documentation/metrics.rst "$work/metrics.rst" ||
		say "metrics.rst is stale: python3 scripts/metrics-doc.py >Documentation/metrics.rst"
else
	say "scripts/metrics-doc.py failed"
fi
sed 's/^X(arena_bytes, /X(arena_bytes /' driver/metrics.def >"$work/broken.def"
python3 scripts/metrics-doc.py "$work/broken.def" >/dev/null 2>&1 &&
	say "scripts/metrics-doc.py took a line that is no metric"

# Every status code, by name, in abi.rst or lpu-spec.rst.
codes=$(sed -n 's/^\tX(\(E_[A-Z_]*\), -[0-9]*,.*/MR_\1/p' userlib/include/millrace/status.h)
[ "$(echo "$codes" | wc -l)" -ge 32 ] || say "found too few status codes in status.h to be all of them"
for code in $codes; do
	grep -qw "$code" Documentation/abi.rst Documentation/lpu-spec.rst ||
		say "$code is in neither abi.rst nor lpu-spec.rst"
done

# Every table of a structure says the offsets, types and size that the compiler sees, and leaves no field
# out: each row begins where the one before it ends, and the last ends with the structure. Registers,
# doorbells, opcodes and status values are the header's too.
cat >"$work/tables.py" <<'PY'
import re
import sys

TITLE = re.compile(r"^\.\. table:: ``struct (\w+)``, (\d+) bytes$")
ROW = re.compile(r"^   (\d+) +(\w+)((?:\[\d+\])*) +``(\w+)``")
BYTES = {"u8": 1, "char": 1, "u16": 2, "u32": 4, "i32": 4, "f32": 4, "u64": 8, "head": 8, "sampling": 64}
HEADERS = ("millrace/ring.h", "millrace/lpu_spec.h", "millrace/sampling.h", "millrace/wire.h", "userlib/spec/isa.h", "stddef.h")
NUMBER = re.compile(r"^[| ]*(0x[0-9a-f]+)[| ]+([A-Z_]+) ")
STATUS = re.compile(r"^[| ]*``(MR_E_\w+)``[| ]+(\d+) ")
DOORBELLS = ("SQ_TAIL", "CQ_HEAD", "RECORD_HEAD", "ARM")
print("\n".join(f"#include <{h}>" for h in HEADERS))
print('#define IS(a, b) _Static_assert((a) == (b), #a " is not " #b)')
count = 0
for path in sys.argv[1:]:
    name, size, at = None, 0, 0
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        number_row, status = NUMBER.match(line), STATUS.match(line)
        if number_row:
            prefix = "REG_" if len(number_row[1]) == 5 else "DB_" if number_row[2] in DOORBELLS else ""
            print(f'#line {number} "{path}"\nIS(MR_LPU_{prefix}{number_row[2]}, {number_row[1]});')
            count += 1
        elif status:
            print(f'#line {number} "{path}"\nIS({status[1]}, -{status[2]});')
            count += 1
        title, row = TITLE.match(line), ROW.match(line)
        if title or (line.strip() and not line.startswith("   ")):
            if name:
                print(f'#line {number} "{path}"\nIS(sizeof(struct {name}), {size});\nIS({at}, {size});')
            name = None
        if title:
            name, size, at = title[1], int(title[2]), 0
            count += 1
        elif row and name:
            bytes_ = BYTES[row[2]]
            for n in re.findall(r"\d+", row[3]):
                bytes_ *= int(n)
            print(f'#line {number} "{path}"')
            print(f"IS(offsetof(struct {name}, {row[4]}), {row[1]});")
            print(f"IS(sizeof(((struct {name} *)0)->{row[4]}), {bytes_});")
            print(f"IS({at}, {row[1]});")
            at += bytes_
sys.exit(0 if count >= 80 else f"found only {count} tables, numbers and codes")
PY
python3 "$work/tables.py" Documentation/abi.rst Documentation/wire.rst Documentation/lpu-spec.rst \
	Documentation/lpu-isa.rst >"$work/tables.c" &&
	${CC:-cc} -std=gnu11 -fsyntax-only -Iuserlib/include -I. "$work/tables.c" ||
	say "a table of a structure is not what the header says"

# Every page parses without a warning, and the index leads to it.
if python3 -c 'import docutils' 2>/dev/null; then
	cat >"$work/parse.py" <<'PY'
import glob
import io
import os
import sys
import docutils.core
import docutils.nodes
from docutils.parsers.rst import Directive, directives, roles

FOLDER = "Documentation"
led_to = set()


class Toctree(Directive):
    """Sphinx's list of pages, which docutils alone does not know."""
    has_content = True
    option_spec = {"hidden": directives.flag, "glob": directives.flag, "maxdepth": int,
                   "caption": directives.unchanged}

    def run(self):
        problems = []
        for page in self.content:
            led_to.add(page.strip())
            if not glob.glob(f"{FOLDER}/{page.strip()}.rst"):
                problems.append(self.state_machine.reporter.error(f"no page {page}", line=self.lineno))
        return problems


def doc(name, rawtext, text, lineno, inliner, options=None, content=None):
    """Sphinx's role for a page of this folder."""
    page = text.rsplit("<", 1)[-1].rstrip(">")
    if os.path.exists(f"{FOLDER}/{page}.rst"):
        return [docutils.nodes.inline(rawtext, text)], []
    return [], [inliner.reporter.error(f"no page {page}", line=lineno)]


roles.register_local_role("doc", doc)
directives.register_directive("toctree", Toctree)
bad = 0
for path in sys.argv[1:]:
    warnings = io.StringIO()
    with open(path, encoding="utf-8") as f:
        docutils.core.publish_doctree(f.read(), source_path=path, settings_overrides={
            "report_level": 2, "halt_level": 5, "warning_stream": warnings,
            "file_insertion_enabled": False, "syntax_highlight": "none"})
    if warnings.getvalue():
        print("docs: " + warnings.getvalue())
        bad = 1
pages = {os.path.basename(path)[:-4] for path in sys.argv[1:] if os.path.dirname(path) == FOLDER}
for page in sorted(pages - led_to - {"index"}):
    print(f"docs: index.rst does not lead to {page}.rst")
    bad = 1
sys.exit(bad)
PY
	python3 "$work/parse.py" $(git ls-files 'Documentation/*.rst') || bad=1
else
	echo "skipped: no python3 docutils here, so the pages were not parsed"
fi

# The options of `millrace serve` are those of the page about running it.
serve=${MR_BIN:-build/bin}/millrace
if [ -x "$serve" ]; then
	"$serve" serve --help | grep -oE '^  (-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u >"$work/help"
	sed -n '/^Starting$/,/^Polling and pinning$/p' Documentation/operations.rst |
		grep -oE '^\| ``(-.``, ``)?--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u >"$work/page"
	[ "$(wc -l <"$work/help")" -ge 10 ] || say "millrace serve --help lists too few options to be all"
	diff "$work/help" "$work/page" || say "operations.rst (>) and millrace serve --help (<) differ"
else
	echo "skipped: no millrace built yet, so its options were not compared with operations.rst"
fi
[ $bad = 0 ] && echo "docs: nothing to say"
exit $bad
