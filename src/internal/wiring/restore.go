package wiring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/backup"
	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/control"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/seal"
)

const (
	// restoreMark is there from when the first thing of the host is replaced until the last one is: a restore that was cut short in
	// between is repeated, whatever it has left.
	restoreMark = apiState + "/restore-unfinished"

	// restoreStore lets in whatever a backup has: the NATS server itself, which is started later, is given its own limit.
	restoreStore = 1 << 50
	// maxHostFile bounds what is kept in memory of a file of the host.
	maxHostFile = 1 << 20
	// maxNamed bounds the activations that are named.
	maxNamed = 1000
)

// RestoreOptions are how this host is made of a backup.
type RestoreOptions struct {
	Host   Host
	File   string
	Keys   backup.Keys
	Resume bool // what had not ended at the cut goes on, instead of being lost
}

// Restored is what a restore has done.
type Restored struct {
	Manifest *backup.Manifest
	Lost     int            // activations that were settled as lost
	Live     []faena.Record // with Resume: those that go on, at most maxNamed of them
	Resumed  int            // how many go on
	Users    int
}

// restoring is a restore on its way.
type restoring struct {
	RestoreOptions
	manifest *backup.Manifest
	files    map[string][]byte
	at       places
	out      Restored
}

// Restore makes this host, which must have the packages and nothing else, what a backup is of. All of the backup is checked before
// anything is changed; then it is put together beside what is there, and takes its place at the end. It may be repeated whenever it
// was cut short. The daemons must not run, and are not started.
func Restore(ctx context.Context, o RestoreOptions) (*Restored, error) {
	r := &restoring{RestoreOptions: o, files: make(map[string][]byte)}
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	defer r.clear() // what is left of it is of no use
	if err := r.stage(ctx); err != nil {
		return nil, fmt.Errorf("%w. Nothing was changed", err)
	}
	if err := r.replace(); err != nil {
		return nil, fmt.Errorf("%w. The restore was cut short: repeat it before the daemons are started", err)
	}
	return &r.out, nil
}

// check reads the whole backup, and looks whether this host can take it.
func (r *restoring) check(ctx context.Context) error {
	m, err := r.read(ctx, func(_ backup.Head, name string, from io.Reader) error {
		path, ok := strings.CutPrefix(name, strings.TrimSuffix(backup.Files, "/"))
		if !ok {
			return ctx.Err()
		}
		data, err := io.ReadAll(io.LimitReader(from, maxHostFile+1))
		if err == nil && (len(data) > maxHostFile || !r.Host.known(path)) {
			err = fmt.Errorf("the backup has a file that is none of an appliance's: %s", path)
		}
		r.files[path] = data
		return err
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", r.File, err)
	}
	r.manifest, r.out.Manifest = m, m
	if _, ok := m.Member(backup.Documents); !ok {
		return fmt.Errorf("read %s: there are no documents in it", r.File)
	}
	if m.Head.Schema > faena.SchemaVersion {
		return fmt.Errorf("%s was made by faena %s, whose documents (schema %d) this version does not read (up to %d): install that version, or a newer one",
			r.File, m.Head.Version, m.Head.Schema, faena.SchemaVersion)
	}
	if units := r.Host.running(ctx); len(units) > 0 {
		return fmt.Errorf("%s still run: systemctl stop faena.target, and repeat this", strings.Join(units, ", "))
	}
	for _, dir := range []string{apiState, natsState} {
		if info, err := os.Stat(r.Host.path(dir)); err != nil || !info.IsDir() {
			return fmt.Errorf("there is no directory %s: install the packages first (apt install faena), of version %s or a newer one", dir, m.Head.Version)
		}
	}
	if err := r.find(ctx); err != nil {
		return err
	}
	return r.empty(ctx)
}

// read reads the backup from its beginning.
func (r *restoring) read(ctx context.Context, take func(backup.Head, string, io.Reader) error) (m *backup.Manifest, err error) {
	f, err := os.Open(r.File)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was read only
	plain, err := r.Keys.Open(f)
	if err != nil {
		return nil, err
	}
	return backup.Read(plain, func(h backup.Head, name string, from io.Reader) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return take(h, name, from)
	})
}

