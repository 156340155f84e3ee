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
// What the registry has already is not sent again. progress is told the bytes done and in all, at the end
// that they are the same; it may be nil.
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
	done := func() {}
	if progress != nil {
		var updates chan v1.Update
		updates, done = follow(progress)
		opts = append(opts, remote.WithProgress(updates))
	}
	err = remote.Write(tag, img, opts...)
	done()
	if err != nil {
		return "", fmt.Errorf("push the image to %s: %w", tag.RegistryStr(), err)
	}
	digest, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("push an image: %w", err)
	}
	return tag.Context().Name() + "@" + digest.String(), nil
}

// follow passes on what the library says of a push; wait returns when all has been said. The library counts too little at
// the end of a stream, so the end is said here, once.
func follow(progress func(done, total int64)) (updates chan v1.Update, wait func()) {
	updates = make(chan v1.Update, 64)
	told := make(chan struct{})
	go func() {
		defer close(told)
		var total int64
		var failed bool
		for u := range updates { // the library closes it
			if u.Error != nil {
				failed = true
				continue
			}
			if total = u.Total; u.Complete < total {
				progress(u.Complete, total)
			}
		}
		if !failed {
			progress(total, total)
		}
	}()
	return updates, func() { <-told }
}
