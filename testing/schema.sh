#!/bin/bash
# Fails where a golden file of the release before (testing/previous) is not what it was then: what daemons of different versions
# say to each other changes with a new faena.SchemaVersion only. A file may be added, none may change or go.
set -euo pipefail
cd "$(dirname "$0")/.."
git() { command git -c safe.directory="$PWD" "$@"; }
previous=$(<testing/previous)
if ! git cat-file -e "$previous^{commit}" 2>/dev/null; then
	echo "schema: the commit in testing/previous, $previous, is not in this clone: fetch its whole history" >&2
	exit 1
fi
bad=0 checked=0
while read -r path; do
	now=$path
	# Before there were directories by version, all files were of version 1.
	[[ $path == */testdata/schema-* ]] || now=${path/\/testdata\//\/testdata\/schema-1\/}
	checked=$((checked + 1))
	if ! diff -u --label "$path (release before)" --label "$now" <(git show "$previous:$path") "$now" >&2; then
		bad=1
	fi
done < <(git ls-tree -r --name-only "$previous" -- src/internal | grep -E '^src/internal/(faena/testdata/|[a-z]+/testdata/schema-)([^/]+/)?[^/]+\.golden\.json$')
if ((checked == 0)); then
	echo 'schema: the release before has no golden files: that cannot be' >&2
	exit 1
fi
if ((bad)); then
	echo 'schema: what the release before stores or sends has changed: raise faena.SchemaVersion, and leave its files as they are' >&2
	exit 1
fi
