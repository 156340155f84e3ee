package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

// finding is one line of the doctor's.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Advice bool   `json:"advice,omitempty"` // it works as it is, and would be better otherwise
	Detail string `json:"detail"`           // what was found, or what is wrong and what to do
}

func (a *app) doctorCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use: "doctor", Short: "Look for what is wrong, from the login to the last server and worker", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			d := doctor{app: a}
			d.examine(ctx)
			if err := a.show(d.findings, func() [][]string {
				rows := [][]string{{"CHECK", "", "FOUND"}}
				for _, f := range d.findings {
					mark := "ok"
					switch {
					case !f.OK:
						mark = "BAD"
					case f.Advice:
						mark = "advice"
					}
					rows = append(rows, []string{f.Check, mark, f.Detail})
				}
				return rows
			}); err != nil {
				return err
			}
			for _, f := range d.findings {
				if !f.OK {
					return silent{exitFailed}
				}
			}
			return nil
		},
	})
}

type doctor struct {
	*app
	findings []finding
}

// note adds a finding; it is bad where err is not nil.
func (d *doctor) note(check, good string, err error) bool {
	f := finding{Check: check, OK: err == nil, Detail: good}
	if err != nil {
		f.Detail = err.Error()
	}
	d.findings = append(d.findings, f)
	return err == nil
}

func (d *doctor) examine(ctx context.Context) {
	c, p, err := d.client()
	if !d.note("login", p.Username+" at "+p.URL, err) {
		return
	}
	res, err := client.Stream(c.GetReadiness(ctx))
	if err != nil {
		if f, ok := errors.AsType[*client.Failure](err); ok {
			err = fmt.Errorf("it is there, but not ready: %v", f.Missing)
		} else {
			err = fmt.Errorf("%w. %s", err, whereToLook(err))
		}
		d.note("appliance", "", err)
		return
	}
	d.clock(res)
	ready, err := client.Read[client.Readiness](res, nil)
	if err == nil && len(ready.Missing) > 0 {
		err = fmt.Errorf("it takes activations, but this is missing: %v", ready.Missing)
	}
	d.note("appliance", "ready", err)
	_, err = client.Read[client.FunctionPage](c.ListFunctions(ctx, &client.ListFunctionsParams{}))
	if !d.note("credentials", "accepted", err) {
		return
	}
	d.installation(ctx, c, d.workers(ctx, c))
	if p.Registry != "" {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", p.Registry)
		if err == nil {
			err = conn.Close()
		}
		d.note("image registry", p.Registry+" answers", err)
		engine, err := d.openEngine(ctx)
		if err == nil {
			err = engine.Close()
		} else {
			err = errors.New(describe(err))
		}
		d.note("docker engine", "answers here", err)
	}
}

// clock compares the appliance's clock with this host's: deadlines are the appliance's, but people read logs of both.
func (d *doctor) clock(res *http.Response) {
	there, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return
	}
	off := time.Since(there).Round(time.Second)
	err = nil
	if off.Abs() > 5*time.Second {
		err = fmt.Errorf("the appliance's clock differs by %v from this host's: set up time synchronisation", off)
	}
	d.note("clocks", "agree within seconds", err)
}

// workers returns those that are present; none where only an admin sees them.
func (d *doctor) workers(ctx context.Context, c *client.Client) []client.Worker {
	list, err := client.Read[client.WorkerList](c.ListWorkers(ctx))
	if f, ok := errors.AsType[*client.Failure](err); ok && f.Status == http.StatusForbidden {
		d.note("workers", "only an admin sees them", nil)
		return nil
	}
	ready, remedy := 0, "look at the log of faena-worker, or of faena up"
	for _, w := range list.Items {
		switch {
		case w.Ready:
			ready++
		case w.Draining && w.NotReady != "": // as somebody has asked
			remedy = w.ID + " was drained: faena workers resume " + w.ID
			d.findings = append(d.findings, finding{Check: "worker " + w.ID, OK: true, Advice: true, Detail: w.NotReady})
		case !w.Draining:
			d.note("worker "+w.ID, "", errors.New(w.NotReady))
		}
		if w.Unfiltered != "" {
			d.note("packets of "+w.ID, "", errors.New("functions reach its host and whatever it reaches: "+w.Unfiltered+
				". Mend that (faena-worker.service has what it takes), and take FAENA_ALLOW_UNFILTERED away there"))
		}
	}
	if err == nil && ready == 0 {
		err = errors.New("no worker is ready: " + remedy)
	}
	d.note("workers", fmt.Sprintf("%d of %d ready", ready, len(list.Items)), err)
	d.engines(list.Items)
	return list.Items
}
