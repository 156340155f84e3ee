package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"faena.dev/faena/internal/client"
)

// profile is a login: where an appliance is, and who calls. It is kept in a file that its owner alone may read.
type profile struct {
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
	CACert   string `json:"cacert,omitempty"`   // path of a CA in PEM, for an appliance with a CA of its own
	Registry string `json:"registry,omitempty"` // host:port of the appliance's own image registry
}

// profilePath is where a profile is kept.
func (a *app) profilePath(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\\.\x00") {
		return "", usage{fmt.Errorf("--profile is %q: letters, digits and dashes are fine", name)}
	}
	dir := a.env("XDG_CONFIG_HOME")
	if dir == "" {
		home := a.env("HOME")
		if home == "" {
			return "", errors.New("neither XDG_CONFIG_HOME nor HOME is set: there is no place for logins")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "faena", name+".json"), nil
}

// saveProfile writes a profile whole or not at all, mode 0600.
func (a *app) saveProfile(name string, p profile) error {
	path, err := a.profilePath(name)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	return nil
}

// loadProfile reads the profile that the call names. One that others may read is refused.
func (a *app) loadProfile() (profile, error) {
	path, err := a.profilePath(a.profile)
	if err != nil {
		return profile{}, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return profile{}, noLogin{fmt.Errorf("there is no login %q: run `faena login URL`, or `faena up` for an appliance here", a.profile)}
	}
	if err != nil {
		return profile{}, fmt.Errorf("read the login: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return profile{}, noLogin{fmt.Errorf("others may read %s, which holds a password: chmod 600 it, and change the password", path)}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return profile{}, fmt.Errorf("read the login: %w", err)
	}
	var p profile
	if err := json.Unmarshal(text, &p); err != nil {
		return profile{}, fmt.Errorf("read the login %s: %w", path, err)
	}
	return p, nil
}

// client connects to the appliance of the call's profile.
func (a *app) client() (*client.Client, profile, error) {
	p, err := a.loadProfile()
	if err != nil {
		return nil, p, err
	}
	c, err := p.open()
	return c, p, err
}

// setCA remembers where a CA is, from wherever the next call comes.
func (p *profile) setCA(path string) (err error) {
	if path != "" {
		p.CACert, err = filepath.Abs(path)
	}
	return err
}

// checkRegistry refuses a registry on another host: it is spoken to in plain HTTP, and with the user's password.
func (p profile) checkRegistry() error {
	host, _, err := net.SplitHostPort(p.Registry)
	if err == nil && host != "localhost" {
		var ip netip.Addr
		if ip, err = netip.ParseAddr(host); err == nil && !ip.IsLoopback() {
			err = errors.New("another host's")
		}
	}
	if err != nil {
		return usage{fmt.Errorf("the appliance's image registry is %q, must be a loopback address such as 127.0.0.1:8082", p.Registry)}
	}
	return nil
}

func (p profile) open() (*client.Client, error) {
	var ca []byte
	if p.CACert != "" {
		var err error
		if ca, err = os.ReadFile(p.CACert); err != nil {
			return nil, fmt.Errorf("read the appliance's CA: %w", err)
		}
	}
	return client.New(client.Options{URL: p.URL, Username: p.Username, Password: p.Password, CA: ca})
}
