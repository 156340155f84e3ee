package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// answerTimeout is how long the first byte of an answer may take: an activation's may take eleven minutes.
	answerTimeout = 11 * time.Minute
	// followTries is how often a log's connection is made again that gives nothing new, followPause how long after the
	// first loss; the pause grows with each.
	followTries = 5
	followPause = 500 * time.Millisecond
	// maxProblem bounds a problem document, maxAnswer any other JSON.
	maxProblem = 4 << 20
	maxAnswer  = 128 << 20
)

// ErrAway is an appliance that does not answer. ErrBroken is that of a connection that broke before the answer came: what
// was asked for may have happened.
var (
	ErrAway   = errors.New("the appliance does not answer")
	ErrBroken = fmt.Errorf("%w: the connection broke", ErrAway)
)

// Failure is an answer with a status of 300 or more.
type Failure struct{ Problem }

// Error is what happened, in a sentence.
func (f *Failure) Error() string {
	text := f.Detail
	if text == "" {
		text = f.Title
	}
	return fmt.Sprintf("%s (%s)", text, f.Reason)
}

// Options are a connection to an appliance.
type Options struct {
	URL                string // https://host:port; http:// for a loopback address only
	Username, Password string
	CA                 []byte // in PEM, where the appliance's certificate is of a CA of its own; default: the host's list
	UserAgent          string
}

// Client calls one appliance as one user. It is safe for concurrent use. Its methods are the contract's operations; Read
// and the like turn their answers into values and errors.
type Client struct {
	*operations
	o     Options
	http  *http.Client
	pause time.Duration // followPause, but for tests
}

// New makes a client; nothing is called yet. Credentials never go over plain HTTP to another host.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if strings.Contains(o.URL, "@") { // not repeated: it may hold a password
		return nil, errors.New("the appliance's address has a user or a password in it, which are given apart")
	}
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("the appliance's address %q is no http or https URL", o.URL)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("the appliance's address %q is plain HTTP to another host: the password could be read on the way", o.URL)
	}
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout,
		ResponseHeaderTimeout: answerTimeout, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	if len(o.CA) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("there is no certificate in the appliance's CA")
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c := &Client{o: o, pause: followPause, http: &http.Client{Transport: sender{t}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	c.operations = &operations{Server: strings.TrimSuffix(o.URL, "/") + "/", Client: c.http, RequestEditors: []RequestEditorFn{c.sign}}
	return c, nil
}

// sender tells a request that cannot have arrived from one that may have.
type sender struct{ http.RoundTripper }

func (s sender) RoundTrip(r *http.Request) (*http.Response, error) {
	var connected atomic.Bool // of the last try: one that failed is made again only where it has not arrived, or only reads
	res, err := s.RoundTripper.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})))
	if err != nil && connected.Load() {
		return nil, broken{err}
	}
	return res, err
}

// broken is the error of a request that may have arrived.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (c *Client) sign(_ context.Context, r *http.Request) error {
	r.SetBasicAuth(c.o.Username, c.o.Password)
	if c.o.UserAgent != "" {
		r.Header.Set("User-Agent", c.o.UserAgent)
	}
	return nil
}

// check turns an answer that is an error into one. The caller closes the body of any other.
func check(res *http.Response, err error) (*http.Response, error) {
	if err != nil {
		if _, ok := errors.AsType[broken](err); ok {
			return nil, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		if _, ok := errors.AsType[*url.Error](err); ok {
			return nil, fmt.Errorf("%w: %w", ErrAway, err)
		}
		return nil, err
	}
	if res.StatusCode < 300 { // a redirection is none of Faena's answers, and is not followed
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	f := &Failure{}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err == nil {
		err = json.Unmarshal(text, &f.Problem)
	}
	if err != nil || f.Reason == "" { // something between us and the appliance
		f.Problem = Problem{Reason: "no_problem_document", Title: res.Status, Detail: "The answer is " + res.Status + ", which is not one of Faena's."}
	}
	f.Status = res.StatusCode
	return nil, f
}

// Read decodes the JSON answer of an operation, or returns its *Failure.
func Read[T any](res *http.Response, err error) (v T, _ error) {
	if res, err = check(res, err); err != nil {
		return v, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusNoContent {
		return v, nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("read the appliance's answer: %w", err)
	}
	return v, nil
}

// Stream returns an answer whose body the caller reads and closes, or its *Failure.
func Stream(res *http.Response, err error) (*http.Response, error) { return check(res, err) }

// FollowLogs calls fn with the log of an activation from an offset on, as it grows, until the activation ends, and
// returns how. A connection that is lost is made again where it was, also where the appliance is away for a moment.
func (c *Client) FollowLogs(ctx context.Context, id string, from int64, fn func(p []byte) error) (EndEvent, error) {
	for lost := 0; ; {
		end, next, err := c.followOnce(ctx, id, from, fn)
		if err == nil || !passing(err) || ctx.Err() != nil {
			return end, err
		}
		if next > from {
			from, lost = next, 0
		}
		if lost++; lost > followTries {
			return end, err
		}
		select {
		case <-ctx.Done():
			return end, ctx.Err()
		case <-time.After(time.Duration(lost) * c.pause):
		}
	}
}

// passing reports whether the same question may have an answer in a moment.
func passing(err error) bool {
	f, ok := errors.AsType[*Failure](err)
	return errors.Is(err, ErrAway) || ok && f.Status == http.StatusServiceUnavailable && f.Retryable
}

func (c *Client) followOnce(ctx context.Context, id string, from int64, fn func(p []byte) error) (end EndEvent, next int64, err error) {
	next = from
	res, err := check(c.GetLogs(ctx, id, &GetLogsParams{Follow: GetLogsParamsFollowTrue, LastEventID: from}))
	if err != nil {
		return end, next, err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 64<<10), maxProblem)
	event, data := "", []byte(nil)
	for lines.Scan() {
		line := lines.Bytes()
		if v, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
			event = string(v)
		}
		if v, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			data = bytes.Clone(v)
		}
		if len(line) > 0 {
			continue // an event is whole at the empty line after it: a connection may be lost at any byte
		}
		switch event {
		case "log":
			var l LogEvent
			if err := json.Unmarshal(data, &l); err != nil {
				return end, next, fmt.Errorf("read a log event: %w", err)
			}
			next = l.Offset + int64(len(l.Data))
			if err := fn(l.Data); err != nil {
				return end, next, err
			}
		case "end":
			return end, next, json.Unmarshal(data, &end)
		case "error":
			f := &Failure{}
			if err := json.Unmarshal(data, &f.Problem); err != nil {
				return end, next, fmt.Errorf("read an error event: %w", err)
			}
			return end, next, f
		}
		event, data = "", nil
	}
	return end, next, fmt.Errorf("%w while the log was read", ErrBroken)
}