// empty reports what is in the way of a restore, as an error.
func (r *restoring) empty(ctx context.Context) error {
	if _, err := os.Stat(r.Host.path(restoreMark)); err == nil {
		return nil // what is there is of a restore that was cut short
	}
	var there string
	for _, at := range r.at.all() {
		var err error
		if there, err = r.documentsThere(ctx, at.documents()); err == nil && there == "" {
			there, err = r.messagesThere(ctx, at)
		}
		if err != nil {
			return err
		}
		if there != "" {
			break
		}
	}
	if there != "" {
		return fmt.Errorf("this host is not empty: %s. Restore on a host where the packages were just installed (apt purge 'faena*' removes all that is here)", there)
	}
	return nil
}

func (r *restoring) documentsThere(ctx context.Context, placed string) (what string, err error) {
	path := r.Host.path(placed)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	store, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	users, err := store.Users(ctx, "", 1)
	if err != nil {
		return "", err
	}
	if len(users) > 0 {
		return fmt.Sprintf("%s has users, the first of them is %s", placed, users[0].Name), nil
	}
	stats, err := store.HistoryStats(ctx)
	if err == nil && stats.Bytes > 0 {
		what = placed + " has activations"
	}
	return what, err
}

func (r *restoring) messagesThere(ctx context.Context, at places) (what string, err error) {
	if _, err := os.Stat(r.Host.path(at.streams())); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	err = r.withNATS(ctx, at.nats, func(_ *natsbus.Server, bus *natsbus.Bus) error {
		held, err := bus.Holds(ctx)
		for stream, n := range held {
			what = fmt.Sprintf("stream %s in %s has %d messages", stream, at.streams(), n)
		}
		return err
	})
	if err == nil {
		err = r.Host.give(at.streams(), natsUser)
	}
	return what, err
}

// withNATS starts a NATS server of this process on a directory; it listens nowhere.
func (r *restoring) withNATS(ctx context.Context, dir string, do func(*natsbus.Server, *natsbus.Bus) error) error {
	server, err := natsbus.StartServer(natsbus.ServerOptions{Dir: r.Host.path(dir), MaxStore: restoreStore, Shared: true})
	if err != nil {
		return err
	}
	defer server.Shutdown()
	o := natsbus.Options{Name: "faena-restore", Server: server}
	if key, ok := r.files["/etc/credstore/faena-api.seal_key"]; ok { // without it all ids are believed
		identity, err := seal.ParseIdentity(key)
		if err != nil {
			return fmt.Errorf("the APIs' sealing key in the backup: %w", err)
		}
		ids, err := seal.NewIDs(identity)
		if err != nil {
			return err
		}
		o.Made = ids.Made
	}
	bus, err := natsbus.Connect(ctx, o)
	if err != nil {
		return err
	}
	defer bus.Close()
	return do(server, bus)
}

// stage puts documents and streams together beside their places.
func (r *restoring) stage(ctx context.Context) error {
	r.clear()
	err := r.withNATS(ctx, r.at.stagedStreams(), func(server *natsbus.Server, bus *natsbus.Bus) error {
		var groups []string
		m, err := r.read(ctx, func(_ backup.Head, name string, from io.Reader) error {
			switch stream, isStream := strings.CutPrefix(name, backup.Streams); {
			case name == backup.Documents:
				return r.stageDocuments(from)
			case isStream:
				if group := natsbus.GroupOfRecords(stream); group != "" {
					groups = append(groups, group)
				}
				return r.stageStream(server, name, from)
			}
			return nil
		})
		if err == nil && !slices.EqualFunc(m.Members, r.manifest.Members, func(a, b backup.Member) bool { return a.SHA256 == b.SHA256 }) {
			err = errors.New("the file was changed meanwhile")
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", r.File, err)
		}
		return r.settle(ctx, bus, groups)
	})
	if err != nil {
		return err
	}
	return errors.Join(r.Host.give(r.at.stagedDocuments(), apiUser), r.Host.give(r.at.stagedStreams(), natsUser))
}

