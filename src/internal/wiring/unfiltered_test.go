package wiring_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/wiring"
)

// A worker whose engine has its network elsewhere, here in the namespace that this process has left, ends with exit code 3 unless its
// functions may run unfiltered.
func TestRunWorker_CannotFilter(t *testing.T) {
	t.Parallel()
	if !faenatest.OwnNetwork(t) {
		return
	}
	nats := natstest.Start(t, natstest.Options{})
	servers := "FAENA_NATS_URLS=" + nats.URLs()[0]
	startAPI(t, servers).becomesReady(t)
	environ := []string{"FAENA_DATA_DIR=" + shortDir(t), "FAENA_OPERATIONS_LISTEN=" + freeAddress(t), "FAENA_DOCKER_HOST=" + faenatest.Engine(t).Host,
		"FAENA_INIT_PATH=" + faenatest.InitBinary(t), "FAENA_DISK_MIN_FREE=1MiB", servers}
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if code := wiring.WorkerMain(ctx, nil, strings.NewReader(""), &out, &errs, environ); code != 3 ||
		!strings.Contains(errs.String(), "FAENA_ALLOW_UNFILTERED=true") || !strings.Contains(errs.String(), "network namespace") {
		t.Errorf("it ends with %d and says: %s", code, errs.String())
	}
	w := startWorker(t, servers, "FAENA_ALLOW_UNFILTERED=true")
	w.becomesReady(t)
	if said := w.log.lines("the packets of functions are not filtered"); len(said) != 1 {
		t.Errorf("it says so %d times", len(said))
	}
}
