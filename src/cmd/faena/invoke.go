package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

// longestExpiry is the API's limit of Faena-Expires.
const longestExpiry = 7 * 24 * time.Hour

type invocation struct {
	data    string
	async   bool
	expires time.Duration
	key     string
}

func (a *app) invokeCommand() *cobra.Command {
	var i invocation
	asJSON := false
	cmd := &cobra.Command{
		Use: "invoke NAME [PARAMETER]", Short: "Run a function once and write its result",
		Long: `Run a function once and write its result, byte by byte, to standard output.
The parameter is the argument, or -d TEXT, -d @FILE or -d @-, or standard input where it is no terminal.
A function that fails gives exit code 3 and its reason on standard error.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 {
				return usage{errors.New(wrongCount(cmd, 1, 0))}
			}
			if len(args) > 2 || len(args) == 2 && cmd.Flags().Changed("data") {
				return usage{errors.New("invoke takes NAME and at most one parameter")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if e := i.expires; cmd.Flags().Changed("expires") && (e < time.Second || e > longestExpiry || e%time.Second != 0) {
				return usage{fmt.Errorf("--expires is %v, must be from 1s to %.0fh, in whole seconds", e, longestExpiry.Hours())}
			}
			if cmd.Flags().Changed("idempotency-key") && (i.key == "" || len(i.key) > 255) {
				return usage{fmt.Errorf("--idempotency-key has %d characters, must have 1 to 255", len(i.key))}
			}
			if asJSON {
				a.output = "json"
			}
			parameter, err := a.parameter(args[1:], i.data, cmd.Flags().Changed("data"))
			if err != nil {
				return err
			}
			return a.invoke(cmd.Context(), args[0], parameter, i)
		},
	}
	cmd.Flags().StringVarP(&i.data, "data", "d", "", "the parameter, or @FILE, or @- for standard input")
	cmd.Flags().BoolVar(&i.async, "async", false, "do not wait: write the activation's id")
	a.withOutput(cmd)
	cmd.Flags().Lookup("output").Usage = "form of what is written: table, which is the result as it is, or json, as --json"
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the whole record with result, log and timings")
	cmd.Flags().DurationVar(&i.expires, "expires", 0, "latest start, from 1s to 168h (default 640s, or 24h with --async)")
	cmd.Flags().StringVar(&i.key, "idempotency-key", "", "1 to 255 characters of your choice: calls with the same key make one activation, for 24 hours")
	return cmd
}

// parameter is the argument, what -d says where it is given, or standard input.
func (a *app) parameter(args []string, data string, given bool) ([]byte, error) {
	switch {
	case len(args) == 1:
		return []byte(args[0]), nil
	case data == "@-", !given && !a.inTTY:
		return io.ReadAll(a.in)
	case strings.HasPrefix(data, "@"):
		return os.ReadFile(data[1:])
	}
	return []byte(data), nil
}

func (a *app) invoke(ctx context.Context, name string, parameter []byte, i invocation) error {
	c, _, err := a.client()
	if err != nil {
		return err
	}
	params := &client.ActivateParams{}
	if i.async {
		params.Prefer = "respond-async"
	}
	if i.key != "" {
		params.IdempotencyKey = &i.key
	}
	if i.expires > 0 {
		seconds := int(i.expires.Seconds())
		params.FaenaExpires = &seconds
	}
	accept := func(_ context.Context, r *http.Request) error {
		if a.json() {
			r.Header.Set("Accept", "application/json")
		}
		return nil
	}
	stop := a.spinner("Waiting for " + name)
	res, err := client.Stream(c.ActivateWithBody(ctx, name, params, "application/octet-stream", bytes.NewReader(parameter), accept))
	stop()
	if ctx.Err() != nil {
		a.say("Given up waiting; the activation goes on. Find it with: faena activations --function %s", name)
		return silent{exitInterrupted}
	}
	if err != nil {
		if f, ok := errors.AsType[*client.Failure](err); ok && a.json() && f.Activation != nil {
			return errors.Join(a.show(f.Activation, nil), err)
		}
		if errors.Is(err, client.ErrBroken) {
			err = unknown{err, i.key}
		}
		return err
	}
	if res.StatusCode == http.StatusAccepted {
		accepted, err := client.Read[client.Accepted](res, nil)
		if err != nil {
			return err
		}
		if i.async {
			return a.show(accepted, func() [][]string { return [][]string{{accepted.ActivationID}} })
		}
		a.say("It takes longer than the appliance waits; still waiting for %s.", accepted.ActivationID)
		return a.waitResult(ctx, c, accepted.ActivationID)
	}
	if a.json() {
		return a.copyJSON(res)
	}
	return a.copyOut(res)
}

// copyJSON writes a body that is JSON, as show would.
func (a *app) copyJSON(res *http.Response) error {
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(text), "", "  "); err != nil {
		return fmt.Errorf("read the appliance's answer: %w", err)
	}
	b.WriteByte('\n')
	_, err = b.WriteTo(a.out)
	return err
}

// copyOut writes a body as it is. Bytes that are no text are kept from a terminal.
func (a *app) copyOut(res *http.Response) error {
	defer func() { _ = res.Body.Close() }()
	if !a.outTTY {
		_, err := io.Copy(a.out, res.Body)
		return err
	}
	p, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if !utf8.Valid(p) || bytes.IndexByte(p, 0) >= 0 {
		return fmt.Errorf("the result is %d bytes that are no text: send it to a file with > FILE", len(p))
	}
	_, err = a.out.Write(p)
	return err
}

// waitResult waits until an activation has ended and writes its result, or the record with it.
func (a *app) waitResult(ctx context.Context, c *client.Client, id string) error {
	stop := a.spinner("Waiting for " + id)
	_, err := c.FollowLogs(ctx, id, 0, func([]byte) error { return nil })
	stop()
	if ctx.Err() != nil {
		a.say("Given up waiting; the activation goes on.")
		return silent{exitInterrupted}
	}
	if err != nil {
		return err
	}
	if a.json() {
		return a.resultJSON(ctx, c, id)
	}
	return a.result(ctx, c, id)
}

// resultJSON writes the record of an ended activation with its result and log, as the API gives it to who waits.
func (a *app) resultJSON(ctx context.Context, c *client.Client, id string) error {
	rec, err := client.Read[client.Activation](c.GetActivation(ctx, id))
	if err == nil {
		err = fill(&rec.Result)(c.GetResult(ctx, id))
	}
	if err == nil {
		err = fill(&rec.Log)(c.GetLogs(ctx, id, &client.GetLogsParams{Follow: client.GetLogsParamsFollowFalse}))
	}
	if err == nil {
		err = a.show(rec, nil)
	}
	if err != nil {
		return err
	}
	return a.verdict(rec)
}

// fill reads an answer's bytes into an output: as text where they are some.
func fill(o *client.Output) func(*http.Response, error) error {
	return func(res *http.Response, err error) error {
		if res, err = client.Stream(res, err); err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		p, err := io.ReadAll(res.Body)
		if utf8.Valid(p) {
			o.Text = string(p)
		} else {
			o.Base64 = p
		}
		return err
	}
}

// result writes the result of an ended activation; one that failed is an error after that.
func (a *app) result(ctx context.Context, c *client.Client, id string) error {
	res, err := client.Stream(c.GetResult(ctx, id))
	if err != nil {
		return err
	}
	state := res.Header.Get("Faena-State")
	if err := a.copyOut(res); err != nil {
		return err
	}
	if state == string(client.StateSucceeded) {
		return nil
	}
	rec, err := client.Read[client.Activation](c.GetActivation(ctx, id))
	if err != nil {
		return err
	}
	return a.verdict(rec)
}

// verdict says how an activation has ended that did not succeed.
func (a *app) verdict(rec client.Activation) error {
	if rec.State == client.StateSucceeded {
		return nil
	}
	a.say("faena: activation %s %s: %s (%s)", rec.ActivationID, rec.State, rec.Message, rec.Reason)
	return silent{exitFunctionFailed}
}

// spinner says that something takes long, where a person looks, until it is stopped.
func (a *app) spinner(what string) (stop func()) {
	if !a.errTTY {
		return func() {}
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		began := time.Now()
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-done:
				if time.Since(began) > time.Second {
					fmt.Fprint(a.err, "\r\033[K")
				}
				return
			case <-t.C:
				fmt.Fprintf(a.err, "\r%s … %ds", what, int(time.Since(began).Seconds()))
			}
		}
	}()
	return func() { close(done); <-gone }
}
