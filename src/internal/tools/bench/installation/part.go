package installation

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The parts that are processes.
const (
	roleNATS   = "nats-server"
	roleAPI    = "faena-api"
	roleWorker = "faena-worker"
)

// asPart is the first argument of a program that is started as a part, and the role is the second.
const asPart = "as"

// Part runs this program as a part of an installation where its arguments, without the program's name, say so, until ctx
// ends; code is the exit code then. To be called before arguments are looked at otherwise.
func Part(ctx context.Context, args []string) (code int, is bool) {
	if len(args) != 3 || args[0] != asPart || args[1] != roleNATS {
		return 0, false
	}
	if err := runNATS(ctx, args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// program is what a part is started with: the daemons are programs, and a NATS server is Self in that role.
func (i *Installation) program(role string, args ...string) (path string, all []string, err error) {
	if role != roleNATS {
		path, err = filepath.Abs(filepath.Join(i.o.Programs, role))
		return path, args, err
	}
	if path = i.o.Self; path == "" {
		path, err = os.Executable()
	}
	return path, append([]string{asPart, role}, args...), err
}

// launch starts a part with settings; name is that of the process and of its log.
func (i *Installation) launch(name, role string, settings []string, args ...string) (*Process, error) {
	path, args, err := i.program(role, args...)
	if err != nil {
		return nil, err
	}
	return launch(name, i.dir, append(i.environ(), settings...), path, args...)
}

// command is one of a daemon's commands.
func (i *Installation) command(ctx context.Context, role string, args ...string) (*exec.Cmd, error) {
	path, args, err := i.program(role, args...)
	return exec.CommandContext(ctx, path, args...), err
}

// environ is what every part has: nothing of the caller's settings.
func (i *Installation) environ() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + i.dir}
	if host, set := os.LookupEnv("DOCKER_HOST"); set {
		env = append(env, "DOCKER_HOST="+host)
	}
	return env
}
