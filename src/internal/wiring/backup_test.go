package wiring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"

	"faena.dev/faena/internal/backup"
	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/wiring"
)

func TestBackup(t *testing.T) {
	t.Parallel()
	b := startBackedUp(t)
	dir := t.TempDir()
	locks, key := keyPair(t)
	file := filepath.Join(dir, "a.age")
	m, err := b.make(t, file, locks)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("file", func(t *testing.T) {
		info, err := os.Stat(file)
		if err != nil || info.Mode() != 0o600 || m.Head.Schema != faena.SchemaVersion {
			t.Errorf("the file is %v, %v; its head %+v", info, err, m.Head)
		}
		text, err := os.ReadFile(file)
		if err != nil || bytes.Contains(text, []byte(b.ended.ID)) || bytes.Contains(text, []byte("documents")) {
			t.Errorf("it is not encrypted, %v", err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("beside it is %v, %v", entries, err)
		}
	})
	t.Run("there already", func(t *testing.T) {
		again := filepath.Join(dir, "again.age")
		if err := os.WriteFile(again, []byte("of yesterday"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.make(t, again, locks); err == nil || !strings.Contains(err.Error(), "again.age is there already") {
			t.Errorf("it gives %v", err)
		}
		if text, err := os.ReadFile(again); err != nil || string(text) != "of yesterday" {
			t.Errorf("then there is %q, %v", text, err)
		}
		o := wiring.BackupOptions{Host: wiring.Host{Root: b.root}, Socket: b.socket, Locks: locks, File: again, Force: true}
		if _, err := wiring.Backup(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(again); err != nil || !bytes.HasPrefix(text, []byte("age-encryption.org")) {
			t.Errorf("with Force there is %.20q, %v", text, err)
		}
	})
	t.Run("lost", func(t *testing.T) {
		h := emptyHost(t)
		done, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key})
		if err != nil || done.Lost != 3 || done.Users != 2 || done.Resumed != 0 {
			t.Fatalf("it gives %+v, %v", done, err)
		}
		o := open(t, h)
		o.has(t, b, h)
		for _, r := range []*faena.Record{b.running, b.queued, b.waits} {
			found, _, err := o.bus.Record(t.Context(), faena.DefaultGroup, "ann", r.ID)
			if err != nil || found.State != faena.StateLost || found.Reason != faena.ReasonRestored || found.EndedAt == nil {
				t.Errorf("activation %s, which was %s, is %+v, %v", r.ID, r.State, found, err)
			}
		}
		active, err := o.bus.ActiveByUser(t.Context(), faena.DefaultGroup)
		waits, err2 := o.bus.BacklogByUser(t.Context(), faena.DefaultGroup)
		if len(active)+len(waits) > 0 || errors.Join(err, err2) != nil {
			t.Errorf("in slots are %v, in the backlog %v: %v, %v", active, waits, err, err2)
		}
		if _, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key}); err == nil {
			t.Error("a host in use was overwritten")
		}
	})
	t.Run("resume", func(t *testing.T) {
		h := emptyHost(t)
		done, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key, Resume: true})
		if err != nil || done.Lost != 0 || done.Resumed != 3 || len(done.Live) != 3 {
			t.Fatalf("it gives %+v, %v", done, err)
		}
		o := open(t, h)
		o.has(t, b, h)
		for _, r := range []*faena.Record{b.running, b.queued, b.waits} {
			if found, _, err := o.bus.Record(t.Context(), faena.DefaultGroup, "ann", r.ID); err != nil || found.State != r.State {
				t.Errorf("activation %s, which was %s, is %+v, %v", r.ID, r.State, found, err)
			}
		}
		if id, _, err := o.bus.SlotMessage(t.Context(), faena.DefaultGroup, "ann", 1); id != b.queued.ID || err != nil {
			t.Errorf("in the slot is %q, %v", id, err)
		}
		if w, err := o.bus.BacklogMessage(t.Context(), faena.DefaultGroup, "ann", b.waits.ID); err != nil || string(w.Message.Parameter.Inline) != "y" {
			t.Errorf("in the backlog is %+v, %v", w, err)
		}
		if data, err := o.bus.Object(t.Context(), faena.DefaultGroup, b.queued.ParameterObject); err != nil || !bytes.Equal(data, b.large) {
			t.Errorf("the large parameter has %d bytes, %v", len(data), err)
		}
	})
	t.Run("daemons", func(t *testing.T) { daemonsOnRestored(t, b, file, key) })
	t.Run("refused", func(t *testing.T) { refusals(t, b, file, key) })
	t.Run("other directories", func(t *testing.T) { otherDirectories(t, b) })
	t.Run("passphrase", func(t *testing.T) {
		locks, key := passphrase(t, "correct horse")
		file := filepath.Join(t.TempDir(), "b.age")
		if _, err := b.make(t, file, locks); err != nil {
			t.Fatal(err)
		}
		_, wrong := passphrase(t, "wrong horse")
		h := emptyHost(t)
		if _, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: wrong}); err == nil || !strings.Contains(err.Error(), "another passphrase") {
			t.Errorf("the wrong passphrase gives %v", err)
		}
		if _, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key}); err != nil {
			t.Error(err)
		}
	})
	t.Run("disk full", func(t *testing.T) {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = full.Close() })
		_, err = wiring.Backup(t.Context(), wiring.BackupOptions{Host: wiring.Host{Root: b.root}, Socket: b.socket, Locks: locks, File: "-", Out: full})
		if err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("it gives %v", err)
		}
		small := smallDisk(t, "300k") // less than the large objects
		faenatest.EventuallyNil(t, time.Minute, "the API has noticed that nobody reads the one before", func() error {
			_, err := b.make(t, filepath.Join(small, "x.age"), locks)
			if err != nil && strings.Contains(err.Error(), "no space left") {
				return nil
			}
			return fmt.Errorf("it gives %w", err)
		})
		if left, err := os.ReadDir(small); err != nil || len(left) > 0 {
			t.Errorf("left is %v, %v", left, err)
		}
		h := emptyHostIn(t, small)
		before := tree(t, h)
		_, err = wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key})
		if err == nil || !strings.Contains(err.Error(), "no space left on device. Nothing was changed") {
			t.Errorf("a restore gives %v", err)
		}
		if after := tree(t, h); !maps.Equal(after, before) {
			t.Errorf("it has changed the host from %v to %v", before, after)
		}
	})
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		dir := t.TempDir()
		if _, err := wiring.Backup(ctx, wiring.BackupOptions{Host: wiring.Host{Root: b.root}, Socket: b.socket, Locks: locks, File: filepath.Join(dir, "x.age")}); err == nil {
			t.Error("it is made")
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left is %v, %v", left, err)
		}
	})
	t.Run("under load", func(t *testing.T) { underLoad(t, b) })
}

