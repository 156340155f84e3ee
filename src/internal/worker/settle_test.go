package worker_test

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/wiring"
)

// TestWorker_Objects: what is over 256 KiB stands in the object store, under names with the attempt.
func TestWorker_Objects(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("objects")
	cat := s.function("cat", func(r *faena.Revision) { r.Spec.Input = faena.InputStdin }, "cat")
	for _, size := range []int{0, 1, faena.MaxInlineBytes, faena.MaxInlineBytes + 1, 6 << 20} {
		t.Run(fmt.Sprintf("%d bytes in and out", size), func(t *testing.T) {
			in := strings.Repeat("\x00\xff\r\n", size/4+1)[:size]
			r := s.call(cat, in)
			got, want := r.Result.Inline, ""
			if size > faena.MaxInlineBytes {
				want = "out." + r.ID + ".1"
				got = s.object(r.Result.Object)
			}
			if r.State != faena.StateSucceeded || r.Result.Object != want || r.Result.Size != int64(size) || string(got) != in {
				t.Errorf("%s %s (%s): %d bytes in %q", r.State, r.Reason, r.Message, len(got), r.Result.Object)
			}
			if stored := r.Timings.StoreUS > 0; stored != (want != "") {
				t.Errorf("timings %+v", r.Timings)
			}
		})
	}
	t.Run("a large log", func(t *testing.T) {
		r := s.call(s.function("err", nil, "err", strconv.Itoa(faena.MaxInlineBytes+1)), "")
		p := s.object(r.Log.Object)
		if r.Log.Object != "log."+r.ID+".1" || len(p) != faena.MaxInlineBytes+1 || r.Log.Truncated || string(r.Result.Inline) != "done" {
			t.Errorf("%d bytes: %+v", len(p), r.Log)
		}
	})
	t.Run("a parameter that is gone", func(t *testing.T) {
		busy := s.send(s.function("busy", nil, "stubborn"), "")
		s.is(busy, faena.StateRunning)
		second := s.send(s.function("busy", nil, "stubborn"), "") // both places are taken
		s.is(second, faena.StateRunning)
		id := s.send(cat, strings.Repeat("x", faena.MaxInlineBytes+1))
		s.check(s.bus.DeleteObject(t.Context(), group, "in."+id))
		s.cancel(busy)
		s.cancel(second)
		if r := s.ended(id); r.State != faena.StateFailed || r.Reason != faena.ReasonStartFailed || !strings.Contains(r.Message, "parameter") || r.Attempt != 0 {
			t.Errorf("%+v", r)
		}
	})
	s.quiet()
}

// TestWorker_StoreFull: a result that cannot be stored fails its activation, which is not run again; a log that cannot be
// stored is cut.
func TestWorker_StoreFull(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("full", func(o *wiring.WorkerOptions) { o.Pool.Places = 1 })
	rev := s.function("size", nil, "size", strconv.Itoa(faena.MaxInlineBytes+1))
	var filled []string
	for n, size := 0, 8<<20; size > faena.MaxInlineBytes/2; n++ {
		name := fmt.Sprintf("out.filler.%d", n)
		err := s.bus.PutObject(t.Context(), group, name, make([]byte, size))
		if errors.Is(err, faena.ErrFull) {
			size /= 2
			continue
		}
		s.check(err)
		filled = append(filled, name)
	}
	r := s.call(rev, "")
	if r.State != faena.StateFailed || r.Reason != faena.ReasonResultStoreFull || r.Attempt != 1 || !strings.Contains(r.Message, "full") ||
		!r.Result.Truncated || r.Result.Size != 0 || r.Result.Object != "" || r.ExitCode == nil || *r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
	s.quiet()
	t.Run("what is small goes on", func(t *testing.T) {
		s.says("arg", s.function("f", nil), "arg")
	})
	t.Run("a log is cut to what fits into the record", func(t *testing.T) {
		const size = 1 << 20
		r := s.call(s.function("err", nil, "err", strconv.Itoa(size)), "")
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i*7 + i/251)
		}
		if r.State != faena.StateSucceeded || string(r.Result.Inline) != "done" || !r.Log.Truncated || r.Log.Object != "" ||
			r.Log.Size != faena.MaxInlineBytes || r.Log.Dropped != size-faena.MaxInlineBytes ||
			!bytes.Equal(r.Log.Inline, want[size-faena.MaxInlineBytes:]) {
			t.Errorf("%s, %d bytes, %d dropped", r.State, r.Log.Size, r.Log.Dropped)
		}
	})
	t.Run("and with room again so does what is large", func(t *testing.T) {
		for _, name := range filled {
			s.check(s.bus.DeleteObject(t.Context(), group, name))
		}
		if r := s.call(rev, ""); r.State != faena.StateSucceeded || r.Result.Size != faena.MaxInlineBytes+1 {
			t.Errorf("%+v", r)
		}
	})
}

