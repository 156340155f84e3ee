package dockerengine

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

func itoa(e syscall.Errno) string { return strconv.Itoa(int(e)) }

func TestEngine_Lifecycle(t *testing.T) {
	e := open(t)
	image := plain(t)
	c := spec(t, image)
	a := launch(t, e, c)

	owned := func(worker, id string) *OwnedContainer {
		t.Helper()
		list, err := e.Owned(t.Context(), worker)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			if o.ID == id {
				return &o
			}
		}
		return nil
	}
	idle := spec(t, image)
	idle.Labels[LabelWorker] = c.Name
	idleID := create(t, e, idle)

	want := OwnedContainer{ID: a.id, Worker: c.Name, LockFile: c.SocketDir, User: "ana", Function: "f", Revision: 7, State: "running"}
	for _, worker := range []string{c.Name, ""} {
		if got := owned(worker, a.id); got == nil || *got != want {
			t.Errorf("owned by %q: got %+v, want %+v", worker, got, want)
		}
		if got := owned(worker, idleID); got == nil || got.State != "created" {
			t.Errorf("owned by %q: got %+v, want the one that was not started", worker, got)
		}
	}
	if got := owned("nobody", a.id); got != nil {
		t.Errorf("owned by nobody: got %+v", got)
	}

	if err := e.Kill(t.Context(), a.id); err != nil {
		t.Fatal(err)
	}
	faenatest.Eventually(t, time.Minute, "the killed container has exited", func() bool { return owned(c.Name, a.id).State == "exited" })
	for _, id := range []string{a.id, idleID, "absent"} {
		if err := e.Kill(t.Context(), id); err != nil {
			t.Errorf("kill what does not run: %v", err)
		}
	}
	for _, id := range []string{a.id, idleID, a.id, "absent"} {
		if err := e.Remove(t.Context(), id); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if owned("", a.id) != nil || owned("", idleID) != nil {
		t.Error("a container is there after its removal")
	}
}

func TestEngine_Remove(t *testing.T) {
	e := open(t)
	image := plain(t)
	gone := func(t *testing.T, id string) {
		t.Helper()
		var got map[string]any
		if err := e.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		list, err := e.Owned(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			if o.ID == id {
				t.Errorf("is still there: %+v %v", o, got)
			}
		}
	}
	t.Run("paused", func(t *testing.T) {
		a := launch(t, e, spec(t, image))
		faenatest.Engine(t).Post(t, "/containers/"+a.id+"/pause", nil, nil)
		gone(t, a.id)
	})
	t.Run("just ending", func(t *testing.T) {
		a := launch(t, e, spec(t, image))
		_ = a.conn.Close() // which the container ends upon, as faena-init does
		gone(t, a.id)
	})
	t.Run("by several at once", func(t *testing.T) {
		a := launch(t, e, spec(t, image))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { gone(t, a.id) })
		}
		wg.Wait()
	})
}

func TestEngine_Create_Refused(t *testing.T) {
	e := open(t)
	image := plain(t)
	refused := func(t *testing.T, err error, kind faena.Kind, words string) {
		t.Helper()
		fe, ok := errors.AsType[*faena.Error](err)
		if !ok || fe.Kind != kind || fe.Reason != string(faena.ReasonStartFailed) || !strings.Contains(fe.Message, words) {
			t.Errorf("got %#v, want %s start_failed with %q", err, kind, words)
		}
	}
	t.Run("absent image", func(t *testing.T) {
		_, err := e.Create(t.Context(), spec(t, "faenatest/absent:latest"))
		refused(t, err, faena.KindNotFound, "No such image")
	})
	t.Run("unknown user", func(t *testing.T) {
		c := spec(t, image)
		c.User = "nobody-here"
		err := e.Start(t.Context(), create(t, e, c))
		refused(t, err, faena.KindInternal, "nobody-here")
	})
	t.Run("no bound", func(t *testing.T) {
		c := spec(t, image)
		c.MemoryBytes = 0
		_, err := e.Create(t.Context(), c)
		refused(t, err, faena.KindInternal, "lacks a bound")
	})
	t.Run("init is missing", func(t *testing.T) {
		c := spec(t, image)
		c.InitPath = "/nowhere/faena-init"
		_, err := e.Create(t.Context(), c)
		refused(t, err, faena.KindInternal, "/nowhere/faena-init")
	})
}

