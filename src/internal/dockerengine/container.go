package dockerengine

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"faena.dev/faena/internal/faena"
)

// Where a container finds faena-init and the socket that leads to its worker.
const (
	InitTarget   = "/.faena/init"
	SocketTarget = "/.faena/run"
)

// InitPIDs is how many processes and threads a container may have beyond the function's own limit: those of
// faena-init, which starts its threads before anything else so that a fork bomb cannot take them.
const InitPIDs = 32

// maxVolumes bounds the mounts that an image can ask for.
const maxVolumes = 64

// minTmpfsInodes keeps a small tmpfs usable; each inode costs about 1 KiB of the container's own memory.
const minTmpfsInodes = 4096

// Labels of every container that Faena made.
const (
	LabelWorker   = "faena.worker"   // id of the worker that owns it
	LabelUser     = "faena.user"     // whose function runs in it
	LabelFunction = "faena.function" // which function
	LabelRevision = "faena.revision" // and which revision, in decimal
	LabelLockFile = "faena.lockfile" // the file that the owner holds locked while it lives
)

// Container is what differs between one container and the next. Everything else is the same for all and cannot be
// asked for.
type Container struct {
	// Name is unique on the engine. Neighbours on the network can look names up: keep it free of meaning.
	Name   string
	Image  string            // what the engine knows it by: repository@digest, a tag or an id
	Labels map[string]string // see the Label constants

	InitPath  string // faena-init on this host; bound read-only at InitTarget
	SocketDir string // a directory of this container alone; bound read-only at SocketTarget

	User       string // the image's USER: name or uid, optionally ":group"
	WorkingDir string // the image's WORKDIR

	MemoryBytes int64 // swap included
	CPUs        float64
	PIDs        int64 // of the function; InitPIDs are added
	NoFile      int64 // open files per process; 0 is 16,384, which an engine without CAP_SYS_RESOURCE can give too
	TmpfsBytes  int64 // bound of each of /tmp, /dev/shm and every volume; their pages count as the container's memory

	Volumes      []string // the image's VOLUME paths, each of which becomes an empty tmpfs
	WritableRoot bool     // the root file system may be written; its layer has no bound
	Capabilities []string // given back after all are dropped, for example CHOWN
	Network      string   // id or name of a network, see EnsureNetwork; empty is none at all
}

func (c Container) validate() error {
	switch {
	case c.Image == "":
		return fmt.Errorf("container %q has no image", c.Name)
	case !path.IsAbs(c.InitPath) || !path.IsAbs(c.SocketDir):
		return fmt.Errorf("container %q: init %q and socket directory %q must be absolute paths", c.Name, c.InitPath, c.SocketDir)
	case c.MemoryBytes <= 0 || c.CPUs <= 0 || c.PIDs <= 0 || c.TmpfsBytes <= 0:
		return fmt.Errorf("container %q lacks a bound: memory %d, cpus %g, pids %d, tmpfs %d", c.Name, c.MemoryBytes, c.CPUs, c.PIDs, c.TmpfsBytes)
	case c.Labels[LabelWorker] == "" || c.Labels[LabelLockFile] == "":
		return fmt.Errorf("container %q names no owner: labels %s and %s are needed", c.Name, LabelWorker, LabelLockFile)
	case len(c.Volumes) > maxVolumes:
		return fmt.Errorf("the image declares %d volumes, at most %d are possible", len(c.Volumes), maxVolumes)
	}
	for _, v := range c.Volumes {
		if !mountable(v) {
			return fmt.Errorf("the image declares the volume %q, which cannot be one", v)
		}
	}
	return nil
}

// config is the part of a container that an image has a say in, with the image's say taken away: only its
// environment would be inherited, and of that only what steers the Go runtime matters to faena-init.
func (c Container) config() *container.Config {
	return &container.Config{
		Image:       c.Image,
		Entrypoint:  []string{InitTarget},
		Cmd:         []string{},
		User:        c.User,
		WorkingDir:  c.WorkingDir,
		Labels:      c.Labels,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		StopSignal:  "SIGKILL",
		// The function's own environment comes with each activation; these would change how init behaves.
		Env: []string{"GODEBUG=", "GOGC=", "GOMAXPROCS=", "GOMEMLIMIT=", "GOTRACEBACK="},
	}
}

