package control

import (
	"context"
	"strings"
	"time"

	"faena.dev/faena/internal/faena"
)

// diagnoseFor bounds the whole of a diagnosis.
const diagnoseFor = 20 * time.Second

// Diagnose tells what this instance can see of the installation. What cannot be found out is a problem in the answer, never an
// error.
func (c *Control) Diagnose(ctx context.Context) (faena.Diagnosis, error) {
	ctx, cancel := context.WithTimeout(ctx, diagnoseFor)
	defer cancel()
	d := faena.Diagnosis{Instance: c.o.Instance, Version: c.o.Version, Documents: faena.DocumentsHealth{Kind: c.o.DocumentsKind}}
	if err := c.o.Documents.Ping(ctx); err != nil {
		d.Documents.Problem = oneLine(err)
	}
	if c.o.DocumentsWarning != nil {
		d.Documents.Warning = c.o.DocumentsWarning()
	}
	var err error
	if d.Leader, err = c.o.Bus.LeaseHolder(ctx, leaderLease); err != nil {
		c.log.Debug("the leader is not known", "error", err) // the streams tell why
	}
	if c.o.Health == nil {
		return d, nil
	}
	if d.Servers, err = c.o.Health.Servers(ctx); err != nil {
		d.Servers = append(d.Servers, faena.QueueServer{Problem: oneLine(err)})
	}
	names := c.groups.names()
	if d.Streams, err = c.o.Health.Streams(ctx, names); err != nil {
		d.Streams = append(d.Streams, faena.StreamHealth{Problem: oneLine(err)})
	}
	if d.Unreadable, err = c.o.Health.Unreadable(ctx, names); err != nil {
		d.Unreadable = append(d.Unreadable, faena.Unreadable{Problem: oneLine(err)})
	}
	if d.Clocks, err = c.o.Health.Clocks(ctx); err != nil {
		c.log.Debug("the clocks are not known", "error", err)
	}
	for i := range d.Clocks {
		if d.Clocks[i].Of == "" {
			d.Clocks[i].Of = "api " + c.o.Instance
		}
	}
	return d, nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
