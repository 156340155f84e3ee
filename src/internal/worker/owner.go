package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// owner is the file that a worker holds locked while it lives. Its path is a label of every container, so that any
// worker on the host can tell whether a container's owner is still there. The kernel lets go of the lock when the
// process ends, however it ends.
type owner struct {
	file *os.File
	path string
}

// lockState takes the lock of a state directory.
func lockState(dir string) (*owner, error) {
	path, err := filepath.Abs(filepath.Join(dir, "worker.lock"))
	if err != nil {
		return nil, fmt.Errorf("name the worker's lock: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the worker's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another worker uses %s", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &owner{file: f, path: path}, nil
}

func (o *owner) unlock() { o.file.Close() }

// alive reports whether somebody holds the lock at path. When that cannot be told it says yes.
func alive(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		return true
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}
