package natsbus_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

const queueStream, objectsStream = "ACTIVATIONS-" + group, "OBJ_objects-" + group

// join connects to servers of the test, and declares nothing.
func join(t testing.TB, c *natstest.Servers, o natsbus.Options) *natsbus.Bus {
	t.Helper()
	b, err := tryJoin(t, c, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryJoin(t testing.TB, c *natstest.Servers, o natsbus.Options) (*natsbus.Bus, error) {
	t.Helper()
	o.Name, o.MaxStore, o.TLS = "test", cmp.Or(o.MaxStore, 64<<20), c.TLS()
	if o.URLs == nil {
		o.URLs = c.URLs()
	}
	b, err := natsbus.Connect(t.Context(), o)
	if err == nil {
		t.Cleanup(b.Close)
	}
	return b, err
}

// declared waits until all is declared: right after its start a cluster may have no leader for a moment.
func declared(t testing.TB, b *natsbus.Bus) {
	t.Helper()
	faenatest.EventuallyNil(t, 30*time.Second, "all is declared", func() error { return b.Declare(t.Context()) })
}

// isMisfit waits until something is refused for what an operator must mend, in one line with all of the words.
func isMisfit(t testing.TB, do func(context.Context) error, words ...string) {
	t.Helper()
	faenatest.EventuallyNil(t, 30*time.Second, "it is refused", func() error {
		err := do(t.Context())
		if _, is := errors.AsType[*natsbus.Misfit](err); !is {
			return fmt.Errorf("it gives %w", err)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				return fmt.Errorf("%q is not in %w", word, err)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			return fmt.Errorf("more than a line: %w", err)
		}
		return nil
	})
}

// change changes a stream, as an operator does.
func change(t testing.TB, js jetstream.JetStream, stream string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	change(&c)
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// TestBus_Declare: what an operator has to mend is told, and once it is mended the same daemon goes on.
func TestBus_Declare(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{MaxStore: 256 << 20})
	js := c.JetStream(t)
	b := join(t, c, natsbus.Options{ObjectTTL: time.Hour})
	declared(t, b)

	t.Run("what is as it should be is left alone", func(t *testing.T) {
		change(t, js, objectsStream, func(c *jetstream.StreamConfig) { c.Description = "of mine" })
		changes, err := c.Client(t).SubscribeSync("$JS.API.>")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Declare(t.Context()); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := changes.NextMsg(200 * time.Millisecond)
			if err != nil {
				break
			}
			if strings.Contains(m.Subject, "UPDATE") || strings.Contains(m.Subject, "CREATE") {
				t.Errorf("it asked for %s %s", m.Subject, m.Data)
			}
		}
	})
	t.Run("more messages of a subject", func(t *testing.T) {
		change(t, js, queueStream, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 })
		publish(t, b, record("ana", 0))
		publish(t, b, record("ana", 0))
		isMisfit(t, b.Declare, queueStream, "messages would be lost", "nats stream rmm")
		if n, err := b.QueueDepth(t.Context(), group); err != nil || n != 2 {
			t.Errorf("%d messages are left, %v", n, err)
		}
		if err := b.DeleteMessage(t.Context(), group, 3); err != nil { // 1 is the anchor
			t.Fatal(err)
		}
		declared(t, b)
		if _, _, err := b.Publish(t.Context(), "ana", group, 0, 1, message(record("ana", 0))); !errors.Is(err, faena.ErrSlotTaken) {
			t.Errorf("the stream is not as declared: a second message of a slot gives %v", err)
		}
	})
	t.Run("more messages of a key", func(t *testing.T) {
		const bucket = "KV_activations-" + group
		change(t, js, bucket, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 })
		r := record("ana", 0)
		rev, err := b.CreateRecord(t.Context(), r)
		noError(t, err)
		r.State = faena.StateRunning
		_, err = b.UpdateRecord(t.Context(), r, rev)
		noError(t, err)
		isMisfit(t, b.Declare, bucket, "messages would be lost", "nats stream purge "+bucket+" --subject 'SUBJECT', with --keep 1")
		s, err := js.Stream(t.Context(), bucket)
		noError(t, err)
		if err := s.DeleteMsg(t.Context(), rev); err == nil {
			t.Error("a single message can be deleted after all")
		}
		noError(t, s.Purge(t.Context(), jetstream.WithPurgeSubject("$KV.activations-"+group+".ana."+r.ID), jetstream.WithPurgeKeep(1)))
		declared(t, b)
		if left, _, err := b.Record(t.Context(), group, "ana", r.ID); err != nil || left.State != faena.StateRunning {
			t.Errorf("the record is %+v, %v", left, err)
		}
		noError(t, b.PurgeRecord(t.Context(), group, "ana", r.ID))
	})
	t.Run("more bytes", func(t *testing.T) {
		change(t, js, objectsStream, func(c *jetstream.StreamConfig) { c.MaxBytes = 64 << 20 })
		for i := range 3 {
			noError(t, b.PutObject(t.Context(), group, fmt.Sprint("out.", i), make([]byte, 12<<20)))
		}
		most := func() int64 {
			t.Helper()
			declared(t, b)
			s, err := js.Stream(t.Context(), objectsStream)
			noError(t, err)
			return s.CachedInfo().Config.MaxBytes
		}
		if got := most(); got != 64<<20 {
			t.Errorf("it may hold %d bytes while it holds more than its share", got)
		}
		if f, what, _, err := b.Fill(t.Context(), group); err != nil || f < 0.55 || f > 0.6 {
			t.Errorf("%s is %.2f full, %v, want 36 of 64 MiB", what, f, err)
		}
		noError(t, b.DeleteObject(t.Context(), group, "out.0"))
		noError(t, b.DeleteObject(t.Context(), group, "out.1"))
		if got := most(); got != 20<<20 {
			t.Errorf("it may hold %d bytes, want 5 of 16 parts of 64 MiB", got)
		}
		noError(t, b.DeleteObject(t.Context(), group, "out.2"))
	})
	t.Run("other subjects", func(t *testing.T) {
		change(t, js, queueStream, func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "mine.>") })
		if _, err := js.Publish(t.Context(), "mine.x", nil); err != nil {
			t.Fatal(err)
		}
		isMisfit(t, b.Declare, queueStream, "mine.>")
		s, err := js.Stream(t.Context(), queueStream)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Purge(t.Context(), jetstream.WithPurgeSubject("mine.x")); err != nil {
			t.Fatal(err)
		}
		declared(t, b)
	})
	t.Run("a longer age", func(t *testing.T) {
		if err := b.PutObject(t.Context(), group, "out", []byte("x")); err != nil {
			t.Fatal(err)
		}
		put := b.ServerNow()
		short := join(t, c, natsbus.Options{ObjectTTL: 100 * time.Millisecond})
		faenatest.Eventually(t, 10*time.Second, "the object is older than it would be allowed to be", func() bool {
			return b.ServerNow().Sub(put) > 200*time.Millisecond
		})
		age := func() time.Duration {
			t.Helper()
			declared(t, short)
			s, err := js.Stream(t.Context(), objectsStream)
			if err != nil {
				t.Fatal(err)
			}
			return s.CachedInfo().Config.MaxAge
		}
		if got := age(); got != time.Hour {
			t.Errorf("objects are kept for %v while one is older", got)
		}
		if _, err := b.Object(t.Context(), group, "out"); err != nil {
			t.Errorf("the object that is too old: %v", err)
		}
		s, err := js.Stream(t.Context(), objectsStream)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := age(); got != 100*time.Millisecond {
			t.Errorf("objects are kept for %v when none is older", got)
		}
	})
	t.Run("a stream that cannot be changed back", func(t *testing.T) {
		other := join(t, c, natsbus.Options{})
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ACTIVATIONS-x", Subjects: []string{"Activations.x.*.*"}})
		if err != nil {
			t.Fatal(err)
		}
		isMisfit(t, declareX(other), "ACTIVATIONS-x", "nats stream rm ACTIVATIONS-x", "retention")
		if err := js.DeleteStream(t.Context(), "ACTIVATIONS-x"); err != nil {
			t.Fatal(err)
		}
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "MINE", Subjects: []string{"Activations.x.ana.>"}})
		if err != nil {
			t.Fatal(err)
		}
		isMisfit(t, declareX(other), "ACTIVATIONS-x", "another stream", "Activations.x.*.*")
		if err := js.DeleteStream(t.Context(), "MINE"); err != nil {
			t.Fatal(err)
		}
		if err := other.DeclareGroup(t.Context(), "x"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a consumer that cannot be changed back", func(t *testing.T) {
		if err := js.DeleteConsumer(t.Context(), "ACTIVATIONS-x", "workers"); err != nil {
			t.Fatal(err)
		}
		_, err := js.CreateConsumer(t.Context(), "ACTIVATIONS-x", jetstream.ConsumerConfig{Durable: "workers", DeliverPolicy: jetstream.DeliverAllPolicy,
			AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "Activations.x.*.*", MaxWaiting: 7})
		if err != nil {
			t.Fatal(err)
		}
		isMisfit(t, declareX(b), "consumer workers", "ACTIVATIONS-x", "nats consumer rm")
		if err := js.DeleteConsumer(t.Context(), "ACTIVATIONS-x", "workers"); err != nil {
			t.Fatal(err)
		}
		if err := b.DeclareGroup(t.Context(), "x"); err != nil {
			t.Error(err)
		}
	})
	t.Run("less storage than a group is to have", func(t *testing.T) {
		large := join(t, c, natsbus.Options{GroupStore: 1 << 30})
		isMisfit(t, func(ctx context.Context) error { return large.DeclareGroup(ctx, "y") }, "ACTIVATIONS-y", "192.0 MiB", "max_file_store",
			"FAENA_GROUP_MAX_STORE")
	})
	t.Run("replicas without a cluster", func(t *testing.T) {
		three := join(t, c, natsbus.Options{Replicas: 3})
		isMisfit(t, func(ctx context.Context) error { return three.DeclareGroup(ctx, "z") }, "FAENA_NATS_REPLICAS is 3", "there are 1: nats-1")
	})
}

