package installation

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"faena.dev/faena/internal/tools/bench/report"
)

// User is who calls.
type User struct{ Name, Password string }

// Client calls the APIs of an installation in turn. It is safe for concurrent use.
type Client struct {
	urls []string
	next atomic.Uint64
	http *http.Client
}

// NewClient makes a client of APIs. trust is nil where they have no TLS.
func NewClient(urls []string, trust *tls.Config) *Client {
	return &Client{urls: urls, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64, TLSClientConfig: trust}}}
}

// Close closes the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Send makes one call and returns the whole answer; one that is no 2xx is an error. headers are pairs.
func (c *Client) Send(ctx context.Context, who User, method, path string, body []byte, headers ...string) ([]byte, error) {
	status, text, err := c.send(ctx, who, method, path, body, headers...)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s %s of %s answered %d: %.300s", method, path, who.Name, status, text)
	}
	return text, err
}

// Get decodes the answer to a GET into out, whatever its status.
func (c *Client) Get(ctx context.Context, who User, path string, out any) error {
	_, text, err := c.send(ctx, who, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("GET %s answered %.300q: %w", path, text, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, who User, method, path string, body []byte, headers ...string) (status int, text []byte, err error) {
	url := c.urls[c.next.Add(1)%uint64(len(c.urls))]
	req, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth(who.Name, who.Password)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }() // read to its end
	text, err = io.ReadAll(res.Body)
	return res.StatusCode, text, err
}

// Activate runs a function once and waits for it; anything but a 200 with the parameter as its body is an error.
func (c *Client) Activate(ctx context.Context, who User, function, parameter string) (time.Duration, error) {
	began := time.Now()
	status, body, err := c.send(ctx, who, http.MethodPost, "/v1/functions/"+function+"/activations", []byte(parameter))
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	if status != http.StatusOK || string(body) != parameter {
		return 0, fmt.Errorf("activation of %s answered %d: %.300q", function, status, body)
	}
	return took, nil
}

// Queue asks for an activation without waiting for it, and returns its id.
func (c *Client) Queue(ctx context.Context, who User, function string, parameter []byte) (id string, err error) {
	text, err := c.Send(ctx, who, http.MethodPost, "/v1/functions/"+function+"/activations", parameter, "Prefer", "respond-async")
	if err != nil {
		return "", err
	}
	var accepted struct {
		ActivationID string `json:"activation_id"`
	}
	if err := json.Unmarshal(text, &accepted); err != nil || accepted.ActivationID == "" {
		return "", fmt.Errorf("an activation of %s was accepted with %.300q: %w", function, text, err)
	}
	return accepted.ActivationID, nil
}

// Load runs n activations with several clients at once, and returns how long each took and how many a second there were.
func (c *Client) Load(ctx context.Context, who User, function string, clients, n int) (report.Sample, float64, error) {
	return c.load(ctx, who, function, clients, func(i int) bool { return i < n/clients })
}

// LoadFor is Load for a time instead of a number.
func (c *Client) LoadFor(ctx context.Context, who User, function string, clients int, d time.Duration) (report.Sample, float64, error) {
	end := time.Now().Add(d)
	return c.load(ctx, who, function, clients, func(int) bool { return time.Now().Before(end) })
}

func (c *Client) load(ctx context.Context, who User, function string, clients int, more func(i int) bool) (report.Sample, float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([]report.Sample, clients)
	var wg sync.WaitGroup
	began := time.Now()
	for k := range clients {
		wg.Go(func() {
			for i := 0; more(i); i++ {
				took, err := c.Activate(ctx, who, function, fmt.Sprintf("%d.%d", k, i))
				if err != nil {
					cancel(err)
					return
				}
				times[k] = append(times[k], took)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	var all report.Sample
	for _, t := range times {
		all = append(all, t...)
	}
	return all, float64(len(all)) / took.Seconds(), context.Cause(ctx)
}
