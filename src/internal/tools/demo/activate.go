package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"faena.dev/faena/internal/client"
)

// activateAll registers each function and activates it, first and then warm, checks each result, and prints it.
func activateAll(ctx context.Context, p *progress, a *appliance, functions []*function, warm int, stdout io.Writer) ([]row, error) {
	rows := make([]row, 0, len(functions))
	for _, f := range functions {
		r := row{f: f}
		err := p.step("function "+f.name, func(say func(string)) (err error) {
			r, err = activateOne(ctx, say, a, f, warm)
			return err
		})
		if err != nil {
			return rows, err
		}
		if err := writeResult(stdout, r); err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func activateOne(ctx context.Context, say func(string), a *appliance, f *function, warm int) (r row, err error) {
	r.f = f
	say("register")
	if err := a.register(ctx, f); err != nil {
		return r, fmt.Errorf("register: %w", err)
	}
	say("first activation, with the pull of its image")
	first, act, err := a.activate(ctx, f)
	if err != nil {
		return r, fmt.Errorf("first activation: %w", err)
	}
	if act.Warm || act.Timings.PullUs == 0 {
		return r, errors.New("the first activation did not pull the image, although the engine did not have it")
	}
	r.first = first
	if r.summary, err = f.summary(resultOf(act)); err != nil {
		return r, err
	}
	for i := range warm {
		say(fmt.Sprintf("warm activation %d of %d", i+1, warm))
		c, act, err := a.activate(ctx, f)
		if err != nil {
			return r, fmt.Errorf("warm activation %d: %w", i+1, err)
		}
		if !act.Warm {
			return r, fmt.Errorf("activation %d was not warm", i+2)
		}
		r.warm = append(r.warm, c)
	}
	say("")
	return r, nil
}

// register deploys the function.
func (a *appliance) register(ctx context.Context, f *function) error {
	spec, err := json.Marshal(f.spec)
	if err != nil {
		return err
	}
	_, err = a.call(ctx, http.MethodPut, "/v1/functions/"+f.name, "application/json", spec)
	return err
}

// activate runs the function once. A result that is not what docker run gave is an error.
func (a *appliance) activate(ctx context.Context, f *function) (c call, act client.Activation, err error) {
	begin := time.Now()
	body, err := a.call(ctx, http.MethodPost, "/v1/functions/"+f.name+"/activations", "application/octet-stream", f.parameter)
	if err != nil {
		return c, act, err
	}
	c.http = time.Since(begin)
	if err := json.Unmarshal(body, &act); err != nil {
		return c, act, fmt.Errorf("the answer is no record: %w", err)
	}
	c.timings = act.Timings
	if got := resultOf(act); act.Result.Size != int64(len(f.want)) || sha256.Sum256(got) != sha256.Sum256(f.want) {
		return c, act, fmt.Errorf("activation %s: the result has %d bytes with sha256 %x, docker run gave %d with %x",
			act.ActivationID, len(got), sha256.Sum256(got), len(f.want), sha256.Sum256(f.want))
	}
	return c, act, nil
}

// resultOf is the result as the function wrote it.
func resultOf(act client.Activation) []byte {
	if act.Result.Text != "" {
		return []byte(act.Result.Text)
	}
	return act.Result.Base64
}

// maxAnswer bounds an answer of the API.
const maxAnswer = 64 << 20

// call sends a request and returns the answer's body. Any answer but 200 and 201 is an error with what the problem
// document says.
func (a *appliance) call(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(a.user, a.password)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		return nil, problem(res.Status, text)
	}
	return text, nil
}

func problem(status string, text []byte) error {
	var p client.Problem
	if json.Unmarshal(text, &p) != nil || p.Reason == "" {
		return fmt.Errorf("%s: %s", status, oneLine(string(text), 200))
	}
	err := fmt.Errorf("%s: %s: %s (request %s)", status, p.Reason, p.Detail, p.RequestID)
	if p.LogTail != "" {
		err = fmt.Errorf("%w\nits log ends with:\n%s", err, p.LogTail)
	}
	return err
}
