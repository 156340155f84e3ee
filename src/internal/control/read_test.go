package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

func TestControl_Activations(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 100)
	r.deploy("ann", "f")
	r.deploy("ann", "g")
	g := newGate()
	w := r.worker(2, echo)
	send := func(function string) string {
		rec, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: function, Parameter: []byte("result"), Async: true})
		noError(t, err)
		return rec.ID
	}
	var ids []string // oldest first: 4 stored, 2 running, 3 queued
	for i := range 4 {
		ids = append(ids, send([]string{"f", "g"}[i%2]))
		r.becomes(ids[i], faena.StateSucceeded)
	}
	r.stored(4)
	w.does(g.run)
	for i := range 2 {
		ids = append(ids, send("f"))
		r.becomes(ids[4+i], faena.StateRunning)
	}
	for range 3 {
		ids = append(ids, send("g"))
	}
	at := func(of ...int) (list []string) {
		for _, i := range of {
			list = append(list, ids[i])
		}
		return list
	}
	for _, c := range []struct {
		name string
		q    faena.HistoryQuery
		want []string
	}{
		{"All", faena.HistoryQuery{Limit: 100}, at(8, 7, 6, 5, 4, 3, 2, 1, 0)},
		{"APageOfBoth", faena.HistoryQuery{Limit: 6}, at(8, 7, 6, 5, 4, 3)},
		{"TheNextPage", faena.HistoryQuery{Limit: 6, Before: ids[3]}, at(2, 1, 0)},
		{"FromTheMiddleOfTheLive", faena.HistoryQuery{Limit: 3, Before: ids[6]}, at(5, 4, 3)},
		{"OfOneFunction", faena.HistoryQuery{Limit: 100, Function: "f"}, at(5, 4, 2, 0)},
		{"Queued", faena.HistoryQuery{Limit: 100, State: faena.StateQueued}, at(8, 7, 6)},
		{"Running", faena.HistoryQuery{Limit: 1, State: faena.StateRunning}, at(5)},
		{"SucceededOfOneFunction", faena.HistoryQuery{Limit: 100, Function: "g", State: faena.StateSucceeded}, at(3, 1)},
		{"Lost", faena.HistoryQuery{Limit: 100, State: faena.StateLost}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.User = "ann"
			list, err := r.Activations(t.Context(), c.q)
			noError(t, err)
			var got []string
			for _, rec := range list {
				got = append(got, rec.ID)
				if rec.Result.Inline != nil {
					t.Error("a list carries results")
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("the list is %v, want %v", got, c.want)
			}
		})
	}
	if list, err := r.Activations(t.Context(), faena.HistoryQuery{User: "bob", Limit: 100}); err != nil || len(list) != 0 {
		t.Errorf("bob sees %v, %v", list, err)
	}
	close(g.open)
	r.stored(9)
	if list, err := r.Activations(t.Context(), faena.HistoryQuery{User: "ann", Limit: 100}); err != nil || len(list) != 9 {
		t.Errorf("there are %d, %v", len(list), err)
	}
}

// An activation can be read at every moment of its life, and only goes forward: it is never between the bucket and the
// store.
func TestControl_Activation_AtEveryMoment(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 100)
	r.deploy("ann", "f")
	r.worker(2, echo)
	order := map[faena.State]int{faena.StateQueued: 0, faena.StateRunning: 1, faena.StateSucceeded: 2}
	var wg sync.WaitGroup
	for range 30 {
		id := r.accepted("x")
		wg.Go(func() {
			reached := 0
			for recorded := false; !recorded; {
				_, err := r.documents.Activation(t.Context(), "ann", id)
				recorded = err == nil
				rec, err := r.Activation(t.Context(), "ann", id)
				if err != nil {
					t.Errorf("it cannot be read: %v", err)
					return
				}
				if order[rec.State] < reached {
					t.Errorf("it has gone back to %s", rec.State)
				}
				reached = order[rec.State]
			}
			if reached != 2 {
				t.Error("it was recorded before its end")
			}
		})
	}
	wg.Wait()
	r.quiet()
}

func TestControl_Result(t *testing.T) {
	t.Parallel()
	r := start(t)
	noError(t, r.bus.PutObject(t.Context(), group, "out.1", []byte("large\x00")))
	kept := ended(1)
	kept.Result = faena.Blob{Size: 6, Object: "out.1"}
	kept.Log = faena.Blob{Size: 3, Inline: []byte("log")}
	expired := ended(2)
	expired.Result, expired.Log = faena.Blob{Size: 6, Object: "out.2"}, faena.Blob{Size: 6, Object: "log.2"}
	nothing := ended(3)
	noError(t, r.documents.Insert(t.Context(), []faena.Record{kept, expired, nothing}))

	rec, p, err := r.Result(t.Context(), "ann", kept.ID)
	if err != nil || rec.ID != kept.ID || string(p) != "large\x00" {
		t.Errorf("the result is %q, %v", p, err)
	}
	if _, p, err := r.Logs(t.Context(), "ann", kept.ID); err != nil || string(p) != "log" {
		t.Errorf("the log is %q, %v", p, err)
	}
	_, _, err = r.Result(t.Context(), "ann", expired.ID)
	if e := isKind(t, err, faena.KindGone); e.Reason != "result_expired" || e.Activation != expired.ID {
		t.Errorf("the error is %+v", e)
	}
	_, _, err = r.Logs(t.Context(), "ann", expired.ID)
	if e := isKind(t, err, faena.KindGone); e.Reason != "log_expired" {
		t.Errorf("the error is %+v", e)
	}
	if _, p, err := r.Result(t.Context(), "ann", nothing.ID); err != nil || len(p) != 0 {
		t.Errorf("the result is %q, %v", p, err)
	}
	_, _, err = r.Result(t.Context(), "bob", kept.ID)
	isKind(t, err, faena.KindNotFound)
}

