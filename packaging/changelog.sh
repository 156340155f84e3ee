#!/bin/bash
# Prints what is new, from CHANGELOG.md and the fragments in docs/changes, as Markdown or for a Debian package.
#
#   packaging/changelog.sh markdown VERSION DATE   CHANGELOG.md, with what was unreleased as this version
#   packaging/changelog.sh debian VERSION DATE     this version alone, as changelog of a Debian package; DATE is RFC 5322
set -euo pipefail
cd "$(dirname "$0")/.."
form=$1 version=$2 date=$3

shopt -s nullglob
fragments=()
for file in docs/changes/*.md; do
	[[ $file == */README.md ]] && continue
	if grep -nvE '^- \[(CHANGE|FEATURE|ENHANCEMENT|BUGFIX|SECURITY)\] [A-Z`][^:]*: .|^  [^ ]' "$file" >&2; then
		echo "$file: these lines are not of the form of docs/changes/README.md" >&2
		exit 1
	fi
	fragments+=("$file")
done

# Everything up to the next version's heading is unreleased; what is in fragments comes behind it.
awk -v heading="## $version - $date" -v form="$form" -v fragments="${fragments[*]}" '
	function add(   files, n, i, line) {
		n = split(fragments, files, " ")
		for (i = 1; i <= n; i++) while ((getline line < files[i]) > 0) print line
	}
	/^## / && open { add(); open = 0; added = 1; if (form == "markdown") print "" }
	/^## Unreleased$/ { open = 1; if (form == "markdown") print heading; next }
	open && added == 0 && /^$/ { if (form == "markdown" && !blank++) print; next }
	form == "markdown" || open
	END { if (open) add() }
' CHANGELOG.md | if [[ $form == markdown ]]; then cat; else
	echo "faena ($version) stable; urgency=medium"
	echo
	# One paragraph for each change, wrapped as Debian wants it.
	sed -e ':a' -e 'N' -e '$!ba' -e 's/\n  */ /g' | sed -e 's/^- //' | fold -s -w 72 | sed -e 's/ *$//' -e '/^\[[A-Z]*\] /!s/^/    /' -e 's/^\[/  * [/'
	echo
	echo " -- The authors of Faena <packages@faena.dev>  $date"
fi