// relay passes connections on to the engine until it is told to hang; then it swallows what it is given.
func relay(t testing.TB, to string) (host string, hang *atomic.Bool, stop func()) {
	t.Helper()
	socket := t.TempDir() + "/d.sock"
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	hang = new(atomic.Bool)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", strings.TrimPrefix(to, "unix://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })
			wg.Go(func() { pump(out, in, hang) })
			wg.Go(func() { pump(in, out, hang) })
		}
	})
	stop = sync.OnceFunc(func() { cancel(); _ = listener.Close(); wg.Wait() })
	t.Cleanup(stop)
	return "unix://" + socket, hang, stop
}

func pump(to, from net.Conn, hang *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			_ = to.Close()
			return
		}
		if !hang.Load() {
			_, _ = to.Write(buf[:n]) // the next read fails where this does
		}
	}
}

func TestEngine_Unavailable(t *testing.T) {
	host, hang, stop := relay(t, faenatest.Engine(t).Host)
	short := 300 * time.Millisecond
	e, err := Open(t.Context(), Options{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	if err := e.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.timeouts = Timeouts{Call: short, Create: short, Start: short, Remove: short}
	c := spec(t, "faenatest/absent:latest")
	calls := map[string]func(context.Context) error{
		"ping":    e.Ping,
		"create":  func(ctx context.Context) error { _, err := e.Create(ctx, c); return err },
		"start":   func(ctx context.Context) error { return e.Start(ctx, "absent") },
		"kill":    func(ctx context.Context) error { return e.Kill(ctx, "absent") },
		"remove":  func(ctx context.Context) error { return e.Remove(ctx, "absent") },
		"owned":   func(ctx context.Context) error { _, err := e.Owned(ctx, ""); return err },
		"images":  func(ctx context.Context) error { _, err := e.Images(ctx); return err },
		"has":     func(ctx context.Context) error { _, err := e.HasImage(ctx, "absent"); return err },
		"rmi":     func(ctx context.Context) error { return e.RemoveImage(ctx, "absent") },
		"save":    func(ctx context.Context) error { _, err := e.SaveImage(ctx, "absent"); return err },
		"network": func(ctx context.Context) error { _, err := e.EnsureNetwork(ctx, "absent"); return err },
	}
	all := func(reason string) {
		for name, call := range calls {
			t.Run(reason+"/"+name, func(t *testing.T) {
				start := time.Now()
				err := call(t.Context())
				fe, ok := errors.AsType[*faena.Error](err)
				if !ok || fe.Kind != faena.KindUnavailable || fe.Component != faena.ComponentEngine || fe.Reason != reason || !fe.Retryable {
					t.Errorf("got %#v, want %s", err, reason)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("took %v", took)
				}
			})
		}
	}
	hang.Store(true)
	all("engine_timeout")
	t.Run("the caller goes away", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := e.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) || faena.IsKind(err, faena.KindUnavailable) {
			t.Errorf("got %v, want the caller's own deadline", err)
		}
	})
	stop()
	all("engine_unreachable")
	t.Run("open", func(t *testing.T) {
		if _, err := Open(t.Context(), Options{Host: host}); !faena.IsKind(err, faena.KindUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

func TestEngine_Info(t *testing.T) {
	e := open(t)
	got, err := e.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Version == "" || got.APIVersion == "" || got.CPUs < 1 || got.MemoryBytes < 1<<28 || got.RootDir == "" || got.Arch == "" ||
		(got.CgroupVersion != 1 && got.CgroupVersion != 2) || got.Rootless {
		t.Errorf("got %+v", got)
	}
	t.Run("rootless", func(t *testing.T) {
		e, err := Open(t.Context(), Options{Host: faenatest.RootlessEngine(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = e.Close() }()
		if got, err := e.Info(t.Context()); err != nil || !got.Rootless {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	disk, err := e.DiskUsage(t.Context())
	if err != nil || disk.TotalBytes <= 0 || disk.FreeBytes <= 0 || disk.FreeBytes > disk.TotalBytes {
		t.Errorf("disk: got %+v, %v", disk, err)
	}
}

// Create and start are what a first activation waits for.
func BenchmarkEngine_CreateStart(b *testing.B) {
	e := open(b)
	c := spec(b, plain(b))
	c.Network = bridgeFor(b, e)
	var creating, starting time.Duration
	for b.Loop() {
		begin := time.Now()
		id, err := e.Create(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		made := time.Now()
		if err := e.Start(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		creating, starting = creating+made.Sub(begin), starting+time.Since(made)
		b.StopTimer()
		if err := e.Remove(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(creating.Microseconds())/float64(b.N)/1e3, "create-ms")
	b.ReportMetric(float64(starting.Microseconds())/float64(b.N)/1e3, "start-ms")
}
