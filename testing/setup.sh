#!/bin/bash
# Makes this machine fit for the tests and the demo: installs what is missing (Debian, as root) and starts a Docker
# Engine where none answers. It may be run at any time, by several at once; where nothing is missing it takes a moment.
#
#   testing/setup.sh            what the tests need
#   testing/setup.sh demo       and what the demo makes its images with
#   testing/setup.sh packages   and what packages, repositories of them and the hosts of their tests are made and checked with
set -euo pipefail

# A command that must be there, and the Debian package that has it.
declare -A needed=(
	[gcc]="gcc libc6-dev" # the race detector, and the static C programs of the tests
	[dockerd]=docker.io
	[docker]=docker.io
	[iptables]=iptables
	[git]=git
	[ip]=iproute2 # networks of tests, with the rules that nft shows
	[nft]=nftables
)
case ${1-} in
"") ;;
demo) needed[debootstrap]=debootstrap ;;
packages)
	needed[lintian]=lintian
	needed[apt-ftparchive]=apt-utils
	needed[debootstrap]=debootstrap # the image of test hosts
	;;
*)
	echo "usage: testing/setup.sh [demo | packages]" >&2
	exit 2
	;;
esac
engine_log=/var/log/faena-dockerd.log

say() { echo "setup: $*" >&2; }

missing_packages() {
	local command
	for command in "${!needed[@]}"; do
		command -v "$command" >/dev/null || echo "${needed[$command]}"
	done
	# The headers and the static C library are in a package of their own, which gcc only recommends.
	[[ -e /usr/include/stdlib.h ]] || echo libc6-dev
	[[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
}

engine_answers() { timeout 10 docker info >/dev/null 2>&1; }

install_packages() {
	if ! command -v apt-get >/dev/null; then
		say "missing: $*. Install them by hand: this is no Debian."
		exit 1
	fi
	say "installing $*"
	# No service is started by the installation: where no init system runs it would fail.
	local out
	if ! out=$(export DEBIAN_FRONTEND=noninteractive
		apt-get -qq -o Acquire::Retries=3 update &&
			apt-get -qq -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@" 2>&1); then
		say "apt-get failed: $out"
		exit 1
	fi
}

start_engine() {
	if [[ -d /run/systemd/system ]]; then
		say "starting the Docker Engine with systemd"
		systemctl start docker || true # what is wrong is said below
	else
		say "starting the Docker Engine, its log is $engine_log"
		forget_dead_engine
		prefer_working_iptables
		# In a session of its own, without our descriptors: it outlives this script, and holds no lock or pipe of it.
		setsid -f dockerd >>"$engine_log" 2>&1 </dev/null 9>&-
	fi
	local deadline=$((SECONDS + 90))
	until engine_answers; do
		if ((SECONDS > deadline)); then
			say "no Docker Engine answers. The end of its log:"
			tail -n 20 "$engine_log" >&2 || journalctl -u docker -n 20 --no-pager >&2 || true
			exit 1
		fi
		sleep 0.3
	done
}

# A machine that was switched off, or copied, may have the number of an engine that is not there any more.
forget_dead_engine() {
	local pid
	pid=$(cat /var/run/docker.pid 2>/dev/null) || return 0
	if [[ $(cat "/proc/$pid/comm" 2>/dev/null) != dockerd ]]; then
		rm -f /var/run/docker.pid
	fi
}

# Some kernels have no nftables; Debian's iptables can then use the older interface.
prefer_working_iptables() {
	if ! iptables -t nat -L -n >/dev/null 2>&1 && iptables-legacy -t nat -L -n >/dev/null 2>&1; then
		say "this kernel has no nftables: iptables uses the older interface from now on"
		update-alternatives --quiet --set iptables /usr/sbin/iptables-legacy
		update-alternatives --quiet --set ip6tables /usr/sbin/ip6tables-legacy
	fi
}

ready() { [[ -z $(missing_packages) ]] && engine_answers; }

if ready; then
	exit 0
fi
if ((EUID != 0)); then
	say "missing: $(missing_packages | sort -u | xargs) and perhaps a Docker Engine that answers; run this as root"
	exit 1
fi
exec 9>/run/lock/faena-setup.lock
flock 9
mapfile -t packages < <(missing_packages | tr ' ' '\n' | sort -u)
if ((${#packages[@]} > 0)); then
	install_packages "${packages[@]}"
fi
engine_answers || start_engine
