package natsbus_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

// said is a log that a test reads.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) count(words string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), words)
}

func (s *said) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// TestBus_Servers: each server is told, with what is wrong with it.
func TestBus_Servers(t *testing.T) {
	t.Parallel()
	public, seed := nkey(t)
	ours := fmt.Appendf(nil, "authorization { users = [ { nkey: %s } ] }", public)
	theirs, _ := nkey(t)
	ca := faenatest.NewCA(t)
	cert := ca.Issue("good")
	expired := ca.IssueExpired("expired")
	c := natstest.Start(t, natstest.Options{TLS: true, CA: ca, Certificate: &cert, Authorization: ours})
	stopped := natstest.Start(t, natstest.Options{TLS: true, CA: ca, Certificate: &cert, Authorization: ours})
	stopped.StopAll()
	want := []struct{ what, url, problem string }{
		{"one that is as it should be", c.URLs()[0], ""},
		{"one that does not run", stopped.URLs()[0], "FAENA_NATS_URLS"},
		{"one whose certificate has expired", natstest.Start(t, natstest.Options{TLS: true, CA: ca, Certificate: &expired, Authorization: ours}).URLs()[0], "renew"},
		{"one of another CA", natstest.Start(t, natstest.Options{TLS: true, Authorization: ours}).URLs()[0], "FAENA_NATS_CA_FILE"},
		{"one that does not know the key", natstest.Start(t, natstest.Options{TLS: true, CA: ca, Certificate: &cert,
			Authorization: fmt.Appendf(nil, "authorization { users = [ { nkey: %s } ] }", theirs)}).URLs()[0], "FAENA_NATS_NKEY_FILE"},
		{"one without TLS", natstest.Start(t, natstest.Options{Authorization: ours}).URLs()[0], "TLS"},
	}
	var urls []string
	for _, w := range want {
		urls = append(urls, w.url)
	}
	b := join(t, c, natsbus.Options{URLs: urls, NkeySeed: seed})
	servers, err := b.Servers(t.Context())
	if err != nil || len(servers) != len(want) {
		t.Fatalf("%+v, %v", servers, err)
	}
	for i, w := range want {
		t.Run(w.what, func(t *testing.T) {
			s := servers[i]
			if s.Address != w.url || (s.Problem == "") != (w.problem == "") || !strings.Contains(s.Problem, w.problem) || (s.Name == "nats-1") != (w.problem == "") {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("inside the process", func(t *testing.T) {
		_, b := start(t, natsbus.Options{})
		if servers, err := b.Servers(t.Context()); err != nil || len(servers) != 1 || servers[0].Name == "" || servers[0].Problem != "" {
			t.Errorf("%+v, %v", servers, err)
		}
	})
}

// TestBus_Absence: a daemon whose servers are gone says why, and goes on by itself.
func TestBus_Absence(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	var log said
	b := join(t, c, natsbus.Options{Logger: log.logger()})
	declared(t, b)
	c.StopAll()
	faenatest.Eventually(t, 20*time.Second, "it says which server is away", func() bool { return log.count("there is no connection to NATS") == 1 })
	if log.count(c.URLs()[0]) == 0 {
		t.Error("the server is not named")
	}
	c.StartAll(t)
	declared(t, b)
}

// TestBus_Streams: each stream is told, with what is wrong with it.
func TestBus_Streams(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	js := c.JetStream(t)
	b := join(t, c, natsbus.Options{})
	declared(t, b)
	if err := b.DeclareGroup(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	groups := []string{group, "x"}
	healthy(t, b, groups...)
	for what, amiss := range map[string]struct {
		stream, problem string
		make            func() error
	}{
		"a stream is missing":       {"OBJ_objects-x", "not there", func() error { return js.DeleteStream(t.Context(), "OBJ_objects-x") }},
		"a bucket of all's missing": {"KV_users", "not there", func() error { return js.DeleteStream(t.Context(), "KV_users") }},
		"a group's bucket is gone":  {"KV_workers-x", "not there", func() error { return js.DeleteStream(t.Context(), "KV_workers-x") }},
		"a consumer is missing":     {"KV_activations-x", "recorder", func() error { return js.DeleteConsumer(t.Context(), "KV_activations-x", "recorder") }},
	} {
		t.Run(what, func(t *testing.T) {
			if err := amiss.make(); err != nil {
				t.Fatal(err)
			}
			if s := health(t, b, amiss.stream, groups...); !strings.Contains(s.Problem, amiss.problem) {
				t.Errorf("%+v", s)
			}
			declared(t, b)
			healthy(t, b, groups...)
		})
	}
	t.Run("a consumer is paused", func(t *testing.T) {
		if _, err := js.PauseConsumer(t.Context(), queueStream, "workers", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		declared(t, b) // it is an operator's will
		if s := health(t, b, queueStream, groups...); !strings.Contains(s.Problem, "nats consumer resume "+queueStream+" workers") {
			t.Errorf("%+v", s)
		}
		if _, err := js.ResumeConsumer(t.Context(), queueStream, "workers"); err != nil {
			t.Fatal(err)
		}
		healthy(t, b, groups...)
	})
}

func health(t *testing.T, b *natsbus.Bus, stream string, groups ...string) faena.StreamHealth {
	t.Helper()
	all, err := b.Streams(t.Context(), groups)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == stream {
			return s
		}
	}
	t.Fatalf("%s is not among %+v", stream, all)
	return faena.StreamHealth{}
}

func healthy(t *testing.T, b *natsbus.Bus, groups ...string) {
	t.Helper()
	faenatest.EventuallyNil(t, 30*time.Second, "nothing is wrong with the streams", func() error {
		all, err := b.Streams(t.Context(), groups)
		if err != nil {
			return err
		}
		if n := 3 + 6*len(groups); len(all) != n {
			return fmt.Errorf("%d streams, want %d", len(all), n)
		}
		for _, s := range all {
			if s.Problem != "" || s.Leader == "" || s.Replicas != s.Wanted || len(s.Behind) > 0 {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
}

// TestBus_Cluster: a cluster of three with three replicas of everything.
func TestBus_Cluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3, natstest.Options{MaxStore: 256 << 20})
	js := c.JetStream(t)
	one := join(t, c, natsbus.Options{URLs: c.URLs()[:1]})
	three := join(t, c, natsbus.Options{Replicas: 3})
	declared(t, three)

	t.Run("servers that others tell of", func(t *testing.T) {
		servers, err := one.Servers(t.Context())
		names := map[string]bool{}
		for _, s := range servers {
			names[s.Name] = s.Problem == ""
		}
		if err != nil || len(servers) != 3 || !names["nats-1"] || !names["nats-2"] || !names["nats-3"] {
			t.Errorf("%+v, %v", servers, err)
		}
	})
	t.Run("another number of replicas", func(t *testing.T) {
		isMisfit(t, one.Declare, "FAENA_NATS_REPLICAS is 1", "KV_users has 3", queueStream, "FAENA_NATS_REPLICAS=3")
		change(t, js, queueStream, func(c *jetstream.StreamConfig) { c.Replicas = 1 })
		isMisfit(t, three.Declare, "FAENA_NATS_REPLICAS is 3", queueStream+" has 1:", "nats stream update "+queueStream+" --replicas 3")
		if s := health(t, three, queueStream, group); s.Replicas != 1 || s.Wanted != 3 || !strings.Contains(s.Problem, "--replicas 3") {
			t.Errorf("%+v", s)
		}
		change(t, js, queueStream, func(c *jetstream.StreamConfig) { c.Replicas = 3 })
		declared(t, three)
		healthy(t, three, group)
	})
	t.Run("how full a server may be", func(t *testing.T) {
		r := record("ana", 0)
		r.Result.Inline = make([]byte, 256<<10)
		for range 8 {
			r.ID = newID()
			if _, err := three.CreateRecord(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		// The servers tell each other every 1.5 s what they hold.
		small := join(t, c, natsbus.Options{Replicas: 3, MaxStore: 4 << 20, GroupStore: 64 << 20})
		faenatest.EventuallyNil(t, 20*time.Second, "one copy of each counts", func() error {
			f, what, _, err := small.Fill(t.Context(), group)
			if err != nil || what != "the servers' store" || f < 0.6 || f > 0.75 {
				return fmt.Errorf("%s is %.2f full, want 0.67: 2.7 of 4 MiB, %w", what, f, err)
			}
			return nil
		})
	})
	t.Run("less storage than a group is to have", func(t *testing.T) {
		large := join(t, c, natsbus.Options{Replicas: 3, GroupStore: 4 << 30})
		isMisfit(t, func(ctx context.Context) error { return large.DeclareGroup(ctx, "y") }, "ACTIVATIONS-y", "768.0 MiB", "FAENA_GROUP_MAX_STORE")
	})
	t.Run("a bucket of heartbeats that does not answer hides no other", func(t *testing.T) { silentBucket(t, c, three) })
	t.Run("a server is away", func(t *testing.T) {
		away := (c.Leader(t, queueStream) + 1) % 3
		c.Stop(away)
		name := fmt.Sprint("nats-", away+1)
		faenatest.EventuallyNil(t, 30*time.Second, "the streams miss it", func() error {
			if s := health(t, three, queueStream, group); len(s.Behind) != 1 || !strings.HasPrefix(s.Behind[0], name) || s.Problem == "" {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		servers, err := three.Servers(t.Context())
		if err != nil || len(servers) != 3 || servers[away].Name != "" || servers[away].Problem == "" {
			t.Errorf("%+v, %v", servers, err)
		}
		declared(t, three) // it works on
		c.Start(t, away)
		healthy(t, three, group)
	})
}

// TestBus_ClusterOfTwo: three replicas need three servers; one replica works, with a warning.
func TestBus_ClusterOfTwo(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 2, natstest.Options{})
	three := join(t, c, natsbus.Options{Replicas: 3})
	isMisfit(t, three.Declare, "FAENA_NATS_REPLICAS is 3", "there are 2: nats-1, nats-2", "FAENA_NATS_REPLICAS=1")
	var log said
	one := join(t, c, natsbus.Options{Logger: log.logger()})
	declared(t, one)
	declared(t, one)
	if n := log.count("two servers"); n != 1 {
		t.Errorf("%d warnings that two servers cannot lose one, want 1", n)
	}
	publish(t, one, record("ana", 0))
}
