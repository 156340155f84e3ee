#!/bin/bash
# Prints the version of this tree, as Debian orders versions: of tag v1.2.3 it is 1.2.3, of four commits later 1.2.3+4.gHASH. Where there is no
# tag it is 0.0.0+N.gHASH, N being the number of commits, so that what is built later is newer. Changed files add +dirty. Where git has nothing
# to say (no git, a tree without history) it is 0.0.0+unknown.
set -euo pipefail
cd "$(dirname "$0")/.."
git() { command git -c safe.directory="$PWD" "$@"; } # which refuses a tree of another owner

if described=$(git describe --tags --long --match 'v[0-9]*' --abbrev=8 2>/dev/null); then
	hash=${described##*-g} rest=${described%-g*}
	count=${rest##*-} tag=${rest%-*}
	version=${tag#v}
	version=${version/-/\~} # v1.2.3-rc1 is before v1.2.3
	if [[ $count != 0 ]]; then version+="+$count.g$hash"; fi
elif count=$(git rev-list --count HEAD 2>/dev/null); then
	version="0.0.0+$count.g$(git rev-parse --short=8 HEAD)"
else
	echo 0.0.0+unknown
	exit
fi
git diff --quiet HEAD -- || version+=+dirty
echo "$version"
