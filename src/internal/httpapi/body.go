package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// maxJSONBytes bounds a JSON body: that of a function's spec is the largest.
	maxJSONBytes = faena.MaxRevisionBytes
	// keptBuffer is the largest buffer that is kept for the next call.
	keptBuffer = 1 << 20
)

// bufferPool keeps the buffers of parameters. The zero value is ready.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *bytes.Buffer {
	if b, ok := p.pool.Get().(*bytes.Buffer); ok {
		return b
	}
	return new(bytes.Buffer)
}

// put takes a buffer back; nobody may look at its bytes any more.
func (p *bufferPool) put(b *bytes.Buffer) {
	if b.Cap() <= keptBuffer {
		b.Reset()
		p.pool.Put(b)
	}
}

// readBody reads a request's body to its end into b. what is the noun for the error of one that is over limit.
func readBody(w http.ResponseWriter, r *http.Request, b *bytes.Buffer, limit int64, what string) error {
	if r.ContentLength > limit {
		return tooLarge(what, limit)
	}
	control := http.NewResponseController(w)
	// A writer without deadlines (a recorder in a test) is read from without.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		_ = control.SetReadDeadline(time.Time{}) // from here on a read only notices that the caller has gone
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(what, limit)
	}
	return &faena.Error{Kind: faena.KindMalformed, Reason: "body_incomplete", Component: faena.ComponentCaller,
		Message: "The body could not be read to its end.", Err: err}
}

func tooLarge(what string, limit int64) error {
	return &faena.Error{Kind: faena.KindTooLarge, Reason: what + "_too_large", Component: faena.ComponentCaller,
		Message: fmt.Sprintf("The %s is over the limit of %d bytes.", what, limit)}
}

// decode reads a JSON body strictly. A body that is empty leaves v as it is where it may be.
func (a *API) decode(w http.ResponseWriter, r *http.Request, v any, mayBeEmpty bool) error {
	b := a.buffers.get()
	defer a.buffers.put(b)
	if err := readBody(w, r, b, maxJSONBytes, "body"); err != nil {
		return err
	}
	if mayBeEmpty && len(bytes.TrimSpace(b.Bytes())) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b.Bytes()))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return decodeError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return malformed("The body goes on after its JSON value.")
	}
	return nil
}

// decodeError tells what is no JSON from what is JSON of another shape.
func decodeError(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := e.Field
		if field == "" {
			field = "body"
		}
		return faena.Invalid(faena.FieldError{Field: field, Message: "is a JSON " + e.Value + ", must be " + article(e.Type.Kind().String())})
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return faena.Invalid(faena.FieldError{Field: strings.Trim(name, `"`), Message: "is no field that this call knows"})
	}
	return malformed("The body is not JSON: " + strings.TrimPrefix(err.Error(), "json: ") + ".")
}

func article(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"):
		return "an integer"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "slice":
		return "a list"
	case kind == "map", kind == "struct":
		return "an object"
	case kind == "bool":
		return "true or false"
	}
	return "a " + kind
}

func malformed(message string) error {
	return &faena.Error{Kind: faena.KindMalformed, Reason: "malformed", Component: faena.ComponentCaller, Message: message}
}
