package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// exampleBodies are a right body for each call that takes one, by the end of its path.
var exampleBodies = map[string]string{
	"PUT /v1/functions/{name}": `{"image":"registry.example/team/tool:1","command":["/bin/sh"],"args":["-c","x"],"input":"stdin","timeout_ms":1000,"memory_bytes":33554432,` +
		`"cpus":0.5,"pids":10,"env":{"A":"b"},"isolation":"fresh","warm":1,"group":"default","labels":{"a":"b"},"capabilities":["CHOWN"],"writable_root":true,` +
		`"registry":{"username":"ann","password":"hunter2-hunter2"},"retries":2,"retry_on":["timeout"],"retry_delay_ms":10,"retry_max_delay_ms":100}`,
	"POST /v1/functions/{name}/rollback": `{"revision":2}`,
	"PUT /v1/users/{name}":               `{"role":"user","groups":{"default":5},"password":"hunter2-hunter2"}`,
	"PUT /v1/users/{name}/password":      `{"password":"hunter2-hunter2"}`,
	"PUT /v1/groups/{name}":              `{"nkey":"UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4","recipient":"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}`,
}

// FuzzAPI: whatever request comes, through the real router and the real decoder: it is answered as the contract says and never with a
// panic, what a use case is given of it is what it may rely on, and a password that it holds is in no answer and no line of the log.
// The use cases behind are kept out: they check what they are given, and answer with it.
func FuzzAPI(f *testing.F) {
	for _, o := range operations(f) {
		path := strings.NewReplacer("{name}", "tool", "{id}", "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f").Replace(o.template)
		text, ok := exampleBodies[o.method+" "+o.template]
		if !ok {
			text = "{}"
		}
		for _, query := range []string{"", "?limit=2&cursor=" + cursor("tool"), "?limit=x&cursor=%zz&state=queued&function=tool", "?follow=true&user=bob&limit=1&limit=2"} {
			f.Add(o.method, path+query, "", []byte(text), uint8(0))
		}
		f.Add(o.method, path, "Accept: application/json\nPrefer: respond-async, wait=5\nFaena-Expires: 60\nIdempotency-Key: k1", []byte("\xff\x00 bytes"), uint8(1))
		f.Add(o.method, path, "If-Match: \"1\"\nIf-None-Match: *\nLast-Event-ID: 5\nX-Request-Id: a/b.c\nTransfer-Encoding: chunked", []byte(""), uint8(2))
		f.Add(o.method, path, "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\nFaena-Expires: -1\nFaena-Expires: 2", []byte(`{"a":1,"a":2}`), uint8(3))
		f.Add(o.method, path, "Traceparent: 01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x\nPrefer: ;,=\nX-Request-Id: "+strings.Repeat("x", 200), []byte(`[{"b":null}]`), uint8(4))
	}
	var log bytes.Buffer
	s := &sink{}
	a := New(Options{Functions: functionSink{s: s}, Activations: activationSink{s: s}, Users: userSink{s: s}, Groups: groupSink{s: s}, Diagnoser: groupSink{s: s},
		Workers: workerSink{s: s}, DeadLetters: letterSink{s: s}, Health: workerSink{s: s}, Auth: s, Logger: slog.New(slog.NewJSONHandler(&log, nil)), KeepAlive: time.Hour})
	f.Cleanup(a.Close)
	f.Fuzz(func(t *testing.T, method, target, headers string, text []byte, pick uint8) {
		r := requestOf(method, target, headers, text)
		if r == nil {
			return
		}
		log.Reset()
		*s = sink{t: t, pick: int(pick), parameter: text}
		sent := r.Clone(t.Context()) // the API changes its own
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		answer := reply{t, method + " " + target, w.Code, w.Result().Header, w.Body.Bytes()}
		if strings.Contains(log.String(), "panic") || w.Code == http.StatusInternalServerError && s.pick%8 != 7 {
			t.Fatalf("%s: %d, %s", answer.call, w.Code, log.String())
		}
		for _, secret := range s.secrets {
			if len(secret) >= 12 && !strings.Contains(target+headers, secret) && (strings.Contains(log.String(), secret) || bytes.Contains(w.Body.Bytes(), []byte(secret))) {
				t.Errorf("%s: %q is repeated in %s, or in the log: %s", answer.call, secret, clip(w.Body.String()), log.String())
			}
		}
		if !known(sent) || w.Code == http.StatusOK && w.Header().Get("Content-Type") == "text/event-stream" {
			return
		}
		(&site{t: t, api: a}).keepsContract(sent, answer)
	})
}

