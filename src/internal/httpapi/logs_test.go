package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// stream is an answer of server-sent events.
type stream struct {
	t        testing.TB
	lines    *bufio.Scanner
	comments int
}

// event is one of them.
type event struct{ id, name, data string }

// follow follows the log of one of ann's activations until the test ends.
func (s *site) follow(id string, with ...option) *stream {
	s.t.Helper()
	r := s.request(http.MethodGet, "/v1/activations/"+id+"/logs?follow", append(with, as("ann"))...)
	res, err := s.client.Do(r)
	noError(s.t, err)
	s.t.Cleanup(func() { _ = res.Body.Close() })
	a := reply{s.t, "follow", res.StatusCode, res.Header, nil}
	a.is(http.StatusOK).has("Content-Type", "text/event-stream").has("Faena-Activation-Id", id).has("X-Accel-Buffering", "no")
	s.keepsContract(r, a)
	return &stream{t: s.t, lines: bufio.NewScanner(res.Body)}
}

// next reads the next event; io.EOF where the stream has ended.
func (st *stream) next() (e event, err error) {
	st.t.Helper()
	for st.lines.Scan() {
		line := st.lines.Text()
		field, value, _ := strings.Cut(line, ": ")
		switch {
		case strings.HasPrefix(line, ":"):
			st.comments++
		case line == "" && e.name != "":
			return e, nil
		case line == "": // after a comment
		case field == "id":
			e.id = value
		case field == "event":
			e.name = value
		case field == "data":
			e.data = value
		default:
			st.t.Fatalf("the stream has the line %q", line)
		}
	}
	if err := st.lines.Err(); err != nil {
		return e, err
	}
	return e, io.EOF
}

// reads reads log events until it has as much text as wanted, which begins at offset from.
func (st *stream) reads(from int, want string) {
	st.t.Helper()
	var got []byte
	for len(got) < len(want) {
		e, err := st.next()
		if err != nil || e.name != "log" {
			st.t.Fatalf("after %q of %q comes %+v, %v", got, want, e, err)
		}
		var log LogEvent
		noError(st.t, json.Unmarshal([]byte(e.data), &log))
		if log.Offset != int64(from+len(got)) || e.id != fmt.Sprint(from+len(got)+len(log.Data)) || len(log.Data) == 0 {
			st.t.Fatalf("an event at offset %d has %d bytes at %d and the id %s", from+len(got), len(log.Data), log.Offset, e.id)
		}
		got = append(got, log.Data...)
	}
	if string(got) != want {
		st.t.Fatalf("the log goes on with %q, want %q", got, want)
	}
}

// ends reads the last event, which says how the activation ended.
func (st *stream) ends(id string, state State, reason string) {
	st.t.Helper()
	e, err := st.next()
	noError(st.t, err)
	var end EndEvent
	noError(st.t, json.Unmarshal([]byte(e.data), &end))
	if e.name != "end" || e.id != "" || end != (EndEvent{ActivationID: id, State: state, Reason: reason}) {
		st.t.Fatalf("the last event is %+v, want %s %s", e, state, reason)
	}
	if e, err := st.next(); !errors.Is(err, io.EOF) {
		st.t.Fatalf("after the end comes %+v, %v", e, err)
	}
}

// talk is a function that says what it is told to, until it is told to end.
type talk struct {
	say chan string
	id  chan string
}

func newTalk() *talk { return &talk{say: make(chan string), id: make(chan string, 10)} }

func (k *talk) run(j *job) ([]byte, faena.Reason) {
	k.id <- j.record.ID
	for {
		select {
		case text, more := <-k.say:
			if !more {
				return nil, ""
			}
			j.say(text)
		case <-j.Done():
			return nil, faena.ReasonCancelled
		}
	}
}

// accepted activates ann's function without waiting, and returns the id.
func (s *site) accepted(parameter string) string {
	s.t.Helper()
	return decoded[Accepted](s.activate(body(parameter), header("Prefer", "respond-async")).is(http.StatusAccepted)).ActivationID
}

// A log is followed as it is written, from before the activation starts, by whoever asks, and from where he left off.
func TestLogs_Follow(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	id := s.accepted("x") // nobody runs it yet
	early := s.follow(id)
	k := newTalk()
	s.worker(1, k.run)
	<-k.id
	k.say <- "one\n"
	early.reads(0, "one\n")
	k.say <- "\xff\x00two" // no UTF-8, and no end of the line
	early.reads(4, "\xff\x00two")
	late := s.follow(id)
	late.reads(0, "one\n\xff\x00two")
	resumed := s.follow(id, header("Last-Event-ID", "6")) // in the middle of a piece
	resumed.reads(6, "two")
	ahead := s.follow(id, header("Last-Event-ID", "12"))
	if a := s.call(http.MethodGet, "/v1/activations/"+id+"/logs", as("ann")).is(http.StatusOK).has("Faena-State", "running"); string(a.body) != "one\n\xff\x00two" {
		t.Errorf("the log so far is %q", a.body)
	}
	k.say <- "three"
	for _, st := range []*stream{early, late, resumed} {
		st.reads(9, "three")
	}
	ahead.reads(12, "ee")
	close(k.say)
	for _, st := range []*stream{early, late, resumed, ahead} {
		st.ends(id, "succeeded", "")
	}
	s.becomes(id, "succeeded")
	after := s.follow(id)
	after.reads(0, "one\n\xff\x00twothree")
	after.ends(id, "succeeded", "")
	s.follow(id, header("Last-Event-ID", "14")).ends(id, "succeeded", "")
}

