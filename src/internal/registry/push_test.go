package registry

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// saved is an image as `docker save` writes it.
func saved(t *testing.T, img v1.Image) []byte {
	t.Helper()
	tag, err := name.NewTag("saved:latest")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := tarball.Write(tag, img, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// temporary gives the process a directory for temporary files of its own, and returns a check that none is left there.
func temporary(t *testing.T) (empty func()) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return func() {
		t.Helper()
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}
	}
}

func TestPush(t *testing.T) {
	empty := temporary(t)
	h := newHouse(t)
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	to := h.addr + "/ann/app:latest"
	var last int64
	ends := 0
	progress := func(done, total int64) {
		if done < last || done > total {
			t.Errorf("%d of %d are done, after %d", done, total, last)
		}
		if last = done; done == total {
			ends++
		}
	}
	ref, err := Push(t.Context(), bytes.NewReader(saved(t, img)), to, h.of("ann"), progress)
	if err != nil {
		t.Fatal(err)
	}
	if last == 0 || ends != 1 {
		t.Errorf("it ended %d times, the last time with %d bytes", ends, last)
	}
	repository, digest, _ := strings.Cut(ref, "@")
	if repository != h.addr+"/ann/app" || !strings.HasPrefix(digest, "sha256:") {
		t.Errorf("it is %s", ref)
	}
	h.pulls(t, h.of("ann"), "ann/app", digest)
	h.pulls(t, h.token(t, "ann"), "ann/app@"+digest, digest)
	empty()
	if again, err := Push(t.Context(), bytes.NewReader(saved(t, img)), to, h.of("ann"), nil); err != nil || again != ref {
		t.Errorf("pushed again it is %s, %v", again, err)
	}
	empty()
}

// A push that fails says what it was about, without the password, and leaves nothing behind.
func TestPush_Fails(t *testing.T) {
	empty := temporary(t)
	h := newHouse(t)
	archive := saved(t, small(t, faenatest.ImageSpec{Cmd: []string{"run"}}))
	h.change("ann", creds.Password)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		image io.Reader
		to    string
		creds *faena.Credentials
		words string
	}{
		"NoName":           {t.Context(), bytes.NewReader(archive), "UPPER CASE", creds, "push an image: "},
		"NoArchive":        {t.Context(), strings.NewReader("no archive"), h.addr + "/ann/app:1", creds, "read the image from the engine: "},
		"CutOff":           {t.Context(), bytes.NewReader(archive[:len(archive)/3]), h.addr + "/ann/app:1", creds, "read the image from the engine: "},
		"TheEngineFails":   {t.Context(), iotest.ErrReader(io.ErrUnexpectedEOF), h.addr + "/ann/app:1", creds, "read the image from the engine: unexpected EOF"},
		"WrongPassword":    {t.Context(), bytes.NewReader(archive), h.addr + "/ann/app:1", wrong, "push the image to " + h.addr + ": "},
		"NoCredentials":    {t.Context(), bytes.NewReader(archive), h.addr + "/ann/app:1", nil, "401 Unauthorized"},
		"SomebodyElses":    {t.Context(), bytes.NewReader(archive), h.addr + "/bob/app:1", creds, "NAME_UNKNOWN"},
		"NobodyListens":    {t.Context(), bytes.NewReader(archive), "127.0.0.1:1/ann/app:1", creds, "push the image to 127.0.0.1:1: "},
		"TheCallerHasGone": {gone, bytes.NewReader(archive), h.addr + "/ann/app:1", creds, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			ref, err := Push(c.ctx, c.image, c.to, c.creds, func(done, total int64) {
				if done == total {
					t.Error("it is said to be done")
				}
			})
			if err == nil || ref != "" || !strings.Contains(err.Error(), c.words) {
				t.Errorf("it is %q, %v; want %q", ref, err, c.words)
			}
			secretFree(t, err)
			empty()
		})
	}
	h.refuses(t, h.of("ann"), "ann/app:1", "image_not_found")
}
