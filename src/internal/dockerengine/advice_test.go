package dockerengine

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/system"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// Of what an engine says of itself, each thing that should be otherwise has its code, and what is as it should be has none.
func TestAdviceOf(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*system.Info)
		want   []string
	}{
		"all is well":           {func(*system.Info) {}, nil},
		"no memory limit":       {func(i *system.Info) { i.MemoryLimit = false }, []string{faena.AdviceNoMemoryLimit}},
		"nor one of swap":       {func(i *system.Info) { i.MemoryLimit, i.SwapLimit = false, false }, []string{faena.AdviceNoMemoryLimit}},
		"no swap limit":         {func(i *system.Info) { i.SwapLimit = false }, []string{faena.AdviceNoSwapLimit}},
		"no CPU limit":          {func(i *system.Info) { i.CPUCfsQuota = false }, []string{faena.AdviceNoCPULimit}},
		"no pids limit":         {func(i *system.Info) { i.PidsLimit = false }, []string{faena.AdviceNoPIDsLimit}},
		"no seccomp":            {func(i *system.Info) { i.SecurityOptions = []string{"name=apparmor"} }, []string{faena.AdviceNoSeccomp}},
		"seccomp unconfined":    {func(i *system.Info) { i.SecurityOptions = []string{"name=seccomp,profile=unconfined"} }, []string{faena.AdviceNoSeccomp}},
		"seccomp of 20.10":      {func(i *system.Info) { i.SecurityOptions = []string{"name=seccomp,profile=default"} }, nil},
		"no forwarding":         {func(i *system.Info) { i.IPv4Forwarding = false }, []string{faena.AdviceNoForwarding}},
		"no live-restore":       {func(i *system.Info) { i.LiveRestoreEnabled = false }, []string{faena.AdviceNoLiveRestore}},
		"vfs":                   {func(i *system.Info) { i.Driver = "vfs" }, []string{faena.AdviceStorageDriver + "=vfs"}},
		"containerd's images":   {func(i *system.Info) { i.Driver = "overlayfs" }, nil},
		"cgroupfs on v2":        {func(i *system.Info) { i.CgroupDriver = "cgroupfs" }, []string{faena.AdviceCgroupDriver + "=cgroupfs"}},
		"cgroupfs on v1":        {func(i *system.Info) { i.CgroupDriver, i.CgroupVersion = "cgroupfs", "1" }, nil},
		"no mirror":             {func(i *system.Info) { i.RegistryConfig.Mirrors = nil }, []string{faena.AdviceNoMirror}},
		"nothing of registries": {func(i *system.Info) { i.RegistryConfig = nil }, []string{faena.AdviceNoMirror}},
		"insecure registries": {func(i *system.Info) {
			i.RegistryConfig.IndexConfigs["b.example:5000"] = &registry.IndexInfo{}
			i.RegistryConfig.IndexConfigs["a.example"] = &registry.IndexInfo{}
			i.RegistryConfig.InsecureRegistryCIDRs = append(i.RegistryConfig.InsecureRegistryCIDRs, cidr("10.0.0.0/8"), cidr("::1/128"))
		}, []string{faena.AdviceInsecure + "=10.0.0.0/8,a.example,b.example:5000"}},
		"the needed first": {func(i *system.Info) { i.LiveRestoreEnabled, i.PidsLimit = false, false },
			[]string{faena.AdviceNoPIDsLimit, faena.AdviceNoLiveRestore}},
	} {
		t.Run(name, func(t *testing.T) {
			about := system.Info{MemoryLimit: true, SwapLimit: true, CPUCfsQuota: true, PidsLimit: true, IPv4Forwarding: true, LiveRestoreEnabled: true,
				Driver: "overlay2", CgroupDriver: "systemd", CgroupVersion: "2", SecurityOptions: []string{"name=apparmor", "name=seccomp,profile=builtin"},
				RegistryConfig: &registry.ServiceConfig{Mirrors: []string{"https://mirror.example/"}, InsecureRegistryCIDRs: []*registry.NetIPNet{cidr("127.0.0.0/8")},
					IndexConfigs: map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Secure: true}}}}
			c.change(&about)
			if got := adviceOf(about); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("the worst of all fits", func(t *testing.T) {
		many := &registry.ServiceConfig{IndexConfigs: map[string]*registry.IndexInfo{strings.Repeat("ö", 200): {}}}
		got := adviceOf(system.Info{CgroupVersion: "2", RegistryConfig: many})
		if len(got) > faena.MaxAdvice-2 { // few addresses, and the disk
			t.Errorf("%d codes: %q", len(got), got)
		}
		for _, code := range got {
			if len(code) > faena.MaxAdviceBytes || strings.ToValidUTF8(code, "") != code {
				t.Errorf("%q has %d bytes", code, len(code))
			}
		}
	})
}