func declareX(b *natsbus.Bus) func(context.Context) error {
	return func(ctx context.Context) error { return b.DeclareGroup(ctx, "x") }
}

// TestBus_Declare_Version: a server that is too old is refused until it is another.
func TestBus_Declare_Version(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, natstest.Options{})
	old := startRelay(t, c.URLs()[0], "2.11.9")
	b := join(t, c, natsbus.Options{URLs: []string{old.url}})
	isMisfit(t, b.Declare, old.url, "2.11.9", "2.12")
	servers, err := b.Servers(t.Context())
	if err != nil || len(servers) != 1 || servers[0].Version != "2.11.9" || !strings.Contains(servers[0].Problem, "2.12") {
		t.Errorf("servers %+v, %v", servers, err)
	}
	old.upgrade()
	declared(t, b)
}

// relay is a server of another version: what it tells of itself is changed, the rest is a real server's.
type relay struct {
	url string

	mu      sync.Mutex
	version string
	open    []net.Conn
}

func startRelay(t *testing.T, to, version string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{url: "nats://" + l.Addr().String(), version: version}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(to, "nats://"))
			if err != nil {
				_ = client.Close()
				continue
			}
			r.mu.Lock()
			r.open = append(r.open, client, server)
			r.mu.Unlock()
			wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			wg.Go(func() { r.tell(client, server); _ = client.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); r.hangUp(); wg.Wait() })
	return r
}

