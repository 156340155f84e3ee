package registry

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"faena.dev/faena/internal/faenatest"
)

// files are the regular files below the registry's directory, by path, with their modes.
func (h *house) files(t *testing.T) map[string]os.FileMode {
	t.Helper()
	found := map[string]os.FileMode{}
	err := filepath.Walk(h.dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			rel, _ := filepath.Rel(h.dir, path) // is below it
			found[rel] = info.Mode()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What was pushed is there after a restart, whatever it was: the registry keeps nothing in memory alone.
func TestLoopback_Restart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.of("ann")
	first, second := small(t, faenatest.ImageSpec{Cmd: []string{"1"}}), small(t, faenatest.ImageSpec{Cmd: []string{"2"}})
	arm := small(t, faenatest.ImageSpec{Arch: "arm64"})
	faenatest.Push(t, h.addr, "ann/app", first, ann)
	faenatest.Push(t, h.addr, "ann/app", second, ann)
	index := faenatest.PushIndex(t, h.addr, "ann/index", ann, arm, second)
	faenatest.Push(t, h.addr, "bob/app", first, h.of("bob"))
	check := func() {
		t.Helper()
		h.pulls(t, ann, "ann/app", digestOf(t, second))
		h.pulls(t, ann, "ann/app@"+digestOf(t, first), digestOf(t, first))
		h.pulls(t, ann, "ann/index", digestOf(t, second))
		h.pulls(t, ann, "ann/index@"+index[strings.Index(index, "@")+1:], digestOf(t, second))
		h.pulls(t, h.of("bob"), "bob/app", digestOf(t, first))
		h.refuses(t, h.of("bob"), "bob/app@"+digestOf(t, second), "image_not_found")
	}
	check()
	h.start(t)
	check()
	faenatest.Push(t, h.addr, "ann/app", first, ann) // back again
	h.start(t)
	h.pulls(t, ann, "ann/app", digestOf(t, first))
	for name, mode := range h.files(t) {
		if strings.HasPrefix(name, "blobs/") { // the directory keeps others out
			continue
		}
		if mode != 0o600 {
			t.Errorf("%s has mode %v", name, mode)
		}
	}
	for _, dir := range []string{"blobs", "manifests"} {
		if info, err := os.Stat(filepath.Join(h.dir, dir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", dir, info.Mode(), err)
		}
	}
}

// What a kill in the middle of a write leaves is passed over; what is damaged is said, with its file.
func TestLoopback_RestartAfterACrash(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	img := small(t, faenatest.ImageSpec{Cmd: []string{"1"}})
	faenatest.PushIndex(t, h.addr, "ann/index", h.of("ann"), img)
	faenatest.Push(t, h.addr, "ann/app", img, h.of("ann"))
	for _, name := range []string{"manifests/0123.json.new", "pull.key.new", "blobs/upload-123"} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(`{"path": "/v2/ann/ap`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.start(t)
	h.pulls(t, h.of("ann"), "ann/app", digestOf(t, img))
	for name := range h.files(t) {
		if strings.Contains(name, "upload-") {
			t.Errorf("%s takes place for ever", name)
		}
	}
	// A blob that is cut off is not given out as if it were whole.
	if err := os.Truncate(filepath.Join(h.dir, "blobs", "sha256", strings.TrimPrefix(configDigest(t, img), "sha256:")), 10); err != nil {
		t.Fatal(err)
	}
	h.refuses(t, h.of("ann"), "ann/app", "image_not_found")
	faenatest.Push(t, h.addr, "ann/again", img, h.of("ann")) // and can be pushed again
	h.pulls(t, h.of("ann"), "ann/app", digestOf(t, img))
	for _, c := range []struct{ file, text, words string }{{"manifests/0123.json", `{"path": "/v2/ann/ap`, "0123.json"}, {"pull.key", "short", "pull.key is no key"}} {
		path := filepath.Join(h.dir, c.file)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := NewLoopback(t.Context(), LoopbackOptions{Dir: h.dir, Login: h.login, Known: h.known})
		if err == nil || !strings.HasPrefix(err.Error(), "open the image registry: ") || !strings.Contains(err.Error(), c.words) {
			t.Errorf("with %s damaged it is %v", c.file, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoopback_BadDirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewLoopback(t.Context(), LoopbackOptions{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("it is %v", err)
	}
}

// A revision is pinned to an image, and users share layers: nobody takes away what is there.
func TestLoopback_NobodyDeletes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	for _, user := range []string{"ann", "bob"} {
		faenatest.Push(t, h.addr, user+"/app", img, h.of(user))
	}
	for _, path := range []string{"/v2/bob/app/blobs/" + configDigest(t, img), "/v2/bob/app/manifests/latest", "/v2/bob/app/manifests/" + digestOf(t, img)} {
		h.status(t, http.MethodDelete, path, h.of("bob"), http.StatusMethodNotAllowed, `"code":"UNSUPPORTED"`)
	}
	for _, user := range []string{"ann", "bob"} {
		h.pulls(t, h.of(user), user+"/app", digestOf(t, img))
	}
}

// Of pushes of one tag at once one is there in the end, the same before and after a restart.
func TestLoopback_PushesAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	images := make([]v1.Image, 8)
	for i := range images {
		images[i] = small(t, faenatest.ImageSpec{Cmd: []string{strings.Repeat("x", 1+3000*i)}})
		faenatest.Push(t, h.addr, fmt.Sprintf("ann/n%d", i), images[i], h.of("ann")) // its blobs
	}
	var wg sync.WaitGroup
	for _, img := range images {
		text, err := img.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			wg.Go(func() { h.put(t, "/v2/ann/app/manifests/latest", text) })
		}
	}
	wg.Wait()
	now := func() string {
		t.Helper()
		got, err := NewResolver(loopback).Resolve(t.Context(), h.addr+"/ann/app", h.of("ann"), arch)
		if err != nil {
			t.Fatal(err)
		}
		return got.Digest
	}
	before := now()
	if !slices.ContainsFunc(images, func(img v1.Image) bool { return digestOf(t, img) == before }) {
		t.Errorf("it is %s, which nobody pushed", before)
	}
	h.start(t)
	if after := now(); after != before {
		t.Errorf("after a restart it is %s, it was %s", after, before)
	}
}

// put puts a manifest.
func (h *house) put(t *testing.T, path string, manifest []byte) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+h.addr+path, strings.NewReader(string(manifest)))
	if err != nil {
		t.Error(err)
		return
	}
	req.SetBasicAuth("ann", "ann's-password")
	req.Header.Set("Content-Type", string(types.DockerManifestSchema2))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Errorf("%s is answered %s", path, res.Status)
	}
}