func cidr(s string) *registry.NetIPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return (*registry.NetIPNet)(n)
}

func TestAddressesOf(t *testing.T) {
	for name, c := range map[string]struct {
		config []network.IPAMConfig
		want   int
	}{
		"as the engine makes it": {[]network.IPAMConfig{{Subnet: "172.17.0.0/16"}}, 65533},
		"small":                  {[]network.IPAMConfig{{Subnet: "10.1.1.0/28"}}, 13},
		"part of one":            {[]network.IPAMConfig{{Subnet: "10.1.0.0/16", IPRange: "10.1.1.0/24"}}, 253},
		"IPv6 beside it":         {[]network.IPAMConfig{{Subnet: "fd00::/64"}, {Subnet: "10.1.1.0/24"}}, 253},
		"none at all":            {[]network.IPAMConfig{{Subnet: "10.1.1.1/32"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := addressesOf(network.Inspect{IPAM: network.IPAM{Config: c.config}}); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
	if got := addressesOf(network.Inspect{}); got < 1<<20 {
		t.Errorf("of what says nothing: %d", got)
	}
}

// An engine that has no addresses left for a network says so in other words from version to version; what to do is the same.
func TestWithoutPool(t *testing.T) {
	for text, want := range map[string]bool{
		"could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network": true,
		"all predefined address pools have been fully subnetted":                                                     true,
		"permission denied": false,
	} {
		cause := errors.New(text)
		if err := withoutPool(cause); !errors.Is(err, cause) || strings.Contains(err.Error(), "docker network prune") != want {
			t.Errorf("got %v", err)
		}
	}
	if withoutPool(nil) != nil {
		t.Error("of no error it makes one")
	}
}

// The engine of this machine says the same of itself whoever asks it.
func TestEngine_Advise(t *testing.T) {
	e := open(t)
	name := networkName(t)
	options := map[string]string{optionICC: "false", optionBridge: BridgeName(name)}
	faenatest.Engine(t).Post(t, "/networks/create", map[string]any{"Name": name, "Driver": "bridge", "Options": options, "CheckDuplicate": true,
		"IPAM": map[string]any{"Config": []map[string]string{{"Subnet": "10.251.77.0/28"}}}}, nil)
	got, err := e.Advise(t.Context(), name, 13)
	if err != nil {
		t.Fatal(err)
	}
	var about struct {
		ServerVersion, Driver                                 string
		LiveRestoreEnabled, MemoryLimit, SwapLimit, PidsLimit bool
		CPUCfsQuota                                           bool `json:"CpuCfsQuota"`
	}
	faenatest.Engine(t).Get(t, "/info", &about)
	if got.Version != about.ServerVersion {
		t.Errorf("version %q, want %q", got.Version, about.ServerVersion)
	}
	for code, want := range map[string]bool{
		faena.AdviceNoLiveRestore: !about.LiveRestoreEnabled, faena.AdviceNoMemoryLimit: !about.MemoryLimit, faena.AdviceNoPIDsLimit: !about.PidsLimit,
		faena.AdviceNoCPULimit: !about.CPUCfsQuota, faena.AdviceNoSwapLimit: about.MemoryLimit && !about.SwapLimit,
		faena.AdviceStorageDriver + "=" + about.Driver: about.Driver == "vfs", faena.AdviceFewAddresses + "=13": false,
	} {
		if slices.Contains(got.Advice, code) != want {
			t.Errorf("%s: want %v in %q", code, want, got.Advice)
		}
	}
	if got, err = e.Advise(t.Context(), name, 14); err != nil || !slices.Contains(got.Advice, faena.AdviceFewAddresses+"=13") {
		t.Errorf("got %q, %v", got.Advice, err)
	}
	if _, err := e.Advise(t.Context(), name+"-absent", 1); err == nil {
		t.Error("a network that is not there is no error")
	}
}
