package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"

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
	if r.ContentLength > 0 {
		b.Grow(int(min(r.ContentLength, keptBuffer)) + bytes.MinRead) // beyond, room is made for what has really come
	}
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		callOf(r.Context()).bodyRead = true
		if rw, ok := w.(*response); ok && r.ContentLength != 0 {
			rw.readWithin(0) // from here on a read only notices that the caller has gone
		}
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(what, limit)
	}
	message := "The body could not be read to its end."
	if errors.Is(err, os.ErrDeadlineExceeded) {
		message = "The body did not come to its end in time."
	}
	return &faena.Error{Kind: faena.KindMalformed, Reason: "body_incomplete", Component: faena.ComponentCaller, Message: message, Err: err}
}

func tooLarge(what string, limit int64) error {
	return &faena.Error{Kind: faena.KindTooLarge, Reason: what + "_too_large", Component: faena.ComponentCaller,
		Message: fmt.Sprintf("The %s is over the limit of %d bytes.", what, limit)}
}

func malformed(message string, fields ...faena.FieldError) error {
	return &faena.Error{Kind: faena.KindMalformed, Reason: "malformed", Component: faena.ComponentCaller, Message: message, Fields: fields}
}
