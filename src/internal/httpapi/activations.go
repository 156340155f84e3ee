package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"faena.dev/faena/internal/faena"
)

// maxExpires is the largest Faena-Expires, in seconds: a week.
const maxExpires = 7 * 24 * 60 * 60

// maxIdempotencyKey is the longest Idempotency-Key.
const maxIdempotencyKey = 255

// Activate runs a function once.
func (h handlers) Activate(w http.ResponseWriter, r *http.Request, name FunctionName, params ActivateParams) {
	c := callOf(r.Context())
	req := faena.ActivationRequest{User: c.user.Name, Function: name, Async: prefersAsync(params.Prefer),
		Traceparent: c.traceparent, RequestID: c.requestID}
	if e := params.FaenaExpires; e != nil {
		if *e < 1 || *e > maxExpires {
			h.fail(w, r, faena.Invalid(faena.FieldError{Field: "Faena-Expires", Message: fmt.Sprintf("is %d, must be from 1 to %d seconds", *e, maxExpires)}))
			return
		}
		req.Expires = time.Duration(*e) * time.Second
	}
	key, err := idempotencyKey(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	rec, replayed, err := h.run(w, r, key, req)
	if replayed {
		w.Header().Set("Faena-Idempotent-Replay", "true")
	}
	switch {
	case err != nil:
		h.fail(w, r, err)
	case req.Async || !rec.State.Terminal():
		if req.Async {
			w.Header().Set("Preference-Applied", "respond-async")
		}
		h.writeAccepted(w, r, &rec)
	default:
		h.writeEnd(w, r, &rec)
	}
}

// idempotencyKey is the call's Idempotency-Key; "" where it has none.
func idempotencyKey(r *http.Request) (string, error) {
	given, ok := r.Header["Idempotency-Key"]
	if !ok {
		return "", nil
	}
	key := strings.Join(given, "")
	good := len(key) >= 1 && len(key) <= maxIdempotencyKey
	for i := range len(key) {
		good = good && key[i] >= ' ' && key[i] <= '~'
	}
	if !good {
		const what = "must have 1 to 255 printable ASCII characters"
		return "", malformed("The request cannot be read: Idempotency-Key "+what+".", faena.FieldError{Field: "Idempotency-Key", Message: what})
	}
	return key, nil
}

// run reads the parameter and has the function run. The parameter's memory is free again when it returns.
func (a *API) run(w http.ResponseWriter, r *http.Request, key string, req faena.ActivationRequest) (rec faena.Record, replayed bool, err error) {
	b := a.buffers.get()
	defer a.buffers.put(b)
	if err := readBody(w, r, b, a.o.MaxParameterBytes, "parameter"); err != nil {
		return faena.Record{}, false, err
	}
	req.Parameter = b.Bytes()
	if key != "" {
		return a.o.Activations.ActivateOnce(r.Context(), key, req)
	}
	rec, err = a.o.Activations.Activate(r.Context(), req)
	return rec, false, err
}

// writeAccepted answers with where to find an activation that has not ended.
func (a *API) writeAccepted(w http.ResponseWriter, r *http.Request, rec *faena.Record) {
	location := pathOf(rec)
	w.Header().Set("Location", location)
	w.Header().Set("Faena-Activation-Id", rec.ID)
	a.writeJSON(w, r, http.StatusAccepted, Accepted{ActivationID: rec.ID, State: State(rec.State), Location: location})
}

func pathOf(rec *faena.Record) string { return "/v1/activations/" + rec.ID }

// writeEnd answers a call whose activation has ended.
func (a *API) writeEnd(w http.ResponseWriter, r *http.Request, rec *faena.Record) {
	whole := prefersJSON(r.Header.Values("Accept"))
	if rec.State != faena.StateSucceeded {
		setOutcome(w.Header(), rec)
		a.writeFailure(w, r, rec, whole)
		return
	}
	result, err := a.o.Activations.ResultOf(r.Context(), rec)
	if faena.IsKind(err, faena.KindUnavailable) && r.Context().Err() == nil {
		// A 503 would say that nothing was accepted, and a caller might call again for what has run.
		a.report(r.Context(), slog.LevelWarn, "the result of an activation could not be read for its answer", slog.String("activation_id", rec.ID), slog.Any("error", err))
		a.writeAccepted(w, r, rec)
		return
	}
	setOutcome(w.Header(), rec)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if !whole {
		writeBytes(w, http.StatusOK, "application/octet-stream", result)
		return
	}
	shown := showRecord(*rec)
	shown.Result.include(result)
	shown.Log.include(a.logOf(r, rec))
	a.writeJSON(w, r, http.StatusOK, shown)
}

// writeFailure answers with the problem document of an activation that failed.
func (a *API) writeFailure(w http.ResponseWriter, r *http.Request, rec *faena.Record, whole bool) {
	to := answerToFailure(rec)
	explained, _ := faena.Explain(rec.Reason)
	p := Problem{Status: to.status, Title: to.title, Detail: rec.Message, Reason: string(rec.Reason), Component: Component(explained.Component),
		Retryable: explained.Retryable, ActivationID: rec.ID, State: State(rec.State), ExitCode: rec.ExitCode, Signal: rec.Signal}
	if to.status == http.StatusServiceUnavailable {
		setRetryAfter(w.Header(), 5*time.Second)
	}
	log := a.logOf(r, rec)
	tail := log[max(0, len(log)-faena.LogTailBytes):]
	p.LogTail = strings.ToValidUTF8(string(tail), "\uFFFD")
	p.LogTruncated = len(tail) < len(log) || rec.Log.Truncated
	if whole {
		shown := showRecord(*rec)
		if result, err := a.o.Activations.ResultOf(r.Context(), rec); err == nil {
			shown.Result.include(result)
		}
		shown.Log.include(log)
		p.Activation = &shown
	}
	a.writeProblem(w, r, p)
}

// logOf reads the log of an ended activation. The answer does not hang on it: without it, it is left out.
func (a *API) logOf(r *http.Request, rec *faena.Record) []byte {
	if rec.Log.Object == "" {
		return rec.Log.Inline
	}
	_, p, err := a.o.Activations.Logs(r.Context(), rec.User, rec.ID)
	if err != nil {
		a.report(r.Context(), slog.LevelWarn, "the log of an activation could not be read for its answer",
			slog.String("activation_id", rec.ID), slog.Any("error", err))
	}
	return p
}

func setOutcome(h http.Header, rec *faena.Record) {
	h.Set("Faena-Activation-Id", rec.ID)
	h.Set("Faena-Duration", strconv.FormatFloat(float64(rec.Timings.RunUS)/1000, 'f', 3, 64))
	h.Set("Faena-Warm", strconv.FormatBool(rec.Warm))
}

// ListActivations lists activations, newest first.
func (h handlers) ListActivations(w http.ResponseWriter, r *http.Request, params ListActivationsParams) {
	list, next, err := pageOf(params.Limit, params.Cursor, faena.ValidActivationID, func(rec faena.Record) string { return rec.ID },
		func(before string, n int) ([]faena.Record, error) {
			if params.State != "" && !params.State.Valid() {
				return nil, faena.Invalid(faena.FieldError{Field: "state", Message: fmt.Sprintf("is %q, must be one of %v", params.State, faena.States)})
			}
			return h.o.Activations.Activations(r.Context(), faena.HistoryQuery{User: caller(r), Function: params.Function,
				State: faena.State(params.State), Before: before, Limit: n})
		})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, ActivationPage{Items: each(list, showRecord), Next: next})
}

