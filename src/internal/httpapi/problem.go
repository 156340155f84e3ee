package httpapi

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"faena.dev/faena/internal/faena"
)

const problemType = "application/problem+json"

// fail answers a request with err. What is internal is logged here and shown as its request id only.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if ctxErr := r.Context().Err(); ctxErr != nil && errors.Is(err, ctxErr) {
		err = &faena.Error{Kind: faena.KindUnavailable, Reason: "call_ended", Component: faena.ComponentCaller,
			Message: "The call was given up. An activation that was accepted goes on."}
	}
	e, ok := errors.AsType[*faena.Error](err)
	if !ok && errors.Is(err, faena.ErrSchema) {
		e, ok = &faena.Error{Kind: faena.KindUnavailable, Reason: "schema_unknown", Component: faena.ComponentStore, Retryable: true,
			RetryAfter: 10 * time.Second, Message: "Another version of Faena has written it, and this one does not read it. Ask again when the upgrade is complete.", Err: err}, true
	}
	if ok {
		_, ok = answers[e.Kind] // one that is not in the table is a bug
	}
	if !ok {
		e = &faena.Error{Kind: faena.KindInternal, Err: err}
	}
	if e.Kind == faena.KindInternal {
		a.report(r.Context(), slog.LevelError, "a request failed for an unexpected reason", slog.String("activation_id", e.Activation),
			slog.String("method", r.Method), slog.String("route", callOf(r.Context()).route), slog.Any("error", err))
		e = &faena.Error{Kind: faena.KindInternal, Reason: "internal", Component: faena.ComponentAPI, Activation: e.Activation,
			Message: "Something unexpected happened. An operator finds its cause in the log under this request id.", OutcomeUnknown: e.OutcomeUnknown}
	} else if e.Kind == faena.KindUnavailable && e.Err != nil {
		a.report(r.Context(), slog.LevelWarn, "a part of the platform is away", slog.String("activation_id", e.Activation),
			slog.String("reason", e.Reason), slog.String("component", string(e.Component)), slog.Any("error", e.Err))
	}
	a.writeProblem(w, r, problemOf(e, w.Header()))
}

// problemOf turns an error into a problem document, and sets the headers that belong to it.
func problemOf(e *faena.Error, h http.Header) Problem {
	if e.Kind == faena.KindUnauthenticated {
		h.Set("WWW-Authenticate", `Basic realm="faena", charset="UTF-8"`)
	}
	after := e.RetryAfter
	if e.Kind == faena.KindLimit {
		after = max(after, time.Second) // always said
	}
	setRetryAfter(h, after)
	if e.Activation != "" {
		h.Set("Faena-Activation-Id", e.Activation)
	}
	to := answerTo(e.Kind)
	p := Problem{
		Status: to.status, Title: to.title, Detail: e.Message, Reason: e.Reason, Component: Component(e.Component),
		Retryable: e.Retryable, ActivationID: e.Activation, OutcomeUnknown: e.OutcomeUnknown,
	}
	for _, f := range e.Fields {
		p.Errors = append(p.Errors, FieldError{Field: f.Field, Message: f.Message})
	}
	return p
}

func setRetryAfter(h http.Header, d time.Duration) {
	if d > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
	}
}

// writeProblem completes a problem document and answers with it. What is left of the request's body is not waited for
// long: the server reads a little of it, so that the client gets to reading the answer, and closes the connection
// where there is more.
func (a *API) writeProblem(w http.ResponseWriter, r *http.Request, p Problem) {
	c := callOf(r.Context())
	p.RequestID = c.requestID
	if rw, ok := w.(*response); ok && r.ContentLength != 0 && !c.bodyRead {
		rw.readWithin(a.timeouts.drain)
	}
	if p.Reason == "" {
		p.Reason = "unspecified"
	}
	if p.Component == "" {
		p.Component = ComponentAPI
	}
	p.Type = "urn:faena:problem:" + p.Reason
	b, err := json.Marshal(p)
	if err != nil {
		// Strings and numbers only: it cannot happen, and if it does the caller still gets the status.
		a.report(r.Context(), slog.LevelError, "a problem document could not be encoded", slog.Any("error", err))
		b = []byte("{}")
	}
	writeBytes(w, p.Status, problemType, append(b, '\n'))
}

// panicked logs a panic and answers with 500 where nothing was answered yet.
func (a *API) panicked(w *response, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		return
	}
	a.report(r.Context(), slog.LevelError, "a request panicked", slog.String("method", r.Method),
		slog.String("route", callOf(r.Context()).route), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	if w.status == 0 {
		a.writeProblem(w, r, problemOf(&faena.Error{Kind: faena.KindInternal, Reason: "internal", Component: faena.ComponentAPI,
			Message: "Something unexpected happened. An operator finds its cause in the log under this request id."}, w.Header()))
	}
}

// badParameter answers a path, query or header parameter that the generated code could not read.
func (a *API) badParameter(w http.ResponseWriter, r *http.Request, err error) {
	name, what := "request", "cannot be read"
	if e, ok := errors.AsType[*InvalidParamFormatError](err); ok {
		name, what = e.ParamName, "has not the form that the specification gives"
	}
	if e, ok := errors.AsType[*TooManyValuesForParamError](err); ok {
		name, what = e.ParamName, "is given more than once"
	}
	a.fail(w, r, malformed("The request cannot be read: "+name+" "+what+".", faena.FieldError{Field: name, Message: what}))
}
