package dockerengine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Cgroup reads what the kernel counted about one container, from files that are kept open: each question is one
// pread. It is safe for concurrent use, Close excepted. After the container has ended every question is an error.
type Cgroup struct {
	oom, peak, pids *os.File
	resettable      bool // whether peak can be set back
}

// Stats opens the counters of a container, by the pid that one of its processes has here. It works where this process
// sees the cgroup file systems of the engine's host, inside another container included. The engine is not asked.
func (e *Engine) Stats(id string, pid int) (*Cgroup, error) { return openCgroup(e.proc, pid, id) }

// openCgroup finds the files of process pid. The path must name the container: a pid may have been given anew.
func openCgroup(proc string, pid int, id string) (_ *Cgroup, err error) {
	paths, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("open the cgroup of container %s: %w", id, err)
	}
	mounts, err := os.ReadFile(filepath.Join(proc, "self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("open the cgroup of container %s: %w", id, err)
	}
	where, err := locate(string(paths), string(mounts), id)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup of container %s: %w", id, err)
	}
	c := &Cgroup{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.oom, err = os.Open(where.oom()); err != nil {
		return nil, err
	}
	if c.pids, err = os.Open(filepath.Join(where.pidsDir, "pids.events")); err != nil {
		return nil, err
	}
	if c.peak, err = os.OpenFile(where.peak(), os.O_RDWR, 0); err == nil {
		c.resettable = true
		return c, nil
	}
	// Before Linux 6.12 memory.peak cannot be written, before 5.19 there is none.
	if c.peak, err = os.Open(where.peak()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return c, nil
}

// Close closes the files.
func (c *Cgroup) Close() error {
	var errs []error
	for _, f := range []*os.File{c.oom, c.peak, c.pids} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// OOMKills is how many processes of the container were killed because its memory limit was met.
func (c *Cgroup) OOMKills() (uint64, error) { return readCounter(c.oom, "oom_kill") }

// PIDsExceeded is how often a fork failed because the container's limit of processes was met.
func (c *Cgroup) PIDsExceeded() (uint64, error) { return readCounter(c.pids, "max") }

// PeakMemory is the most bytes in use since ResetPeak; since the container's start where the kernel cannot reset it
// (cgroup v2 before Linux 6.12); 0 where it does not count it (cgroup v2 before Linux 5.19).
func (c *Cgroup) PeakMemory() (int64, error) {
	if c.peak == nil {
		return 0, nil
	}
	var buf [32]byte
	text, err := readAt(c.peak, buf[:])
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", c.peak.Name(), err)
	}
	return n, nil
}

// ResetPeak makes PeakMemory count anew. It does nothing where the kernel cannot.
func (c *Cgroup) ResetPeak() error {
	if !c.resettable {
		return nil
	}
	_, err := c.peak.WriteAt([]byte("0"), 0)
	return err
}

// readCounter reads the number behind key in a file of "key number" lines.
func readCounter(f *os.File, key string) (uint64, error) {
	var buf [1024]byte
	text, err := readAt(f, buf[:])
	if err != nil {
		return 0, err
	}
	n, err := counter(text, key)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return n, nil
}

// readAt is one pread from the start, which makes the kernel write the file's text anew.
func readAt(f *os.File, buf []byte) ([]byte, error) {
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf[:n], nil
}

func counter(text []byte, key string) (uint64, error) {
	for line := range bytes.Lines(text) {
		if name, value, ok := bytes.Cut(line, []byte(" ")); ok && string(name) == key {
			return strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, fmt.Errorf("there is no counter %q", key)
}

// location is where the files of one container's cgroup are.
type location struct {
	version            int
	memoryDir, pidsDir string
}

func (l location) oom() string {
	if l.version == 2 {
		return filepath.Join(l.memoryDir, "memory.events")
	}
	return filepath.Join(l.memoryDir, "memory.oom_control")
}

func (l location) peak() string {
	if l.version == 2 {
		return filepath.Join(l.memoryDir, "memory.peak")
	}
	return filepath.Join(l.memoryDir, "memory.max_usage_in_bytes")
}

// locate finds the directories of a container's memory and pids controllers. cgroups is the text of
// /proc/<pid>/cgroup, mountinfo that of /proc/self/mountinfo, id must be part of the path. A controller with a
// hierarchy of its own (v1) is preferred; without, it is in the unified one (v2).
func locate(cgroups, mountinfo, id string) (location, error) {
	membership, mounts := parseMembership(cgroups), parseMounts(mountinfo)
	if _, v1 := membership["memory"]; v1 {
		memory, err := directory("memory", membership, mounts, id)
		if err != nil {
			return location{}, err
		}
		pids, err := directory("pids", membership, mounts, id)
		return location{version: 1, memoryDir: memory, pidsDir: pids}, err
	}
	dir, err := directory("", membership, mounts, id)
	return location{version: 2, memoryDir: dir, pidsDir: dir}, err
}

// directory is where the cgroup of a controller is seen from here; "" is the unified hierarchy.
func directory(controller string, membership map[string]string, mounts []cgroupMount, id string) (string, error) {
	p, ok := membership[controller]
	if !ok {
		return "", fmt.Errorf("the process is in no cgroup of controller %q", controller)
	}
	if !strings.Contains(p, id) {
		return "", fmt.Errorf("the process is in cgroup %q, which is not the container's", p)
	}
	for _, m := range mounts {
		if !m.holds(controller) {
			continue
		}
		if rel, ok := below(p, m.root); ok {
			return path.Join(m.point, rel), nil
		}
	}
	return "", fmt.Errorf("cgroup %q of controller %q is not mounted here", p, controller)
}

// below is p relative to root, where it lies below it. A worker inside a container that shares its host's cgroup
// namespace sees paths from the host's root, and a mount whose root is that container's own cgroup.
func below(p, root string) (string, bool) {
	if root == "/" {
		return p, true
	}
	rel, ok := strings.CutPrefix(p, root)
	return rel, ok && strings.HasPrefix(rel, "/")
}

// parseMembership reads /proc/<pid>/cgroup: hierarchy:controllers:path. The unified hierarchy has no controllers.
func parseMembership(text string) map[string]string {
	out := make(map[string]string)
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for c := range strings.SplitSeq(fields[1], ",") {
			out[c] = fields[2]
		}
	}
	return out
}

// cgroupMount is a line of mountinfo that mounts cgroups.
type cgroupMount struct {
	root, point string
	controllers []string // of v1; nil is v2
}

func (m cgroupMount) holds(controller string) bool {
	if controller == "" {
		return m.controllers == nil
	}
	return slices.Contains(m.controllers, controller)
}

// parseMounts reads mountinfo (proc_pid_mountinfo(5)): fields 4 and 5 are root and mount point, the file system's
// type and its own options follow a lone hyphen. The options of a v1 mount name its controllers.
func parseMounts(text string) []cgroupMount {
	var out []cgroupMount
	for line := range strings.Lines(text) {
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		mount, fs := strings.Fields(head), strings.Fields(tail)
		if !ok || len(mount) < 6 || len(fs) < 3 {
			continue
		}
		m := cgroupMount{root: unescape(mount[3]), point: unescape(mount[4])}
		switch fs[0] {
		case "cgroup2":
			out = append(out, m)
		case "cgroup":
			m.controllers = strings.Split(fs[2], ",")
			out = append(out, m)
		}
	}
	return out
}

// unescape undoes mountinfo's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
