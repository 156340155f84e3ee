package registry

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// loopback are rules that let the registries of the tests be reached.
var loopback = Rules{PrivateNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// arch is what the workers of these tests run, whatever this machine is.
const arch = "amd64"

// small is an image without programs.
func small(t *testing.T, s faenatest.ImageSpec) v1.Image {
	t.Helper()
	s.Bare, s.Padding = true, 1000
	if s.Arch == "" {
		s.Arch = arch
	}
	return faenatest.Image(t, s)
}

func digestOf(t *testing.T, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// refusal checks that an error is one that a user sees, and returns it.
func refusal(t *testing.T, err error, kind faena.Kind, reason string, words ...string) {
	t.Helper()
	e, ok := errors.AsType[*faena.Error](err)
	if !ok || e.Kind != kind || e.Reason != reason {
		t.Errorf("the error is %+v, want %s with the reason %s", err, kind, reason)
		return
	}
	if e.Component != faena.ComponentRegistry || e.Retryable != (kind == faena.KindUnavailable) {
		t.Errorf("the error is of %s, retryable %v", e.Component, e.Retryable)
	}
	if kind == faena.KindInvalid && (len(e.Fields) != 1 || e.Fields[0].Field != "image") {
		t.Errorf("the error is about %v", e.Fields)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Errorf("the error does not say %q: %s", w, e)
		}
	}
}

func TestResolver_Resolve(t *testing.T) {
	t.Parallel()
	addr := faenatest.Registry(t, faenatest.RegistryOptions{})
	img := small(t, faenatest.ImageSpec{Entrypoint: []string{"/bin/app", "-v"}, Cmd: []string{"run"}, Env: []string{"A=1", "B="}, User: "1000:1000",
		WorkingDir: "/srv", Volumes: []string{"/z", "/data"}})
	img, err := mutate.Config(img, withStopSignal(t, img, "SIGINT"))
	if err != nil {
		t.Fatal(err)
	}
	faenatest.Push(t, addr, "team/app", img, nil)
	faenatest.Push(t, addr, "a/b-c--d/e_f__g/h.1", img, nil) // whatever a name may be
	size := int64(0)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			t.Fatal(err)
		}
		size += n
	}
	digest := digestOf(t, img)
	want := faena.ResolvedImage{Digest: digest, Pull: addr + "/team/app@" + digest, SizeBytes: size, Config: faena.ImageConfig{
		Entrypoint: []string{"/bin/app", "-v"}, Cmd: []string{"run"}, Env: []string{"A=1", "B="}, User: "1000:1000", WorkingDir: "/srv",
		StopSignal: "SIGINT", Volumes: []string{"/data", "/z"}}}
	r := NewResolver(loopback)
	for name, image := range map[string]string{"WithTag": addr + "/team/app:latest", "WithoutTag": addr + "/team/app", "WithDigest": addr + "/team/app@" + digest,
		"WithTagAndDigest": addr + "/team/app:other@" + digest} {
		got, err := r.Resolve(t.Context(), image, nil, arch)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: it is %+v, %v\nwant %+v", name, got, err, want)
		}
	}
	if got, err := r.Resolve(t.Context(), addr+"/a/b-c--d/e_f__g/h.1", nil, arch); err != nil || got.Digest != digest {
		t.Errorf("with a long name it is %+v, %v", got, err)
	}
	// A tag that moves is another image from then on; what was pinned stays.
	next := small(t, faenatest.ImageSpec{Cmd: []string{"next"}})
	faenatest.Push(t, addr, "team/app", next, nil)
	if got, err := r.Resolve(t.Context(), addr+"/team/app", nil, arch); err != nil || got.Digest != digestOf(t, next) {
		t.Errorf("after a push it is %+v, %v", got, err)
	}
	if got, err := r.Resolve(t.Context(), want.Pull, nil, arch); err != nil || got.Digest != digest {
		t.Errorf("by digest it is %+v, %v", got, err)
	}
}

func withStopSignal(t *testing.T, img v1.Image, signal string) v1.Config {
	t.Helper()
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := *file.Config.DeepCopy()
	c.StopSignal = signal
	return c
}

// Without ENTRYPOINT and CMD there is nothing to run: who deploys it must see that, so nothing is made up.
func TestResolver_NoCommand(t *testing.T) {
	t.Parallel()
	addr := faenatest.Registry(t, faenatest.RegistryOptions{})
	faenatest.Push(t, addr, "bare", small(t, faenatest.ImageSpec{}), nil)
	got, err := NewResolver(loopback).Resolve(t.Context(), addr+"/bare", nil, arch)
	if err != nil || len(got.Config.Entrypoint) != 0 || len(got.Config.Cmd) != 0 {
		t.Errorf("it is %+v, %v", got.Config, err)
	}
}

