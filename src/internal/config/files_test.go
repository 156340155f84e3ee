package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// configured reads a configuration file of a package as systemd does once every setting in it is taken in, and returns the settings
// in their order, and as an environment.
func configured(t *testing.T, name string) (names, environ []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "packaging", "etc", name))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "#"+prefix) {
			if line != "" && !strings.HasPrefix(line, "# ") && strings.Trim(line, "#") != "" {
				t.Errorf("%s has a line that is no comment: %s", name, line)
			}
			continue
		}
		setting := strings.TrimPrefix(line, "#")
		key, _, ok := strings.Cut(setting, "=")
		if !ok {
			t.Errorf("%s has no value to %s", name, setting)
		}
		names, environ = append(names, key), append(environ, setting)
	}
	return names, environ
}

// TestConfigurationFiles holds the files of the packages against what reads them: whoever takes every setting in changes nothing.
func TestConfigurationFiles(t *testing.T) {
	cert, key, ca := file(t, "cert.pem", "certificate", 0o644), file(t, "key.pem", "key", 0o600), file(t, "ca.pem", "ca", 0o644)
	// What must be given in any case. It stands behind the file's, which names it without a value.
	gateway := []string{"FAENA_TLS_CERT_FILE=" + cert, "FAENA_TLS_KEY_FILE=" + key, "FAENA_AUTH_GATEWAY_CA_FILE=" + ca, "FAENA_AUTH_GATEWAY_SAN=gateway.example.org"}
	for _, c := range []struct {
		file     string
		settings []Setting
		load     func(environ []string) (any, error)
		must     []string
	}{
		{"api.env", Settings(&API{}), func(environ []string) (any, error) { return LoadAPI(environ) }, gateway},
		{"worker.env", Settings(&Worker{}), func(environ []string) (any, error) { return LoadWorker(environ) }, nil},
	} {
		t.Run(c.file, func(t *testing.T) {
			names, environ := configured(t, c.file)
			want := make([]string, 0, len(c.settings))
			for _, s := range c.settings {
				want = append(want, s.Name)
			}
			if !slices.Equal(names, want) {
				t.Errorf("it has the settings %v, the daemon has %v", names, want)
			}
			without, err := c.load(c.must)
			if err != nil {
				t.Fatal(err)
			}
			with, err := c.load(append(environ, c.must...))
			if err != nil || !reflect.DeepEqual(with, without) {
				t.Errorf("with every default taken in it is %+v, %v\nwithout any %+v", with, err, without)
			}
		})
	}
}
