package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/wiring"
)

// ownVariables are the variables that this program reads besides the appliance's settings.
var ownVariables = []string{"FAENA_PROFILE"}

func (a *app) upCommand() *cobra.Command {
	unfiltered := false
	cmd := &cobra.Command{
		Use: "up", Short: "Run the whole appliance in this process, until Ctrl-C", Args: exactly(0),
		Long: `Run the whole appliance in this process: queue, documents, image registry, API and one worker.
It needs a Docker Engine and, for the rules that keep functions from this host and from private networks, CAP_NET_ADMIN, which root has.
It keeps everything below one directory, and begins again where it was.
Settings are environment variables; docs/settings.md (/usr/share/doc/faena-cli) lists them.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			c, err := config.LoadUp(a.environ, ownVariables...)
			if err != nil {
				return usage{err}
			}
			if os.Geteuid() == 0 && a.env("FAENA_DATA_DIR")+a.env("STATE_DIRECTORY") == "" {
				if err := second(apiUnit); err != nil {
					return usage{err}
				}
			}
			c.Worker.AllowUnfiltered = c.Worker.AllowUnfiltered || unfiltered
			limitMemory()
			ctx := cmd.Context()
			log := wiring.NewLogger(a.err, c.Log)
			appliance, err := wiring.NewAppliance(ctx, c, log)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, appliance.Close()) }()
			path := filepath.Join(c.DataDir, "admin.password")
			password, err := appliance.CreateFirstAdmin(ctx, func(password string) error {
				return os.WriteFile(path, []byte(password+"\n"), 0o600)
			})
			if err != nil {
				return err
			}
			if password != "" {
				a.say("The first admin is %q; the password is in %s.", wiring.FirstAdmin, path)
				a.firstLogin(c, appliance, password, path)
			}
			defer a.sayStopping(ctx, c)()
			return appliance.Run(ctx, func() { a.greet(c, appliance) })
		},
	}
	cmd.Flags().BoolVar(&unfiltered, "allow-unfiltered", false,
		"run functions also where their packets cannot be filtered: they reach this host then, and all that it reaches")
	return cmd
}

// apiUnit is there where the packages are installed.
const apiUnit = "/usr/lib/systemd/system/faena-api.service"

// second refuses what would be a second, empty appliance on a host on which the API's unit is: few who type it there want that.
func second(unit string) error {
	if _, err := os.Stat(unit); err != nil {
		return nil
	}
	return fmt.Errorf("this host has %s, whose appliance this one knows nothing of: systemctl status faena-nats faena-api faena-worker shows it, and "+
		"systemctl start faena.target starts it. If a second one is wanted, name its directory in FAENA_DATA_DIR", unit)
}

// memoryLimit is when the appliance begins to give memory back sooner, unless GOMEMLIMIT says otherwise. The messaging
// server keeps what was written in the last seconds, and lets go of it where the collector asks: 100,000 activations
// that came within twelve seconds took 1.4 GB without a limit.
const memoryLimit = 512 << 20

func limitMemory() {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(memoryLimit)
	}
}

// firstLogin logs this user in as the first admin, unless that would replace a login to another appliance.
func (a *app) firstLogin(c config.Up, appliance *wiring.Appliance, password, path string) {
	cert := string(c.Serve.TLSCertFile)
	login := profile{URL: callAt(appliance.URL(), cert), Username: wiring.FirstAdmin, Password: password, Registry: appliance.RegistryAddress()}
	err := login.setCA(cert)
	if have, loadErr := a.loadProfile(); loadErr == nil && have.URL != login.URL {
		err = fmt.Errorf("the login %q is one at %s, and stays", a.profile, have.URL)
	}
	if err == nil {
		err = a.saveProfile(a.profile, login)
	}
	if err != nil { // a service has no home, for example: the appliance is of use all the same
		ca := ""
		if login.CACert != "" {
			ca = " --cacert " + login.CACert
		}
		a.say("This user is not logged in: %v. To log in: faena login %s --user %s --registry %s%s --profile NAME --password-stdin < %s", err,
			login.URL, login.Username, login.Registry, ca, path)
	}
}

// sayStopping says, at the first signal, what a person waits for from then on. The function that it returns forgets it.
func (a *app) sayStopping(ctx context.Context, c config.Up) (forget func() bool) {
	limit := c.Limits.DrainAfter + c.Worker.DrainWithin // the API's callers first, then what the worker runs
	return context.AfterFunc(ctx, func() {
		a.say("Stopping: waiting up to %v for what runs to end. Ctrl-C again ends it at once.", limit)
	})
}

func (a *app) greet(c config.Up, appliance *wiring.Appliance) {
	a.say("Faena is up. API %s, operations http://%s, image registry %s, data in %s.", appliance.URL(),
		appliance.OperationsAddress(), appliance.RegistryAddress(), c.DataDir)
	a.say("In another terminal: faena deploy NAME --image IMAGE, then faena invoke NAME PARAMETER. Ctrl-C stops it.")
}

// callAt is where an appliance that listens at an address can be called: at a name that its certificate has, where it
// listens on every address of the host.
func callAt(listens, certFile string) string {
	u, err := url.Parse(listens)
	if err != nil {
		return listens
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsUnspecified() {
		return listens
	}
	u.Host = net.JoinHostPort(nameOf(certFile), u.Port())
	return u.String()
}

// nameOf is the first name or address in a certificate; localhost where there is none.
func nameOf(certFile string) string {
	text, _ := os.ReadFile(certFile) // the API has read it before, and serves it
	block, _ := pem.Decode(text)
	if block == nil {
		return "localhost"
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "localhost"
	}
	for _, name := range cert.DNSNames {
		if !strings.HasPrefix(name, "*") {
			return name
		}
	}
	if len(cert.IPAddresses) > 0 {
		return cert.IPAddresses[0].String()
	}
	return "localhost"
}
