package natsbus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

// otherGroup is one that the workers of group must not get at.
const otherGroup = "other"

// installation is NATS servers that let in the APIs, and the workers of two groups, by their keys and nobody else.
type installation struct {
	servers  *natstest.Servers
	replicas int
	seeds    map[string][]byte // by group; "" is the APIs
	api      *natsbus.Bus
}

func install(t testing.TB, n int) *installation {
	t.Helper()
	i := &installation{replicas: n, seeds: make(map[string][]byte)}
	o := natstest.Options{TLS: true, Authorization: i.authorization(t, group, otherGroup)}
	if n == 1 {
		i.servers = natstest.Start(t, o)
	} else {
		i.servers = natstest.StartCluster(t, n, o)
	}
	i.api = i.connect(t, "")
	faenatest.EventuallyNil(t, 30*time.Second, "all is declared", func() error {
		return errors.Join(i.api.Declare(t.Context()), i.api.DeclareGroup(t.Context(), otherGroup))
	})
	return i
}

// authorization makes the keys that are not there yet.
func (i *installation) authorization(t testing.TB, groups ...string) []byte {
	t.Helper()
	public := make(map[string]string)
	for _, g := range append(groups, "") {
		if i.seeds[g] == nil {
			seed, _, err := natsbus.NewNkey()
			if err != nil {
				t.Fatal(err)
			}
			i.seeds[g] = seed
		}
		var err error
		if public[g], err = natsbus.PublicNkey(i.seeds[g]); err != nil {
			t.Fatal(err)
		}
	}
	api := public[""]
	delete(public, "")
	conf, err := natsbus.Authorization(api, public)
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// connect connects as a worker of a group does, or as an API, with an AckWait that no test outlives.
func (i *installation) connect(t testing.TB, group string) *natsbus.Bus {
	t.Helper()
	b, err := natsbus.Connect(t.Context(), i.options(group, i.servers.URLs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func (i *installation) options(group string, urls ...string) natsbus.Options {
	return natsbus.Options{Name: "test", URLs: urls, TLS: i.servers.TLS(), NkeySeed: i.seeds[group], Group: group, Replicas: i.replicas,
		MaxStore: 64 << 20, AckWait: time.Hour}
}

// intruder is a connection that says what it likes with somebody's key.
type intruder struct {
	*nats.Conn
	mu       sync.Mutex
	refusals []string
}

func (i *installation) intrude(t testing.TB, group string) *intruder {
	t.Helper()
	in := new(intruder)
	pair, err := nkeys.FromSeed(i.seeds[group])
	if err != nil {
		t.Fatal(err)
	}
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	in.Conn, err = nats.Connect(i.servers.URLs()[0], nats.Secure(i.servers.TLS()), nats.Nkey(key, pair.Sign), nats.CustomInboxPrefix("_INBOX.worker-"+group),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			in.mu.Lock()
			defer in.mu.Unlock()
			in.refusals = append(in.refusals, err.Error())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return in
}

// refused waits until the server has complained of a subject.
func (in *intruder) refused(t *testing.T, subject string) {
	t.Helper()
	faenatest.EventuallyNil(t, 10*time.Second, "the server refuses it", func() error {
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, text := range in.refusals {
			if strings.Contains(text, "Permissions Violation") && strings.Contains(text, `"`+subject+`"`) {
				return nil
			}
		}
		return fmt.Errorf("it has complained of %q", in.refusals)
	})
}

// state is all that the servers keep: streams, consumers, and how far each is, as an operator sees it.
func (i *installation) state(t *testing.T, js jetstream.JetStream) map[string]string {
	t.Helper()
	all := make(map[string]string)
	streams := js.ListStreams(t.Context())
	for s := range streams.Info() {
		counts := fmt.Sprint(s.State.Msgs, s.State.Bytes, s.State.FirstSeq, s.State.LastSeq)
		if strings.HasPrefix(s.Config.Name, "KV_workers-") {
			counts = fmt.Sprint(s.State.LastSeq) // heartbeats expire
		}
		all[s.Config.Name] = text(t, s.Config) + " " + counts
		stream, err := js.Stream(t.Context(), s.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		consumers := stream.ListConsumers(t.Context())
		for c := range consumers.Info() {
			all[s.Config.Name+" "+c.Name] = text(t, c.Config) + fmt.Sprint(c.Delivered.Stream, c.AckFloor.Stream, c.NumAckPending, c.NumRedelivered, c.NumPending)
		}
		if consumers.Err() != nil {
			t.Fatal(consumers.Err())
		}
	}
	if streams.Err() != nil {
		t.Fatal(streams.Err())
	}
	return all
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// unchanged checks that nothing has become of what was tried, and returns what there is now.
func (i *installation) unchanged(t *testing.T, js jetstream.JetStream, before map[string]string) (after map[string]string) {
	t.Helper()
	after = i.state(t, js)
	for name, was := range before {
		if after[name] != was {
			t.Errorf("%s was\n%s\nis\n%s", name, was, after[name])
		}
	}
	for name := range after {
		if before[name] == "" {
			t.Errorf("%s is new", name)
		}
	}
	return after
}

// fill gives a group an activation that its worker holds, one that is queued, one in the backlog, one that is a dead letter, their
// records, an object and a heartbeat. It returns the acknowledgement's subject of the first.
func (i *installation) fill(t *testing.T, g string) (ack string) {
	t.Helper()
	ctx := t.Context()
	for slot := range 2 {
		r := record("bob", slot)
		r.Group = g
		rev, err := i.api.CreateRecord(ctx, r)
		noError(t, err)
		m := message(r)
		m.RecordRevision = rev
		_, _, err = i.api.Publish(ctx, r.User, g, slot, 1, m)
		noError(t, err)
		noError(t, i.api.PutObject(ctx, g, "in."+r.ID, []byte("a parameter")))
	}
	noError(t, i.api.PublishBacklog(ctx, "bob", g, 1, message(record("bob", 0))))
	w := i.connect(t, g)
	letter := deadLetter("bob", newID())
	letter.Group = g
	noError(t, w.PutDeadLetter(ctx, letter))
	noError(t, w.Heartbeat(ctx, faena.Worker{Schema: faena.SchemaVersion, ID: "w1", Group: g}))
	d, err := w.Deliveries(g)
	noError(t, err)
	got := next(t, d)
	noError(t, d.Close())
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	return fmt.Sprintf("$JS.ACK.ACTIVATIONS-%s.workers.1.%d.1.%d.1", g, got.Sequence, got.Published.UnixNano())
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// api names a call of JetStream's API as an API knows it, and as a worker does.
func api(call string) []string { return []string{"$JS.API." + call, "Faena.API." + call} }

// TestAuthorization_Worker: what a worker's key must not do, each thing by itself, looked at by what has become of it.
func TestAuthorization_Worker(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	i.fill(t, group)
	ack := i.fill(t, otherGroup)
	js := i.servers.JetStream(t)
	in := i.intrude(t, group)
	own, err := in.SubscribeSync(in.NewInbox())
	noError(t, err)
	before := i.state(t, js)

	sends := map[string][]string{
		"publish an activation":                 {"Activations." + group + ".bob.7"},
		"publish one into another group":        {"Activations." + otherGroup + ".bob.7"},
		"put into a backlog":                    {"Backlog." + group + ".bob.x", "Backlog." + otherGroup + ".bob.x"},
		"read a backlog":                        append(api("STREAM.MSG.GET.BACKLOG-"+group), append(api("STREAM.MSG.GET.BACKLOG-"+otherGroup), api("STREAM.INFO.BACKLOG-"+group)...)...),
		"write another group's dead letter":     {"DeadLetters." + otherGroup + ".bob.x"},
		"read dead letters":                     append(api("STREAM.MSG.GET.DEADLETTERS-"+group), api("STREAM.MSG.GET.DEADLETTERS-"+otherGroup)...),
		"claim an Idempotency-Key":              {"$KV.idempotency.bob.x"},
		"read who has an Idempotency-Key":       append(api("STREAM.MSG.GET.KV_idempotency"), api("STREAM.INFO.KV_idempotency")...),
		"move the anchor of a queue":            {"Activations." + group + ".anchor", "Activations." + otherGroup + ".anchor"},
		"write another group's record":          {"$KV.activations-" + otherGroup + ".bob.x", "$KV.activations-" + otherGroup + ".anchor"},
		"write another group's object":          {"$O.objects-" + otherGroup + ".C.x", "$O.objects-" + otherGroup + ".M.x"},
		"send another group's heartbeat":        {"$KV.workers-" + otherGroup + ".w1", "$KV.workers." + otherGroup + ".w1"},
		"write a counter":                       {"$KV.users.bob.activations.active"},
		"take a lease":                          {"$KV.leases.leader"},
		"read another group's record":           api("STREAM.MSG.GET.KV_activations-" + otherGroup),
		"read another group's object":           api("STREAM.MSG.GET.OBJ_objects-" + otherGroup),
		"read the queue":                        api("STREAM.MSG.GET.ACTIVATIONS-" + group),
		"read another group's queue":            append(api("STREAM.MSG.GET.ACTIVATIONS-"+otherGroup), api("STREAM.INFO.ACTIVATIONS-"+otherGroup)...),
		"read what there is of users":           api("STREAM.MSG.GET.KV_users"),
		"read the workers of others":            append(api("STREAM.MSG.GET.KV_workers-"+otherGroup), api("STREAM.INFO.KV_workers-"+otherGroup)...),
		"read past the leader":                  {"$JS.API.DIRECT.GET.KV_activations-" + otherGroup, "$JS.API.DIRECT.GET.KV_activations-" + otherGroup + ".$KV.activations-" + otherGroup + ".bob.x"},
		"take another group's activation":       api("CONSUMER.MSG.NEXT.ACTIVATIONS-" + otherGroup + ".workers"),
		"take a record for recording":           append(api("CONSUMER.MSG.NEXT.KV_activations-"+group+".recorder"), api("CONSUMER.MSG.NEXT.KV_activations-"+otherGroup+".recorder")...),
		"acknowledge another group's":           {ack},
		"acknowledge a record":                  {"$JS.ACK.KV_activations-" + group + ".recorder.1.1.1.1.1"},
		"tell of another group's end":           {"Completed.api-1." + otherGroup},
		"tell of another group's log":           {"Logs." + otherGroup + ".bob.x"},
		"cancel":                                {"Cancel." + group + ".x", "Cancel." + otherGroup + ".x"},
		"drain":                                 {"Drain.w1"},
		"ask for a log":                         {"LogTail." + group + ".x", "LogTail." + otherGroup + ".x"},
		"announce a change":                     {"Changed.function.bob.f"},
		"answer an API that has not asked":      {"_INBOX.api.test.x"},
		"ask what there is":                     append(api("STREAM.NAMES"), append(api("STREAM.LIST"), api("INFO")...)...),
		"make a leader step down":               append(api("META.LEADER.STEPDOWN"), api("STREAM.LEADER.STEPDOWN.ACTIVATIONS-"+group)...),
		"ask the system account for the server": {"$SYS.REQ.SERVER.PING"},
	}
	for _, g := range []string{group, otherGroup} {
		for _, stream := range []string{"ACTIVATIONS-" + g, "KV_activations-" + g, "OBJ_objects-" + g, "KV_workers-" + g, "BACKLOG-" + g, "DEADLETTERS-" + g, "KV_idempotency"} {
			for _, verb := range []string{"CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE"} {
				sends["stream "+verb] = append(sends["stream "+verb], api("STREAM."+verb+"."+stream)...)
			}
			for _, verb := range []string{"CREATE", "DELETE", "PAUSE", "UNPIN"} {
				sends["consumer "+verb] = append(sends["consumer "+verb], api("CONSUMER."+verb+"."+stream+".workers")...)
			}
			sends["consumer CREATE"] = append(sends["consumer CREATE"], api("CONSUMER.CREATE."+stream+".mine.>")...)
			sends["consumer CREATE"] = append(sends["consumer CREATE"], api("CONSUMER.DURABLE.CREATE."+stream+".mine")...)
		}
	}
	for name, subjects := range sends {
		t.Run(name, func(t *testing.T) {
			for _, subject := range subjects {
				for _, data := range []string{"", `{"batch":1,"no_wait":true}`} {
					noError(t, in.PublishRequest(subject, own.Subject, []byte(data)))
				}
				noError(t, in.Flush())
				in.refused(t, subject)
			}
			before = i.unchanged(t, js, before)
		})
	}
	if m, err := own.NextMsg(time.Millisecond); err == nil {
		t.Errorf("it was answered: %q", m.Data)
	}
}

// TestAuthorization_Worker_Hears: what a worker's key must not hear. All of it is said while it listens.
func TestAuthorization_Worker_Hears(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	in := i.intrude(t, group)
	heard := make(map[string]*nats.Subscription)
	for _, subject := range []string{">", "*", "*.>", "_INBOX.>", "_INBOX.api.>", "_INBOX.worker-" + otherGroup + ".>", "_R_.>", "$JS.>", "$KV.>", "$O.>", "$SYS.>", "Activations.>",
		"Activations." + otherGroup + ".*.*", "Completed.>", "Completed.*." + group, "Logs.>", "Logs." + group + ".*.*", "Cancel.*.*", "Cancel." + otherGroup + ".*",
		"LogTail.*.*", "LogTail." + otherGroup + ".*", "Changed.*.*.*", "$KV.activations-" + otherGroup + ".*.*", "Faena.>", "Backlog.>", "DeadLetters.>",
		"DeadLetters." + otherGroup + ".*.*"} {
		var err error
		heard[subject], err = in.SubscribeSync(subject)
		noError(t, err)
	}
	noError(t, in.Flush())
	i.fill(t, group)
	i.fill(t, otherGroup)
	w := i.connect(t, otherGroup)
	r := record("bob", 0)
	r.Group = otherGroup
	noError(t, w.Complete(t.Context(), r))
	noError(t, w.PublishLog(otherGroup, "bob", r.ID, 0, []byte("a log")))
	noError(t, i.api.RequestCancel(t.Context(), otherGroup, r.ID))
	noError(t, i.api.PublishChanged("function", "bob", "f"))
	if _, _, err := i.api.LogSoFar(t.Context(), otherGroup, r.ID); err == nil {
		t.Error("somebody has answered for a log")
	}
	noError(t, in.Flush())
	for subject, sub := range heard {
		t.Run(subject, func(t *testing.T) {
			in.refused(t, subject)
			if m, err := sub.NextMsg(time.Millisecond); err == nil {
				t.Errorf("it has heard %s: %q", m.Subject, m.Data)
			}
		})
	}
}

// TestAuthorization_Worker_Replies: the server sends an answer to whatever subject a request names, with rights of its own. A
// worker must not be able to use them.
func TestAuthorization_Worker_Replies(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	i.fill(t, group)
	ack := i.fill(t, otherGroup)
	js := i.servers.JetStream(t)
	in := i.intrude(t, group)
	own, err := in.SubscribeSync(in.NewInbox())
	noError(t, err)
	// The three kinds of answers that a worker may ask for: of an empty message with a status, of JSON, of an acknowledgement.
	never := nats.Header{"Nats-Expected-Last-Subject-Sequence": {"999999"}}
	asks := map[string]*nats.Msg{
		"a pull":   {Subject: "Faena.API.CONSUMER.MSG.NEXT.ACTIVATIONS-" + group + ".workers", Data: []byte(`{"batch":1,"max_bytes":1}`)},
		"a read":   {Subject: "Faena.API.STREAM.MSG.GET.KV_activations-" + group, Data: []byte(`{"last_by_subj":"$KV.activations-` + group + `.anchor"}`)},
		"a clock":  {Subject: "Faena.API.STREAM.INFO.ACTIVATIONS-" + group},
		"a record": {Subject: "$KV.activations-" + group + ".bob.x", Header: never},
		"an ack":   {Subject: "$JS.ACK.ACTIVATIONS-" + group + ".workers.1.999.1.1.1", Data: []byte("+WPI")},
	}
	before := i.state(t, js)
	for name, ask := range asks {
		for _, reply := range []string{
			"Activations." + group + ".bob.7", "Activations." + otherGroup + ".bob.7", "$KV.activations-" + otherGroup + ".bob.x", "$KV.users.bob.activations.active",
			"$KV.leases.leader", "$KV.workers-" + otherGroup + ".w1", "$O.objects-" + otherGroup + ".C.x", "Changed.function.bob.f",
			"Backlog." + group + ".bob.x", "DeadLetters." + otherGroup + ".bob.x", "$KV.idempotency.bob.x",
			"$JS.API.STREAM.DELETE.ACTIVATIONS-" + otherGroup, "$JS.API.STREAM.DELETE.KV_activations-" + group, "$JS.API.STREAM.PURGE.KV_activations-" + otherGroup,
			"$JS.API.CONSUMER.DELETE.ACTIVATIONS-" + otherGroup + ".workers", "$JS.API.CONSUMER.MSG.NEXT.ACTIVATIONS-" + otherGroup + ".workers", ack,
			"$JS.API.META.LEADER.STEPDOWN", "_R_.x.y",
		} {
			t.Run(name+" answered to "+strings.TrimSuffix(reply, strings.TrimPrefix(ack, "$JS.ACK.ACTIVATIONS-"+otherGroup)), func(t *testing.T) {
				m := *ask
				m.Reply = reply
				noError(t, in.PublishMsg(&m))
				// What is asked after it is answered after it.
				m.Reply = own.Subject
				noError(t, in.PublishMsg(&m))
				if _, err := own.NextMsg(10 * time.Second); err != nil {
					t.Fatal(err)
				}
				before = i.unchanged(t, js, before)
			})
		}
	}
	i.unchanged(t, js, before)
}

// TestAuthorization_Worker_Rollups: a message that takes the place of all others would purge a bucket.
func TestAuthorization_Worker_Rollups(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	i.fill(t, group)
	i.fill(t, otherGroup)
	js := i.servers.JetStream(t)
	in := i.intrude(t, group)
	before := i.state(t, js)
	for _, subject := range []string{"$KV.activations-" + group + ".bob.x", "$KV.activations-" + group + ".anchor", "$KV.workers-" + group + ".w1",
		"DeadLetters." + group + ".bob.x"} {
		for _, kind := range []string{"all", "sub"} {
			t.Run(subject+" "+kind, func(t *testing.T) {
				answer, err := in.RequestMsg(&nats.Msg{Subject: subject, Header: nats.Header{"Nats-Rollup": {kind}}}, 20*time.Second)
				if err != nil || !strings.Contains(string(answer.Data), "error") {
					t.Errorf("it is answered %s, %v", answer.Data, err)
				}
				before = i.unchanged(t, js, before)
			})
		}
	}
}

// TestAuthorization_API: an API may do much, and not everything.
func TestAuthorization_API(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	i.fill(t, group)
	js := i.servers.JetStream(t)
	in := i.intrude(t, "")
	before := i.state(t, js)
	for name, subject := range map[string]string{
		"take an activation":        "$JS.API.CONSUMER.MSG.NEXT.ACTIVATIONS-" + group + ".workers",
		"acknowledge an activation": "$JS.ACK.ACTIVATIONS-" + group + ".workers.1.2.1.1.1",
		"remove a consumer":         "$JS.API.CONSUMER.DELETE.ACTIVATIONS-" + group + ".workers",
		"pause a consumer":          "$JS.API.CONSUMER.PAUSE.ACTIVATIONS-" + group + ".workers",
		"copy a stream":             "$JS.API.STREAM.SNAPSHOT.KV_users",
		"step a leader down":        "$JS.API.META.LEADER.STEPDOWN",
		"tell of a log":             "Logs." + group + ".bob.x",
		"answer for an API":         "_INBOX.api.x",
		"use a name of its own":     "mine",
	} {
		t.Run(name, func(t *testing.T) {
			noError(t, in.PublishRequest(subject, "_INBOX.api.x", nil))
			noError(t, in.Flush())
			in.refused(t, subject)
			before = i.unchanged(t, js, before)
		})
	}
	for _, subject := range []string{">", "_INBOX.>", "Activations.>", "$KV.>", "LogTail.>", "Cancel.>"} {
		t.Run("hear "+subject, func(t *testing.T) {
			_, err := in.SubscribeSync(subject)
			noError(t, err)
			noError(t, in.Flush())
			in.refused(t, subject)
		})
	}
}

// TestAuthorization_Strangers: who has no key that is known is not let in.
func TestAuthorization_Strangers(t *testing.T) {
	t.Parallel()
	i := install(t, 1)
	unknown, _, err := natsbus.NewNkey()
	noError(t, err)
	for name, seed := range map[string][]byte{"no key": nil, "an unknown key": unknown} {
		t.Run(name, func(t *testing.T) {
			o := natsbus.Options{Name: "test", URLs: i.servers.URLs(), TLS: i.servers.TLS(), NkeySeed: seed}
			b, err := natsbus.Connect(t.Context(), o)
			if err == nil {
				b.Close()
				t.Fatal("it is let in")
			}
			if why := natsbus.Refused(t.Context(), o); why == nil || !strings.Contains(why.Error(), i.servers.URLs()[0]) || !strings.Contains(why.Error(), "FAENA_NATS_NKEY_FILE") {
				t.Errorf("it is told %v", why)
			}
		})
	}
	t.Run("the key of another group", func(t *testing.T) {
		o := natsbus.Options{Name: "test", URLs: i.servers.URLs(), TLS: i.servers.TLS(), NkeySeed: i.seeds[otherGroup], Group: group}
		b, err := natsbus.Connect(t.Context(), o)
		if err == nil {
			b.Close()
			t.Fatal("it is let in")
		}
		if !strings.Contains(err.Error(), "FAENA_NATS_NKEY_FILE") {
			t.Errorf("it is told %v", err)
		}
	})
}
