package natsbus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
)

// TestBus_Objects_Worker: a worker, who may not purge, removes what it has stored all the same.
func TestBus_Objects_Worker(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	ctx := t.Context()
	w := i.connect(t, group)
	js := i.servers.JetStream(t)
	empty := func(t *testing.T) {
		t.Helper()
		faenatest.EventuallyNil(t, 20*time.Second, "nothing is left", func() error {
			s, err := js.Stream(ctx, "OBJ_objects-"+group)
			if err == nil && s.CachedInfo().State.Msgs > 0 {
				err = fmt.Errorf("there are %d messages", s.CachedInfo().State.Msgs)
			}
			return err
		})
	}
	t.Run("without a trace", func(t *testing.T) {
		noError(t, w.PutObject(ctx, group, "out.1", make([]byte, 600<<10)))
		noError(t, w.DeleteObject(ctx, group, "out.1"))
		if _, err := i.api.Object(ctx, group, "out.1"); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("it is read: %v", err)
		}
		empty(t)
	})
	t.Run("what is stored under a name that was removed stays", func(t *testing.T) {
		noError(t, w.PutObject(ctx, group, "out.1", []byte("first")))
		noError(t, w.DeleteObject(ctx, group, "out.1"))
		noError(t, w.PutObject(ctx, group, "out.1", []byte("second")))
		noError(t, w.PutObject(ctx, group, "mark", nil))
		noError(t, w.DeleteObject(ctx, group, "mark"))
		faenatest.Eventually(t, 20*time.Second, "the marks have expired", func() bool {
			s, err := js.Stream(ctx, "OBJ_objects-"+group)
			noError(t, err)
			return s.CachedInfo().State.Msgs == 2
		})
		if data, err := i.api.Object(ctx, group, "out.1"); err != nil || string(data) != "second" {
			t.Errorf("got %q, %v", data, err)
		}
		noError(t, i.api.DeleteObject(ctx, group, "out.1"))
	})
	t.Run("in a store that is full", func(t *testing.T) {
		n := 0
		var err error
		for ; err == nil; n++ { // GroupStore is 64 MiB, half of it objects
			err = w.PutObject(ctx, group, fmt.Sprint("out.", n), make([]byte, 1900<<10))
		}
		if !errors.Is(err, faena.ErrFull) || n < 10 {
			t.Fatalf("object %d: %v", n, err)
		}
		s, err := js.Stream(ctx, "OBJ_objects-"+group)
		noError(t, err)
		// What was refused has left nothing but a mark: eight chunks and a meta for each that is there.
		if got, most := s.CachedInfo().State.Msgs, uint64(9*(n-1)+1); got > most {
			t.Errorf("there are %d messages, want at most %d", got, most)
		}
		noError(t, w.DeleteObject(ctx, group, "out.0"))
		noError(t, w.PutObject(ctx, group, "out.0", make([]byte, 1900<<10)))
		for k := range n {
			noError(t, i.api.DeleteObject(ctx, group, fmt.Sprint("out.", k)))
		}
		empty(t)
	})
}

// TestBus_Impostor: what a worker writes where it may write speaks for nobody else.
func TestBus_Impostor(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	ctx := t.Context()
	in := i.intrude(t, group)
	say := func(subject string, what any) {
		t.Helper()
		_, err := in.Request(subject, []byte(text(t, what)), 20*time.Second)
		noError(t, err)
	}
	t.Run("a heartbeat of another group, or worker", func(t *testing.T) {
		say("$KV.workers-"+group+".w1", faena.Worker{Schema: faena.SchemaVersion, ID: "w1", Group: otherGroup})
		say("$KV.workers-"+group+".w2", faena.Worker{Schema: faena.SchemaVersion, ID: "w3", Group: group})
		if ws, err := i.api.Workers(ctx); err != nil || len(ws) > 0 {
			t.Errorf("workers are %+v, %v", ws, err)
		}
	})
	recorded := make(chan string, 10)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- i.api.Terminal(ctx, group, 10, time.Millisecond, func(_ context.Context, rs []faena.Record) error {
			for _, r := range rs {
				recorded <- r.ID
			}
			return nil
		}, nil)
	}()
	own := record("ana", 0)
	own.State = faena.StateSucceeded
	for name, change := range map[string]func(*faena.Record){
		"a record of another group":      func(r *faena.Record) { r.Group = otherGroup },
		"a record of another user":       func(r *faena.Record) { r.User = "bob" },
		"a record of another activation": func(r *faena.Record) { r.ID = newID() },
	} {
		t.Run(name, func(t *testing.T) {
			forged, id := *own, newID()
			forged.ID = id
			change(&forged)
			say("$KV.activations-"+group+".ana."+id, forged)
			if r, _, err := i.api.Record(ctx, group, "ana", id); err == nil {
				t.Errorf("it is read as %+v", r)
			}
			if rs, err := i.api.LiveRecords(ctx, group, "ana"); err != nil || len(rs) > 0 {
				t.Errorf("it is listed: %+v, %v", rs, err)
			}
		})
	}
	say("$KV.activations-"+group+".ana."+own.ID, own)
	if got := <-recorded; got != own.ID {
		t.Errorf("recorded is %s, want only %s", got, own.ID)
	}
	faenatest.EventuallyNil(t, 10*time.Second, "the others are told of", func() error {
		found, err := i.api.Unreadable(t.Context(), []string{group})
		if err == nil && len(found) != 3 {
			err = fmt.Errorf("told are %+v", found)
		}
		return err
	})
	stop()
	noError(t, <-ended)
}

// TestBus_TellsWhatIsNotPermitted: the server drops what it does not permit, and the sender hears nothing: so it is logged.
func TestBus_TellsWhatIsNotPermitted(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	var log lines
	o := i.options(group, i.servers.URLs()...)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	w, err := natsbus.Connect(t.Context(), o)
	noError(t, err)
	t.Cleanup(w.Close)
	noError(t, w.PublishLog(otherGroup, "bob", "x", 0, []byte("secret")))
	stop, err := w.Cancels(otherGroup, func(string) {})
	noError(t, err)
	defer stop()
	for _, subject := range []string{"Logs." + otherGroup + ".bob.x", "Cancel." + otherGroup + ".*"} {
		faenatest.EventuallyNil(t, 10*time.Second, "it is logged", func() error {
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "level=ERROR") && strings.Contains(line, "subject="+subject) {
					return nil
				}
			}
			return errors.New(log.String())
		})
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("the log has what was sent")
	}
}

// lines is a log that is written to from several goroutines.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

var _ io.Writer = (*lines)(nil)

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
