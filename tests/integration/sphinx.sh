#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sphinx builds every page without a warning, manual pages among them, each within reach of the index; and it
# does find a page that leads nowhere.
cd "$(dirname "$0")/../.." || exit 1
command -v sphinx-build >/dev/null || {
	echo "skipped: no sphinx-build here (package python3-sphinx)"
	exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
sh scripts/docs.sh "$work/html" >"$work/said" 2>&1 || {
	cat "$work/said"
	bad=1
}
for page in $(git ls-files 'Documentation/*.rst' | sed 's|^Documentation/||; s|\.rst$||'); do
	[ -s "$work/html/$page.html" ] || {
		echo "sphinx: no $page.html was made"
		bad=1
	}
done
# One page alone, with a fault each: a reference to nothing, a table that does not hold.
try() {
	mkdir "$work/$1"
	printf 'X\n=\n\n%b\n' "$2" >"$work/$1/index.rst"
	cp Documentation/conf.py "$work/$1"
	if sphinx-build -q -n -W -b html "$work/$1" "$work/$1/out" >/dev/null 2>&1; then
		echo "sphinx: found nothing wrong with $1"
		bad=1
	fi
}
try reference 'See :doc:`nowhere`.'
try table '==  ==\na   b\n=='
[ $bad = 0 ] && echo "sphinx: $(git ls-files 'Documentation/*.rst' | wc -l) pages without a warning"
exit $bad