// tell passes on what the server says.
func (r *relay) tell(client io.Writer, server io.Reader) {
	for lines := bufio.NewReader(server); ; {
		line, err := lines.ReadBytes('\n')
		if bytes.HasPrefix(line, []byte("INFO ")) {
			r.mu.Lock()
			line = bytes.Replace(line, []byte(`"version":"`+natsd.VERSION+`"`), []byte(`"version":"`+r.version+`"`), 1)
			r.mu.Unlock()
		}
		if _, writeErr := client.Write(line); err != nil || writeErr != nil {
			return
		}
	}
}

func (r *relay) upgrade() {
	r.mu.Lock()
	r.version = natsd.VERSION
	r.mu.Unlock()
	r.hangUp()
}

func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.open {
		_ = conn.Close()
	}
	r.open = nil
}

// nkey is an identity.
func nkey(t *testing.T) (public string, seed []byte) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = key.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if seed, err = key.Seed(); err != nil {
		t.Fatal(err)
	}
	return public, seed
}

// TestConnect_Identity: what the servers do not give an identity is told, and taken as soon as they give it.
func TestConnect_Identity(t *testing.T) {
	t.Parallel()
	public, seed := nkey(t)
	may := func(what string) []byte {
		return fmt.Appendf(nil, "authorization { users = [ { nkey: %s%s } ] }", public, what)
	}
	c := natstest.Start(t, natstest.Options{Authorization: may(`, permissions: { publish: ["x"] }`)})
	connect := func(context.Context) error { _, err := tryJoin(t, c, natsbus.Options{NkeySeed: seed}); return err }
	t.Run("permissions of another role", func(t *testing.T) { isMisfit(t, connect, "FAENA_NATS_NKEY_FILE", "faena-api nats-config", "$JS.API") })

	c.Authorize(t, may(""))
	b := join(t, c, natsbus.Options{NkeySeed: seed})
	declared(t, b)
	t.Run("permissions that are taken away", func(t *testing.T) {
		c.Authorize(t, may(`, permissions: { publish: ["$JS.API.INFO"] }`))
		faenatest.Eventually(t, 20*time.Second, "it is connected again", b.Connected)
		isMisfit(t, b.Declare, "FAENA_NATS_NKEY_FILE", "$JS.API.STREAM.INFO")
		c.Authorize(t, may(""))
		declared(t, b)
	})
	t.Run("a key that is unknown for a while", func(t *testing.T) {
		other, _ := nkey(t)
		c.Authorize(t, fmt.Appendf(nil, "authorization { users = [ { nkey: %s } ] }", other))
		faenatest.Eventually(t, 20*time.Second, "it is not connected", func() bool { return !b.Connected() })
		faenatest.EventuallyNil(t, 20*time.Second, "it is told why", func() error {
			servers, err := b.Servers(t.Context())
			if err == nil && (len(servers) != 1 || !strings.Contains(servers[0].Problem, "FAENA_NATS_NKEY_FILE")) {
				err = fmt.Errorf("servers %+v", servers)
			}
			return err
		})
		c.Authorize(t, may(""))
		declared(t, b)
	})
	t.Run("an account without JetStream", func(t *testing.T) {
		c := natstest.Start(t, natstest.Options{Authorization: fmt.Appendf(nil, "accounts { A { users = [ { nkey: %s } ] }, B { jetstream: enabled } }", public)})
		_, err := tryJoin(t, c, natsbus.Options{NkeySeed: seed})
		isMisfit(t, func(context.Context) error { return err }, "account", "jetstream: enabled")
	})
}

// TestConnect_NoJetStream: a server without JetStream is of no use.
func TestConnect_NoJetStream(t *testing.T) {
	t.Parallel()
	s, err := natsd.NewServer(&natsd.Options{ServerName: "bare", Host: "127.0.0.1", Port: natsd.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server takes no connections")
	}
	_, err = natsbus.Connect(t.Context(), natsbus.Options{Name: "test", URLs: []string{s.ClientURL()}})
	isMisfit(t, func(context.Context) error { return err }, "bare", "without JetStream")
}
