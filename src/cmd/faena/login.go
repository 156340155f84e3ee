package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"faena.dev/faena/internal/client"
)

func (a *app) loginCommand() *cobra.Command {
	var p profile
	var fromStdin bool
	cmd := &cobra.Command{
		Use: "login URL", Short: "Remember an appliance and who calls it", Args: exactly(1),
		Long: "Remember an appliance and who calls it, after trying it. The password is asked for, or read from standard input; it is never an argument.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			p.URL = args[0]
			if p.Username == "" {
				return usage{errors.New("login needs --user")}
			}
			if err := p.setCA(p.CACert); err != nil {
				return err
			}
			if p.Registry != "" {
				if err := p.checkRegistry(); err != nil {
					return err
				}
			}
			if p.Password, err = a.password(cmd.Context(), "Password of "+p.Username, fromStdin); err != nil {
				return err
			}
			c, err := p.open()
			if err != nil {
				return usage{err} // the address or the CA
			}
			if _, err := client.Read[client.FunctionPage](c.ListFunctions(cmd.Context(), &client.ListFunctionsParams{})); err != nil {
				return err
			}
			if err := a.saveProfile(a.profile, p); err != nil {
				return err
			}
			a.say("Logged in to %s as %s.", p.URL, p.Username)
			return nil
		},
	}
	cmd.Flags().StringVarP(&p.Username, "user", "u", "", "who calls")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	cmd.Flags().StringVar(&p.CACert, "cacert", "", "CA of the appliance's certificate, in PEM")
	cmd.Flags().StringVar(&p.Registry, "registry", "", "host:port of the appliance's own image registry, for deploy --from-engine")
	return cmd
}

// confirm asks a person for a yes before something that cannot be undone.
func (a *app) confirm(ctx context.Context, question string) error {
	if !a.inTTY {
		return usage{errors.New("no terminal to ask at: give --yes")}
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	text, err := untilSignal(ctx, func() (string, error) {
		line, _ := bufio.NewReader(a.in).ReadString('\n') // what is no yes is a no
		return strings.ToLower(strings.TrimSpace(line)), nil
	})
	if err != nil {
		a.say("")
		return err
	}
	if text != "y" && text != "yes" {
		a.say("Nothing is changed.")
		return silent{exitFailed}
	}
	return nil
}

// untilSignal reads what a person types, or gives up at Ctrl-C; what reads then ends with the process.
func untilSignal(ctx context.Context, read func() (string, error)) (string, error) {
	type typed struct {
		text string
		err  error
	}
	done := make(chan typed, 1)
	go func() {
		text, err := read()
		done <- typed{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case t := <-done:
		return t.text, t.err
	}
}

// password asks for a password without showing it, or reads one line of standard input.
func (a *app) password(ctx context.Context, prompt string, fromStdin bool) (string, error) {
	if f, ok := a.in.(*os.File); ok && a.inTTY && !fromStdin {
		fd := int(f.Fd())
		shows, err := term.GetState(fd)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		fmt.Fprintf(a.err, "%s: ", prompt)
		text, err := untilSignal(ctx, func() (string, error) {
			p, err := term.ReadPassword(fd)
			return string(p), err
		})
		a.say("")
		if err != nil {
			return "", fmt.Errorf("read the password: %w", errors.Join(err, term.Restore(fd, shows)))
		}
		return text, nil
	}
	if !fromStdin {
		return "", usage{errors.New("no terminal to ask for the password: give it on standard input, with --password-stdin or --registry-password-stdin")}
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 64<<10)).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.Join(errors.New("standard input has no password"), err)
	}
	return line, nil
}
