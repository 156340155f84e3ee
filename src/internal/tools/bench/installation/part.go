package installation

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"faena.dev/faena/internal/wiring"
)

// The parts that are processes. Those of them that are no programs of ours are this program, started in another role.
const (
	roleNATS   = "nats-server"
	roleAPI    = "faena-api"
	roleWorker = "faena-worker"
)

// asPart is the first argument of this program where it is started as a part, and the role is the second.
const asPart = "as"

// Part runs this program as a part of an installation where its arguments, without the program's name, say so, until ctx
// ends; code is the exit code then. To be called before arguments are looked at otherwise.
func Part(ctx context.Context, args []string) (code int, is bool) {
	if len(args) < 2 || args[0] != asPart {
		return 0, false
	}
	role, args := args[1], args[2:]
	var err error
	switch role {
	case roleAPI:
		return wiring.APIMain(ctx, args, os.Stdin, os.Stdout, os.Stderr, os.Environ()), true
	case roleWorker:
		return wiring.WorkerMain(ctx, args, os.Stdin, os.Stdout, os.Stderr, os.Environ()), true
	case roleNATS:
		err = runNATS(ctx, args[0])
	default:
		err = fmt.Errorf("there is no part %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1, true
	}
	return 0, true
}

// program is what a part is started with.
func (i *Installation) program(role string, args ...string) (path string, all []string, err error) {
	if i.o.Programs != "" && (role == roleAPI || role == roleWorker) {
		path, err = filepath.Abs(filepath.Join(i.o.Programs, role))
		return path, args, err
	}
	path, err = os.Executable()
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
	for _, name := range []string{"DOCKER_HOST", "GOCOVERDIR", "GORACE"} {
		if v, set := os.LookupEnv(name); set {
			env = append(env, name+"="+v)
		}
	}
	return env
}
