package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
)

// Where the engine's settings go, and how they come into force: some at once, others with a restart, which kills what runs. All of them
// are in docs/operations.md.
const (
	reloadedJSON = "in /etc/docker/daemon.json, then systemctl reload docker"
	daemonJSON   = "in /etc/docker/daemon.json, then, while the worker is drained, systemctl restart docker"
)

// words are what to say of a worker's advice. In text %s is the detail that stands behind its code.
type words struct {
	text string
	bad  bool // functions do not run as they must; otherwise they would run better
}

var adviceWords = map[string]words{
	faena.AdviceNoMemoryLimit: {"the kernel limits no container's memory, so one function takes what all have: boot with cgroup_enable=memory on the kernel's command line", true},
	faena.AdviceNoCPULimit:    {"the kernel limits no container's processor time: boot a kernel with CONFIG_CFS_BANDWIDTH, as Debian's has", true},
	faena.AdviceNoPIDsLimit:   {"the kernel limits no container's processes, so one function can take them all: boot a kernel with CONFIG_CGROUP_PIDS, as Debian's has", true},
	faena.AdviceNoSeccomp: {`functions may make every system call, for the engine has no seccomp profile: take "seccomp-profile": "unconfined" away ` + daemonJSON +
		", and boot a kernel with CONFIG_SECCOMP_FILTER", true},
	faena.AdviceNoForwarding: {`functions reach nothing, for the kernel forwards no packets: sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.d; ` +
		`take "ip-forward": false away in /etc/docker/daemon.json`, true},
	faena.AdviceFewAddresses: {`the network of functions has addresses for %s containers, which is fewer than FAENA_WORKER_CONTAINERS: let it be fewer, or stop the worker, ` +
		`docker network rm faena, and give the engine larger networks: "default-address-pools": [{"base": "172.30.0.0/16", "size": 20}] ` + daemonJSON, true},
	faena.AdviceNoSwapLimit:   {"a function may swap beyond its memory: turn swap off (swapoff -a), or boot with swapaccount=1 on the kernel's command line", false},
	faena.AdviceNoLiveRestore: {`whatever restarts the engine, an upgrade of it too, kills the functions that run: "live-restore": true ` + reloadedJSON, false},
	faena.AdviceStorageDriver: {`the engine's storage driver is %s; overlay2 shares layers and starts containers faster: "storage-driver": "overlay2" ` + daemonJSON +
		" (images are pulled again)", false},
	faena.AdviceCgroupDriver: {`the engine's cgroup driver is %s, beside systemd, which has the tree of cgroups: "exec-opts": ["native.cgroupdriver=systemd"] ` + daemonJSON, false},
	faena.AdviceInsecure: {`the engine does not check the certificates of %s: put their CA into /etc/docker/certs.d/HOST/ca.crt, and take "insecure-registries" away ` +
		reloadedJSON, false},
	faena.AdviceNoMirror: {`every worker pulls from Docker Hub itself, which limits pulls, and is needed for each new image; with a mirror of yours: ` +
		`"registry-mirrors": ["https://mirror.example.org"] ` + reloadedJSON, false},
	faena.AdviceDiskHigh: {"%s %% of the disk is in use, so images are removed and pulled again: give /var/lib/docker more room, or remove what docker system df shows " +
		"(FAENA_DISK_HIGH says from where on)", false},
}

// engines adds what workers say of their engines: one line for the versions, and one for each advice, with the workers that it concerns.
// Older workers say nothing.
func (d *doctor) engines(workers []client.Worker) {
	var versions, codes []string
	told, bad := 0, false
	having := make(map[string][]string)
	for _, w := range workers {
		if w.Engine == nil {
			continue
		}
		told++
		if !slices.Contains(versions, w.Engine.Version) {
			versions = append(versions, w.Engine.Version)
		}
		for _, code := range w.Engine.Advice {
			if having[code] == nil {
				codes = append(codes, code)
			}
			if !slices.Contains(having[code], w.ID) {
				having[code] = append(having[code], w.ID)
			}
			bad = bad || adviceWords[adviceName(code)].bad
		}
	}
	if told == 0 {
		return
	}
	slices.SortStableFunc(codes, func(a, b string) int { return gravity(a) - gravity(b) })
	for _, code := range codes {
		d.advise(code, having[code])
	}
	if !bad {
		slices.Sort(versions)
		d.note("docker engines", "of "+count(told, "worker")+", version "+strings.Join(versions, " and "), nil)
	}
}

// advise adds one advice, in words.
func (d *doctor) advise(code string, workers []string) {
	name, detail, has := strings.Cut(code, "=")
	w, known := adviceWords[name]
	switch {
	case !known:
		w.text = fmt.Sprintf("a newer worker says %q, which this faena has no words for: upgrade it", code)
	case strings.Contains(w.text, "%s"):
		if !has {
			detail = "unknown"
		}
		w.text = fmt.Sprintf(w.text, printable(detail))
	}
	text := named(workers) + ": " + w.text
	if w.bad {
		d.note("docker engines", "", errors.New(text))
		return
	}
	d.findings = append(d.findings, finding{Check: "docker engines", OK: true, Advice: true, Detail: text})
}

func adviceName(code string) string {
	name, _, _ := strings.Cut(code, "=")
	return name
}

// gravity sorts what is bad before what is advice.
func gravity(code string) int {
	if adviceWords[adviceName(code)].bad {
		return 0
	}
	return 1
}

// named are the first few of many.
func named(names []string) string {
	text := strings.Join(names[:min(len(names), namedAtOnce)], ", ")
	if n := len(names) - namedAtOnce; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// printable keeps what a worker says from doing more to a terminal than to be read.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}
