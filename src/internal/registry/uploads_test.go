package registry

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
)

// send makes a request of ann's with a body, and returns status, headers and answer.
func (h *house) send(t *testing.T, method, path, contentRange string, body io.Reader) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	c := h.of("ann")
	req.SetBasicAuth(c.Username, c.Password)
	if contentRange != "" {
		req.Header.Set("Content-Range", contentRange)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(text)
}

// expect sends and checks the status.
func (h *house) expect(t *testing.T, want int, method, path, contentRange, body string) http.Header {
	t.Helper()
	status, header, text := h.send(t, method, path, contentRange, strings.NewReader(body))
	if status != want {
		t.Errorf("%s %s is answered %d: %s", method, path, status, text)
	}
	return header
}

const uploadsOfAnn = "/v2/ann/app/blobs/uploads/"

// begin begins an upload, and returns its path.
func (h *house) begin(t *testing.T) string {
	t.Helper()
	at := h.expect(t, http.StatusAccepted, http.MethodPost, uploadsOfAnn, "", "").Get("Location")
	if !strings.HasPrefix(at, uploadsOfAnn) || len(at) < len(uploadsOfAnn)+20 {
		t.Fatalf("it goes on at %q", at)
	}
	return at
}

func TestLoopback_Uploads(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	digest := sha256Of([]byte("0123456789"))
	blob := "/v2/ann/app/blobs/" + digest
	at := h.begin(t)
	if got := h.expect(t, http.StatusAccepted, http.MethodPatch, at, "0-3", "0123").Get("Range"); got != "0-3" {
		t.Errorf("it has %s", got)
	}
	if got := h.expect(t, http.StatusNoContent, http.MethodGet, at, "", ""); got.Get("Range") != "0-3" || got.Get("Location") != at {
		t.Errorf("it has %v", got)
	}
	h.expect(t, http.StatusRequestedRangeNotSatisfiable, http.MethodPatch, at, "0-3", "0123") // once more
	h.expect(t, http.StatusRequestedRangeNotSatisfiable, http.MethodPatch, at, "5-9", "56789")
	h.expect(t, http.StatusAccepted, http.MethodPatch, at, "", "45")
	h.expect(t, http.StatusNotFound, http.MethodGet, blob, "", "")
	if got := h.expect(t, http.StatusCreated, http.MethodPut, at+"?digest="+digest, "", "6789").Get("Docker-Content-Digest"); got != digest {
		t.Errorf("it is %s", got)
	}
	if _, text := h.do(t, http.MethodGet, blob, h.of("ann"), ""); text != "0123456789" {
		t.Errorf("it is %q", text)
	}
	for _, method := range []string{http.MethodPatch, http.MethodPut, http.MethodGet, http.MethodDelete} {
		h.expect(t, http.StatusNotFound, method, at, "", "x") // it is over
	}
	h.expect(t, http.StatusCreated, http.MethodPost, uploadsOfAnn+"?digest="+sha256Of([]byte("at once")), "", "at once")
	h.expect(t, http.StatusCreated, http.MethodPost, strings.TrimSuffix(uploadsOfAnn, "/")+"?digest="+sha256Of(nil), "", "")
	at = h.begin(t)
	h.expect(t, http.StatusAccepted, http.MethodPatch, at, "", "given up")
	h.expect(t, http.StatusNoContent, http.MethodDelete, at, "", "")
	h.expect(t, http.StatusMethodNotAllowed, http.MethodOptions, h.begin(t), "", "")
	h.expect(t, http.StatusNotFound, http.MethodPatch, uploadsOfAnn+"absent", "", "x")
	h.start(t)
	if n := len(h.files(t)); n != 1+3 {
		t.Errorf("beside the key there are %v, not three blobs", h.files(t))
	}
}

// An upload is its user's; a repository may have any name.
func TestLoopback_UploadsOfAnother(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	at := h.begin(t)
	id := at[strings.LastIndex(at, "/")+1:]
	for _, method := range []string{http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodGet} {
		h.status(t, method, "/v2/bob/app/blobs/uploads/"+id, h.of("bob"), http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
	}
	h.expect(t, http.StatusCreated, http.MethodPut, at+"?digest="+sha256Of([]byte("x")), "", "x")
	for _, name := range []string{"ann/manifests/x", "ann/blobs/uploads", "ann/tags/list", "ann/blobs"} {
		img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
		faenatest.Push(t, h.addr, name, img, h.of("ann"))
		h.pulls(t, h.of("ann"), name, digestOf(t, img))
		h.start(t)
		h.pulls(t, h.of("ann"), name, digestOf(t, img))
	}
}

// What is not what its digest says, or not all of it, is nobody's image and takes no place.
func TestLoopback_UploadsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	before := len(h.files(t))
	for _, digest := range []string{sha256Of([]byte("other")), "", "sha256:", "sha512:" + strings.Repeat("0", 128), "../../pull.key", strings.ToUpper(sha256Of([]byte("text")))} {
		h.expect(t, http.StatusBadRequest, http.MethodPut, h.begin(t)+"?digest="+digest, "", "text")
	}
	manifest := "/v2/ann/app/manifests/"
	h.expect(t, http.StatusBadRequest, http.MethodPut, manifest+sha256Of([]byte("other")), "", "{}")
	h.expect(t, http.StatusRequestEntityTooLarge, http.MethodPut, manifest+"latest", "", strings.Repeat(" ", maxManifest+1))
	h.expect(t, http.StatusNotFound, http.MethodGet, manifest+"latest", "", "")
	at := h.begin(t)
	if err := h.half(t, at).Close(); err != nil {
		t.Fatal(err)
	}
	faenatest.Eventually(t, 10*time.Second, "the upload that was cut off is dropped", func() bool { return len(h.files(t)) == before })
	h.expect(t, http.StatusNotFound, http.MethodPut, at+"?digest="+sha256Of([]byte("half")), "", "")
}

