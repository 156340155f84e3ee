package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// uploadLife is how long an upload may stand still.
	uploadLife = time.Hour
	// maxUploads bounds a user's uploads at once.
	maxUploads = 100
	// pieceWithin is how long a push may send nothing.
	pieceWithin = time.Minute
	// roomEvery is after how many bytes the room on the disk is looked at again.
	roomEvery = 64 << 20
)

// uploads takes layers as a stream to the disk: the library keeps each in memory until it is whole, and takes one at a
// time.
type uploads struct {
	dir  string
	free int64 // bytes that stay free on the disk, for what else is on it
	now  func() time.Time

	mu   sync.Mutex
	open map[string]*upload
}

// upload is a layer on its way. One request at a time writes to it.
type upload struct {
	user, path string
	used       time.Time // under the lock of all uploads

	mu   sync.Mutex
	sum  hash.Hash
	size int64
	over bool // it has become a blob, or has failed
}

// newUploads removes what an earlier life has left.
func newUploads(dir string, free int64) (*uploads, error) {
	if err := os.MkdirAll(filepath.Join(dir, "sha256"), 0o700); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(dir, "upload-*"))
	if err != nil {
		return nil, err
	}
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return &uploads{dir: dir, free: free, now: time.Now, open: make(map[string]*upload)}, err
}

// serve answers the requests of a push: POST begins, PATCH adds, PUT ends, DELETE gives up.
func (u *uploads) serve(w http.ResponseWriter, r *http.Request, user string, to place) {
	digest := r.URL.Query().Get("digest")
	if r.Method == http.MethodPost && to.name == "" {
		id, err := u.begin(user)
		switch {
		case errors.Is(err, errTooMany):
			refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", err.Error())
			return
		case err != nil:
			refuse(w, http.StatusInternalServerError, "UNKNOWN", "the upload could not be begun on the disk")
			return
		case digest == "":
			accepted(w, to, id, 0)
			return
		}
		to.name = id // all of it comes at once
	}
	up := u.find(to.name, user)
	if up == nil {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no such upload: begin it again")
		return
	}
	if !up.mu.TryLock() {
		refuse(w, http.StatusConflict, "BLOB_UPLOAD_INVALID", "another request writes to the upload")
		return
	}
	defer up.mu.Unlock()
	switch {
	case up.over:
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "the upload is over: begin it again")
	case r.Method == http.MethodPatch:
		u.add(w, r, to, up)
	case r.Method == http.MethodPut, r.Method == http.MethodPost:
		u.end(w, r, to, up, digest)
	case r.Method == http.MethodDelete:
		u.drop(to.name, up)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet:
		progress(w, to, to.name, up.size)
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "an upload is written to with PATCH and ended with PUT")
	}
}

// errNoRoom ends an upload.
var errNoRoom = errors.New("the disk is nearly full: an operator must make room")

func (u *uploads) room() error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(u.dir, &fs); err != nil {
		return err
	}
	if int64(fs.Bavail)*fs.Bsize < u.free {
		return errNoRoom
	}
	return nil
}

// body is a request's, as long as something comes and there is room for it.
type body struct {
	io.Reader
	u       *uploads
	control *http.ResponseController
	unseen  int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.unseen <= 0 {
		if err := b.u.room(); err != nil {
			return 0, err
		}
		b.unseen = roomEvery
	}
	_ = b.control.SetReadDeadline(time.Now().Add(pieceWithin)) // where there is a connection
	n, err := b.Reader.Read(p)
	b.unseen -= int64(n)
	return n, err
}

var errTooMany = fmt.Errorf("there are %d uploads of the user already", maxUploads)

func (u *uploads) begin(user string) (id string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	count := 0
	for id, up := range u.open {
		if u.now().Sub(up.used) > uploadLife {
			delete(u.open, id)
			_ = os.Remove(up.path) // a request that still writes to it fails at its end
		} else if up.user == user {
			count++
		}
	}
	if count >= maxUploads {
		return "", errTooMany
	}
	f, err := os.CreateTemp(u.dir, "upload-*")
	if err != nil {
		return "", err
	}
	id = rand.Text()
	u.open[id] = &upload{user: user, path: f.Name(), used: u.now(), sum: sha256.New()}
	return id, f.Close()
}

// find returns an upload of a user; nobody else's.
func (u *uploads) find(id, user string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	up := u.open[id]
	if up == nil || up.user != user {
		return nil
	}
	up.used = u.now()
	return up
}

func (u *uploads) add(w http.ResponseWriter, r *http.Request, to place, up *upload) {
	if at := r.Header.Get("Content-Range"); at != "" {
		if from, _, _ := strings.Cut(strings.TrimPrefix(at, "bytes "), "-"); from != fmt.Sprint(up.size) {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", fmt.Sprintf("the upload has %d bytes", up.size))
			return
		}
	}
	if !u.write(w, r, to, up) {
		return
	}
	accepted(w, to, to.name, up.size)
}

// write appends a request's body. What has been cut off is not taken up again: the client begins anew.
func (u *uploads) write(w http.ResponseWriter, r *http.Request, to place, up *upload) bool {
	f, err := os.OpenFile(up.path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		from := &body{Reader: http.MaxBytesReader(w, r.Body, maxUpload-up.size), u: u, control: http.NewResponseController(w)}
		n, copyErr := io.Copy(io.MultiWriter(f, up.sum), from)
		up.size += n
		err = errors.Join(copyErr, f.Sync(), f.Close())
	}
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case errors.Is(err, errNoRoom):
		u.drop(to.name, up)
		refuse(w, http.StatusInsufficientStorage, "DENIED", errNoRoom.Error())
		return false
	case tooLarge:
		u.drop(to.name, up)
		refuse(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("a layer may have %d bytes", int64(maxUpload)))
		return false
	case err != nil:
		u.drop(to.name, up)
		refuse(w, http.StatusInternalServerError, "BLOB_UPLOAD_INVALID", "the upload was cut off, or could not be written to the disk")
		return false
	}
	return true
}

// end makes an upload a blob, under the digest that it has.
func (u *uploads) end(w http.ResponseWriter, r *http.Request, to place, up *upload, digest string) {
	if !u.write(w, r, to, up) {
		return
	}
	sum := fmt.Sprintf("%x", up.sum.Sum(nil))
	if digest != "sha256:"+sum {
		u.drop(to.name, up)
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "what was sent has the digest sha256:"+sum)
		return
	}
	if err := os.Rename(up.path, filepath.Join(u.dir, "sha256", sum)); err != nil {
		u.drop(to.name, up)
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the layer could not be written to the disk")
		return
	}
	u.drop(to.name, up)
	w.Header().Set("Location", "/v2/"+to.repository+"/blobs/"+digest)
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}

// drop forgets an upload and what is left of it on the disk.
func (u *uploads) drop(id string, up *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	up.over = true
	delete(u.open, id)
	_ = os.Remove(up.path) // it may have become a blob
}

func accepted(w http.ResponseWriter, to place, id string, size int64) {
	progress(w, to, id, size)
	w.WriteHeader(http.StatusAccepted)
}

// progress says how far an upload is, and where it goes on.
func progress(w http.ResponseWriter, to place, id string, size int64) {
	w.Header().Set("Location", "/v2/"+to.repository+"/blobs/uploads/"+id)
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, size-1)))
}
