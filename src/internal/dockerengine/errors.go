package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"faena.dev/faena/internal/faena"
)

// maxMessageBytes bounds what of the engine's or a registry's words reaches a user.
const maxMessageBytes = 512

// errDeadline is the cause of a context that our own deadline ended, as opposed to the caller's.
var errDeadline = errors.New("the docker engine did not answer in time")

// deadline bounds one call to the engine.
func (e *Engine) deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, errDeadline)
}

// failed gives an error of the client its meaning; action says what was tried. nil stays nil. ctx is the one that the
// call was made with.
func (e *Engine) failed(ctx context.Context, action string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", action, err)
	switch {
	case errors.Is(context.Cause(ctx), errDeadline):
		return faena.Unavailable(faena.ComponentEngine, "engine_timeout", "The container engine did not answer in time.", err)
	case ctx.Err() != nil:
		return err // the caller has gone away; it knows why
	case unreachable(err):
		return faena.Unavailable(faena.ComponentEngine, "engine_unreachable", "The container engine cannot be reached.", err)
	}
	return err
}

// unreachable reports whether the engine is away, or went away while it answered.
func unreachable(err error) bool {
	return client.IsErrConnectionFailed(err) || errdefs.IsUnavailable(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "connection reset by peer")
}

// startFailed is the error for a container that the engine would not make or start. Its message is the engine's own,
// since it is often about the image (a user that the image does not have, for example). Where err has a meaning
// already, that stays.
func startFailed(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*faena.Error](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &faena.Error{Kind: faena.KindInternal, Reason: string(faena.ReasonStartFailed), Component: faena.ComponentEngine,
		Message: "The container could not be started: " + bounded(engineWords(err)), Retryable: passing(err), Err: err}
}

// passing reports whether a failure to start may be the engine's own, as while it stops, rather than the image's.
func passing(err error) bool {
	if errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return false
	}
	for _, lasting := range []string{"OCI runtime", "unable to find user", "unable to find group", "invalid mount", "volumes"} {
		if strings.Contains(err.Error(), lasting) {
			return false
		}
	}
	return true
}

// engineWords is the engine's own message, without the actions that it was wrapped with.
func engineWords(err error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, "Error response from daemon: "); ok {
		return after
	}
	return text
}

// bounded makes foreign text fit for a message: one line, valid UTF-8, at most maxMessageBytes, and without secrets.
func bounded(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= maxMessageBytes {
		return text
	}
	text = text[:maxMessageBytes-len("…")]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + "…"
}
