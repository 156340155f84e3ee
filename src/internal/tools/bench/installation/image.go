package installation

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// maxProgram is the size below which a program counts as small.
const maxProgram = 1 << 20

// Compile builds a static program from C source, as a file of that name in dir.
func Compile(ctx context.Context, source []byte, dir, name string) (bin string, err error) {
	bin = filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "gcc", "-static", "-Os", "-s", "-x", "c", "-o", bin, "-")
	cmd.Stdin = bytes.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s: %w: %s", name, err, out)
	}
	info, err := os.Stat(bin)
	if err != nil {
		return "", err
	}
	if info.Size() > maxProgram {
		return "", fmt.Errorf("the program %s is %d bytes, the comparison is for one under 1 MB", name, info.Size())
	}
	return bin, nil
}

// Build is Compile into the installation's own directory.
func (i *Installation) Build(ctx context.Context, source []byte, name string) (bin string, err error) {
	return Compile(ctx, source, i.dir, name)
}

// images is a registry in this process, and what is in it.
type images struct {
	address string
	server  *http.Server
	served  chan error
	pushed  []string // references that the engine may have pulled
}

func serveImages() (*images, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve images: %w", err)
	}
	r := &images{address: listener.Addr().String(), served: make(chan error, 1),
		server: &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: 10 * time.Second}}
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
}

// push makes an image of one program, which is its entry point, and returns the reference to it.
func (r *images) push(ctx context.Context, bin string) (ref string, err error) {
	repository := filepath.Base(bin)
	img, err := imageOf(bin)
	if err != nil {
		return "", fmt.Errorf("make the image of %s: %w", repository, err)
	}
	tag, err := name.NewTag(r.address+"/bench/"+repository+":latest", name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push %s: %w", tag, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	r.pushed = append(r.pushed, tag.Context().Name()+"@"+digest.String())
	return tag.String(), nil
}

func imageOf(bin string) (v1.Image, error) {
	program, err := os.ReadFile(bin)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: filepath.Base(bin), Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config.Entrypoint = []string{"/" + filepath.Base(bin)}
	return mutate.ConfigFile(img, file)
}

// close ends the registry and removes from the engine what it has pulled from it.
func (r *images) close(ctx context.Context) error {
	errs := []error{r.server.Shutdown(ctx)}
	if err := <-r.served; !errors.Is(err, http.ErrServerClosed) {
		errs = append(errs, err)
	}
	for _, ref := range r.pushed {
		errs = append(errs, docker(ctx, "rmi", "--force", ref))
	}
	return errors.Join(errs...)
}

// docker runs the engine's command line.
func docker(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// removeContainers removes what a worker that was killed has left on the engine.
func removeContainers(ctx context.Context, worker string) error {
	out, err := exec.CommandContext(ctx, "docker", "ps", "--all", "--quiet", "--filter", "label=faena.worker="+worker).Output()
	if err != nil {
		return fmt.Errorf("list the containers of worker %s: %w", worker, err)
	}
	if ids := bytes.Fields(out); len(ids) > 0 {
		args := []string{"rm", "--force", "--volumes"}
		for _, id := range ids {
			args = append(args, string(id))
		}
		return docker(ctx, args...)
	}
	return nil
}
