#!/bin/bash
# Builds the Debian packages, and beside each what is in it (NAME_VERSION_ARCH.deb and .cdx.json, CycloneDX), into a directory.
#
#   packaging/build.sh OUT [ARCH...]      amd64 and arm64 without ARCH
#
# The same commit gives the same bytes, wherever and whenever it is built, with the same version of Go. VERSION and SOURCE_DATE_EPOCH are git's
# unless they are set. PROGRAMS is the tree whose programs are packed, another commit's perhaps; everything else is this tree's.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
out=$(realpath -m "${1:?OUT is missing}")
shift
arches=("$@")
(($#)) || arches=(amd64 arm64)
root=$(cd "$(dirname "$0")/.." && pwd)
programs=$(realpath "${PROGRAMS:-$root}")/src
: "${VERSION:=$("$root/packaging/version.sh")}"
: "${SOURCE_DATE_EPOCH:=$(git -C "$root" -c safe.directory="$root" log -1 --format=%ct)}"
export VERSION SOURCE_DATE_EPOCH
[[ $SOURCE_DATE_EPOCH =~ ^[0-9]+$ ]] || { echo "packages: git does not say of when this commit is; set SOURCE_DATE_EPOCH" >&2; exit 1; }
# Nothing of the builder's own settings is in what is built.
export GOTOOLCHAIN=local GOWORK=off GOENV=off GOFLAGS='-trimpath -buildvcs=false' GOOS=linux GOAMD64=v1 GOARM64=v8.0 CGO_ENABLED=0

# The programs of each package.
declare -A contains=([faena-api]=faena-api [faena-worker]="faena-worker faena-init" [faena-cli]=faena [faena-nats]=nats-server [faena]="")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "packages: $*" >&2; }

# tool NAME prints the path of a tool of the build.
tool() { (cd "$root/src" && GOARCH='' GOOS='' go tool -modfile=tools/go.mod -n "$1"); }

# programs_of ARCH builds all programs.
programs_of() {
	say "programs of $VERSION for $1"
	mkdir -p "$work/$1/bin"
	cd "$programs"
	GOARCH=$1 go build -ldflags "-s -w -X faena.dev/faena/internal/buildinfo.version=$VERSION" -o "$work/$1/bin/" ./cmd/...
	GOARCH=$1 go build -ldflags '-s -w' -o "$work/$1/bin/nats-server" github.com/nats-io/nats-server/v2
}

# modules_of ARCH PROGRAM... prints path and version of the modules in the programs, but for Faena's own.
modules_of() {
	local arch=$1
	shift
	(cd "$work/$arch/bin" && go version -m "$@") | awk '($1 == "dep" || $1 == "mod") && $2 != "faena.dev/faena" { print $2, $3 }' | sort -u
}

# licenses_of ARCH PACKAGE prints the licences of all modules in the package's programs, and of Go itself.
licenses_of() {
	local module version dir file
	echo "The programs of $2 are built with Go, and contain the following modules."
	{ echo "std $(go env GOVERSION)"; modules_of "$1" ${contains[$2]}; } | while read -r module version; do
		dir=$(if [[ $module == std ]]; then go env GOROOT; else cd "$programs" && go list -m -f '{{.Dir}}' "$module"; fi)
		printf '\n%s\n%s %s\n' "$(printf '=%.0s' {1..100})" "$module" "$version"
		local files=("$dir"/LICEN[CS]E* "$dir"/COPYING* "$dir"/NOTICE*)
		for file in "${files[@]}"; do
			if [[ -f $file ]]; then printf '\n'; cat "$file"; fi
		done
		[[ " ${files[*]} " == *LICEN* || -f $dir/COPYING ]] || { say "$module has no licence"; exit 1; }
	done
}

# components_of ARCH PACKAGE writes what is in a package. What it is made with does not reach the network.
components_of() {
	local to="$out/$2_${VERSION}_$1.cdx.json" main
	if [[ -z ${contains[$2]} ]]; then
		local part parts="" quoted=${VERSION//+/%2B}
		for part in faena-api faena-cli faena-nats faena-worker; do
			parts+="${parts:+,}"$'\n'"    { \"type\": \"application\", \"name\": \"$part\", \"version\": \"$VERSION\", \"purl\": \"pkg:deb/$part@$quoted?arch=$1\" }"
		done
		printf '{\n  "bomFormat": "CycloneDX",\n  "specVersion": "1.6",\n  "version": 1,\n  "metadata": { "component": %s },\n  "components": [%s\n  ]\n}\n' \
			"{ \"type\": \"application\", \"name\": \"$2\", \"version\": \"$VERSION\", \"purl\": \"pkg:deb/$2@$quoted?arch=$1\" }" "$parts" >"$to"
		return
	fi
	main=${contains[$2]%% *} # its first program has the modules of all
	if [[ $(modules_of "$1" "$main") != "$(modules_of "$1" ${contains[$2]})" ]]; then
		say "$main has not all modules of ${contains[$2]}"
		return 1
	fi
	local version=(-version "$VERSION")
	[[ $main == nats-server ]] && version=()
	GOPROXY=off "$cyclonedx" bin -json -noserial -notimestamp -std -licenses "${version[@]}" -output "$to" "$work/$1/bin/$main" 2>"$work/log" ||
		{ cat "$work/log" >&2; return 1; }
}

mkdir -p "$out"
nfpm=$(tool nfpm) cyclonedx=$(tool cyclonedx-gomod)
cp -r "$root/packaging/." "$root/systemd" "$work/"
mkdir -p "$work/man" "$work/completions" "$work/docs"
cp "$root"/docs/{install,operations,settings,functions,security}.md "$work/docs/"
(cd "$root/src" && GOOS='' go run ./internal/tools/gendocs -man "$work/man" -completions "$work/completions")
"$root/packaging/changelog.sh" debian "$VERSION" "$(date -Rud "@$SOURCE_DATE_EPOCH")" >"$work/changelog"
gzip -9n "$work/man"/* "$work/changelog"
chmod -R u=rwX,go=rX "$work"
for arch in "${arches[@]}"; do
	programs_of "$arch"
	cd "$work"
	for package in faena-api faena-worker faena-cli faena-nats faena; do
		if [[ -n ${contains[$package]} ]]; then licenses_of "$arch" "$package" | gzip -9n >"$work/$arch/$package.licenses.gz"; fi
		components_of "$arch" "$package"
		ARCH=$arch "$nfpm" package --config "nfpm/$package.yaml" --packager deb --target "$out/${package}_${VERSION}_$arch.deb" >"$work/log" 2>&1 ||
			{ cat "$work/log" >&2; exit 1; }
	done
done
say "$out: $(cd "$out" && ls ./*_"$VERSION"_*.deb | wc -l) packages of $VERSION"