// daemonsOnRestored starts the daemons on a restored host: a user finds there what she had.
func daemonsOnRestored(t *testing.T, b *backedUp, file string, key backup.Keys) {
	h := emptyHost(t)
	if _, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key}); err != nil {
		t.Fatal(err)
	}
	var o natsd.Options
	path := func(p string) string { return filepath.Join(h.Root, p) }
	config, err := os.ReadFile(path("/etc/faena/nats-authorization.conf"))
	if err == nil {
		err = o.ProcessConfigString(fmt.Sprintf("listen: 127.0.0.1:-1\njetstream { store_dir: %q, max_file_store: 1GiB }\n%s", path("/var/lib/faena-nats"), config))
	}
	if err != nil {
		t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	server, err := natsd.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(func() { server.Shutdown(); server.WaitForShutdown() })
	if !server.ReadyForConnections(time.Minute) {
		t.Fatal("the NATS server takes no connections")
	}
	environ, url, ops := apiSettings(t, shortDir(t), "FAENA_NATS_URLS="+server.ClientURL(), "FAENA_NATS_NKEY_FILE="+path("/etc/credstore/faena-api.nats_nkey"),
		"FAENA_SEAL_KEY_FILE="+path("/etc/credstore/faena-api.seal_key"))
	environ[0] = "FAENA_DATA_DIR=" + path("/var/lib/faena-api")
	startAPIWith(t, environ, ops).becomesReady(t)
	ann, err := client.New(client.Options{URL: "http://" + url, Username: "ann", Password: ofBackup})
	if err != nil {
		t.Fatal(err)
	}
	faenatest.EventuallyNil(t, time.Minute, "the large result is read", func() error {
		res, err := client.Stream(ann.GetResult(t.Context(), b.endedLarge.ID))
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		data, err := io.ReadAll(res.Body)
		if err == nil && !bytes.Equal(data, b.large) {
			t.Fatalf("it has %d other bytes", len(data))
		}
		return err
	})
	for _, r := range []*faena.Record{b.running, b.queued, b.waits} {
		a, err := client.Read[client.Activation](ann.GetActivation(t.Context(), r.ID))
		if err != nil || a.State != client.StateLost || a.Reason != string(faena.ReasonRestored) {
			t.Errorf("what was %s is %+v, %v", r.State, a, err)
		}
	}
	faenatest.EventuallyNil(t, time.Minute, "what was lost is counted", func() error {
		usage, err := client.Read[client.Usage](ann.GetUsage(t.Context(), "ann"))
		if err == nil && (usage.Completed != 2 || usage.Failed != 3) {
			err = fmt.Errorf("the usage is %+v", usage)
		}
		return err
	})
}

