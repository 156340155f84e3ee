package faenatest

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// FixturePath is where an image has the fixture program.
const FixturePath = "/fixture"

// ImageSpec is an image as a test wants it. The zero value is a scratch image of the fixture program for this
// machine, without ENTRYPOINT and CMD.
type ImageSpec struct {
	Entrypoint, Cmd, Env, Volumes []string
	Healthcheck                   []string // for example CMD, /fixture, exit, 1
	User, WorkingDir              string
	OS, Arch                      string // of the config; empty is this machine's
	Files                         []File
	Bare                          bool  // without the fixture
	Padding                       int64 // bytes that cannot be compressed, as a layer of its own
}

// File is a file of an image, with the directories that it needs. A path that ends in a slash is a directory.
type File struct {
	Path     string // absolute
	Data     []byte
	Mode     int64 // 0 is 0755
	UID, GID int
	Link     string // a symbolic link to this; Data is ignored
}

// Image makes an image. No two are the same, so that tests cannot remove each other's.
func Image(t testing.TB, s ImageSpec) v1.Image {
	t.Helper()
	files := s.Files
	if !s.Bare {
		program, err := os.ReadFile(Fixture(t))
		if err != nil {
			t.Fatal(err)
		}
		files = append([]File{{Path: FixturePath, Data: program}}, files...)
	}
	img := empty.Image
	if len(files) > 0 {
		img = appendLayer(t, img, archive(t, files))
	}
	if s.Padding > 0 {
		noise := make([]byte, s.Padding)
		_, _ = rand.Read(noise) // never fails
		img = appendLayer(t, img, archive(t, []File{{Path: "/padding", Data: noise}}))
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = or(s.OS, "linux"), or(s.Arch, runtime.GOARCH)
	file.Config = s.config()
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatalf("make an image: %v", err)
	}
	return img
}

func (s ImageSpec) config() v1.Config {
	c := v1.Config{Entrypoint: s.Entrypoint, Cmd: s.Cmd, Env: s.Env, User: s.User, WorkingDir: s.WorkingDir,
		Labels: map[string]string{"faenatest": rand.Text()}}
	if len(s.Healthcheck) > 0 {
		c.Healthcheck = &v1.HealthConfig{Test: s.Healthcheck}
	}
	for _, v := range s.Volumes {
		if c.Volumes == nil {
			c.Volumes = make(map[string]struct{})
		}
		c.Volumes[v] = struct{}{}
	}
	return c
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func appendLayer(t testing.TB, img v1.Image, archive []byte) v1.Image {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil })
	if err != nil {
		t.Fatalf("make a layer: %v", err)
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		t.Fatalf("append a layer: %v", err)
	}
	return img
}

// archive makes a tar of files. Parents that are not in the list are made by the engine.
func archive(t testing.TB, files []File) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode, Uid: f.UID, Gid: f.GID, Typeflag: tar.TypeReg, Size: int64(len(f.Data))}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Link, 0
		case strings.HasSuffix(f.Path, "/"):
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("archive %s: %v", f.Path, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(f.Data); err != nil {
				t.Fatalf("archive %s: %v", f.Path, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Load gives an image to the engine until the test ends, and returns what the engine knows it by.
func Load(t testing.TB, img v1.Image) (ref string) {
	t.Helper()
	d := Engine(t)
	tag, err := name.NewTag("faenatest/" + strings.ToLower(rand.Text()) + ":latest")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := tarball.Write(tag, img, &buf); err != nil {
		t.Fatalf("export an image: %v", err)
	}
	ref = strings.TrimPrefix(tag.Name(), "index.docker.io/")
	d.Post(t, "/images/load?quiet=1", &buf, nil)
	RemoveImageAfter(t, ref)
	return ref
}

// RemoveImageAfter makes the engine forget an image when the test ends, should it have it then.
func RemoveImageAfter(t testing.TB, ref string) {
	t.Helper()
	d := Engine(t)
	t.Cleanup(func() { d.Delete(t, "/images/"+ref) })
}
