package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"faena.dev/faena/internal/client"
)

// imageRegistry is a registry on loopback.
type imageRegistry struct {
	addr   string
	creds  *client.Credentials // nil where it asks nobody
	server *http.Server
	served chan error
}

// registries are the two that the images come from.
type registries struct{ open, private *imageRegistry }

// publish starts the registries, pushes the images from the engine to them, writes the references into the specs, and
// removes the images from the engine. What is returned must be closed, with an error too.
func publish(ctx context.Context, p *progress, dir string, functions []*function) (*registries, error) {
	r := &registries{}
	var err error
	if r.open, err = serveRegistry(filepath.Join(dir, "open"), nil); err != nil {
		return r, err
	}
	creds := &client.Credentials{Username: "puller", Password: rand.Text()}
	if r.private, err = serveRegistry(filepath.Join(dir, "private"), creds); err != nil {
		return r, err
	}
	err = p.step("push the images to two registries", func(say func(string)) error {
		say("taking them from the engine")
		saved := filepath.Join(dir, "images.tar")
		args := []string{"save", "--output", saved}
		for _, f := range functions {
			args = append(args, f.image())
		}
		if _, err := docker(ctx, nil, args...); err != nil {
			return err
		}
		for _, f := range functions {
			to := r.open
			if f.private {
				to = r.private
			}
			if err := to.push(ctx, say, saved, f); err != nil {
				return err
			}
		}
		say("")
		return os.Remove(saved)
	})
	if err != nil {
		return r, err
	}
	return r, p.step("remove the images from the engine", func(func(string)) error { return removeImages(ctx) })
}

func serveRegistry(dir string, creds *client.Credentials) (*imageRegistry, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)), registry.Logger(log.New(io.Discard, "", 0)))
	if creds != nil {
		h = askPassword(h, creds)
	}
	r := &imageRegistry{addr: listener.Addr().String(), creds: creds, served: make(chan error, 1),
		server: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}}
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
}

func askPassword(next http.Handler, creds *client.Credentials) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != creds.Username || subtle.ConstantTimeCompare([]byte(password), []byte(creds.Password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="demo"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`) // the caller sees a short answer
			return
		}
		next.ServeHTTP(w, r)
	})
}

// push uploads a function's image out of what docker save wrote.
func (r *imageRegistry) push(ctx context.Context, say func(string), saved string, f *function) error {
	tag, err := name.NewTag(f.image())
	if err != nil {
		return err
	}
	img, err := tarball.ImageFromPath(saved, &tag)
	if err != nil {
		return fmt.Errorf("read the image of %s: %w", f.name, err)
	}
	f.spec.Image = r.addr + "/" + f.image()
	to, err := name.ParseReference(f.spec.Image, name.Insecure)
	if err != nil {
		return err
	}
	auth := authn.Anonymous
	if r.creds != nil {
		auth = &authn.Basic{Username: r.creds.Username, Password: r.creds.Password}
		f.spec.Registry = r.creds
	}
	updates, pushed, told := make(chan v1.Update, 100), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		for {
			select {
			case u, open := <-updates:
				if !open {
					return
				}
				say(fmt.Sprintf("%s: %s of %s", f.name, size(int(u.Complete)), size(int(u.Total))))
			case <-pushed:
				return
			}
		}
	}()
	say(f.name)
	err = remote.Write(to, img, remote.WithAuth(auth), remote.WithContext(ctx), remote.WithProgress(updates))
	close(pushed)
	<-told
	if err != nil {
		return fmt.Errorf("push %s: %w", f.name, err)
	}
	return nil
}

// hosts are the addresses of the registries.
func (r *registries) hosts() string { return r.open.addr + "," + r.private.addr }

func (r *registries) close(ctx context.Context) error {
	var errs []error
	for _, one := range []*imageRegistry{r.open, r.private} {
		if one == nil {
			continue
		}
		errs = append(errs, one.server.Shutdown(ctx))
		if err := <-one.served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
