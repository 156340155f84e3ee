package natsbus_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

func beat(t *testing.T, b *natsbus.Bus, group, id string) {
	t.Helper()
	noError(t, b.Heartbeat(t.Context(), faena.Worker{Schema: faena.SchemaVersion, ID: id, Group: group}))
}

// present lists the workers as "group/id".
func present(t *testing.T, b *natsbus.Bus) []string {
	t.Helper()
	workers, err := b.Workers(t.Context())
	noError(t, err)
	var out []string
	for _, w := range workers {
		out = append(out, w.Group+"/"+w.ID)
	}
	return out
}

// TestBus_Workers_Flood: whatever a worker's key stores in place of heartbeats, the workers of other groups are there.
func TestBus_Workers_Flood(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	own, other := i.connect(t, group), i.connect(t, otherGroup)
	in := i.intrude(t, group)
	say := func(key string, size int) error {
		answer, err := in.Request("$KV.workers-"+group+"."+key, make([]byte, size), 20*time.Second)
		if err == nil && strings.Contains(string(answer.Data), "error") {
			err = errors.New(string(answer.Data))
		}
		return err
	}
	for name, c := range map[string]struct {
		size, most int
		refusal    string
	}{
		"large ones":    {15 << 10, 70, "maximum bytes"},
		"many":          {1, 1000, "maximum messages"},
		"one too large": {17 << 10, 0, "message size"},
	} {
		t.Run(name, func(t *testing.T) {
			beat(t, other, otherGroup, "w1")
			stored := 0
			for ; stored <= c.most; stored++ {
				if err := say(fmt.Sprint(name[:3], stored, `"}`), c.size); err != nil {
					if !strings.Contains(err.Error(), c.refusal) {
						t.Fatalf("message %d: %v", stored, err)
					}
					break
				}
			}
			if stored > c.most {
				t.Fatalf("%d messages are stored", stored)
			}
			if c.most > 0 {
				err := own.Heartbeat(t.Context(), faena.Worker{Schema: faena.SchemaVersion, ID: "w9", Group: group})
				if !errors.Is(err, faena.ErrFull) {
					t.Errorf("the group's bucket is not full: %v", err)
				}
			}
			beat(t, other, otherGroup, "w1")
			beat(t, other, otherGroup, "w2")
			if got, want := present(t, i.api), []string{otherGroup + "/w1", otherGroup + "/w2"}; !slices.Equal(got, want) {
				t.Errorf("present are %q, want %q", got, want)
			}
			clocks, err := i.api.Clocks(t.Context())
			if err != nil || len(clocks) != 3 {
				t.Errorf("the clocks are %+v, %v", clocks, err)
			}
			s, err := i.servers.JetStream(t).Stream(t.Context(), "KV_workers-"+group)
			noError(t, err)
			noError(t, s.Purge(t.Context()))
		})
	}
}

// silentBucket makes a group's bucket of heartbeats one that only a server has which is away.
func silentBucket(t *testing.T, c *natstest.Servers, b *natsbus.Bus) {
	js := c.JetStream(t)
	noError(t, b.DeclareGroup(t.Context(), "silent"))
	change(t, js, "KV_workers-silent", func(c *jetstream.StreamConfig) { c.Replicas = 1 })
	faenatest.EventuallyNil(t, 30*time.Second, "it is with one server", func() error {
		s, err := js.Stream(t.Context(), "KV_workers-silent")
		if err == nil && (s.CachedInfo().Cluster.Leader == "" || len(s.CachedInfo().Cluster.Replicas) > 0) {
			err = fmt.Errorf("it is with %+v", s.CachedInfo().Cluster)
		}
		return err
	})
	holder := c.Leader(t, "KV_workers-silent")
	c.Stop(holder)
	// The others choose leaders anew, where it was one.
	faenatest.EventuallyNil(t, 30*time.Second, "the others are seen", func() error {
		if err := b.Heartbeat(t.Context(), faena.Worker{Schema: faena.SchemaVersion, ID: "w1", Group: group}); err != nil {
			return err
		}
		began := time.Now()
		workers, err := b.Workers(t.Context())
		if took := time.Since(began); err == nil && (len(workers) != 1 || workers[0].ID != "w1" || took > 1500*time.Millisecond) {
			err = fmt.Errorf("after %v there are %+v", took, workers)
		}
		return err
	})
	if s := health(t, b, "KV_workers-silent", group, "silent"); s.Problem == "" {
		t.Error("nothing is wrong with its bucket")
	}
	c.Start(t, holder)
	faenatest.EventuallyNil(t, 30*time.Second, "the group is removed", func() error { return b.RemoveGroup(t.Context(), "silent") })
	healthy(t, b, group)
}