// TestWorker_Timeout: what runs longer than it may is killed and settled, its log so far is kept, and its slot is free.
func TestWorker_Timeout(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	h := s.run("timeout")
	for _, isolation := range []faena.Isolation{faena.IsolationReuse, faena.IsolationFresh} {
		t.Run(string(isolation), func(t *testing.T) {
			r := s.call(s.function(string(isolation), func(r *faena.Revision) { r.Spec.TimeoutMS, r.Spec.Isolation = 3000, isolation }, "stubborn"), "")
			if r.State != faena.StateTimedOut || r.Reason != faena.ReasonTimeout || !strings.Contains(r.Message, "3s") || ending(r) != "" ||
				string(r.Log.Inline) != "here" || r.Timings.RunUS < 3_000_000 {
				t.Errorf("%+v", r)
			}
			s.quiet()
		})
	}
	faenatest.Eventually(t, patience, "only the one for the next fresh activation is left", func() bool {
		return len(h.containers()) == 1 && h.Describe().Busy == 0
	})
}

// TestWorker_Environment: a process is given the image's environment, the spec's, and what it may want to know of itself.
func TestWorker_Environment(t *testing.T) {
	t.Parallel()
	s := start(t, 0)
	s.run("environment")
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	rev := s.function("f", func(r *faena.Revision) {
		r.Config.Env = []string{"PATH=/bin", "A=image", "B=image", "FAENA_REVISION=image", "TRACEPARENT=image", "HOSTNAME=image"}
		r.Spec.Env, r.Spec.TimeoutMS, r.Number = map[string]string{"B": "spec", "C": "x=\ny"}, 60_000, 7
	}, "env")
	before := time.Now()
	r := s.ended(s.send(rev, "", func(r *faena.Record) { r.Traceparent = trace }))
	text := string(r.Result.Inline)
	for _, want := range []string{"PATH=/bin\n", "A=image\n", "B=spec\n", "C=x=\ny\n", "HOME=/\n", "FAENA_ACTIVATION_ID=" + r.ID + "\n",
		"FAENA_FUNCTION=f\n", "FAENA_REVISION=7\n", "FAENA_ATTEMPT=1\n", "TRACEPARENT=" + trace + "\n",
		"FAENA_TRACE_ID=0af7651916cd43dd8448eb211c80319c\n", "HOSTNAME=image\n"} {
		if strings.Count("\n"+text, "\n"+want) != 1 {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	_, deadline, _ := strings.Cut(text, "FAENA_DEADLINE=")
	at, err := time.Parse(time.RFC3339Nano, strings.SplitN(deadline, "\n", 2)[0])
	if err != nil || at.Before(before.Add(59*time.Second)) || at.After(time.Now().Add(60*time.Second)) {
		t.Errorf("the deadline is %v, %v", at, err)
	}
	if n := strings.Count(text, "\n"); n != 14 {
		t.Errorf("it has %d lines:\n%s", n, text)
	}
}
