package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// prefix is that of the directories of all runs.
const prefix = "fc"

// lock marks the directory as that of a run that lives, and says what of this host it uses.
func (s *Site) lock() error {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.locked = f // until this process ends
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	_, err = fmt.Fprintln(f, s.network.prefix, s.network.third)
	return err
}

// sweep removes what runs have left that were killed: their directories are locked by nobody.
func sweep(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*", "lock"))
	errs := []error{err}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			continue // it goes at this moment
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			errs = append(errs, remove(ctx, filepath.Dir(file), f))
		}
		_ = f.Close() // it was read
	}
	return errors.Join(errs...)
}

func remove(ctx context.Context, dir string, lock *os.File) error {
	n := &network{}
	if _, err := fmt.Fscan(lock, &n.prefix, &n.third); err != nil {
		return nil // it is being written at this moment
	}
	killBelow(dir)
	errs := []error{removeBridges(ctx, n.third)}
	if _, err := os.Stat("/run/netns/" + n.prefix); err == nil {
		errs = append(errs, ip(ctx, "netns", "del", n.prefix)) // and the cables with it
	}
	_ = ip(ctx, "route", "del", "unreachable", n.route(), "metric", "4096") // it may not have come so far
	return errors.Join(append(errs, unmountBelow(dir), os.RemoveAll(dir))...)
}

// killBelow kills the processes that were started with something in a directory: an engine that was killed leaves some behind.
func killBelow(dir string) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return // the pattern is right
	}
	for _, file := range lines {
		line, err := os.ReadFile(file)
		pid, notPID := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && notPID == nil && pid != os.Getpid() && bytes.Contains(line, []byte(dir+"/")) {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
	}
}

// removeBridges removes the bridges of engines that were not there any more to do it.
func removeBridges(ctx context.Context, third byte) error {
	pool := net.IPNet{IP: net.IPv4(198, 19, third, 0), Mask: net.CIDRMask(24, 32)}
	all, err := net.Interfaces()
	errs := []error{err}
	for _, i := range all {
		addresses, err := i.Addrs()
		errs = append(errs, err)
		for _, a := range addresses {
			if own, ok := a.(*net.IPNet); ok && pool.Contains(own.IP) {
				errs = append(errs, ip(ctx, "link", "del", i.Name))
				break
			}
		}
	}
	return errors.Join(errs...)
}