// A stream says how the activation ended, also where it never ran.
func TestLogs_FollowToAnotherEnd(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	queued := s.accepted("x")
	st := s.follow(queued)
	s.call(http.MethodDelete, "/v1/activations/"+queued, as("ann")).is(http.StatusOK)
	st.ends(queued, "cancelled", "cancelled")
	k := newTalk()
	s.worker(1, k.run)
	running := s.accepted("x")
	<-k.id
	st = s.follow(running)
	k.say <- "before the end"
	st.reads(0, "before the end")
	s.call(http.MethodDelete, "/v1/activations/"+running, as("ann")).is(http.StatusAccepted)
	st.ends(running, "cancelled", "cancelled")
}

// follow is asked for by the query alone.
func TestLogs_FollowIsAskedFor(t *testing.T) {
	s := start(t).serve(t)
	s.worker(1, func(j *job) ([]byte, faena.Reason) { j.say("a log"); return nil, "" })
	s.deploy("ann", "tool")
	id := s.activate().is(http.StatusOK).header.Get("Faena-Activation-Id")
	for query, streamed := range map[string]bool{"": false, "?follow": true, "?follow=": true, "?follow=true": true, "?follow=false": false} {
		a := s.call(http.MethodGet, "/v1/activations/"+id+"/logs"+query, as("ann"), header("Accept", "text/event-stream")).is(http.StatusOK)
		if got := strings.HasPrefix(string(a.body), ": "); got != streamed || !streamed && string(a.body) != "a log" {
			t.Errorf("%q gives %q", query, a.body)
		}
	}
}

// A log of which the head was dropped says so; a large one is whole; one that has expired is a 410.
func TestLogs_Kept(t *testing.T) {
	s := start(t).serve(t)
	large := strings.Repeat("a line of a large log\n", faena.MaxLogBytes/22)
	s.worker(1, func(j *job) ([]byte, faena.Reason) {
		j.say(large)
		j.change = func(r *faena.Record) { r.Log.Truncated, r.Log.Dropped = true, 1000 }
		return bytes.Repeat([]byte("r"), faena.MaxInlineBytes+1), ""
	})
	s.deploy("ann", "tool")
	id := s.activate().is(http.StatusOK).header.Get("Faena-Activation-Id")
	path := "/v1/activations/" + id
	a := s.call(http.MethodGet, path+"/logs", as("ann")).is(http.StatusOK).has("Faena-Dropped", "1000").has("Content-Type", "text/plain; charset=utf-8")
	if string(a.body) != large {
		t.Errorf("%d other bytes came back", len(a.body))
	}
	if log := s.becomes(id, "succeeded").Log; log.Size != int64(len(large)) || log.Dropped != 1000 || !log.Truncated || log.Text != "" {
		t.Errorf("the record says %+v", log)
	}
	st := s.follow(id, header("Last-Event-ID", fmt.Sprint(1000+len(large)-4)))
	st.reads(1000+len(large)-4, "log\n")
	st.ends(id, "succeeded", "")
	noError(t, s.bus.DeleteObject(t.Context(), group, "log."+id))
	noError(t, s.bus.DeleteObject(t.Context(), group, "out."+id))
	s.call(http.MethodGet, path+"/logs", as("ann")).problem(http.StatusGone, "log_expired")
	s.call(http.MethodGet, path+"/result", as("ann")).problem(http.StatusGone, "result_expired")
	s.call(http.MethodGet, path, as("ann")).is(http.StatusOK)
}

// A stream of which nothing comes is kept open by comments, and ends when the server stops: the caller comes again.
func TestLogs_FollowUntilTheServerStops(t *testing.T) {
	p := start(t)
	k := newTalk()
	p.worker(1, k.run)
	p.deploy("ann", "tool")
	s := p.serve(t, func(s *site) { s.api.o.KeepAlive = 5 * time.Millisecond })
	id := s.accepted("x")
	<-k.id
	st := s.follow(id)
	for st.comments < 20 {
		if !st.lines.Scan() {
			t.Fatalf("the stream has ended: %v", st.lines.Err())
		}
		if strings.HasPrefix(st.lines.Text(), ":") {
			st.comments++
		}
	}
	s.api.Close()
	if e, err := st.next(); !errors.Is(err, io.EOF) {
		t.Errorf("when the server stops comes %+v, %v", e, err)
	}
	close(k.say)
	s.becomes(id, "succeeded")
}

// A log that cannot be followed any more ends with a problem document.
func TestLogs_FollowWithoutTheQueue(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	id := s.accepted("x")
	st := s.follow(id)
	s.nats.Shutdown()
	e, err := st.next()
	noError(t, err)
	var p Problem
	noError(t, json.Unmarshal([]byte(e.data), &p))
	if e.name != "error" || p.Reason != "queue_unavailable" || !p.Retryable || p.Status != http.StatusServiceUnavailable || p.RequestID == "" {
		t.Errorf("the last event is %+v", e)
	}
	if e, err := st.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the error comes %+v, %v", e, err)
	}
}
