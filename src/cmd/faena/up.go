package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/telemetry"
	"faena.dev/faena/internal/wiring"
)

// ownVariables are the variables that this program reads besides the appliance's settings.
var ownVariables = []string{"FAENA_PROFILE"}

func (a *app) upCommand() *cobra.Command {
	return &cobra.Command{
		Use: "up", Short: "Run the whole appliance in this process, until Ctrl-C", Args: exactly(0),
		Long: `Run the whole appliance in this process: queue, documents, image registry, API and one worker.
It needs a Docker Engine and nothing else, keeps everything below one directory, and begins again where it was.
Settings are environment variables; docs/settings.md lists them.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			c, err := config.LoadUp(a.environ, ownVariables...)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			log := telemetry.NewLogger(a.err, c.Log.Format == config.LogJSON, c.Log.Level)
			appliance, err := wiring.NewAppliance(ctx, c, log)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, appliance.Close()) }()
			password, err := appliance.CreateFirstAdmin(ctx)
			if err != nil {
				return err
			}
			if password != "" {
				if err := a.firstLogin(c, appliance, password); err != nil {
					return err
				}
			}
			return appliance.Run(ctx, func() { a.greet(c, appliance) })
		},
	}
}

// firstLogin keeps the first admin's password where only its owner finds it, and logs this user in.
func (a *app) firstLogin(c config.Up, appliance *wiring.Appliance, password string) error {
	path := filepath.Join(c.DataDir, "admin.password")
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	a.say("The first admin is %q; the password is in %s.", wiring.FirstAdmin, path)
	return a.saveProfile(a.profile, profile{URL: appliance.URL(), Username: wiring.FirstAdmin, Password: password,
		CACert: string(c.Serve.TLSCertFile), Registry: appliance.RegistryAddress()})
}

func (a *app) greet(c config.Up, appliance *wiring.Appliance) {
	a.say("Faena is up. API %s, operations http://%s, image registry %s, data in %s.", appliance.URL(),
		appliance.OperationsAddress(), appliance.RegistryAddress(), c.DataDir)
	a.say("In another terminal: faena deploy NAME --image IMAGE, then faena invoke NAME PARAMETER. Ctrl-C stops it.")
}
