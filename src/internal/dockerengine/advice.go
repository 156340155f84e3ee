package dockerengine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"

	"faena.dev/faena/internal/faena"
)

// Advise asks the engine anew, since it may have been started with other settings meanwhile, and tells what an operator should know:
// what keeps limits from being kept, and what would be better otherwise. containers is how many are to have an address in the network.
func (e *Engine) Advise(ctx context.Context, networkName string, containers int) (faena.Engine, error) {
	ctx, done := e.deadline(ctx, e.timeouts.Call)
	defer done()
	about, err := e.client.Info(ctx)
	if err != nil {
		return faena.Engine{}, e.failed(ctx, "ask the engine about its settings", err)
	}
	found := faena.Engine{Version: about.ServerVersion, Advice: adviceOf(about)}
	n, err := e.client.NetworkInspect(ctx, networkName, network.InspectOptions{})
	if err != nil {
		return found, e.failed(ctx, "look at network "+networkName, err)
	}
	if room := addressesOf(n); room < containers {
		found.Advice = append(found.Advice, withDetail(faena.AdviceFewAddresses, fmt.Sprint(room)))
	}
	return found, nil
}

// adviceOf is what an engine's own words lead to, what is needed before what is better.
func adviceOf(about system.Info) []string {
	v2 := cgroupVersion(about) == 2
	insecure := insecureOf(about)
	var out []string
	for _, c := range []struct {
		when bool
		code string
	}{
		{!about.MemoryLimit, faena.AdviceNoMemoryLimit},
		{!about.CPUCfsQuota, faena.AdviceNoCPULimit},
		{!about.PidsLimit, faena.AdviceNoPIDsLimit},
		{!filtersCalls(about), faena.AdviceNoSeccomp},
		{!about.IPv4Forwarding, faena.AdviceNoForwarding},
		{about.MemoryLimit && !about.SwapLimit, faena.AdviceNoSwapLimit},
		{!about.LiveRestoreEnabled, faena.AdviceNoLiveRestore},
		{!slices.Contains([]string{"overlay2", "overlayfs", "btrfs", "zfs"}, about.Driver), withDetail(faena.AdviceStorageDriver, about.Driver)},
		{v2 && about.CgroupDriver != "systemd", withDetail(faena.AdviceCgroupDriver, about.CgroupDriver)},
		{len(insecure) > 0, withDetail(faena.AdviceInsecure, strings.Join(insecure, ","))},
		{about.RegistryConfig == nil || len(about.RegistryConfig.Mirrors) == 0, faena.AdviceNoMirror},
	} {
		if c.when {
			out = append(out, c.code)
		}
	}
	return out
}

// filtersCalls reports whether the engine gives containers a seccomp profile.
func filtersCalls(about system.Info) bool {
	for _, o := range about.SecurityOptions {
		if strings.HasPrefix(o, "name=seccomp") {
			return !strings.Contains(o, "profile=unconfined")
		}
	}
	return false
}

// insecureOf are the registries, and networks of such, whose certificates the engine does not check; loopback, which every engine has
// among them, left out.
func insecureOf(about system.Info) []string {
	if about.RegistryConfig == nil {
		return nil
	}
	var out []string
	for name, index := range about.RegistryConfig.IndexConfigs {
		if index != nil && !index.Secure {
			out = append(out, name)
		}
	}
	for _, n := range about.RegistryConfig.InsecureRegistryCIDRs {
		if n != nil && !n.IP.IsLoopback() {
			out = append(out, n.String())
		}
	}
	slices.Sort(out)
	return out
}

// addressesOf is how many containers may be in a network at once; without a bound where nothing says so.
func addressesOf(n network.Inspect) int {
	for _, c := range n.IPAM.Config {
		p, err := netip.ParsePrefix(c.Subnet)
		if c.IPRange != "" {
			p, err = netip.ParsePrefix(c.IPRange)
		}
		if err == nil && p.Addr().Is4() {
			return max(0, 1<<(32-p.Bits())-3) // the network's, the gateway's, and that of all
		}
	}
	return 1 << 30
}

// withDetail puts a detail behind a code, cut to the length that one may have.
func withDetail(code, detail string) string {
	code += "=" + detail
	if len(code) > faena.MaxAdviceBytes {
		code = code[:faena.MaxAdviceBytes-3] + "..."
	}
	return strings.ToValidUTF8(code, "")
}
