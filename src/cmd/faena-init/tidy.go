package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a directory in which a function can leave files, although the root is read-only.
type place struct {
	dir  string
	mode uint32              // as it was before anything ran, and must be again
	keep map[string]identity // what was there; nil where there was nothing
}

// identity is what must not change of a file that belongs to the container.
type identity struct {
	inode, device uint64
	mode          uint32
}

func identityOf(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return identity{}, err
	}
	return identity{st.Ino, st.Rdev, st.Mode}, nil
}

// findPlaces lists what is mounted in memory to be written to: /tmp, /dev/shm, the image's volumes, /dev/mqueue, and
// /dev, which belongs to root and is not empty.
func findPlaces() ([]place, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var places []place
	for line := range strings.Lines(string(mounts)) {
		before, after, ok := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(kind) < 1 || kind[0] != "tmpfs" && kind[0] != "mqueue" || !strings.HasPrefix(f[5], "rw") {
			continue
		}
		dir := unescape(f[4])
		if strings.HasPrefix(dir, "/proc/") || strings.HasPrefix(dir, "/sys/") { // laid over what is hidden
			continue
		}
		names, err := list(dir)
		if err != nil { // a file of the engine's, such as /etc/hosts, or one that the function cannot look into either
			continue
		}
		self, err := identityOf(dir)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", dir, err)
		}
		p := place{dir: dir, mode: self.mode}
		for _, name := range names {
			if p.keep == nil {
				p.keep = make(map[string]identity, len(names))
			}
			if p.keep[name], err = identityOf(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("look at %s: %w", dir, err)
			}
		}
		places = append(places, p)
	}
	return places, nil
}

// unescape reads a path as the kernel writes it: white space and backslashes are octal.
func unescape(path string) string {
	var b strings.Builder
	for len(path) > 0 {
		if path[0] == '\\' && len(path) > 3 {
			if n, err := strconv.ParseUint(path[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				path = path[4:]
				continue
			}
		}
		b.WriteByte(path[0])
		path = path[1:]
	}
	return b.String()
}

// tidy removes what a function has left for the next one. An error means that this cannot be done: the container is of
// no use any more.
func (i *initProcess) tidy() error {
	for _, p := range i.places {
		if err := p.empty(); err != nil {
			return err
		}
	}
	return i.ipc.remove()
}

// empty removes everything that was not there before, and gives the directory back its mode. Where there is nothing that
// costs four system calls.
func (p place) empty() error {
	self, err := identityOf(p.dir)
	if err == nil && self.mode != p.mode {
		err = unix.Chmod(p.dir, p.mode&0o7777)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be made what it was: %w", p.dir, err)
	}
	names, err := list(p.dir)
	if err != nil {
		return fmt.Errorf("look into %s: %w", p.dir, err)
	}
	kept := 0
	for _, name := range names {
		if was, keep := p.keep[name]; keep {
			if now, err := identityOf(filepath.Join(p.dir, name)); err != nil || now != was {
				return fmt.Errorf("%s/%s is not what it was", p.dir, name)
			}
			kept++
			continue
		}
		path := filepath.Join(p.dir, name)
		if os.RemoveAll(path) == nil {
			continue
		}
		openDirectories(path)
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("empty %s: %w", p.dir, err)
		}
	}
	if kept < len(p.keep) {
		return fmt.Errorf("something is missing in %s", p.dir)
	}
	return nil
}

func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

// openDirectories gives a tree's directories modes with which they can be emptied. Links are not followed.
func openDirectories(root string) {
	info, err := os.Lstat(root)
	if err != nil || !info.IsDir() {
		return
	}
	_ = os.Chmod(root, 0o700) // what cannot be changed cannot be emptied, which is told
	list, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, e := range list {
		if e.IsDir() {
			openDirectories(filepath.Join(root, e.Name()))
		}
	}
}

// ipcTables are the kernel's lists of System V IPC, kept open: a question is one read.
type ipcTables []ipcTable

type ipcTable struct {
	fd     int
	remove func(id int) error
}

func openIPC() ipcTables {
	var t ipcTables
	for name, call := range map[string]uintptr{"shm": unix.SYS_SHMCTL, "sem": unix.SYS_SEMCTL, "msg": unix.SYS_MSGCTL} {
		fd, err := unix.Open("/proc/sysvipc/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // a kernel without
		}
		semaphores := name == "sem"
		t = append(t, ipcTable{fd: fd, remove: func(id int) error {
			command, number := uintptr(unix.IPC_RMID), uintptr(0)
			if semaphores { // semctl has the number of a semaphore in between
				command, number = 0, unix.IPC_RMID
			}
			_, _, errno := unix.Syscall6(call, uintptr(id), command, number, 0, 0, 0)
			if errno != 0 && errno != unix.EINVAL && errno != unix.EIDRM {
				return errno
			}
			return nil
		}})
	}
	return t
}

// remove removes everything that is listed: nobody else is in the container.
func (t ipcTables) remove() error {
	var buf [8 << 10]byte
	for _, table := range t {
		for {
			n, err := unix.Pread(table.fd, buf[:], 0)
			if err != nil {
				return fmt.Errorf("list System V IPC: %w", err)
			}
			_, rest, _ := bytes.Cut(buf[:n], []byte("\n")) // the heading
			if len(rest) == 0 {
				break
			}
			removed := 0
			for line := range bytes.Lines(rest) {
				f := bytes.Fields(line)
				if len(f) < 2 || line[len(line)-1] != '\n' {
					continue
				}
				id, err := strconv.Atoi(string(f[1]))
				if err != nil {
					continue
				}
				if err := table.remove(id); err != nil {
					return fmt.Errorf("remove System V IPC: %w", err)
				}
				removed++
			}
			if removed == 0 {
				return errors.New("what is left of System V IPC cannot be read")
			}
		}
	}
	return nil
}
