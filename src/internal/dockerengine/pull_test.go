package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

var creds = &faena.Credentials{Username: "ana", Password: "s3cret+wörd/"}

// foreign is an architecture that this machine is not.
func foreign() string {
	if runtime.GOARCH == "s390x" {
		return "ppc64le"
	}
	return "s390x"
}

func wantReason(t *testing.T, err error, reason faena.Reason, words ...string) {
	t.Helper()
	fe, ok := errors.AsType[*faena.Error](err)
	if !ok || fe.Reason != string(reason) {
		t.Fatalf("got %#v, want %s", err, reason)
	}
	if fe.Message == "" || len(fe.Message) > maxMessageBytes {
		t.Errorf("message of %d bytes: %q", len(fe.Message), fe.Message)
	}
	for _, w := range words {
		if !strings.Contains(fe.Message, w) {
			t.Errorf("message %q lacks %q", fe.Message, w)
		}
	}
	if strings.Contains(err.Error(), creds.Password) {
		t.Errorf("the password is in the error: %v", err)
	}
	if fe.Retryable != (reason == faena.ReasonStartFailed) {
		t.Errorf("retryable: got %v", fe.Retryable)
	}
}

func TestEngine_PullImage(t *testing.T) {
	e := open(t)
	image := faenatest.Image(t, faenatest.ImageSpec{Padding: 1 << 20})
	locked := faenatest.RegistryOptions{Username: creds.Username, Password: creds.Password}
	token := locked
	token.Bearer = true

	for name, o := range map[string]faenatest.RegistryOptions{"basic": locked, "bearer": token} {
		t.Run(name, func(t *testing.T) {
			addr := faenatest.Registry(t, o)
			ref := faenatest.Push(t, addr, "team/tool", image, creds)
			wantReason(t, e.PullImage(t.Context(), ref, nil), faena.ReasonImageDenied)
			wantReason(t, e.PullImage(t.Context(), ref, &faena.Credentials{Username: "ana", Password: "wrong"}), faena.ReasonImageDenied)
			if has, err := e.HasImage(t.Context(), ref); has || err != nil {
				t.Fatalf("has it although it was denied: %v, %v", has, err)
			}
			if err := e.PullImage(t.Context(), ref, creds); err != nil {
				t.Fatal(err)
			}
			if has, err := e.HasImage(t.Context(), ref); !has || err != nil {
				t.Errorf("has it not: %v", err)
			}
			create(t, e, spec(t, ref)) // by its digest
			absent := addr + "/team/denied@sha256:" + strings.Repeat("ab", 32)
			wantReason(t, e.PullImage(t.Context(), absent, creds), faena.ReasonImageNotFound)
		})
	}
	open := faenatest.Registry(t, faenatest.RegistryOptions{})
	t.Run("anonymous", func(t *testing.T) {
		if err := e.PullImage(t.Context(), faenatest.Push(t, open, "tool", image, nil), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("another platform", func(t *testing.T) {
		ref := faenatest.Push(t, open, "foreign", faenatest.Image(t, faenatest.ImageSpec{Arch: foreign()}), nil)
		wantReason(t, e.PullImage(t.Context(), ref, nil), faena.ReasonImagePlatform, foreign(), runtime.GOARCH)
		if has, err := e.HasImage(t.Context(), ref); has || err != nil { // the engine keeps it
			t.Errorf("the engine has an image that it cannot run: %v, %v", has, err)
		}
	})
	t.Run("index", func(t *testing.T) {
		other := faenatest.Image(t, faenatest.ImageSpec{Arch: foreign()})
		if err := e.PullImage(t.Context(), faenatest.PushIndex(t, open, "multi", nil, other, image), nil); err != nil {
			t.Error(err)
		}
		wantReason(t, e.PullImage(t.Context(), faenatest.PushIndex(t, open, "other", nil, other), nil), faena.ReasonImagePlatform)
	})
	t.Run("no registry", func(t *testing.T) {
		wantReason(t, e.PullImage(t.Context(), "127.0.0.1:1/tool@sha256:"+strings.Repeat("0", 64), creds), faena.ReasonStartFailed)
	})
}

func TestEngine_PullImage_Stalls(t *testing.T) {
	over := make(chan struct{})
	addr := faenatest.Registry(t, faenatest.RegistryOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				select {
				case <-over:
				case <-r.Context().Done():
				}
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	defer close(over)
	ref := faenatest.Push(t, addr, "slow", faenatest.Image(t, faenatest.ImageSpec{Padding: 1 << 20}), nil)
	e, err := Open(t.Context(), Options{Timeouts: Timeouts{Stall: 500 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	wantReason(t, e.PullImage(t.Context(), ref, nil), faena.ReasonStartFailed, "nothing came")

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := e.PullImage(ctx, ref, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the caller's own deadline", err)
	}
}

func TestPullReason(t *testing.T) {
	for text, want := range map[string]faena.Reason{
		// 20.10
		`Head "http://127.0.0.1:5000/v2/x/manifests/sha256:00": no basic auth credentials`:                                            faena.ReasonImageDenied,
		`pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource`: faena.ReasonImageDenied,
		`Head "https://r/v2/x/manifests/1": unauthorized: authentication required`:                                                    faena.ReasonImageDenied,
		`manifest for r/x@sha256:00 not found: manifest unknown: Unknown manifest`:                                                    faena.ReasonImageNotFound,
		`manifest unknown: Unknown name`:                                                  faena.ReasonImageNotFound,
		`no matching manifest for linux/amd64 in the manifest list entries`:               faena.ReasonImagePlatform,
		`image operating system "windows" cannot be used on this platform`:                faena.ReasonImagePlatform,
		`Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`: faena.ReasonStartFailed,
		`toomanyrequests: You have reached your pull rate limit.`:                         faena.ReasonStartFailed,
		`failed to register layer: write /x: no space left on device`:                     faena.ReasonStartFailed,
		// 28
		`failed to resolve reference "r/x@sha256:00": r/x@sha256:00: not found`:                                           faena.ReasonImageNotFound,
		`error from registry: incorrect username or password`:                                                             faena.ReasonImageDenied,
		`failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized`:                           faena.ReasonImageDenied,
		`unexpected status from HEAD request to https://r/v2/x: 403 Forbidden`:                                            faena.ReasonImageDenied,
		`no matching manifest for linux/amd64 in the manifest list entries: no match for platform in manifest: not found`: faena.ReasonImagePlatform,
	} {
		if got := pullReason(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestPullFailed_Secrets(t *testing.T) {
	for _, text := range []string{creds.Password, "https://ana:s3cret%2Bw%C3%B6rd%2F@r/", "https://ana:s3cret+w%C3%B6rd%2F@r/", "Basic " + secretsOf(creds)[0]} {
		err := pullFailed(errors.New("the registry echoed "+text), "r/x@sha256:00", creds)
		for _, s := range secretsOf(creds) {
			if strings.Contains(err.Error(), s) {
				t.Errorf("%q is in %v", s, err)
			}
		}
		if !strings.Contains(err.Error(), "***") {
			t.Errorf("nothing was taken out of %v", err)
		}
	}
}

func TestReadPull(t *testing.T) {
	long := strings.Repeat("é", maxMessageBytes)
	for name, c := range map[string]struct {
		stream, want string
		progress     int
	}{
		"empty":            {"", "", 0},
		"progress":         {`{"status":"Pulling"}` + "\r\n" + `{"status":"Done","progressDetail":{"current":1}}`, "", 2},
		"detail":           {`{"status":"x"}{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}{"status":"y"}`, "manifest unknown", 1},
		"error alone":      {`{"error":"denied"}`, "denied", 0},
		"long":             {`{"error":"` + long + `"}`, long, 0},
		"cut off":          {`{"status":`, "read the engine's progress: unexpected EOF", 0},
		"not JSON":         {`<html>`, "read the engine's progress: invalid character '<' looking for beginning of value", 0},
		"error after wide": {`{"status":"` + long + `"}{"error":"x"}`, "x", 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			err := readPull(strings.NewReader(c.stream), func() { n++ })
			if got := fmt.Sprint(err); (err == nil && c.want != "") || (err != nil && got != c.want) || n != c.progress {
				t.Errorf("got %v after %d reports, want %q after %d", err, n, c.want, c.progress)
			}
		})
	}
}

func TestBounded(t *testing.T) {
	for text, want := range map[string]string{
		"a\r\n\tb\x00c\x1b[31m": "a b c [31m", "\xff\xfe": "", "plain": "plain", "": "",
	} {
		if got := bounded(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	for n := range 8 {
		got := bounded(strings.Repeat("x", n) + strings.Repeat("€", 400))
		if len(got) > maxMessageBytes || len(got) < maxMessageBytes-8 || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
			t.Errorf("offset %d: %d bytes: %q", n, len(got), got)
		}
	}
	// What is cut off in its middle must have been taken out before.
	if got := bounded(strings.Repeat("x", maxMessageBytes-5)+"password", "password"); strings.Contains(got, "pass") {
		t.Errorf("part of a secret is left: %q", got[maxMessageBytes-20:])
	}
}

func TestEngine_Images(t *testing.T) {
	e := open(t)
	image := faenatest.Image(t, faenatest.ImageSpec{Padding: 4 << 20})
	ref := faenatest.Push(t, faenatest.Registry(t, faenatest.RegistryOptions{}), "tool", image, nil)
	if err := e.PullImage(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	// The same image under another name, as if another function used it from another registry.
	second := faenatest.Push(t, faenatest.Registry(t, faenatest.RegistryOptions{}), "tool", image, nil)
	if err := e.PullImage(t.Context(), second, nil); err != nil {
		t.Fatal(err)
	}
	tag := faenatest.Load(t, image)
	find := func() *Image {
		t.Helper()
		list, err := e.Images(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			if slices.Contains(i.Refs, ref) {
				return &i
			}
		}
		return nil
	}
	got := find()
	if got == nil || got.InUse || got.Size < 4<<20 || !slices.Contains(got.Refs, tag) || !slices.Contains(got.Refs, second) {
		t.Fatalf("got %+v, want %s, %s and %s", got, ref, second, tag)
	}
	id := create(t, e, spec(t, ref)) // not even started
	if got = find(); !got.InUse {
		t.Errorf("a container was made of it, but it is not in use: %+v", got)
	}
	if err := e.RemoveImage(t.Context(), got.ID); !faena.IsKind(err, faena.KindConflict) {
		t.Errorf("remove what is in use: %v", err)
	}
	if got = find(); got == nil || len(got.Refs) != 3 {
		t.Errorf("what is in use lost a name: %+v", got)
	}
	if err := e.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is absent
		if err := e.RemoveImage(t.Context(), got.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got = find(); got != nil {
		t.Errorf("is there after its removal: %+v", got)
	}
}

func TestEngine_SaveImage(t *testing.T) {
	e := open(t)
	ref := faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{}))
	stream, err := e.SaveImage(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(stream)
	if err != nil || !strings.Contains(string(text), "manifest.json") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	if _, err := e.SaveImage(t.Context(), "faenatest/absent"); !faena.IsKind(err, faena.KindNotFound) {
		t.Errorf("got %v", err)
	}
}
