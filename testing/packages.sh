#!/bin/bash
# Makes what the tests of the packages install (src/internal/endtoend/packages), in a directory:
#
#   faena-bundle-VERSION-amd64.tar   the offline bundle of this tree
#   previous/                        packages of the release before: its programs, packed by this tree's packaging, under a lower version
#
#   testing/packages.sh DIR
set -euo pipefail
out=$(realpath -m "${1:?DIR is missing}")
root=$(cd "$(dirname "$0")/.." && pwd)
git() { command git -c safe.directory="$root" -c safe.directory="$root/.git" "$@"; }
previous=$(<"$root/testing/previous")
: "${SOURCE_DATE_EPOCH:=$(git -C "$root" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# The programs of the release before. Its own tree may have another packaging, or none.
mkdir "$work/before"
if ! git -C "$root" archive "$previous" src | tar -C "$work/before" -x; then
	echo "packages: the commit in testing/previous, $previous, is not in this clone: fetch its whole history" >&2
	exit 1
fi
# With an older messaging server, of the same minor version, so that an upgrade restarts that as well, and a downgrade goes back to it.
nats=github.com/nats-io/nats-server/v2
(cd "$work/before/src" && go mod edit -require="$nats@v2.15.1")
cat >>"$work/before/src/go.sum" <<-EOF
	$nats v2.15.1 h1:fK3AeYFIji1Smng60jB0hVoAPZezA/UzsaI3BqXFNEI=
	$nats v2.15.1/go.mod h1:yeuYRtKVKIFtmMz2/YPk+6hvmNBnk+WwTUzErBdH6IE=
EOF
VERSION_BEFORE=0.0.0+$(git -C "$root" rev-list --count "$previous").g${previous:0:8}
# This tree's packaging, but for what those programs do not know yet: --check-config, which would keep them from starting, the watchdog that a
# daemon must feed, and the command by which root gives a group its keys.
mkdir "$work/tree"
ln -s "$root"/{src,docs,CHANGELOG.md} "$work/tree/"
cp -r "$root/packaging" "$root/systemd" "$work/tree/"
sed -i -e '/^ExecStartPre=.*--check-config/d' -e '/^WatchdogSec=/d' -e 's,^ExecStart=/usr/lib/faena/one-host group,ExecStart=/bin/true,' "$work/tree/systemd"/*.service

# A file of settings that is another one than this tree's: what nobody has edited is replaced by an upgrade, what somebody has is kept.
for file in api worker nats; do echo '# of the release before' >>"$work/tree/packaging/etc/$file.env"; done

version=$("$root/packaging/version.sh")
if [[ $version != *+dirty && -e $out/faena-bundle-$version-amd64.tar && -e $out/previous/faena_${VERSION_BEFORE}_amd64.deb ]]; then
	exit # made from the same commit
fi
rm -rf "$out"/*
VERSION=$version "$root/packaging/build.sh" "$out/current" amd64
"$root/packaging/bundle.sh" amd64 "$version" "$out/faena-bundle-$version-amd64.tar" "$out"/current/*.deb
PROGRAMS=$work/before VERSION=$VERSION_BEFORE "$work/tree/packaging/build.sh" "$out/previous" amd64
"$root/packaging/repository.sh" "$out/previous"