// requestOf is a request as a server reads it; nil where it is none.
func requestOf(method, target, headers string, text []byte) *http.Request {
	var raw bytes.Buffer
	raw.WriteString(method + " " + target + " HTTP/1.1\r\nHost: faena.example\r\n")
	for line := range strings.SplitSeq(headers, "\n") {
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.EqualFold(name, "Content-Length") && !strings.EqualFold(name, "Transfer-Encoding") && !strings.EqualFold(name, "Host") {
			raw.WriteString(line + "\r\n")
		}
	}
	raw.WriteString("\r\n")
	r, err := http.ReadRequest(bufio.NewReader(&raw))
	if err != nil {
		return nil
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	if strings.Contains(headers, "chunked") {
		r.ContentLength = -1
	}
	return r
}

// known reports whether a request's method is one of HTTP's: what is none the tools that hold answers against the contract refuse.
func known(r *http.Request) bool {
	_, err := url.ParseRequestURI(r.URL.RequestURI())
	return err == nil && strings.Contains(" GET HEAD PUT POST DELETE PATCH OPTIONS ", " "+r.Method+" ")
}

// sink is what stands behind the API.
type sink struct {
	t         testing.TB
	pick      int // which outcome it has
	parameter []byte
	secrets   []string
}

// Authenticate makes every caller an admin, with ann's name.
func (*sink) Authenticate(*http.Request) (faena.User, error) {
	return faena.User{Name: "ann", Role: faena.RoleAdmin, Groups: map[string]int{"default": 1}}, nil
}

// fail is the error of the outcome, with what came in its message, as use cases have it.
func (s *sink) fail(text string) error {
	switch s.pick % 8 {
	case 1:
		return faena.NotFound("thing", text)
	case 3:
		return &faena.Error{Kind: faena.KindLimit, Reason: "at_limit", Component: faena.ComponentCaller, Message: text, RetryAfter: time.Duration(s.pick) * time.Millisecond}
	case 5:
		return faena.Unavailable(faena.ComponentQueue, "away", "It is away.", nil)
	case 7:
		return io.ErrUnexpectedEOF
	}
	return nil
}

// spec checks what Deploy relies on.
func (s *sink) spec(spec faena.Spec) error {
	whole := spec.WithDefaults()
	err := whole.Validate()
	if err != nil {
		return err
	}
	shown, err := json.Marshal(showSpec(whole))
	noError(s.t, err)
	var back Spec
	noError(s.t, json.Unmarshal(shown, &back))
	if again := specOf(back); !reflect.DeepEqual(normal(again), normal(whole)) {
		s.t.Errorf("a spec is shown as %s, which is %+v and not %+v", shown, again, whole)
	}
	return nil
}

// normal makes empty and absent lists the same.
func normal(s faena.Spec) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// record is an activation in one of its states.
func (s *sink) record(user, id string) faena.Record {
	if !faena.ValidActivationID(id) {
		s.t.Errorf("an activation has the id %q", id)
	}
	now := time.Unix(1_800_000_000, 0).UTC()
	code := s.pick
	r := faena.Record{ID: id, User: user, Group: "default", Function: "tool", Revision: 1, State: faena.States[s.pick%len(faena.States)], AdmittedAt: now, EndedAt: &now,
		Digest: "sha256:" + strings.Repeat("a", 64), Attempt: 1,
		Result: faena.Blob{Size: int64(len(s.parameter)), Inline: s.parameter}, Log: faena.Blob{Size: int64(len(s.parameter)), Inline: s.parameter}}
	if r.State != faena.StateSucceeded && r.State.Terminal() {
		r.Reason, r.Message, r.ExitCode = faena.Reasons()[s.pick%len(faena.Reasons())], "It failed.", &code
	}
	return r
}

const madeID = "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f"

// id is what a use case does with an id of a path.
func (s *sink) id(id string) error {
	if !faena.ValidActivationID(id) {
		return faena.NotFound("activation", id)
	}
	return s.fail(id)
}

func (s *sink) name(name string) error {
	if !faena.ValidName(name) {
		return faena.NotFound("function", name)
	}
	return s.fail(name)
}

func (s *sink) page(limit int, after string, valid func(string) bool) {
	if limit < 2 || limit > maxPage+1 || after != "" && !valid(after) {
		s.t.Errorf("a page of %d after %q is asked for", limit, after)
	}
}
