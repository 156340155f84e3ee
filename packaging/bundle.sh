#!/bin/bash
# Makes an offline bundle: an apt repository of our packages with everything of Debian 12 that they need, down to libc, in one tar.
#
#   packaging/bundle.sh ARCH VERSION FILE.tar PACKAGE.deb...
#
# What they need is reckoned by apt for a host on which nothing is installed, so it is complete on any; and the host that installs from it takes
# from it only what it lacks. It reads the package lists of this machine's own sources, which must be Debian 12's.
set -euo pipefail
umask 022
arch=$1 version=$2 file=$(realpath -m "$3")
shift 3
: "${SOURCE_DATE_EPOCH:?}"
. /etc/os-release
if [[ ${VERSION_CODENAME-} != bookworm ]]; then
	echo "bundle: this machine is no Debian 12, whose packages it wants" >&2
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 0755 "$work" # apt reads as a user of its own
name=faena-bundle-$version-$arch
bundle=$work/$name
mkdir -p "$bundle" "$work"/{state,cache,parts}/partial
cp "$@" "$bundle/"
APT_KEY='' "$(dirname "$0")/repository.sh" "$bundle"

cp -r /etc/apt/sources.list /etc/apt/sources.list.d "$work/" 2>/dev/null || true
mkdir -p "$work/sources.list.d"
echo "deb [trusted=yes] file:$bundle ./" >"$work/sources.list.d/faena-bundle.list"
debian=(-qq -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o Dir::State="$work/state" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache"
	-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts="$work/sources.list.d" -o Acquire::Retries=3 -o Debug::NoLocking=1)
apt-get "${debian[@]}" update
# Functions' images come from registries, which are known by their certificates. The engine only recommends apparmor, but where the kernel has
# it on, containers are confined by it, or do not start.
apt-get "${debian[@]}" --yes --no-install-recommends --download-only install faena ca-certificates apparmor >/dev/null
mv "$work"/cache/archives/*.deb "$bundle/"

cat >"$bundle/README" <<README
Faena $version with everything that it needs, for a Debian 12 host ($arch) without any network. As root:

    tar -C /opt -xf $name.tar
    cd /opt/$name
    echo "deb [trusted=yes] file:\$PWD ./" > bundle.list
    bundle="-o Dir::Etc::SourceList=\$PWD/bundle.list -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0"
    apt-get \$bundle update
    apt-get \$bundle install faena

Another host of an installation of several takes faena-api, faena-nats, or faena-worker and docker.io instead of faena. An upgrade is the same
commands with a newer bundle. They read no other source of apt's, and change none. What is in the tar is in SHA256SUMS.
README
"$(dirname "$0")/repository.sh" "$bundle"
(cd "$bundle" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf "$file" "$name"
