package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

// GetLogs reads or follows an activation's log.
func (h handlers) GetLogs(w http.ResponseWriter, r *http.Request, id ActivationID, params GetLogsParams) {
	follow := params.Follow == GetLogsParamsFollowTrue || params.Follow == "" && r.URL.Query().Has("follow")
	switch {
	case !params.Follow.Valid():
		h.fail(w, r, faena.Invalid(faena.FieldError{Field: "follow", Message: "must be true, false or empty"}))
		return
	case params.LastEventID < 0:
		h.fail(w, r, faena.Invalid(faena.FieldError{Field: "Last-Event-ID", Message: "must be an offset, 0 or more"}))
		return
	case follow:
		h.follow(w, r, id, params.LastEventID)
		return
	}
	rec, p, err := h.o.Activations.Logs(r.Context(), caller(r), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Faena-Activation-Id", rec.ID)
	w.Header().Set("Faena-State", string(rec.State))
	if rec.Log.Dropped > 0 {
		w.Header().Set("Faena-Dropped", strconv.FormatInt(rec.Log.Dropped, 10))
	}
	writeBytes(w, http.StatusOK, "text/plain; charset=utf-8", p)
}

// follow answers with server-sent events until the activation ends, the caller goes away, or the server stops.
func (a *API) follow(w http.ResponseWriter, r *http.Request, id string, from int64) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(a.stopping, cancel)()
	user := caller(r)
	rec, err := a.o.Activations.Activation(ctx, user, id) // before the first byte, so that it can be a 404
	if err != nil {
		a.fail(w, r, err)
		return
	}
	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("X-Accel-Buffering", "no")
	head.Set("Faena-Activation-Id", rec.ID)
	w.WriteHeader(http.StatusOK)
	if callOf(ctx).head {
		return
	}
	s := &events{w: w, control: http.NewResponseController(w)}
	s.comment()
	var alive sync.WaitGroup
	alive.Go(func() { s.keepAlive(ctx, a.o.KeepAlive) })
	defer alive.Wait()
	defer cancel()

	rec, err = a.o.Activations.FollowLogs(ctx, user, id, func(offset int64, p []byte) error {
		if skip := from - offset; skip > 0 {
			if skip >= int64(len(p)) {
				return nil
			}
			offset, p = from, p[skip:]
		}
		return s.send("log", strconv.FormatInt(offset+int64(len(p)), 10), LogEvent{Offset: offset, Data: p})
	})
	switch {
	case err == nil:
		err = s.send("end", "", EndEvent{ActivationID: rec.ID, State: State(rec.State), Reason: string(rec.Reason)})
	case ctx.Err() != nil: // nobody is there to be told, or he comes again with his Last-Event-ID
	default:
		e, ok := errors.AsType[*faena.Error](err)
		if !ok {
			e = &faena.Error{Kind: faena.KindInternal, Reason: "internal", Component: faena.ComponentAPI, Message: "The log cannot be followed any more."}
		}
		p := problemOf(e, http.Header{})
		p.RequestID, p.Type = RequestID(r.Context()), "urn:faena:problem:"+p.Reason
		err = errors.Join(err, s.send("error", "", p))
	}
	if err != nil && ctx.Err() == nil {
		a.report(r.Context(), slog.LevelWarn, "a log could not be followed to its end", slog.String("activation_id", id), slog.Any("error", err))
	}
}

// events writes server-sent events. It is safe for concurrent use.
type events struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
}

// send writes one event, with an id where it is not empty.
func (s *events) send(event, id string, data any) error {
	p, err := json.Marshal(data)
	if err != nil {
		return err
	}
	text := "event: " + event + "\ndata: " + string(p) + "\n\n"
	if id != "" {
		text = "id: " + id + "\n" + text
	}
	return s.write(text)
}

func (s *events) comment() { _ = s.write(": \n\n") } // a caller that has gone is noticed by its context

func (s *events) write(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.w.Write([]byte(text)); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	return s.control.Flush()
}

func (s *events) keepAlive(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.comment()
		}
	}
}
