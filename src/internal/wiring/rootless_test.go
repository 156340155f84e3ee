package wiring

import (
	"errors"
	"strings"
	"testing"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faenatest"
)

// TestNewWorker_Rootless: a rootless engine is refused by what it says of itself, with the setting that names it, also where functions
// may run unfiltered.
func TestNewWorker_Rootless(t *testing.T) {
	t.Parallel()
	host := faenatest.RootlessEngine(t)
	o := WorkerOptions{Pool: config.DefaultWorker().Pool, Engine: config.DefaultWorker().Engine}
	o.Pool.AllowUnfiltered, o.Engine.DockerHost, o.Engine.InitPath = true, host, faenatest.InitBinary(t)
	_, err := NewWorker(t.Context(), o)
	if _, wrong := errors.AsType[settingError](err); !wrong {
		t.Fatalf("it is no error of the settings: %v", err)
	}
	for _, words := range []string{"rootless", host, "FAENA_DOCKER_HOST", "unix:///var/run/docker.sock"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("it does not say %q: %v", words, err)
		}
	}
}
