package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
	"faena.dev/faena/internal/worker"
)

// frontage stands before the real engine, and is what a test makes of it: away, hanging, or slow.
type frontage struct {
	host        string
	away, hangs atomic.Bool
	// refuses is what the engine says instead of starting a container; nil where it starts it. refused counts that.
	refuses atomic.Pointer[string]
	refused atomic.Int64
	// created is called with the request when the engine has made a container, before the answer is passed on.
	created atomic.Pointer[func(*http.Request)]
}

func (s *site) frontage() *frontage {
	s.t.Helper()
	socket, ok := strings.CutPrefix(faenatest.Engine(s.t).Host, "unix://")
	if !ok {
		s.t.Fatal("the engine is not at a unix socket")
	}
	f := &frontage{host: "unix://" + filepath.Join(s.dir, "engine.sock")}
	listener, err := net.Listen("unix", strings.TrimPrefix(f.host, "unix://"))
	s.check(err)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	proxy.Transport, proxy.ErrorLog = transport, slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	proxy.ModifyResponse = func(r *http.Response) error {
		if fn := f.created.Load(); fn != nil && strings.HasSuffix(r.Request.URL.Path, "/containers/create") {
			(*fn)(r.Request)
		}
		return nil
	}
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case f.away.Load():
			panic(http.ErrAbortHandler) // the connection breaks
		case f.hangs.Load():
			<-r.Context().Done()
		case f.refuses.Load() != nil && strings.HasSuffix(r.URL.Path, "/start"):
			f.refused.Add(1)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprintf(w, `{"message":%q}`, *f.refuses.Load())
		default:
			proxy.ServeHTTP(w, r)
		}
	})}
	go func() { _ = server.Serve(listener) }() // until Close
	s.t.Cleanup(func() {
		_ = server.Close()
		transport.CloseIdleConnections()
	})
	return f
}

// behind makes a worker use the engine behind a frontage.
func (f *frontage) behind(o *wiring.WorkerOptions) { o.Engine.DockerHost = f.host }

// TestWorker_EngineAway: without its engine a worker takes nothing, what it cannot make ready it hands back, what runs goes on,
// and it comes back by itself.
func TestWorker_EngineAway(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	f := s.frontage()
	h := s.hand("cut", f.behind)
	h.Quicken(worker.Every{Ping: 300 * time.Millisecond})
	h.start()
	running := s.send(s.function("runs", nil, "sleep", "2000"), "")
	s.is(running, faena.StateRunning)
	f.away.Store(true)
	early := s.send(s.function("early", nil), "arg") // may be taken before the worker notices
	faenatest.Eventually(t, patience, "it tells that it is not ready", func() bool {
		w := h.heartbeat()
		return w != nil && strings.HasPrefix(w.NotReady, "The container engine does not answer")
	})
	heir := s.run("heir")
	for _, id := range []string{early, s.send(s.function("late", nil), "arg")} {
		if r := s.ended(id); r.State != faena.StateSucceeded || r.Worker != heir.id || r.Attempt != 1 {
			t.Errorf("%+v", r)
		}
	}
	if r := s.ended(running); r.State != faena.StateSucceeded || r.Worker != h.id {
		t.Errorf("what ran: %+v", r)
	}
	heir.Abort()
	f.away.Store(false)
	if r := s.says("arg", s.function("again", nil), "arg"); r.Worker != h.id {
		t.Errorf("it ran on %s", r.Worker)
	}
	s.quiet()
}

// TestWorker_EngineHangs: an engine that does not answer is as good as away, and holds nobody for ever.
func TestWorker_EngineHangs(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	f := s.frontage()
	h := s.hand("hung", f.behind)
	h.Quicken(worker.Every{Ping: 300 * time.Millisecond})
	h.start()
	rev := s.function("f", nil)
	s.says("arg", rev, "arg")
	f.hangs.Store(true)
	faenatest.Eventually(t, patience, "it tells that it is not ready", func() bool { w := h.heartbeat(); return w != nil && w.NotReady != "" })
	f.hangs.Store(false)
	s.says("arg", rev, "arg")
}

