package wiring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"faena.dev/faena/internal/backup"
)

// Host is a host with the packages of the appliance on one host, as backup and restore see it.
type Host struct {
	Root string // before every path; "" is the host itself
	// Owner gives a file to a user; default: chown by name.
	Owner func(path, user string) error
	// Running names the daemons that run; default: systemd is asked.
	Running func(context.Context) []string
	// Environment is what the unit of faena-api sets; default: systemd is asked.
	Environment func(context.Context) []string
}

// Where the packages keep what.
const (
	apiUser, natsUser = "faena-api", "faena-nats"
	apiState          = "/var/lib/faena-api"
	natsState         = "/var/lib/faena-nats"
)

// hostFiles are what a backup has of the host besides documents and streams: keys, certificates and settings.
var hostFiles = []string{"/etc/credstore/faena-*", "/etc/faena/tls/*", "/etc/faena/*.env", "/etc/faena/nats.conf", "/etc/faena/nats-authorization.conf",
	"/etc/faena/one-host-worker-keys.json", apiState + "/*.nk", apiState + "/seal.key", "/var/lib/faena-worker/*.nk", "/var/lib/faena-worker/seal.key"}

// hostFile is what the manifest has of a file besides its bytes.
type hostFile struct {
	Mode fs.FileMode `json:"mode"`
}

func (h Host) path(p string) string { return filepath.Join("/", h.Root, p) }

// files are those of hostFiles that are there, without Root.
func (h Host) files() (found []string, err error) {
	for _, pattern := range hostFiles {
		paths, err := filepath.Glob(h.path(pattern))
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			if info, err := os.Lstat(p); err == nil && info.Mode().IsRegular() && !strings.HasSuffix(p, ".new") {
				rel, err := filepath.Rel(h.path("/"), p)
				if err != nil {
					return nil, err
				}
				found = append(found, "/"+rel)
			}
		}
	}
	return found, nil
}

// known reports whether a path is one that a backup may put a file at.
func (h Host) known(path string) bool {
	return filepath.Clean(path) == path && slices.ContainsFunc(hostFiles, func(pattern string) bool {
		ok, err := filepath.Match(pattern, path)
		return err == nil && ok
	})
}

// add puts a file of the host into a backup. Some are in directories of daemons: root follows no link that one of them may have made.
func (h Host) add(w *backup.Writer, path string) error {
	return w.Add(strings.TrimSuffix(backup.Files, "/")+path, func(to io.Writer) (any, error) {
		f, err := os.OpenFile(h.path(path), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was read only
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is no regular file", path)
		}
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(to, f)
		return hostFile{info.Mode().Perm()}, err
	})
}

// put writes a whole file in the place of one that may be there.
func (h Host) put(path string, data []byte, mode fs.FileMode) (err error) {
	to := h.path(path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { // the packages have made those that are for root only
		return err
	}
	if err := writeWhole(to, mode, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		return err
	}
	return h.give(path, ownerOf(path))
}

// ownerOf is whose a file is: a daemon's own below its state, everything else is root's.
func ownerOf(path string) string {
	if rest, ok := strings.CutPrefix(path, "/var/lib/"); ok {
		return strings.SplitN(rest, "/", 2)[0]
	}
	return "root"
}

// give gives a file, or all below a directory, to a user.
func (h Host) give(path, name string) error {
	give := h.Owner
	if give == nil {
		give = chown
	}
	return filepath.WalkDir(h.path(path), func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return give(p, name)
	})
}

func chown(path, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("give %s to user %s: %w: install the packages first", path, name, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Lchown(path, uid, gid)
}

// running names the daemons that run, or are about to.
func (h Host) running(ctx context.Context) (units []string) {
	if h.Running != nil {
		return h.Running(ctx)
	}
	for _, unit := range []string{"faena-api.socket", "faena-api.service", "faena-nats.service", "faena-worker.service"} {
		state, err := exec.CommandContext(ctx, "systemctl", "show", "--property=ActiveState", "--value", unit).Output()
		if s := strings.TrimSpace(string(state)); err != nil || s != "inactive" && s != "failed" { // one that starts waits, with its files open
			units = append(units, unit)
		}
	}
	return units
}

// writeWhole writes a file as path.new, brings it to the disk, and puts it in the place of path. Where it fails nothing is left.
func writeWhole(path string, mode fs.FileMode, fill func(io.Writer) error) (err error) {
	part := path + ".new"
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part) // the first error is the one that counts
		}
	}()
	if err = fill(f); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