// ended is a record of ann's that has ended.
func ended(n int) faena.Record {
	return faena.Record{Schema: faena.SchemaVersion, ID: fmt.Sprintf("01956a3e-0f5b-7cc1-8a2b-%012d", n), User: "ann", Group: group, Function: "f",
		State: faena.StateSucceeded, AdmittedAt: time.Now().UTC()}
}

// collected is what a follower was given.
type collected struct {
	mu   sync.Mutex
	text strings.Builder
	next int64
	gaps int
}

func (c *collected) add(offset int64, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if offset != c.next {
		c.gaps++
	}
	c.next = offset + int64(len(p))
	c.text.Write(p)
	return nil
}

func (c *collected) has(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String() == text
}

func TestControl_FollowLogs(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	words := make(chan string)
	w := r.worker(1, func(j *job) (string, faena.Reason) {
		for word := range words {
			j.say(word)
		}
		return "done", ""
	})
	follow := func(id string) (*collected, chan faena.Record) {
		c, end := new(collected), make(chan faena.Record, 1)
		go func() {
			rec, err := r.FollowLogs(t.Context(), "ann", id, c.add)
			if err != nil {
				t.Error(err)
			}
			end <- rec
		}()
		return c, end
	}
	id := r.accepted("x")
	first, firstEnd := follow(id) // before it says anything, perhaps before it runs
	words <- "one "
	words <- "two "
	faenatest.Eventually(t, patience, "the first follower has what was said", func() bool { return first.has("one two ") })
	late, lateEnd := follow(id) // from the beginning
	faenatest.Eventually(t, patience, "the late follower has what was said", func() bool { return late.has("one two ") })
	if _, p, err := r.Logs(t.Context(), "ann", id); err != nil || string(p) != "one two " {
		t.Errorf("the log so far is %q, %v", p, err)
	}
	all := "one two "
	for i := range 500 { // more than fits into the buffer of one that is slow
		word := fmt.Sprintf("%d ", i)
		words <- word
		all += word
	}
	close(words)
	for name, f := range map[string]struct {
		c   *collected
		end chan faena.Record
	}{"first": {first, firstEnd}, "late": {late, lateEnd}} {
		rec := <-f.end
		if rec.State != faena.StateSucceeded || !f.c.has(all) || f.c.gaps > 0 {
			t.Errorf("the %s follower has %d bytes with %d gaps, want %d; the record is %s", name, f.c.text.Len(), f.c.gaps, len(all), rec.State)
		}
	}
	r.stored(1)
	after, afterEnd := follow(id)
	if rec := <-afterEnd; rec.State != faena.StateSucceeded || !after.has(all) {
		t.Errorf("after its end a follower has %d bytes", after.text.Len())
	}
	if w.ran.Load() != 1 {
		t.Errorf("%d ran", w.ran.Load())
	}
}

// A follower ends with its reader, its context, and for what is not there.
func TestControl_FollowLogs_Ends(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	id := r.accepted("x") // queued: it has no log
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if _, err := r.FollowLogs(ctx, "ann", id, new(collected).add); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ends with %v", err)
	}
	_, err := r.FollowLogs(t.Context(), "bob", id, new(collected).add)
	isKind(t, err, faena.KindNotFound)

	gone, release := errors.New("the reader has gone"), make(chan struct{})
	r.worker(1, func(j *job) (string, faena.Reason) { j.say("word"); <-release; return "", "" })
	defer close(release)
	if _, err := r.FollowLogs(t.Context(), "ann", id, func(int64, []byte) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("it ends with %v", err)
	}
}

// Of a log whose head was dropped a follower gets the rest, with its offset.
func TestControl_FollowLogs_DroppedHead(t *testing.T) {
	t.Parallel()
	r := start(t)
	rec := ended(1)
	rec.Log = faena.Blob{Size: 4, Inline: []byte("tail"), Truncated: true, Dropped: 100}
	noError(t, r.documents.Insert(t.Context(), []faena.Record{rec}))
	var at int64
	got, err := r.FollowLogs(t.Context(), "ann", rec.ID, func(offset int64, p []byte) error {
		at = offset
		if string(p) != "tail" {
			t.Errorf("the log is %q", p)
		}
		return nil
	})
	if err != nil || at != 100 || !got.Log.Truncated {
		t.Errorf("the log begins at %d, %v", at, err)
	}
}
