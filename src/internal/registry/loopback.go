package registry

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"faena.dev/faena/internal/faena"
)

// PullTokenPath answers a user who has logged in with the credentials that a function of his pulls with.
const PullTokenPath = "/faena/pull-token"

const (
	// maxUpload bounds one request: a layer.
	maxUpload = 8 << 30
	// maxManifest bounds a manifest.
	maxManifest = 4 << 20
)

// LoopbackOptions are the appliance's own registry.
type LoopbackOptions struct {
	Dir     string // holds blobs, manifests and the key of pull tokens
	MinFree int64  // bytes of its disk that a push leaves free; what else is there needs them
	// Login checks Basic credentials; its errors are *faena.Error.
	Login func(ctx context.Context, address, user, password string) (faena.User, error)
	// Known reports whether a user is there: a pull token does not outlive him.
	Known func(ctx context.Context, user string) bool
}

// Loopback is the appliance's own registry, on disk. Each user has the repositories below his name in lower case, and
// sees no others: to push and pull with his own credentials, to pull with a token that outlives his password. Everything
// pushed is there again after the process was killed, also what its tag has moved on from, and nobody removes it: a
// revision is pinned to its digest.
type Loopback struct {
	o       LoopbackOptions
	key     []byte
	reg     http.Handler
	uploads *uploads

	putting sync.Mutex // one manifest at a time, so that the last one in memory is the last one on disk
}

// NewLoopback opens the registry's directory.
func NewLoopback(ctx context.Context, o LoopbackOptions) (*Loopback, error) {
	l := &Loopback{o: o}
	for _, d := range []string{o.Dir, l.manifests(), filepath.Join(o.Dir, "blobs")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open the image registry: %w", err)
		}
	}
	if err := l.loadKey(filepath.Join(o.Dir, "pull.key")); err != nil {
		return nil, fmt.Errorf("open the image registry: %w", err)
	}
	l.reg = ggcr.New(ggcr.WithBlobHandler(ggcr.NewDiskBlobHandler(filepath.Join(o.Dir, "blobs"))), ggcr.Logger(log.New(io.Discard, "", 0)))
	var err error
	if l.uploads, err = newUploads(filepath.Join(o.Dir, "blobs"), o.MinFree); err != nil {
		return nil, fmt.Errorf("open the image registry: %w", err)
	}
	if err := l.restore(ctx); err != nil {
		return nil, fmt.Errorf("open the image registry: %w", err)
	}
	return l, nil
}

func (l *Loopback) manifests() string { return filepath.Join(l.o.Dir, "manifests") }

func (l *Loopback) loadKey(path string) (err error) {
	l.key, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		l.key = make([]byte, 32)
		_, _ = rand.Read(l.key) // never fails
		err = writeWhole(path, l.key)
	}
	if err == nil && len(l.key) != 32 {
		err = fmt.Errorf("%s is no key", path)
	}
	return err
}

// ServeHTTP answers one request of the registry's API, or gives out a pull token.
func (l *Loopback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, pullOnly, err := l.who(r)
	if err != nil {
		l.deny(w, err)
		return
	}
	if r.URL.Path == PullTokenPath && !pullOnly {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(faena.Credentials{Username: user, Password: l.token(user)}) // a caller that has gone needs no answer
		return
	}
	to := target(r.URL.Path)
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	if r.URL.Path != "/v2/" && (!strings.HasPrefix(to.repository, strings.ToLower(user)+"/") || pullOnly && !read) || crossMount(r, user) {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "there is no such repository below "+strings.ToLower(user)+"/")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	switch {
	case to.kind == "uploads":
		l.uploads.serve(w, r, user, to)
	case to.kind == "manifests" && r.Method == http.MethodPut:
		l.putManifest(w, r, to)
	case !read: // users share layers, and revisions are pinned to manifests
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "nothing is changed or removed here")
	default:
		l.reg.ServeHTTP(w, r)
	}
}

// crossMount reports whether a push wants a layer of a repository that is not the user's.
func crossMount(r *http.Request, user string) bool {
	from := r.URL.Query().Get("from")
	return from != "" && !strings.HasPrefix(from, strings.ToLower(user)+"/")
}

// place is what a path of the registry's API names.
type place struct{ repository, kind, name string }

