package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// What the Debian root file system is made of. Any change gives its cached archive another name.
const (
	suite    = "bookworm"
	packages = "jq,imagemagick,python3"
)

// rootArchive returns the path of a tar of a small Debian system with unmodified packages. It is made by debootstrap
// once and kept in the user's cache, where it may be removed at any time.
func rootArchive(ctx context.Context, say func(string)) (path string, err error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "faena-demo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(dir, archiveName())
	if _, err := os.Stat(path); err == nil {
		say("kept from another run")
		return path, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("debootstrap must be run as root, once: its result is kept as %s", path)
	}
	work, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	root := filepath.Join(work, "root")
	defer func() {
		// debootstrap that is interrupted leaves these mounted.
		for _, mount := range []string{"proc", "sys"} {
			_ = syscall.Unmount(filepath.Join(root, mount), syscall.MNT_DETACH) // as a rule it is not mounted
		}
		if e := os.RemoveAll(work); err == nil {
			err = e
		}
	}()
	if err := command(ctx, say, "debootstrap", "--variant=minbase", "--include="+packages, suite, root); err != nil {
		return "", err
	}
	say("archiving it")
	archive := filepath.Join(work, "root.tar")
	if err := command(ctx, nil, "tar", append(tarFlags(), "-C", root, "-cf", archive, ".")...); err != nil {
		return "", err
	}
	return path, os.Rename(archive, path)
}

func archiveName() string {
	sum := sha256.Sum256([]byte(strings.Join(append(tarFlags(), suite, packages), " ")))
	return suite + "-" + hex.EncodeToString(sum[:6]) + ".tar"
}

// tarFlags leave out what a container gets from the engine, and what no function needs.
func tarFlags() []string {
	flags := []string{"--numeric-owner", "--one-file-system"}
	for _, path := range []string{"dev", "proc", "sys", "var/cache/apt", "var/lib/apt/lists", "var/log",
		"usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man"} {
		flags = append(flags, "--exclude=./"+path+"/*")
	}
	return flags
}

// command runs a program that needs nothing and whose output is progress.
func command(ctx context.Context, say func(string), name string, args ...string) error {
	w := &lineWriter{say: say}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = w, w
	// Its children end with it, so that nothing goes on writing to what is removed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(w.tail)))
	}
	return nil
}
