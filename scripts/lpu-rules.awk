# SPDX-License-Identifier: Apache-2.0
# Documentation/lpu-spec.rst in, its rules out: RULE("LPU-Q-1", "text") a line, for tools/conform/rules.c.
function out() {
	if (id == "")
		return
	gsub(/``/, "", said)
	gsub(/:doc:/, "", said)
	gsub(/`/, "", said)
	gsub(/\\/, "\\\\", said)
	gsub(/"/, "\\\"", said)
	printf "RULE(\"%s\", \"%s\")\n", id, said
	id = ""
}
/^:LPU-[A-Z]+-[0-9]+: / {
	out()
	id = substr($1, 2, length($1) - 2)
	said = substr($0, length($1) + 2)
	next
}
/^   [^ ]/ && id != "" {
	said = said " " substr($0, 4)
	next
}
{ out() }
END { out() }