// TestBus_Declare_SharedBucket: a directory of the release before, whose server may keep the least that a setting allows, and
// which reserves all of it.
func TestBus_Declare_SharedBucket(t *testing.T) {
	t.Parallel()
	const least = 256 << 20
	dir := t.TempDir()
	before := func(use func(jetstream.JetStream)) {
		t.Helper()
		s, err := natsd.NewServer(&natsd.Options{ServerName: "faena", Host: "127.0.0.1", Port: natsd.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: dir, JetStreamMaxStore: least})
		noError(t, err)
		s.Start()
		defer func() { s.Shutdown(); s.WaitForShutdown() }()
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("the server takes no connections")
		}
		nc, err := nats.Connect(s.ClientURL())
		noError(t, err)
		defer nc.Close()
		js, err := jetstream.New(nc)
		noError(t, err)
		use(js)
	}
	bucket := func(name string, size int64, age time.Duration) jetstream.StreamConfig {
		return jetstream.StreamConfig{Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, MaxMsgsPerSubject: 1, DenyDelete: true,
			Discard: jetstream.DiscardNew, MaxMsgSize: 1 << 20, MaxBytes: size, MaxAge: age, Duplicates: min(cmp.Or(age, 2*time.Minute), 2*time.Minute)}
	}
	before(func(js jetstream.JetStream) {
		for _, c := range []jetstream.StreamConfig{
			bucket("users", 48<<20, 0), bucket("workers", 16<<20, faena.HeartbeatTTL), bucket("activations-"+group, 0, 0),
			{Name: queueStream, Subjects: []string{"Activations." + group + ".*.*", "Activations." + group + ".anchor"}, Retention: jetstream.WorkQueuePolicy,
				Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1, MaxMsgSize: 1 << 20, MaxBytes: least / 4},
			{Name: objectsStream, Subjects: []string{"$O.objects-" + group + ".C.>", "$O.objects-" + group + ".M.>"}, Discard: jetstream.DiscardNew,
				AllowRollup: true, MaxBytes: least / 2},
		} {
			_, err := js.CreateStream(t.Context(), c)
			noError(t, err)
		}
		_, err := js.Publish(t.Context(), "$KV.workers."+group+".w0", []byte(text(t, faena.Worker{Schema: faena.SchemaVersion, ID: "w0", Group: group})))
		noError(t, err)
	})
	s, err := natsbus.StartServer(natsbus.ServerOptions{Dir: dir, MaxStore: least})
	noError(t, err)
	b := connect(t, s, natsbus.Options{})
	beat(t, b, group, "w1")
	if got := present(t, b); !slices.Equal(got, []string{group + "/w1"}) {
		t.Errorf("present are %q", got)
	}
	noError(t, b.Declare(t.Context()))
	b.Close()
	s.Shutdown()
	before(func(js jetstream.JetStream) {
		var reserved int64
		streams := js.ListStreams(t.Context())
		for s := range streams.Info() {
			if s.Config.Name == "KV_workers" {
				t.Error("the old bucket is there")
			}
			reserved += max(0, s.Config.MaxBytes)
		}
		noError(t, streams.Err())
		if want := int64(least*3/4 + least/16 + (24+1+1)<<20); reserved != want {
			t.Errorf("%d MiB are reserved, want %d", reserved>>20, want>>20)
		}
	})
	t.Run("another program's bucket of that name stays", func(t *testing.T) {
		c := natstest.Start(t, natstest.Options{})
		js := c.JetStream(t)
		_, err := js.CreateStream(t.Context(), bucket("workers", 16<<20, time.Hour))
		noError(t, err)
		declared(t, join(t, c, natsbus.Options{}))
		if _, err := js.Stream(t.Context(), "KV_workers"); err != nil {
			t.Error(err)
		}
	})
}