// GetActivation reads an activation's record.
func (h handlers) GetActivation(w http.ResponseWriter, r *http.Request, id ActivationID) {
	rec, err := h.o.Activations.Activation(r.Context(), caller(r), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, showRecord(rec))
}

// CancelActivation cancels an activation.
func (h handlers) CancelActivation(w http.ResponseWriter, r *http.Request, id ActivationID) {
	rec, err := h.o.Activations.Cancel(r.Context(), caller(r), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if !rec.State.Terminal() {
		status = http.StatusAccepted
		w.Header().Set("Location", pathOf(&rec))
	}
	h.writeJSON(w, r, status, showRecord(rec))
}

// GetResult reads an activation's result as it was written.
func (h handlers) GetResult(w http.ResponseWriter, r *http.Request, id ActivationID) {
	rec, result, err := h.o.Activations.Result(r.Context(), caller(r), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	setOutcome(w.Header(), &rec)
	w.Header().Set("Faena-State", string(rec.State))
	if rec.Result.Truncated {
		w.Header().Set("Faena-Truncated", "true")
	}
	writeBytes(w, http.StatusOK, "application/octet-stream", result)
}

// prefersAsync reports whether a Prefer header asks not to wait (RFC 7240).
func prefersAsync(prefer string) bool {
	for p := range strings.SplitSeq(prefer, ",") {
		name, _, _ := strings.Cut(p, ";")
		if strings.EqualFold(strings.TrimSpace(name), "respond-async") {
			return true
		}
	}
	return false
}

// prefersJSON reports whether an Accept header names application/json, and not application/octet-stream with a higher
// quality (RFC 9110 section 12.5.1).
func prefersJSON(accept []string) bool {
	json, bytes := 0.0, 0.0
	for _, line := range accept {
		for entry := range strings.SplitSeq(line, ",") {
			media, parameters, _ := strings.Cut(entry, ";")
			q := 1.0
			for p := range strings.SplitSeq(parameters, ";") {
				if name, v, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(name, "q") {
					q, _ = strconv.ParseFloat(v, 64) // what is no number is 0: not wanted
				}
			}
			switch strings.ToLower(strings.TrimSpace(media)) {
			case "application/json":
				json = q
			case "application/octet-stream":
				bytes = q
			}
		}
	}
	return json > 0 && json >= bytes
}