func (r *restoring) stageDocuments(from io.Reader) error {
	return writeWhole(r.Host.path(r.at.stagedDocuments()), 0o600, func(w io.Writer) error { _, err := io.Copy(w, from); return err })
}

func (r *restoring) stageStream(server *natsbus.Server, name string, from io.Reader) error {
	m, _ := r.manifest.Member(name)
	var c natsbus.StreamCopy
	if err := json.Unmarshal(m.Extra, &c); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return server.RestoreStream(c, from)
}

// settle decides on what had not ended.
func (r *restoring) settle(ctx context.Context, bus *natsbus.Bus, groups []string) (err error) {
	store, err := boltstore.Open(r.Host.path(r.at.stagedDocuments()), boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	c := control.New(control.Options{Instance: "restore", Bus: bus, Documents: store, Logger: slog.New(slog.DiscardHandler)})
	for _, group := range groups {
		if r.Resume {
			live, err := c.Live(ctx, group)
			if err != nil {
				return fmt.Errorf("list what goes on in group %s: %w", group, err)
			}
			r.out.Resumed += len(live)
			r.out.Live = append(r.out.Live, live[:min(len(live), maxNamed-len(r.out.Live))]...)
			continue
		}
		lost, err := c.LoseLive(ctx, group)
		if err != nil {
			return fmt.Errorf("settle what had not ended in group %s: %w", group, err)
		}
		r.out.Lost += len(lost)
	}
	for after, more := "", true; more; {
		const page = 1000
		users, err := store.Users(ctx, after, page)
		if err != nil {
			return err
		}
		if r.out.Users += len(users); len(users) > 0 {
			after = users[len(users)-1].Name
		}
		more = len(users) == page
	}
	return nil
}

// clear removes what a restore has put together.
func (r *restoring) clear() {
	for _, path := range []string{r.at.stagedDocuments(), r.at.stagedDocuments() + ".new", r.at.stagedStreams()} {
		_ = os.RemoveAll(r.Host.path(path)) // it costs room, and is removed by the next restore
	}
}

// replace puts everything in its place. From the mark on it must be finished, or repeated.
func (r *restoring) replace() error {
	h := r.Host
	if err := syncAll(h.path(r.at.nats), h.path(r.at.api), h.path(apiState)); err != nil {
		return err
	}
	if err := h.put(restoreMark, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(h.path(r.at.streams())); err != nil {
		return err
	}
	if err := os.Rename(h.path(r.at.stagedStreams()+"/jetstream"), h.path(r.at.streams())); err != nil {
		return err
	}
	for path, data := range r.files {
		m, _ := r.manifest.Member(strings.TrimSuffix(backup.Files, "/") + path)
		var f hostFile
		if err := json.Unmarshal(m.Extra, &f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := h.put(path, data, f.Mode.Perm()); err != nil {
			return err
		}
	}
	if err := os.Rename(h.path(r.at.stagedDocuments()), h.path(r.at.documents())); err != nil {
		return err
	}
	if err := syncAll(h.path(r.at.nats), h.path(r.at.api), h.path(apiState), h.path("/etc")); err != nil {
		return err
	}
	return errors.Join(os.Remove(h.path(restoreMark)), syncDir(h.path(apiState)))
}

// syncAll brings to the disk all that was written to the file systems of some directories.
func syncAll(dirs ...string) error {
	for _, dir := range dirs {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		err = unix.Syncfs(int(d.Fd()))
		if err = errors.Join(err, d.Close()); err != nil {
			return fmt.Errorf("write %s to the disk: %w", dir, err)
		}
	}
	return nil
}