// target takes a path apart from its end, as the library does: what stands before may have any name. The zero value is
// a path that names nothing.
func target(path string) place {
	parts := strings.Split(strings.TrimPrefix(path, "/v2/"), "/")
	n := len(parts)
	if n > 3 && parts[n-3] == "blobs" && parts[n-2] == "uploads" {
		return place{strings.Join(parts[:n-3], "/"), "uploads", parts[n-1]}
	}
	if n < 3 || !slices.Contains([]string{"manifests", "blobs", "tags"}, parts[n-2]) {
		return place{}
	}
	to := place{strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]}
	if to.kind == "blobs" && to.name == "uploads" {
		to.kind, to.name = "uploads", ""
	}
	return to
}

// who tells which user calls, and whether only to pull.
func (l *Loopback) who(r *http.Request) (user string, pullOnly bool, err error) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return "", false, &faena.Error{Kind: faena.KindUnauthenticated, Message: "credentials are needed"}
	}
	if subtle.ConstantTimeCompare([]byte(password), []byte(l.token(name))) == 1 {
		if !l.o.Known(r.Context(), name) {
			return "", false, &faena.Error{Kind: faena.KindUnauthenticated, Message: "the user is gone"}
		}
		return name, true, nil
	}
	u, err := l.o.Login(r.Context(), r.RemoteAddr, name, password)
	return u.Name, false, err
}

func (l *Loopback) token(user string) string {
	h := hmac.New(sha256.New, l.key)
	_, _ = h.Write([]byte("pull\x00" + user)) // never fails
	return hex.EncodeToString(h.Sum(nil))
}

func (l *Loopback) deny(w http.ResponseWriter, err error) {
	switch {
	case faena.IsKind(err, faena.KindUnauthenticated):
		w.Header().Set("WWW-Authenticate", `Basic realm="faena"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	case faena.IsKind(err, faena.KindLimit):
		refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many failed logins")
	default:
		refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "users cannot be looked up now")
	}
}

// refuse answers in the registry API's form of an error.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	_ = json.NewEncoder(w).Encode(map[string][]item{"errors": {{code, message}}}) // a caller that has gone needs no answer
}

// savedManifest is a manifest as it is kept: the library holds them in memory only.
type savedManifest struct {
	Path        string `json:"path"` // of the request that put it
	ContentType string `json:"content_type"`
	Body        []byte `json:"body"`
}

// putManifest stores a manifest with the library, then on disk, then answers.
func (l *Loopback) putManifest(w http.ResponseWriter, r *http.Request, to place) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "the manifest is too large or was cut off")
		return
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(body))
	if strings.Contains(to.name, ":") && to.name != digest {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "the manifest has the digest "+digest)
		return
	}
	m := savedManifest{Path: r.URL.Path, ContentType: r.Header.Get("Content-Type"), Body: body}
	l.putting.Lock()
	defer l.putting.Unlock()
	answer := l.put(r.Context(), m)
	if answer.status == http.StatusCreated {
		pinned := m
		pinned.Path = "/v2/" + to.repository + "/manifests/" + digest // stays when its tag moves on
		if err := errors.Join(l.save(pinned), l.save(m)); err != nil {
			refuse(w, http.StatusInternalServerError, "UNKNOWN", "the manifest could not be written to the disk")
			return
		}
	}
	for k, v := range answer.header {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body.Bytes()) // a caller that has gone needs no answer
}

// save writes a manifest to the disk.
func (l *Loopback) save(m savedManifest) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(m.Path))
	return writeWhole(filepath.Join(l.manifests(), hex.EncodeToString(sum[:])+".json"), text)
}

// put gives a manifest to the library.
func (l *Loopback) put(ctx context.Context, m savedManifest) *kept {
	answer := &kept{header: http.Header{}, status: http.StatusOK}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, m.Path, bytes.NewReader(m.Body))
	if err != nil {
		answer.status = http.StatusBadRequest
		return answer
	}
	req.Header.Set("Content-Type", m.ContentType)
	l.reg.ServeHTTP(answer, req)
	return answer
}

// kept is an answer that is looked at before it is given.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }

// restore gives the library the manifests that were kept. One that names others comes after them: so as long as a round
// brings something, there is another.
func (l *Loopback) restore(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(l.manifests(), "*.json"))
	if err != nil {
		return err
	}
	var left []savedManifest
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		var m savedManifest
		if err := json.Unmarshal(text, &m); err != nil {
			return fmt.Errorf("read %s: %w", f, err)
		}
		left = append(left, m)
	}
	for progress := true; progress && len(left) > 0; {
		var again []savedManifest
		for _, m := range left {
			if l.put(ctx, m).status != http.StatusCreated {
				again = append(again, m)
			}
		}
		progress = len(again) < len(left)
		left = again
	}
	return nil // what names something that is gone stays on disk
}

// writeWhole writes a file whole or not at all, for its owner only.
func writeWhole(path string, text []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