func TestResolver_Platforms(t *testing.T) {
	t.Parallel()
	addr := faenatest.Registry(t, faenatest.RegistryOptions{})
	amd, arm := small(t, faenatest.ImageSpec{}), small(t, faenatest.ImageSpec{Arch: "arm64"})
	windows := small(t, faenatest.ImageSpec{OS: "windows"})
	attestation := small(t, faenatest.ImageSpec{OS: "unknown", Arch: "unknown"})
	faenatest.PushIndex(t, addr, "all", nil, attestation, windows, arm, amd)
	faenatest.PushIndex(t, addr, "others", nil, arm, windows, arm, attestation)
	faenatest.PushIndex(t, addr, "attestation", nil, attestation)
	faenatest.PushIndex(t, addr, "nothing", nil)
	faenatest.Push(t, addr, "arm", arm, nil)
	faenatest.Push(t, addr, "windows", windows, nil)
	faenatest.Push(t, addr, "lies", small(t, faenatest.ImageSpec{Arch: "arm64"}), nil)
	pinned := faenatest.PushIndex(t, addr, "pinned", nil, arm, amd)
	r := NewResolver(loopback)
	for name, image := range map[string]string{"AnIndex": addr + "/all", "AnIndexByDigest": pinned} {
		got, err := r.Resolve(t.Context(), image, nil, arch)
		if err != nil || got.Digest != digestOf(t, amd) || !strings.HasSuffix(got.Pull, "@"+got.Digest) {
			t.Errorf("%s: it is %+v, %v, not the image of the platform", name, got, err)
		}
	}
	if got, err := r.Resolve(t.Context(), addr+"/all", nil, "arm64"); err != nil || got.Digest != digestOf(t, arm) {
		t.Errorf("for arm64 it is %+v, %v", got, err)
	}
	for repository, words := range map[string]string{
		"others":      "is for linux/arm64, windows/amd64, the workers run linux/amd64",
		"attestation": "is for no platform, the workers run linux/amd64",
		"nothing":     "is for no platform, the workers run linux/amd64",
		"arm":         "is for linux/arm64, the workers run linux/amd64",
		"windows":     "is for windows/amd64, the workers run linux/amd64",
	} {
		t.Run(repository, func(t *testing.T) {
			_, err := r.Resolve(t.Context(), addr+"/"+repository, nil, arch)
			refusal(t, err, faena.KindInvalid, "image_platform", words)
		})
	}
}

// What is no image, but is at a registry, is told from an image that is not there.
func TestResolver_NoImage(t *testing.T) {
	t.Parallel()
	addr := faenatest.Registry(t, faenatest.RegistryOptions{})
	old := mutate.MediaType(small(t, faenatest.ImageSpec{}), types.DockerManifestSchema1Signed)
	faenatest.Push(t, addr, "old", old, nil)
	r := NewResolver(loopback)
	_, err := r.Resolve(t.Context(), addr+"/old", nil, arch)
	refusal(t, err, faena.KindInvalid, "image_platform", "is of a format that is not run here (application/vnd.docker.distribution.manifest.v1+prettyjws)")
	for _, image := range []string{"", " ", "UPPER/case", addr + "/UPPER", addr + "/a:b:c", addr + "/a@sha256:short", "http://" + addr + "/a", "a b", "a\nb",
		"a\x00", addr + "/../a", addr + "/a/..", addr + "/a/./b", addr + "/a//b", addr + "/-a", addr + "/a_", strings.Repeat("a", 5000)} {
		_, err := r.Resolve(t.Context(), image, nil, arch)
		e, ok := errors.AsType[*faena.Error](err)
		if !ok || e.Kind != faena.KindInvalid || len(e.Fields) != 1 || e.Fields[0].Field != "image" || !strings.HasPrefix(e.Fields[0].Message, "is no reference of an image: ") {
			t.Errorf("%.50q: it is %+v", image, err)
			continue
		}
		if m := e.Fields[0].Message; len(m) > maxWords+4 || slices.ContainsFunc([]byte(m), func(b byte) bool { return b < ' ' }) {
			t.Errorf("%.50q: the message is %q", image, m)
		}
	}
}

func sha256Of(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }
