package site

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Disk is a small file system in memory, which can be filled up.
type Disk struct{ Dir string }

func newDisk(dir string, bytes int64) (*Disk, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0711", bytes)); err != nil {
		return nil, fmt.Errorf("mount a small disk on %s: %w", dir, err)
	}
	return &Disk{dir}, nil
}

func (d *Disk) ballast() string { return filepath.Join(d.Dir, "ballast") }

// Fill leaves so many bytes free.
func (d *Disk) Fill(free int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(d.Dir, &s); err != nil {
		return fmt.Errorf("fill %s: %w", d.Dir, err)
	}
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("fill %s: %w", d.Dir, err)
	}
	defer func() { _ = f.Close() }() // its size is all that matters
	const chunk, last = 64 << 10, 16 << 20
	size := int64(s.Bavail)*s.Bsize - free
	at := max(0, size-last)
	if at > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, at); err != nil {
			return fmt.Errorf("fill %s: %w", d.Dir, err)
		}
	}
	for ; at < size; at += chunk { // piece by piece: others write too
		if _, err := f.WriteAt(make([]byte, min(chunk, size-at)), at); errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil {
			return fmt.Errorf("fill %s: %w", d.Dir, err)
		}
	}
	return nil
}

// Empty gives back what Fill has taken.
func (d *Disk) Empty() error { return os.Remove(d.ballast()) }

// Wipe removes all that is on it.
func (d *Disk) Wipe() error {
	entries, err := os.ReadDir(d.Dir)
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(d.Dir, e.Name())))
	}
	return errors.Join(errs...)
}

func (d *Disk) close() error {
	if err := unix.Unmount(d.Dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.Dir, err)
	}
	return nil
}
