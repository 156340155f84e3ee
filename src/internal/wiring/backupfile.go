package wiring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"faena.dev/faena/internal/backup"
)

// BackupOptions are how a backup of this host is made.
type BackupOptions struct {
	Host   Host
	Socket string // the admin socket of faena-api
	Locks  backup.Locks
	File   string    // "-" is Out
	Force  bool      // a file that is there is replaced
	Out    io.Writer // where File is "-"
}

// Backup makes an encrypted backup of the appliance on this host: what its API gives, and the host's keys and settings. The file is
// there as a whole, for its owner only, or not at all; one that is there already is replaced with Force alone.
func Backup(ctx context.Context, o BackupOptions) (*backup.Manifest, error) {
	var m *backup.Manifest
	fill := func(w io.Writer) (err error) { m, err = o.write(ctx, w); return err }
	if o.File == "-" {
		err := fill(o.Out)
		return m, err
	}
	if _, err := os.Lstat(o.File); err == nil && !o.Force {
		return nil, fmt.Errorf("%s is there already: give another name, or --force, which replaces it", o.File)
	}
	if err := writeWhole(o.File, 0o600, fill); err != nil {
		return nil, err
	}
	return m, nil
}

func (o *BackupOptions) write(ctx context.Context, to io.Writer) (*backup.Manifest, error) {
	files, err := o.Host.files()
	if err != nil {
		return nil, err
	}
	res, err := o.ask(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	locked, err := o.Locks.Encrypt(to)
	if err != nil {
		return nil, err
	}
	var w *backup.Writer
	given, err := backup.Read(res.Body, func(h backup.Head, name string, r io.Reader) error {
		if w == nil {
			if w, err = backup.NewWriter(locked, h); err != nil {
				return err
			}
		}
		return w.Add(name, func(to io.Writer) (any, error) { _, err := io.Copy(to, r); return nil, err })
	})
	if why, wrong := strconv.Unquote(res.Trailer.Get(backupFailed)); wrong == nil && why != "" {
		err = errors.New("faena-api has failed: " + why)
	}
	if err == nil && w == nil {
		err = errors.New("faena-api gave nothing")
	}
	if err != nil {
		return nil, err
	}
	w.Describe(given)
	for _, path := range files {
		if err := o.Host.add(w, path); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return w.Manifest(), locked.Close()
}

// ask asks the API for what it has.
func (o *BackupOptions) ask(ctx context.Context) (*http.Response, error) {
	res, err := reachAdmin(ctx, o.Socket, http.MethodPost, backupPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	if err := refusedIn(res); err != nil {
		_ = res.Body.Close() // the first error is the one that counts
		return nil, fmt.Errorf("faena-api: %w", err)
	}
	return res, nil
}