// hostConfig is what holds for every container. The order is that of the threats: what it may do, what it may use,
// what it may see, what it may leave behind.
func (c Container) hostConfig(privateCgroupns bool) *container.HostConfig {
	pids, no := c.PIDs+InitPIDs, false
	noFile := c.NoFile
	if noFile == 0 {
		noFile = 16384
	}
	h := &container.HostConfig{
		CapDrop:        []string{"ALL"},
		CapAdd:         slices.Clone(c.Capabilities),
		SecurityOpt:    []string{"no-new-privileges"}, // the seccomp profile is the engine's default, by saying nothing
		IpcMode:        container.IPCModePrivate,
		NetworkMode:    container.NetworkMode(c.network()),
		ReadonlyRootfs: !c.WritableRoot,
		Tmpfs:          c.tmpfs(),
		ShmSize:        c.TmpfsBytes,
		Mounts:         []mount.Mount{readOnly(c.InitPath, InitTarget), readOnly(c.SocketDir, SocketTarget)},
		LogConfig:      container.LogConfig{Type: "none"},
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Init:           &no,
		Resources: container.Resources{
			Memory:         c.MemoryBytes,
			MemorySwap:     c.MemoryBytes, // memory and swap together: no swap
			NanoCPUs:       int64(c.CPUs * 1e9),
			PidsLimit:      &pids,
			OomKillDisable: &no,
			Ulimits: []*container.Ulimit{
				{Name: "nofile", Soft: noFile, Hard: noFile},
				{Name: "core", Soft: 0, Hard: 0}, // a dump would go to the host's core_pattern
			},
		},
	}
	if privateCgroupns {
		h.CgroupnsMode = container.CgroupnsModePrivate
	}
	return h
}

func (c Container) network() string {
	if c.Network == "" {
		return "none"
	}
	return c.Network
}

// tmpfs lists what can be written. Each VOLUME must be in it: the engine would make an anonymous volume for it
// otherwise, on disk and without a bound, at /dev/shm too. Programs may be run from all but /dev/shm: unmodified
// images unpack helpers to /tmp, and noexec would stop nobody who has an interpreter.
func (c Container) tmpfs() map[string]string {
	bound := fmt.Sprintf("rw,nosuid,nodev,mode=1777,size=%d,nr_inodes=%d%s", c.TmpfsBytes, max(minTmpfsInodes, c.TmpfsBytes/1024), ownerOf(c.User))
	mounts := make(map[string]string, len(c.Volumes)+2)
	for _, v := range c.Volumes {
		if v = path.Clean(v); v != InitTarget && v != SocketTarget { // those two are bind mounts already
			mounts[v] = bound + ",exec"
		}
	}
	mounts["/tmp"] = bound + ",exec"
	mounts[shm] = bound + ",noexec"
	return mounts
}

// ownerOf makes a tmpfs belong to the user that the processes run as. Before runc 1.2 one takes the mode of the directory
// below it, whatever is asked for; its owner may write to it all the same. A user's name only the image could translate.
func ownerOf(user string) string {
	uid, gid, both := strings.Cut(user, ":")
	if _, err := strconv.ParseUint(uid, 10, 32); err != nil {
		return ""
	}
	if _, err := strconv.ParseUint(gid, 10, 32); !both || err != nil {
		return ",uid=" + uid
	}
	return ",uid=" + uid + ",gid=" + gid
}

// shm is where the C library has its shared memory.
const shm = "/dev/shm"

// mountable refuses the volumes that would hide what the container itself is made of. A deployment refuses them before;
// those on init and on its socket do no harm.
func mountable(volume string) bool {
	p := path.Clean(volume)
	return p == InitTarget || p == SocketTarget || faena.ImageConfig{Volumes: []string{volume}}.BadVolume() == ""
}

func readOnly(source, target string) mount.Mount {
	return mount.Mount{Type: mount.TypeBind, Source: source, Target: target, ReadOnly: true,
		BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate}}
}

// OwnedContainer is a container that some Faena worker made.
type OwnedContainer struct {
	ID       string
	Worker   string
	LockFile string
	User     string
	Function string
	Revision int
	State    string // in the engine's words: created, running, paused, exited, dead
}

func ownedFrom(s container.Summary) OwnedContainer {
	revision, _ := strconv.Atoi(s.Labels[LabelRevision]) // 0 where the label is missing or not ours
	return OwnedContainer{ID: s.ID, Worker: s.Labels[LabelWorker], LockFile: s.Labels[LabelLockFile], User: s.Labels[LabelUser],
		Function: s.Labels[LabelFunction], Revision: revision, State: string(s.State)}
}
