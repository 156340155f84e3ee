package natstest

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faenatest"
)

func stream(t *testing.T, js jetstream.JetStream, replicas int) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: replicas})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(t.Context(), "S", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	faenatest.EventuallyNil(t, 30*time.Second, "a message is stored", func() error {
		_, err := js.Publish(t.Context(), "s.x", nil)
		return err
	})
}

func messages(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestServers_Start(t *testing.T) {
	t.Parallel()
	c := Start(t, Options{})
	js := c.JetStream(t)
	stream(t, js, 1)
	put(t, js)
	c.Stop(0)
	if conn, err := net.Dial("tcp", c.URLs()[0][len("nats://"):]); err == nil {
		_ = conn.Close()
		t.Error("a server that is stopped takes connections")
	}
	c.Start(t, 0)
	put(t, js)
	if n := messages(t, js); n != 2 {
		t.Errorf("the server that was started again has %d messages, want 2", n)
	}
}

func TestServers_Cluster(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 3, Options{})
	js := c.JetStream(t)
	stream(t, js, 3)
	put(t, js)
	c.Settle(t)

	t.Run("its leader is lost", func(t *testing.T) {
		leader := c.Leader(t, "S")
		c.Stop(leader)
		put(t, js)
		if other := c.Leader(t, "S"); other == leader {
			t.Error("the leader is one that is stopped")
		}
		c.Start(t, leader)
		c.Settle(t)
	})
	t.Run("one comes back empty", func(t *testing.T) {
		i := (c.MetaLeader(t) + 1) % c.Size()
		c.Stop(i)
		c.Wipe(t, i)
		c.Start(t, i)
		faenatest.Eventually(t, settleWithin, "it has the stream again", func() bool {
			return c.unsettled() == nil && c.server(i).JetStreamIsStreamCurrent("$G", "S")
		})
	})
	t.Run("all are stopped", func(t *testing.T) {
		c.StopAll()
		c.StartAll(t)
		put(t, js)
		if n := messages(t, js); n != 3 {
			t.Errorf("there are %d messages, want 3", n)
		}
	})
}

func TestServers_Authorize(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 2, Options{Authorization: users("ann")})
	connect := func(user string) error {
		nc, err := nats.Connect(c.URLs()[0], nats.Secure(c.TLS()), nats.UserInfo(user, "p"))
		if err == nil {
			nc.Close()
		}
		return err
	}
	if err := connect("ann"); err != nil {
		t.Error(err)
	}
	if err := connect("bob"); err == nil {
		t.Error("who is not known may connect")
	}
	c.Authorize(t, users("bob"))
	if err := connect("ann"); err == nil {
		t.Error("who is not known any more may connect")
	}
	if err := connect("bob"); err != nil {
		t.Error(err)
	}
	stream(t, c.JetStream(t), 1) // an operator may do everything
}

func users(name string) []byte {
	return fmt.Appendf(nil, "authorization { users = [ { user: %s, password: p } ] }\n", name)
}

func TestServers_TLS(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		client func(*Servers) *tls.Config
		ok     bool
	}{
		"its authority is trusted": {(*Servers).TLS, true},
		"another is":               {func(*Servers) *tls.Config { return faenatest.NewCA(t).Client() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := Start(t, Options{TLS: true})
			nc, err := nats.Connect(c.URLs()[0], nats.Secure(tc.client(c)))
			if err == nil {
				nc.Close()
			}
			if (err == nil) != tc.ok {
				t.Errorf("connecting gives %v", err)
			}
		})
	}
	t.Run("the certificate has expired", func(t *testing.T) {
		ca := faenatest.NewCA(t)
		expired := ca.IssueExpired("old")
		c := Start(t, Options{TLS: true, CA: ca, Certificate: &expired})
		if nc, err := nats.Connect(c.URLs()[0], nats.Secure(c.TLS())); err == nil {
			nc.Close()
			t.Error("a certificate that has expired is taken")
		}
	})
}
