//go:build packages

package packages_test

import (
	"slices"
	"strings"
)

// bare is what a host gets before anything of Faena's: the packages that Faena's need, which stay when it is purged.
const bare = "DEBIAN_FRONTEND=noninteractive apt-get -q install --yes docker.io ca-certificates openssl; systemctl is-active docker"

// everything lists what a host has: files, users, units, packet rules, and what its engine has. Left out is what is apt's, dpkg's and the
// engine's own, and changes with any package and any container.
const everything = `
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /opt -o -path /root -o -path /tmp -o -path /var/lib/apt -o -path /var/cache -o -path /var/lib/dpkg \
		-o -path /var/log -o -path /var/lib/docker -o -path /var/lib/containerd \) -prune -o -printf 'file %y %M %u:%g %p\n'
	find /run /var/lib/docker/volumes -xdev \( -path /run/systemd -o -path /run/udev -o -path /run/docker -o -path /run/containerd -o -path /run/credentials \) -prune -o -printf 'file %y %M %u:%g %p\n'
	for db in passwd group; do getent $db | sed "s/^/$db /"; done
	cut -d: -f1 /etc/shadow | sed 's/^/shadow /'; cut -d: -f1,4 /etc/gshadow | sed 's/^/gshadow /'
	systemctl list-units --all --plain --no-legend --type service,socket,target,slice,timer,path | awk '{ print "unit", $1, $2 }'
	systemctl list-unit-files --no-legend | awk '{ print "unit file", $1, $2 }'
	nft list ruleset 2>/dev/null | grep -E '^table|chain' | sed 's/^/nft /'
	iptables-save | grep '^-A' | sed 's/^/iptables /'
	ip -o link | awk '{ print "link", $2 }' | grep -v veth
	docker ps --all --format 'container {{.Names}}'; docker network ls --format 'network {{.Name}}'; docker volume ls --format 'volume {{.Name}}'
	docker images --format 'image {{.Repository}}'`

// differences are the lines that only one of two lists has.
func differences(before, after string) (list []string) {
	count := make(map[string]int)
	for line := range strings.SplitSeq(before, "\n") {
		count[line]--
	}
	for line := range strings.SplitSeq(after, "\n") {
		count[line]++
	}
	for line, n := range count {
		switch {
		case n < 0:
			list = append(list, "- "+line)
		case n > 0:
			list = append(list, "+ "+line)
		}
	}
	slices.Sort(list)
	return list
}
