#!/bin/bash
# Builds the packages that are in a directory another time, in another place, with other settings and nothing from Go's cache, and compares.
#
#   packaging/reproduce.sh DIR [ARCH...]
set -euo pipefail
dist=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
: "${VERSION:=$(packaging/version.sh)}"
: "${SOURCE_DATE_EPOCH:=$(git -c safe.directory="$PWD" log -1 --format=%ct)}"
export VERSION SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/another/place/with/a/longer/name
mkdir -p "$tree"
git -c safe.directory="$PWD" ls-files -z | tar --null --files-from - -c | (umask 077 && tar --no-same-permissions -C "$tree" -x)
(umask 077 && cd / && TZ=Pacific/Chatham LC_ALL=C.UTF-8 GOCACHE="$work/cache" GOAMD64=v3 bash "$tree/packaging/build.sh" "$work/dist" "$@")
cd "$work/dist"
if sha256sum -- * | (cd "$dist" && sha256sum --quiet --check); then
	echo "the same: $(ls | wc -l) files of $VERSION"
else
	echo "they differ: is $dist of this commit?" >&2
	exit 1
fi