// TestWorker_AbortWhileCreating: a container that the engine makes while its worker stops is removed as well.
func TestWorker_AbortWhileCreating(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	f := s.frontage()
	h := s.run("creating", f.behind)
	made := make(chan struct{}, 1)
	hold := func(r *http.Request) {
		made <- struct{}{}
		faenatest.Eventually(t, patience, "its worker stops", func() bool { return h.Describe().Draining })
		stopped := time.Now()
		// Long enough for a worker that does not wait to hang up.
		faenatest.Eventually(t, patience, "it hangs up, or waits", func() bool { return r.Context().Err() != nil || time.Since(stopped) > time.Second })
	}
	f.created.Store(&hold)
	id := s.send(s.function("f", nil), "arg")
	<-made
	h.Abort()
	h.gone()
	if r := s.record(id); r.State != faena.StateQueued {
		t.Errorf("%+v", r)
	}
}

// TestWorker_EngineRestarts: a worker that stops soon after its engine was away leaves no container, also none that it could not remove
// then.
func TestWorker_EngineRestarts(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	f := s.frontage()
	h := s.run("soon", f.behind)
	home, _ := s.container(s.function("f", nil))
	f.away.Store(true)
	faenatest.Engine(t).Post(t, "/containers/"+home+"/kill", nil, nil)
	faenatest.Eventually(t, patience, "it could not be removed", func() bool { return h.log.has("a container could not be removed") })
	f.away.Store(false)
	h.Abort()
	if left := h.containers(); len(left) > 0 {
		t.Errorf("it leaves %v", left)
	}
}

// TestWorker_ContainerEnds: a container that ends by itself is not used again, and takes with it only what ran in it.
func TestWorker_ContainerEnds(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("ends")
	d := faenatest.Engine(t)
	kill := func(id string) { d.Post(t, "/containers/"+id+"/kill", nil, nil) }
	rev := s.function("f", nil)
	t.Run("idle", func(t *testing.T) {
		home, _ := s.container(rev)
		kill(home)
		faenatest.Eventually(t, patience, "its end is seen", func() bool { return h.Stats().Idle == 0 })
		now, r := s.container(rev)
		if now == home || r.State != faena.StateSucceeded {
			t.Errorf("after %s it ran in %s: %+v", home, now, r)
		}
		faenatest.Eventually(t, patience, "it is removed", func() bool { return len(h.containers()) == 1 })
	})
	t.Run("while it runs", func(t *testing.T) {
		busy := s.function("busy", nil, "stubborn")
		id := s.send(busy, "")
		s.wrote(id, "here")
		for _, c := range h.containers() {
			kill(c)
		}
		r := s.ended(id)
		if r.State != faena.StateFailed || r.Reason != faena.ReasonStartFailed || !strings.Contains(r.Message, "went away") || string(r.Log.Inline) != "here" || ending(r) != "" {
			t.Errorf("%+v", r)
		}
		s.container(rev)
	})
	s.quiet()
	faenatest.Eventually(t, patience, "what has ended is removed", func() bool { return len(h.containers()) == 1 })
}

// TestWorker_EngineRefuses: what an engine says while it stops fails nobody's activation, unless it says so again; what is
// the image's own fault is told at once.
func TestWorker_EngineRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	f := s.frontage()
	s.run("refused", f.behind)
	passing := "failed to update store for object type *libnetwork.endpoint: open : no such file or directory"
	lasting := "unable to find user nobody: no matching entries in passwd file"

	f.refuses.Store(&passing)
	id := s.send(s.function("f", nil), "arg")
	faenatest.Eventually(t, patience, "a start is refused", func() bool { return f.refused.Load() == 1 })
	f.refuses.Store(nil)
	if r := s.ended(id); r.State != faena.StateSucceeded || r.Attempt != 1 {
		t.Errorf("it was refused once: %+v", r)
	}
	for name, c := range map[string]struct {
		says  string
		tries int64
	}{"again": {passing, 2}, "the image": {lasting, 1}} {
		f.refused.Store(0)
		f.refuses.Store(&c.says)
		r := s.ended(s.send(s.function(strings.ReplaceAll(name, " ", "-"), nil), "arg"))
		if r.Reason != faena.ReasonStartFailed || !strings.Contains(r.Message, c.says) || f.refused.Load() != c.tries {
			t.Errorf("%s: after %d tries %+v", name, f.refused.Load(), r)
		}
	}
	f.refuses.Store(nil)
	s.quiet()
}
