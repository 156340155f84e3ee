package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"faena.dev/faena/internal/faena"
)

// Push uploads an image, as `docker save` writes it, to a registry on loopback and returns the reference by its digest.
// What the registry has already is not sent again. progress is told the bytes done and in all; it may be nil.
func Push(ctx context.Context, image io.Reader, to string, creds *faena.Credentials, progress func(done, total int64)) (ref string, err error) {
	tag, err := name.NewTag(to, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("push an image: %w", err)
	}
	// The library reads the archive several times.
	f, err := os.CreateTemp("", "faena-image-*.tar")
	if err != nil {
		return "", fmt.Errorf("push an image: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, err := io.Copy(f, image); err != nil {
		return "", fmt.Errorf("read the image from the engine: %w", err)
	}
	img, err := tarball.ImageFromPath(f.Name(), nil)
	if err != nil {
		return "", fmt.Errorf("read the image from the engine: %w", err)
	}
	opts := []remote.Option{remote.WithContext(ctx), remote.WithAuth(authOf(creds)), remote.WithUserAgent("faena")}
	if progress != nil {
		updates := make(chan v1.Update, 64)
		told := make(chan struct{})
		go func() {
			defer close(told)
			for u := range updates { // the library closes it
				if u.Error == nil {
					progress(u.Complete, u.Total)
				}
			}
		}()
		defer func() { <-told }()
		opts = append(opts, remote.WithProgress(updates))
	}
	if err := remote.Write(tag, img, opts...); err != nil {
		return "", fmt.Errorf("push the image to %s: %w", tag.RegistryStr(), err)
	}
	digest, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("push an image: %w", err)
	}
	return tag.Context().Name() + "@" + digest.String(), nil
}
