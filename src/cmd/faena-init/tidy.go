package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// places is where a function can leave files in a container whose root is read-only.
var places = []string{"/tmp", "/dev/shm", "/dev/mqueue"}

// tidy removes what a function has left for the next one. An error means that this cannot be done: init ends, and its
// container with it.
func (i *initProcess) tidy() error {
	for _, dir := range places {
		if err := empty(dir); err != nil {
			return err
		}
	}
	return i.ipc.remove()
}

// empty removes everything below a directory. Where it is empty already that costs three system calls.
func empty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return nil // the image has none, or one that the function cannot read either
		}
		return fmt.Errorf("look into %s: %w", dir, err)
	}
	names, err := f.Readdirnames(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("look into %s: %w", dir, err)
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if os.RemoveAll(path) == nil {
			continue
		}
		openDirectories(path)
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("empty %s: %w", dir, err)
		}
	}
	return nil
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