// half sends half of the eight bytes that it promises.
func (h *house) half(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://"+h.addr+path, strings.NewReader("half"))
	if err != nil {
		t.Fatal(err)
	}
	c := h.of("ann")
	req.SetBasicAuth(c.Username, c.Password)
	var text bytes.Buffer
	if err := req.Write(&text); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(bytes.Replace(text.Bytes(), []byte("Content-Length: 4"), []byte("Content-Length: 8"), 1)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Uploads that nobody goes on with end, and nobody has more than his share.
func TestUploads_Bounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u, err := newUploads(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	u.now = func() time.Time { return now }
	id := ""
	for range maxUploads {
		if id, err = u.begin("ann"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := u.begin("ann"); err != errTooMany {
		t.Errorf("one more is %v", err)
	}
	if _, err := u.begin("bob"); err != nil {
		t.Errorf("another user's is %v", err)
	}
	now = now.Add(uploadLife - time.Minute)
	if u.find(id, "ann") == nil {
		t.Error("it has ended too early")
	}
	now = now.Add(2 * time.Minute)
	if _, err := u.begin("ann"); err != nil {
		t.Errorf("an hour later one more is %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "upload-*"))
	if err != nil || len(left) != 2 || u.find(id, "ann") == nil {
		t.Errorf("%d are left on the disk, %v; the one that went on must be among them", len(left), err)
	}
}

// An upload that stalls stops nobody else's.
func TestLoopback_UploadStalls(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	at := h.begin(t)
	conn := h.half(t, at)
	faenatest.Eventually(t, 10*time.Second, "half of it has come", func() bool {
		left, err := filepath.Glob(filepath.Join(h.dir, "blobs", "upload-*"))
		if err != nil || len(left) != 1 {
			t.Fatalf("the uploads are %v, %v", left, err)
		}
		info, err := os.Stat(left[0])
		return err == nil && info.Size() == 4
	})
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	faenatest.Push(t, h.addr, "ann/small", img, h.of("ann"))
	h.pulls(t, h.of("ann"), "ann/small", digestOf(t, img))
	if _, err := conn.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Errorf("then it is answered %s", res.Status)
	}
	h.expect(t, http.StatusCreated, http.MethodPut, at+"?digest="+sha256Of([]byte("halfhalf")), "", "")
}

// A large layer takes no memory: it goes to the disk as it comes. It does not run beside others, whose memory would count.
func TestLoopback_UploadsAreStreamed(t *testing.T) {
	h := newHouse(t)
	const size = 256 << 20
	chunk := make([]byte, 1<<20)
	_, _ = rand.Read(chunk) // never fails
	var most atomic.Uint64
	large := &watched{left: size, chunk: chunk, most: &most}
	at := h.begin(t)
	if status, _, text := h.send(t, http.MethodPatch, at, "", large); status != http.StatusAccepted {
		t.Fatalf("%d: %s", status, text)
	}
	if grown := most.Load(); grown > size/4 {
		t.Errorf("the heap had up to %d MiB while %d came", grown>>20, size>>20)
	}
	h.expect(t, http.StatusNoContent, http.MethodDelete, at, "", "")
}

// watched is a body that looks at this process' memory as it is read.
type watched struct {
	left  int
	chunk []byte
	most  *atomic.Uint64
}

func (w *watched) Read(p []byte) (int, error) {
	if w.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), w.left)], w.chunk)
	if w.left -= n; w.left%(8<<20) < n {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.most.Store(max(w.most.Load(), m.HeapInuse))
	}
	return n, nil
}

// The key of the pull tokens is in the directory of the blobs, and no path leads to it.
func TestLoopback_KeyIsNoBlob(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	key, err := os.ReadFile(filepath.Join(h.dir, "pull.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"..%2fpull.key", "sha256:..%2f..%2fpull.key", "sha256:" + strings.Repeat("0", 55) + "../../pull.key", "..%2f..%2fpull.key"} {
		if _, text := h.do(t, http.MethodGet, "/v2/ann/app/blobs/"+name, h.of("ann"), ""); strings.Contains(text, string(key)) {
			t.Errorf("the key is at %s", name)
		}
	}
	if again, err := os.ReadFile(filepath.Join(h.dir, "pull.key")); err != nil || !bytes.Equal(key, again) {
		t.Errorf("the key has changed: %v", err)
	}
}

// A push leaves room on the disk for what else is on it.
func TestUploads_NoRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u, err := newUploads(dir, 1<<60)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	u.serve(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v2/ann/tool/blobs/uploads/?digest=sha256:x", strings.NewReader("layer")), "ann", place{"ann/tool", "uploads", ""})
	left, err := filepath.Glob(filepath.Join(dir, "upload-*"))
	if w.Code != http.StatusInsufficientStorage || !strings.Contains(w.Body.String(), "nearly full") || len(left) > 0 || err != nil {
		t.Errorf("it answers %d %s, and %v is left, %v", w.Code, w.Body, left, err)
	}
}
