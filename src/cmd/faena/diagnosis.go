package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
)

const (
	// maxClockDifference is how far a clock may be off: deadlines and the sweeper are no finer than that.
	maxClockDifference = time.Second
	// namedAtOnce is how many streams, or workers, of the same trouble are named.
	namedAtOnce = 4
)

// installation adds what an API tells of everything behind it.
func (d *doctor) installation(ctx context.Context, c *client.Client, workers []client.Worker) {
	found, err := client.Read[client.Diagnosis](c.GetDiagnosis(ctx))
	if f, ok := errors.AsType[*client.Failure](err); ok && f.Status == http.StatusForbidden {
		d.note("installation", "only an admin sees servers, streams, document store, groups and clocks", nil)
		return
	}
	if err != nil {
		d.note("installation", "", err)
		return
	}
	groups, err := client.Read[client.GroupList](c.ListGroups(ctx))
	d.api(found)
	for _, s := range found.Servers {
		d.note(strings.TrimSpace("nats "+s.Address), strings.TrimPrefix(s.Name+", version "+s.Version, ", "), problem(s.Problem))
	}
	d.streams(found.Streams)
	d.documents(found.Documents)
	if err != nil {
		d.note("groups", "", err)
	}
	for _, g := range groups.Items {
		d.group(g, workers)
	}
	d.clocks(found.Clocks)
	d.unreadable(found.Unreadable)
}

// problem is an error where there is a text of one.
func problem(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

func (d *doctor) api(found client.Diagnosis) {
	d.note("api", found.Instance+", version "+found.Version, nil)
	var err error
	if found.Leader == "" {
		err = errors.New("no API leads: what is lost is not settled, counters stand still and nothing old is removed. One takes over " +
			"within 15 s of a leader's end; after that look at the log of faena-api")
	}
	d.note("leader", found.Leader, err)
}

// streams says in one line that all are well, and in one line for each trouble which have it.
func (d *doctor) streams(list []client.StreamHealth) {
	var troubles []string
	having := make(map[string][]string)
	for _, s := range list {
		text := troubleOf(s)
		if text != "" && having[text] == nil {
			troubles = append(troubles, text)
		}
		having[text] = append(having[text], s.Name)
	}
	for _, text := range troubles {
		d.note("streams", "", errors.New(strings.TrimPrefix(named(having[text])+": "+text, ": "))) // none is named where they cannot be listed
	}
	if len(troubles) > 0 || len(list) == 0 {
		return
	}
	good := count(len(list), "stream") + ", " + count(list[0].Replicas, "replica") + " each" // as FAENA_NATS_REPLICAS says, for all
	if list[0].Replicas > 1 {
		good += ", in sync"
	}
	d.note("streams", good, nil)
}

// troubleOf is what the API finds wrong with a stream, with the servers that it concerns; "" for nothing.
func troubleOf(s client.StreamHealth) string {
	if s.Problem == "" || len(s.Behind) == 0 {
		return s.Problem
	}
	return s.Problem + " (" + strings.Join(s.Behind, ", ") + ")"
}

func (d *doctor) documents(h client.DocumentsHealth) {
	good := h.Kind
	if h.Warning != "" {
		good += ", but: " + h.Warning
	}
	err := problem(h.Problem)
	if err != nil {
		err = fmt.Errorf("%s: %w", h.Kind, err)
	}
	d.note("documents", good, err)
}

func (d *doctor) group(g client.Group, workers []client.Worker) {
	var versions []string
	for _, w := range workers {
		if w.Group == g.Name && !slices.Contains(versions, w.Version) {
			versions = append(versions, w.Version)
		}
	}
	slices.Sort(versions)
	noun := "version"
	if len(versions) > 1 {
		noun = "versions"
	}
	good := fmt.Sprintf("%d of %s ready, %s %s", g.Ready, count(g.Workers, "worker"), noun, strings.Join(versions, " and "))
	var err error
	switch {
	case g.State == client.GroupStatePending:
		err = errors.New("it is pending, and no function may name it: give NATS its key (faena-api nats-config), and start faena-worker on a host of it")
	case g.Workers == 0:
		err = errors.New("it has no worker: start faena-worker on a host of it; systemctl status faena-worker says there what it waits for")
	case g.Ready == 0:
		err = fmt.Errorf("none of %s is ready: faena workers says why", count(g.Workers, "worker"))
	}
	d.note("group "+g.Name, good, err)
}

func (d *doctor) clocks(list []client.ClockDifference) {
	furthest, bad := time.Duration(0), false
	for _, c := range list {
		ahead := time.Duration(c.AheadMs) * time.Millisecond
		furthest = max(furthest, ahead.Abs())
		if ahead.Abs() <= maxClockDifference {
			continue
		}
		bad = true
		side := "ahead of"
		if ahead < 0 {
			side = "behind"
		}
		d.note("clock of "+c.Of, "", fmt.Errorf("it is %v %s the NATS servers': set up time synchronisation there", ahead.Abs(), side))
	}
	if !bad && len(list) > 0 {
		d.note("clocks of hosts", fmt.Sprintf("%s within %v of the NATS servers'", count(len(list), "clock"), furthest), nil)
	}
}

func (d *doctor) unreadable(list []client.Unreadable) {
	if len(list) == 0 {
		d.note("unreadable", "nothing", nil)
		return
	}
	if list[0].Where == "" { // it is not known what there is
		d.note("unreadable", "", problem(list[0].Problem))
		return
	}
	number := fmt.Sprint(len(list))
	if len(list) >= faena.MaxUnreadable {
		number += " or more"
	}
	d.note("unreadable", "", errors.New(number+", not run and not lost. If a newer version wrote it: upgrade, and it goes on; otherwise remove it "+
		"by hand: from a queue with nats stream rmm ACTIVATIONS-<group> <sequence>, from records, a bucket that lets no single message be "+
		"deleted, with nats stream purge KV_activations-<group> --subject '$KV.activations-<group>.<user>.<activation>'"))
	for _, u := range list {
		var where []string
		for _, part := range []struct{ name, value string }{{"group", u.Group}, {"user", u.User}, {"activation", u.ActivationID}} {
			if part.value != "" {
				where = append(where, part.name+" "+part.value)
			}
		}
		if u.Sequence > 0 {
			where = append(where, fmt.Sprintf("sequence %d", u.Sequence))
		}
		schema := "no schema version"
		if u.Schema != 0 {
			schema = fmt.Sprintf("schema version %d", u.Schema)
		}
		where = append(where, schema)
		d.note("in "+u.Where, "", fmt.Errorf("%s: %s", strings.Join(where, ", "), u.Problem))
	}
}

// count writes a number with its noun: "1 stream", "4 streams".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
