package wiring_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faena.dev/faena/internal/wiring"
)

// otherDirectories is of an appliance whose daemons keep their data elsewhere: what is restored is there where they will look for it.
func otherDirectories(t *testing.T, b *backedUp) {
	locks, key := keyPair(t)
	write := func(root, path, text string) {
		t.Helper()
		to := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	const env, conf = "/etc/faena/api.env", "/etc/faena/nats.conf"
	t.Cleanup(func() {
		write(b.root, env, "#FAENA_X=1\n")
		if err := os.Remove(filepath.Join(b.root, conf)); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	for name, c := range map[string]struct {
		env, conf string // in the backup
		own       string // of the unit of the host that is restored
		api, nats string
	}{
		"lines":     {"#FAENA_DATA_DIR=\nFAENA_DATA_DIR=/no\nFAENA_DATA_DIR=\"/srv/a\"\n", "jetstream {\n  # store_dir: /no\n  store_dir: /srv/n # here\n}\n", "", "/srv/a", "/srv/n"},
		"one line":  {"#FAENA_DATA_DIR=/no\n", `jetstream { max_file_store: 8G, store_dir = "/srv/n" }` + "\n", "", "/var/lib/faena-api", "/srv/n"},
		"unit":      {"#\n", "", "FAENA_DATA_DIR=/srv/a", "/srv/a", "/var/lib/faena-nats"},
		"both":      {"FAENA_DATA_DIR=/srv/b\n", "", "FAENA_DATA_DIR=/srv/a", "/srv/b", "/var/lib/faena-nats"},
		"unchanged": {"#FAENA_DATA_DIR=\n", "jetstream {\n  store_dir: /var/lib/faena-nats\n}\n", "FAENA_AUTH=local", "/var/lib/faena-api", "/var/lib/faena-nats"},
	} {
		t.Run(name, func(t *testing.T) {
			write(b.root, env, c.env)
			write(b.root, conf, c.conf)
			file := filepath.Join(t.TempDir(), "a.age")
			if _, err := b.make(t, file, locks); err != nil {
				t.Fatal(err)
			}
			h := emptyHost(t)
			h.Environment = func(context.Context) []string { return []string{"FAENA_NATS_REPLICAS=1", c.own} }
			write(h.Root, env, "FAENA_DATA_DIR=/of/this/host\n") // the backup's takes its place
			o := wiring.RestoreOptions{Host: h, File: file, Keys: key}
			for _, dir := range []string{c.api, c.nats} {
				if strings.HasPrefix(dir, "/var/lib/") {
					continue
				}
				before := tree(t, h)
				_, err := wiring.Restore(t.Context(), o)
				if err == nil || !strings.Contains(err.Error(), "no directory "+dir+",") || !strings.Contains(err.Error(), "ReadWritePaths="+dir) {
					t.Errorf("without %s it gives %v", dir, err)
				}
				if after := tree(t, h); !maps.Equal(after, before) {
					t.Errorf("it has changed the host from %v to %v", before, after)
				}
				if err := os.MkdirAll(filepath.Join(h.Root, dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := wiring.Restore(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			openAt(t, h, c.api, c.nats).has(t, b, h)
		})
	}
	t.Run("in use", func(t *testing.T) { // where the packages keep it, and the backup is of a host that kept it elsewhere
		h := emptyHost(t)
		plain, elsewhere := filepath.Join(t.TempDir(), "a.age"), filepath.Join(t.TempDir(), "b.age")
		write(b.root, env, "#\n")
		write(b.root, conf, "#\n")
		if _, err := b.make(t, plain, locks); err != nil {
			t.Fatal(err)
		}
		write(b.root, env, "FAENA_DATA_DIR=/srv/a\n")
		write(b.root, conf, "jetstream { store_dir: /srv/n }\n")
		if _, err := b.make(t, elsewhere, locks); err != nil {
			t.Fatal(err)
		}
		if _, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: plain, Keys: key}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(h.Root, "/srv/a"), 0o700), os.MkdirAll(filepath.Join(h.Root, "/srv/n"), 0o700)); err != nil {
			t.Fatal(err)
		}
		_, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: elsewhere, Keys: key})
		if err == nil || !strings.Contains(err.Error(), "not empty: /var/lib/faena-api/documents.db has users") {
			t.Errorf("it gives %v", err)
		}
	})
	t.Run("no absolute path", func(t *testing.T) {
		write(b.root, env, "#\n")
		write(b.root, conf, "jetstream { store_dir: $ELSEWHERE }\n")
		file := filepath.Join(t.TempDir(), "a.age")
		if _, err := b.make(t, file, locks); err != nil {
			t.Fatal(err)
		}
		_, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: emptyHost(t), File: file, Keys: key})
		if err == nil || !strings.Contains(err.Error(), `store_dir in /etc/faena/nats.conf of the backup is "$ELSEWHERE"`) {
			t.Errorf("it gives %v", err)
		}
	})
}
