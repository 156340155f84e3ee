package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/backup"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/wiring"
)

// errNotRoot is what backup and restore say to anybody else.
var errNotRoot = errors.New("only root may do that: it reads and writes the keys of this host")

func (a *app) backupCommand() *cobra.Command {
	var recipients []string
	var passphrase, socket string
	force := false
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Back up the appliance on this host, encrypted (root only)", Args: exactly(1),
		Long: `Back up the appliance on this host: documents, queue, users, keys and settings, as of one moment, into a file that age encrypts.
Give public keys, of which any opens it (age-keygen of the package age makes one), or a file with a passphrase. "-" is standard output.
Activations go on meanwhile; new ones wait a moment, and are refused with 503 backup_in_progress where that takes more than five seconds.
Keep what opens the backup on another host: without it nothing can be restored.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return errNotRoot
			}
			words, err := passphraseOf(passphrase)
			if err != nil {
				return err
			}
			locks, err := backup.NewLocks(recipients, words)
			if err != nil {
				return usage{err}
			}
			m, err := wiring.Backup(cmd.Context(), wiring.BackupOptions{Socket: socket, Locks: locks, File: args[0], Force: force, Out: a.out})
			if err != nil {
				return fmt.Errorf("no backup was made: %w", err)
			}
			var size int64
			for _, member := range m.Members {
				size += member.Size
			}
			a.say("The backup is made, of %s: %d parts, %d bytes.", m.Head.At.Local().Format("2006-01-02 15:04:05"), len(m.Members), size)
			return nil
		},
	}
	_, at := config.APIPaths(a.environ)
	cmd.Flags().StringArrayVar(&recipients, "recipient", nil, "a public key, age1…, that can open it; may be repeated")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "the `FILE` with the passphrase that opens it")
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE where it is there already")
	cmd.Flags().StringVar(&socket, "socket", at, "the admin socket of faena-api")
	return cmd
}

func (a *app) restoreCommand() *cobra.Command {
	var identity, passphrase string
	resume := false
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make this host what a backup is of (root only)", Args: exactly(1),
		Long: `Make this host, on which the packages were just installed, what a backup is of:

  systemctl stop faena.target
  faena restore FILE --identity KEYFILE
  systemctl start faena.target

All of the backup is checked before anything is changed. What had not ended when the backup was made is settled as lost, for the reason
"restored". With --resume it goes on instead: what has run since, where the backup is from, then runs twice. It is named.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return errNotRoot
			}
			words, err := passphraseOf(passphrase)
			if err != nil {
				return err
			}
			var key []byte
			if identity != "" {
				if key, err = os.ReadFile(identity); err != nil {
					return fmt.Errorf("read the identity: %w", err)
				}
			}
			keys, err := backup.NewKeys(key, words)
			if err != nil {
				return usage{err}
			}
			done, err := wiring.Restore(cmd.Context(), wiring.RestoreOptions{File: args[0], Keys: keys, Resume: resume})
			if err != nil {
				return err
			}
			a.tellRestored(done, resume)
			return nil
		},
	}
	cmd.Flags().StringVar(&identity, "identity", "", "a file with the private key that opens it, as age-keygen writes it")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "the `FILE` with the passphrase that opens it")
	cmd.Flags().BoolVar(&resume, "resume", false, "let go on what had not ended, though it may run twice")
	return cmd
}

// tellRestored says what was done, and, on standard output, what may run twice.
func (a *app) tellRestored(done *wiring.Restored, resume bool) {
	head := done.Manifest.Head
	a.say("This host is what %s was at %s: %d users.", head.Host, head.At.Local().Format("2006-01-02 15:04:05"), done.Users)
	if !resume {
		a.say("%d activations had not ended; they are lost, for the reason %s.", done.Lost, faena.ReasonRestored)
	} else {
		a.say("%d activations had not ended, and go on. Each may run twice: it may have run since, where the backup is from. One that was running then\n"+
			"runs again only where its function has retries for %s; otherwise it is lost.", done.Resumed, faena.ReasonWorkerLost)
		for i := range done.Live {
			r := &done.Live[i]
			fmt.Fprintf(a.out, "%s\t%s\t%s\t%s\n", r.ID, r.User, r.Function, r.State)
		}
		if more := done.Resumed - len(done.Live); more > 0 {
			a.say("and %d more", more)
		}
	}
	a.say("Not in a backup, and to be carried over by hand: drop-ins in /etc/systemd/system/faena-*.d (one may have the API's port), with a\n" +
		"systemctl daemon-reload; /etc/docker/daemon.json and /etc/docker/certs.d; CAs in /usr/local/share/ca-certificates.")
	if name, err := os.Hostname(); err != nil || name != head.Host {
		a.say("The certificate names %s, not this host. Another one of the same CA is made by:\n"+
			"  rm /etc/faena/tls/server.pem /etc/credstore/faena-api.tls_key; systemctl restart faena-one-host", head.Host)
	}
	a.say("Now: systemctl start faena.target")
}

// passphraseOf reads a file with a passphrase; none where there is no file.
func passphraseOf(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return text, nil
}
