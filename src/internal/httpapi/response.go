package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// response remembers what was answered and gives each write its own deadline, so that a client that stops reading
// holds a connection for a bounded time although calls may wait for minutes.
type response struct {
	http.ResponseWriter
	control http.ResponseController
	timeout time.Duration // of one write
	status  int           // 0 until the header is written
	bytes   int64
}

// newResponse takes over a writer. What its connection's answer before this one left as deadline is dropped.
func newResponse(w http.ResponseWriter, timeout time.Duration) *response {
	rw := &response{ResponseWriter: w, control: *http.NewResponseController(w), timeout: timeout}
	_ = rw.control.SetWriteDeadline(time.Time{}) // a writer without deadlines (a recorder in a test) does without
	return rw
}

// readWithin gives what is still to be read of the request's body a deadline; 0 is none.
func (w *response) readWithin(d time.Duration) {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	_ = w.control.SetReadDeadline(until)
}

func (w *response) writeWithin(bytes int) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout + time.Duration(bytes/slowestClient)*time.Second))
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		w.writeWithin(0)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.writeWithin(len(p))
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets a http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// writeBytes answers with a body as it is. An error of the connection concerns the client alone, who has gone.
func writeBytes(w http.ResponseWriter, status int, contentType string, p []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(p)))
	w.WriteHeader(status)
	_, _ = w.Write(p)
}

// writePut answers a PUT of what stands at path: 201 with its Location where that was made, otherwise 200.
func (a *API) writePut(w http.ResponseWriter, r *http.Request, created bool, path string, v any) {
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		w.Header().Set("Location", path)
	}
	a.writeJSON(w, r, status, v)
}

// writeJSON answers with a value of the contract.
func (a *API) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	p, err := json.Marshal(v)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeBytes(w, status, "application/json", append(p, '\n'))
}