// refusals are files and hosts of which nothing is made; nothing is changed then.
func refusals(t *testing.T, b *backedUp, file string, key backup.Keys) {
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, other := keyPair(t)
	bad := func(text []byte) string {
		path := filepath.Join(t.TempDir(), "bad.age")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tampered := slices.Clone(whole)
	tampered[len(tampered)/2] ^= 1
	for name, c := range map[string]struct {
		file string
		key  backup.Keys
		host func(*wiring.Host)
		want string
	}{
		"truncated":   {file: bad(whole[:len(whole)-1000]), key: key, want: "bad.age"},
		"at a chunk":  {file: bad(whole[:len(whole)/(64<<10+16)*(64<<10)]), key: key, want: "bad.age"},
		"tampered":    {file: bad(tampered), key: key, want: "bad.age"},
		"another key": {file: file, key: other, want: "for another key"},
		"no backup":   {file: bad([]byte("hello")), key: key, want: "no whole backup"},
		"absent":      {file: file + ".not", key: key, want: "no such file"},
		"still runs": {file: file, key: key, host: func(h *wiring.Host) {
			h.Running = func(context.Context) []string { return []string{"faena-api.service"} }
		}, want: "systemctl stop"},
		"not packaged": {file: file, key: key, host: func(h *wiring.Host) { _ = os.Remove(filepath.Join(h.Root, "/var/lib/faena-nats")) }, want: "apt install"},
	} {
		t.Run(name, func(t *testing.T) {
			h := emptyHost(t)
			if c.host != nil {
				c.host(&h)
			}
			before := tree(t, h)
			_, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: c.file, Keys: c.key})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it gives %v, want %q", err, c.want)
			}
			if after := tree(t, h); !maps.Equal(after, before) {
				t.Errorf("it has changed the host from %v to %v", before, after)
			}
		})
	}
	t.Run("messages alone", func(t *testing.T) { // of an installation whose documents were removed
		h := emptyHost(t)
		if _, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(h.Root, "/var/lib/faena-api/documents.db")); err != nil {
			t.Fatal(err)
		}
		_, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key})
		if err == nil || !strings.Contains(err.Error(), "/var/lib/faena-nats/jetstream has") {
			t.Errorf("it gives %v", err)
		}
	})
	t.Run("a host that has started", func(t *testing.T) { // and has no user yet
		h := emptyHost(t)
		s, err := natsbus.StartServer(natsbus.ServerOptions{Dir: filepath.Join(h.Root, "/var/lib/faena-nats"), MaxStore: 1 << 30, Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		bus, err := natsbus.Connect(t.Context(), natsbus.Options{Name: "test", Server: s})
		if err == nil {
			err = bus.Declare(t.Context())
			bus.Close()
		}
		s.Shutdown()
		store, err2 := boltstore.Open(filepath.Join(h.Root, "/var/lib/faena-api/documents.db"), boltstore.Options{})
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		o := wiring.RestoreOptions{Host: h, File: file, Keys: key}
		if _, err := wiring.Restore(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another process uses it") {
			t.Errorf("while its documents are open it gives %v", err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := wiring.Restore(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		open(t, h).has(t, b, h)
	})
	t.Run("cut short", func(t *testing.T) {
		h := emptyHost(t)
		// It ends when the first of the files is to be given to its owner: after the streams are in place.
		h.Owner = func(path, _ string) error {
			if strings.Contains(path, "/etc/") {
				return errors.New("the host has gone")
			}
			return nil
		}
		o := wiring.RestoreOptions{Host: h, File: file, Keys: key}
		if _, err := wiring.Restore(t.Context(), o); err == nil || !strings.Contains(err.Error(), "repeat it") {
			t.Fatalf("it gives %v", err)
		}
		o.Host.Owner = func(string, string) error { return nil }
		if _, err := wiring.Restore(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		open(t, o.Host).has(t, b, o.Host)
	})
}

// underLoad makes backups while activations come and end: each that had been accepted before is in the backup.
func underLoad(t *testing.T, b *backedUp) {
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := map[string]bool{}
	for i := range 4 {
		wg.Go(func() {
			for ctx.Err() == nil { // a worker's life: it is there, it runs, it ends, it is recorded
				now := time.Now().UTC()
				r := b.record(t, 10+i, func(*faena.Record) {})
				rev, err := b.bus.CreateRecord(ctx, r)
				if err != nil {
					continue
				}
				mu.Lock()
				accepted[r.ID] = true
				mu.Unlock()
				r.State, r.Attempt, r.Worker, r.StartedAt = faena.StateRunning, 1, "w1", &now
				if rev, err = b.bus.UpdateRecord(ctx, r, rev); err == nil {
					r.State, r.EndedAt = faena.StateSucceeded, &now
					_, _ = b.bus.UpdateRecord(ctx, r, rev) // the next one comes anyway
				}
			}
		})
	}
	defer wg.Wait()
	defer stop()
	locks, key := keyPair(t)
	faenatest.Eventually(t, time.Minute, "there is load", func() bool { mu.Lock(); defer mu.Unlock(); return len(accepted) > 20 })
	mu.Lock()
	before := maps.Clone(accepted)
	mu.Unlock()
	file := filepath.Join(t.TempDir(), "c.age")
	if _, err := b.make(t, file, locks); err != nil {
		t.Fatal(err)
	}
	stop()
	h := emptyHost(t)
	if _, err := wiring.Restore(t.Context(), wiring.RestoreOptions{Host: h, File: file, Keys: key}); err != nil {
		t.Fatal(err)
	}
	o := open(t, h)
	for id := range before {
		_, err := o.documents.Activation(t.Context(), "ann", id)
		if faena.IsKind(err, faena.KindNotFound) {
			_, _, err = o.bus.Record(t.Context(), faena.DefaultGroup, "ann", id)
		}
		if err != nil {
			t.Errorf("activation %s is nowhere: %v", id, err)
		}
	}
}
