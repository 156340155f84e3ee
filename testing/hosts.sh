#!/bin/bash
# Makes the image that test hosts are made of, where it does not exist yet, and prints its name: a minimal Debian 12 in which systemd is process 1.
# A container of it is a host for all that dpkg, systemd and Ansible do (src/internal/endtoend/hosts).
set -euo pipefail
packages=systemd,systemd-sysv,dbus,openssh-server,python3,python3-apt,iproute2,iptables,nftables,sudo,curl,ca-certificates,procps
suite=bookworm

# systemd passes mounts on to its services (credentials are mounts), which the engine does not let them be; and an engine of the host's own
# writes control groups.
init='mount --make-rshared / && for m in $(awk '"'"'$5 ~ "^/sys/fs/cgroup" {print $5}'"'"' /proc/self/mountinfo); do mount -o remount,bind,rw "$m"; done; exec /sbin/init'

name=faena-testhost:$(printf '%s' "$packages $suite $init" | sha256sum | cut -c 1-12)
if ! docker image inspect "$name" >/dev/null 2>&1; then
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	echo "hosts: making $name" >&2
	if ! debootstrap --variant=minbase --include="$packages" "$suite" "$dir" >"$dir.log" 2>&1; then
		tail -n 20 "$dir.log" >&2
		exit 1
	fi
	rm -rf "$dir.log" "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/*
	tar -C "$dir" -c . | docker import --change "CMD $init" - "$name" >/dev/null
fi
echo "$name"
