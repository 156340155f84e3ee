package dockerengine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"faena.dev/faena/internal/faena"
)

// PullImage makes the engine fetch an image. ref is repository@digest; creds may be nil. It returns when the image is
// there and fits this host. Errors are *faena.Error: image_not_found, image_denied and image_platform, in the
// registry's words, or start_failed, which may succeed another time. An engine that is away is KindUnavailable.
func (e *Engine) PullImage(ctx context.Context, ref string, creds *faena.Credentials) error {
	ctx, done := e.deadline(ctx, e.timeouts.Pull)
	defer done()
	ctx, progress, stop := e.stallGuard(ctx)
	defer stop()

	auth, err := registryAuth(creds)
	if err != nil {
		return err
	}
	stream, err := e.client.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
	if err == nil {
		err = readPull(stream, progress)
		_ = stream.Close() // read to its end, or given up
	}
	switch cause := context.Cause(ctx); {
	case err == nil:
		return e.checkPlatform(ctx, ref)
	case errors.Is(cause, errStalled):
		return pullErrorFor(faena.ReasonStartFailed, fmt.Sprintf("Image %s could not be pulled: nothing came for %v.", ref, e.timeouts.Stall), nil)
	case errors.Is(cause, errDeadline):
		return pullErrorFor(faena.ReasonStartFailed, fmt.Sprintf("Image %s could not be pulled within %v.", ref, e.timeouts.Pull), nil)
	}
	return pullFailed(e.failed(ctx, "pull image", err), ref, creds)
}

// errStalled is the cause of a context that ended because a pull made no progress.
var errStalled = errors.New("the pull made no progress")

// stallGuard ends the context where progress is not called for a while: a pull may take long, but not silently.
func (e *Engine) stallGuard(ctx context.Context) (guarded context.Context, progress, stop func()) {
	guarded, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(e.timeouts.Stall, func() { cancel(errStalled) })
	return guarded, func() { timer.Reset(e.timeouts.Stall) }, func() { timer.Stop(); cancel(nil) }
}

func registryAuth(creds *faena.Credentials) (string, error) {
	if creds == nil {
		return "", nil
	}
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: creds.Username, Password: creds.Password})
	if err != nil {
		return "", fmt.Errorf("encode registry credentials: %w", err)
	}
	return auth, nil
}

// pullError is an error that the engine reported in the stream, after it had answered 200.
type pullError string

func (e pullError) Error() string { return string(e) }

// readPull reads the engine's progress report to its end and returns the error that it tells of, if it does.
func readPull(r io.Reader, progress func()) error {
	dec := json.NewDecoder(r)
	for {
		var line struct {
			Error       string `json:"error"`
			ErrorDetail struct {
				Message string `json:"message"`
			} `json:"errorDetail"`
		}
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's progress: %w", err)
		case line.ErrorDetail.Message != "":
			return pullError(line.ErrorDetail.Message)
		case line.Error != "":
			return pullError(line.Error)
		}
		progress()
	}
}

// phrases are what engines and registries say; the engine passes on no code, only text. The first that matches wins:
// "pull access denied …, repository does not exist" is a denial.
var phrases = []struct {
	reason faena.Reason
	text   string
}{
	{faena.ReasonImageDenied, "access denied"},
	{faena.ReasonImageDenied, "denied:"},
	{faena.ReasonImageDenied, "unauthorized"},
	{faena.ReasonImageDenied, "authentication required"},
	{faena.ReasonImageDenied, "no basic auth credentials"},
	{faena.ReasonImageDenied, "incorrect username or password"},
	{faena.ReasonImageDenied, "403 forbidden"},
	{faena.ReasonImagePlatform, "no matching manifest"},
	{faena.ReasonImagePlatform, "does not match the specified platform"},
	{faena.ReasonImagePlatform, "cannot be used on this platform"},
	{faena.ReasonImagePlatform, "operating system is not supported"},
	{faena.ReasonImageNotFound, "manifest unknown"},
	{faena.ReasonImageNotFound, "name unknown"},
	{faena.ReasonImageNotFound, "repository name not known"},
	{faena.ReasonImageNotFound, "not found"},
}

func pullReason(text string) faena.Reason {
	text = strings.ToLower(text)
	for _, p := range phrases {
		if strings.Contains(text, p.text) {
			return p.reason
		}
	}
	return faena.ReasonStartFailed
}

// pullFailed turns the failure of a pull into words for the user. Where err has a meaning already, that stays.
func pullFailed(err error, ref string, creds *faena.Credentials) error {
	if _, ok := errors.AsType[*faena.Error](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	text := strings.TrimPrefix(engineWords(err), "pull image: ")
	repository, _, _ := strings.Cut(ref, "@")
	reason := pullReason(strings.ReplaceAll(text, repository, "")) // its name may hold "denied"
	return pullErrorFor(reason, "Image "+ref+" could not be pulled: "+text, creds)
}

func pullErrorFor(reason faena.Reason, text string, creds *faena.Credentials) error {
	kinds := map[faena.Reason]faena.Kind{faena.ReasonImageNotFound: faena.KindNotFound,
		faena.ReasonImageDenied: faena.KindForbidden, faena.ReasonImagePlatform: faena.KindInvalid}
	kind, known := kinds[reason]
	if !known {
		kind = faena.KindInternal
	}
	// No cause: its text could hold what was taken out of the message.
	return &faena.Error{Kind: kind, Reason: string(reason), Component: faena.ComponentRegistry,
		Message: bounded(text, secretsOf(creds)...), Retryable: !known}
}

// secretsOf lists the spellings of a password that could come back in a foreign text.
func secretsOf(creds *faena.Credentials) []string {
	if creds == nil || creds.Password == "" {
		return nil
	}
	pair := creds.Username + ":" + creds.Password
	return []string{base64.StdEncoding.EncodeToString([]byte(pair)), base64.URLEncoding.EncodeToString([]byte(pair)),
		url.QueryEscape(creds.Password), url.PathEscape(creds.Password), creds.Password}
}

// checkPlatform refuses an image that this host cannot run. An engine pulls such an image by digest without a word.
func (e *Engine) checkPlatform(ctx context.Context, ref string) error {
	img, err := e.client.ImageInspect(ctx, ref)
	if err != nil {
		return startFailed(e.failed(ctx, "inspect the pulled image", err))
	}
	if e.runs(img.Os, img.Architecture) {
		return nil
	}
	return pullErrorFor(faena.ReasonImagePlatform, fmt.Sprintf("Image %s is for %s/%s, this host runs linux/%s.",
		ref, img.Os, img.Architecture, e.info.Arch), nil)
}
