package wiring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/backup"
	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/control"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/wiring"
)

// backedUp is an appliance with something of everything, and what that is.
type backedUp struct {
	root, socket string
	bus, worker  *natsbus.Bus
	ids          *seal.IDs
	api          *waiting
	admin        *client.Client
	large        []byte

	ended, endedLarge, running, queued, waits, letter *faena.Record
}

const ofBackup = "a-password-of-ann"

func (b *backedUp) record(t *testing.T, slot int, change func(*faena.Record)) *faena.Record {
	t.Helper()
	id, err := b.ids.New("ann", faena.DefaultGroup)
	if err != nil {
		t.Fatal(err)
	}
	r := &faena.Record{Schema: faena.SchemaVersion, ID: id, User: "ann", Group: faena.DefaultGroup, Function: "f", Revision: 1, Slot: slot, Publication: 1,
		StartWithinMS: time.Hour.Milliseconds(), State: faena.StateQueued, AdmittedAt: time.Now().UTC()}
	change(r)
	return r
}

// put stores a record as an API does, and its message where it says.
func (b *backedUp) put(t *testing.T, r *faena.Record, p faena.Blob) {
	t.Helper()
	ctx := t.Context()
	rev, err := b.bus.CreateRecord(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if r.State.Terminal() {
		return
	}
	m := &faena.Message{Schema: faena.SchemaVersion, ID: r.ID, Parameter: p, Revision: &faena.Revision{Schema: faena.SchemaVersion, User: "ann", Function: "f", Number: 1,
		Spec: faena.Spec{Image: "i"}.WithDefaults()}}
	if r.Backlogged {
		err = b.bus.PublishBacklog(ctx, r.User, r.Group, r.Publication, m)
	} else {
		m.Record, m.RecordRevision = r, rev
		_, _, err = b.bus.Publish(ctx, r.User, r.Group, r.Slot, r.Publication, m)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func startBackedUp(t *testing.T) *backedUp {
	t.Helper()
	dir := shortDir(t)
	b := &backedUp{root: filepath.Join(dir, "root"), socket: filepath.Join(dir, "api", "run", "admin.sock"), large: bytes.Repeat([]byte("large "), 100_000)}
	own := keys(t, filepath.Join(dir, "keys"))
	block := authorization(t, own.Nkey, "default="+keys(t, filepath.Join(dir, "worker")).Nkey)
	nats := natstest.Start(t, natstest.Options{Authorization: block})
	environ, url, ops := apiSettings(t, filepath.Join(dir, "api"), "FAENA_NATS_URLS="+nats.URLs()[0], "FAENA_NATS_NKEY_FILE="+filepath.Join(dir, "keys", "nats.nk"),
		"FAENA_SEAL_KEY_FILE="+filepath.Join(dir, "keys", "seal.key"))
	b.api = startAPIWith(t, environ, ops)
	b.api.becomesReady(t)
	admin := "a-password-of-" + wiring.FirstAdmin
	if r := command(t, wiring.APIMain, []string{"FAENA_ADMIN_SOCKET=" + b.socket}, admin, "admin", "create", wiring.FirstAdmin, "--password-stdin"); r.code != 0 {
		t.Fatalf("no admin can be made: %s", r.errs)
	}
	var err error
	if b.admin, err = client.New(client.Options{URL: "http://" + url, Username: wiring.FirstAdmin, Password: admin}); err != nil {
		t.Fatal(err)
	}
	limit := 50
	if _, err := client.Read[client.User](b.admin.PutUser(t.Context(), "ann", client.UserProfile{Role: client.RoleUser, Password: ofBackup, Groups: map[string]int{"default": limit}})); err != nil {
		t.Fatal(err)
	}
	text := func(path string) []byte {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for path, data := range map[string][]byte{"/etc/credstore/faena-api.seal_key": text(filepath.Join(dir, "keys", "seal.key")),
		"/etc/credstore/faena-api.nats_nkey": text(filepath.Join(dir, "keys", "nats.nk")), "/etc/faena/api.env": []byte("#FAENA_X=1\n"), "/etc/faena/tls/ca.pem": []byte("a CA"), "/etc/faena/nats-authorization.conf": block,
		"/etc/credstore/another": []byte("of another program")} {
		to := filepath.Join(b.root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	// A daemon whose directory it is may have made a link there to what only root may read.
	state := filepath.Join(b.root, "/var/lib/faena-api")
	if err := errors.Join(os.MkdirAll(state, 0o755), os.Symlink(filepath.Join(b.root, "/etc/credstore/another"), filepath.Join(state, "link.nk"))); err != nil {
		t.Fatal(err)
	}
	identity, err := seal.ParseIdentity(text(filepath.Join(dir, "keys", "seal.key")))
	if err != nil {
		t.Fatal(err)
	}
	if b.ids, err = seal.NewIDs(identity); err != nil {
		t.Fatal(err)
	}
	join := func(keys, group string) *natsbus.Bus {
		t.Helper()
		bus, err := natsbus.Connect(t.Context(), natsbus.Options{Name: "test", URLs: nats.URLs(), Group: group, NkeySeed: bytes.TrimSpace(text(filepath.Join(dir, keys, "nats.nk")))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(bus.Close)
		return bus
	}
	b.bus, b.worker = join("keys", ""), join("worker", faena.DefaultGroup)
	b.fill(t)
	return b
}

// fill makes something of everything.
func (b *backedUp) fill(t *testing.T) {
	t.Helper()
	ctx, now := t.Context(), time.Now().UTC()
	object := func(name string) {
		t.Helper()
		faenatest.EventuallyNil(t, time.Minute, "an object is stored", func() error { return b.bus.PutObject(ctx, faena.DefaultGroup, name, b.large) })
	}
	ends := func(r *faena.Record) {
		r.State, r.EndedAt, r.StartedAt, r.Attempt, r.Worker = faena.StateSucceeded, &now, &now, 1, "w1"
		r.Result = faena.Blob{Size: 6, Inline: []byte("result")}
	}
	b.ended = b.record(t, 0, ends)
	b.endedLarge = b.record(t, 0, ends)
	b.endedLarge.Result = faena.Blob{Size: int64(len(b.large)), Object: "out." + b.endedLarge.ID + ".1"}
	object(b.endedLarge.Result.Object)
	b.put(t, b.ended, faena.Blob{})
	b.put(t, b.endedLarge, faena.Blob{})
	b.running = b.record(t, 0, func(r *faena.Record) {
		r.State, r.Worker, r.Attempt, r.StartedAt, r.Sequence = faena.StateRunning, "w1", 1, &now, 2
	})
	b.put(t, b.running, faena.Blob{Size: 1, Inline: []byte("x")})
	b.queued = b.record(t, 1, func(r *faena.Record) { r.ParameterObject = "in." + r.ID })
	object(b.queued.ParameterObject)
	b.put(t, b.queued, faena.Blob{Size: int64(len(b.large)), Object: b.queued.ParameterObject})
	due := now.Add(time.Hour) // or the leader would release it
	b.waits = b.record(t, 0, func(r *faena.Record) { r.Backlogged, r.NotBefore = true, &due })
	b.put(t, b.waits, faena.Blob{Size: 1, Inline: []byte("y")})
	b.letter = b.record(t, 0, func(*faena.Record) {})
	err := b.worker.PutDeadLetter(ctx, &faena.DeadLetter{Schema: faena.SchemaVersion, ID: b.letter.ID, User: "ann", Group: faena.DefaultGroup, Function: "f", Revision: 1,
		Reason: faena.ReasonWorkerLost, Message: "It was lost.", Attempts: 1, Worker: "w1", Parameter: faena.Blob{Size: 1, Inline: []byte("z")}, At: now})
	if err != nil {
		t.Fatal(err)
	}
	if _, mine, _, _, err := b.bus.ClaimKey(ctx, "ann", "hash", &faena.IdempotencyClaim{Schema: faena.SchemaVersion, ID: b.queued.ID, Group: faena.DefaultGroup,
		Function: "f", ClaimedAt: now}); err != nil || !mine {
		t.Fatalf("a key is claimed: %v, %v", mine, err)
	}
	faenatest.EventuallyNil(t, time.Minute, "what ended is in history", func() error {
		for _, r := range []*faena.Record{b.ended, b.endedLarge} {
			if _, _, err := b.bus.Record(ctx, faena.DefaultGroup, "ann", r.ID); !faena.IsKind(err, faena.KindNotFound) {
				return fmt.Errorf("activation %s: %v", r.ID, err)
			}
		}
		return nil
	})
}

func (b *backedUp) make(t *testing.T, file string, locks backup.Locks) (*backup.Manifest, error) {
	t.Helper()
	return wiring.Backup(t.Context(), wiring.BackupOptions{Host: wiring.Host{Root: b.root}, Socket: b.socket, Locks: locks, File: file})
}

func passphrase(t *testing.T, text string) (backup.Locks, backup.Keys) {
	t.Helper()
	locks, err := backup.NewLocks(nil, []byte(text+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := backup.NewKeys(nil, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return locks, k
}

func keyPair(t *testing.T) (backup.Locks, backup.Keys) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	locks, err := backup.NewLocks([]string{id.Recipient().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := backup.NewKeys([]byte(id.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	return locks, k
}

// emptyHost is a host on which the packages were just installed.
func emptyHost(t *testing.T) wiring.Host {
	t.Helper()
	return emptyHostIn(t, t.TempDir())
}

// smallDisk is a directory with so much room.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func emptyHostIn(t *testing.T, root string) wiring.Host {
	t.Helper()
	h := wiring.Host{Root: root, Owner: func(string, string) error { return nil }, Running: func(context.Context) []string { return nil },
		Environment: func(context.Context) []string { return nil }}
	for _, dir := range []string{"/var/lib/faena-api", "/var/lib/faena-nats", "/etc/credstore"} {
		if err := os.MkdirAll(filepath.Join(h.Root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// tree is all files of a host, with their modes and sizes.
func tree(t *testing.T, h wiring.Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(h.Root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all[strings.TrimPrefix(p, h.Root)] = fmt.Sprint(info.Mode(), info.Size() > 0)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// host is a restored host, opened.
type host struct {
	documents *boltstore.Store
	bus       *natsbus.Bus
	control   *control.Control
}

func open(t *testing.T, h wiring.Host) *host {
	t.Helper()
	return openAt(t, h, "/var/lib/faena-api", "/var/lib/faena-nats")
}

func openAt(t *testing.T, h wiring.Host, api, nats string) *host {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(h.Root, api, "documents.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s, err := natsbus.StartServer(natsbus.ServerOptions{Dir: filepath.Join(h.Root, nats), MaxStore: 1 << 30, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	bus, err := natsbus.Connect(t.Context(), natsbus.Options{Name: "test", Server: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	if err := bus.Declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &host{store, bus, control.New(control.Options{Instance: "test", Bus: bus, Documents: store, Logger: slog.New(slog.DiscardHandler)})}
}

// has compares a restored host with what was backed up: all but what had not ended.
func (o *host) has(t *testing.T, b *backedUp, h wiring.Host) {
	t.Helper()
	ctx := t.Context()
	if u, err := o.documents.User(ctx, "ann"); err != nil || u.PasswordHash == "" || u.Groups["default"] != 50 {
		t.Errorf("ann is %+v, %v", u, err)
	}
	if r, err := o.documents.Activation(ctx, "ann", b.ended.ID); err != nil || string(r.Result.Inline) != "result" || r.State != faena.StateSucceeded {
		t.Errorf("what had ended is %+v, %v", r, err)
	}
	r, err := o.documents.Activation(ctx, "ann", b.endedLarge.ID)
	if err != nil {
		t.Fatal(err)
	}
	faenatest.EventuallyNil(t, time.Minute, "the large result is read", func() error {
		data, err := o.bus.Object(ctx, faena.DefaultGroup, r.Result.Object)
		if err == nil && !bytes.Equal(data, b.large) {
			t.Fatalf("the large result has %d other bytes", len(data))
		}
		return err
	})
	if d, _, err := o.bus.DeadLetter(ctx, faena.DefaultGroup, "ann", b.letter.ID); err != nil || string(d.Parameter.Inline) != "z" {
		t.Errorf("the dead letter is %+v, %v", d, err)
	}
	if there, mine, _, _, err := o.bus.ClaimKey(ctx, "ann", "hash", &faena.IdempotencyClaim{ID: "x"}); mine || there.ID != b.queued.ID || err != nil {
		t.Errorf("the key stands for %+v, %v", there, err)
	}
	if text, err := os.ReadFile(filepath.Join(h.Root, "/etc/faena/tls/ca.pem")); string(text) != "a CA" || err != nil {
		t.Errorf("the CA is %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(h.Root, "/etc/credstore/faena-api.seal_key")); err != nil || info.Mode() != 0o640 {
		t.Errorf("the key's file is %v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(h.Root, "/var/lib/faena-api/link.nk")); err == nil {
		t.Error("what a link led to was in the backup")
	}
	if _, err := os.Stat(filepath.Join(h.Root, "/etc/credstore/another")); err == nil {
		t.Error("another program's secret was backed up")
	}
	for path := range tree(t, h) {
		if strings.Contains(path, "restore") || strings.HasSuffix(path, ".new") {
			t.Errorf("%s is left", path)
		}
	}
}
