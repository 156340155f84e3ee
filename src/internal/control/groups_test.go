package control

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// Public nkeys of users.
const (
	nkeyA = "UB7MEIEXFCCFEUXGEGZN7K6RWT5JBPAE7EK2OCPJ2QCTTQHTMI2BEUIP"
	nkeyB = "UCYYQQHXC6VY2GI6WOLGMPSTNDGPYVVONYVUO2CSZYJAPBYKIOWKJLBF"
)

// grant makes or changes a user with the groups.
func (r *rig) grant(name string, groups map[string]int) {
	r.t.Helper()
	_, err := r.PutUser(r.t.Context(), faena.User{Name: name, Groups: groups}, "")
	noError(r.t, err)
}

// into deploys ann's function to a group.
func (r *rig) into(group, name string) error {
	_, _, _, _, err := r.Deploy(r.t.Context(), "ann", faena.Deployment{Name: name, Spec: faena.Spec{Image: "i", Input: faena.InputStdin, Group: group}})
	return err
}

// begin activates one of ann's functions without waiting for it.
func (r *rig) begin(function, parameter string) faena.Record {
	r.t.Helper()
	rec, err := r.Activate(r.t.Context(), faena.ActivationRequest{User: "ann", Function: function, Parameter: []byte(parameter), Async: true})
	noError(r.t, err)
	return rec
}

// isField checks that an error is about a field of the input.
func isField(t *testing.T, err error, field, words string) {
	t.Helper()
	e := isKind(t, err, faena.KindInvalid)
	if len(e.Fields) != 1 || e.Fields[0].Field != field || !strings.Contains(e.Fields[0].Message, words) {
		t.Errorf("the fields are %+v, want %s: … %s …", e.Fields, field, words)
	}
}

func TestControl_PutGroup(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	created, err := r.PutGroup(t.Context(), faena.Group{Name: "gpu", Nkey: nkeyA, Recipient: "age1a"})
	noError(t, err)
	state, err := r.Group(t.Context(), "gpu")
	noError(t, err)
	if !created || state.Nkey != nkeyA || state.Recipient != "age1a" || !state.Pending() || state.CreatedAt.IsZero() || state.Schema != faena.SchemaVersion {
		t.Errorf("created is %v, the group %+v", created, state)
	}
	for _, c := range []struct {
		name         string
		group        faena.Group
		field, words string
	}{
		{"ABadName", faena.Group{Name: "g.pu"}, "name", "must match"},
		{"AnNkeyThatIsNone", faena.Group{Name: "gpu", Nkey: nkeyA[:20]}, "nkey", "no public nkey"},
		{"TheNkeyOfAnother", faena.Group{Name: "other", Nkey: nkeyA}, "nkey", "that of group gpu"},
		{"TheNkeyOfAnotherForTheDefaultGroup", faena.Group{Name: group, Nkey: nkeyA}, "nkey", "that of group gpu"},
		{"ARecipientOfAnotherKind", faena.Group{Name: "gpu", Recipient: "ssh-ed25519 AAAA"}, "recipient", "age1"},
		{"ARecipientThatIsNone", faena.Group{Name: "gpu", Recipient: noRecipient}, "recipient", "age1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := r.PutGroup(t.Context(), c.group)
			isField(t, err, c.field, c.words)
		})
	}
	_, err = r.Group(t.Context(), "other")
	isKind(t, err, faena.KindNotFound)

	w := r.workerOf("gpu", "g1", 1, echo)
	r.ready("gpu")
	t.Run("TheSameNkeyStaysReady", func(t *testing.T) {
		created, err := r.PutGroup(t.Context(), faena.Group{Name: "gpu", Nkey: nkeyA, Recipient: "age1b"})
		noError(t, err)
		again, err := r.Group(t.Context(), "gpu")
		if err != nil || created || again.Recipient != "age1b" || again.Pending() || !again.CreatedAt.Equal(state.CreatedAt) || again.Workers != 1 || again.Ready != 1 {
			t.Errorf("created is %v, the group %+v, %v", created, again, err)
		}
	})
	t.Run("AnotherNkeyIsPending", func(t *testing.T) {
		w.stop()
		_, err := r.PutGroup(t.Context(), faena.Group{Name: "gpu", Nkey: nkeyB})
		noError(t, err)
		again, err := r.Group(t.Context(), "gpu")
		if err != nil || !again.Pending() || again.Workers != 0 {
			t.Errorf("the group is %+v, %v", again, err)
		}
	})
	t.Run("TheDefaultGroupIsGivenKeys", func(t *testing.T) {
		created, err := r.PutGroup(t.Context(), faena.Group{Name: group, Nkey: nkeyA, Recipient: "age1d"})
		noError(t, err)
		list, err := r.Groups(t.Context())
		noError(t, err)
		if created || len(list) != 2 || list[0].Name != group || list[0].Nkey != nkeyA || list[1].Name != "gpu" {
			t.Errorf("created is %v, the groups are %+v", created, list)
		}
	})
}

// ready waits until a group is not pending, as this API sees it.
func (r *rig) ready(name string) {
	r.t.Helper()
	faenatest.Eventually(r.t, patience, "group "+name+" is ready", func() bool {
		g, known := r.groups.get(name)
		return known && !g.Pending()
	})
}

// There is a most, also for two admins at once, and one process has one group.
func TestControl_PutGroup_Refused(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	for i := range faena.MaxGroups - 2 { // they need no streams here
		_, err := r.documents.PutGroup(t.Context(), faena.Group{Schema: faena.SchemaVersion, Name: fmt.Sprintf("zz%d", i)})
		noError(t, err)
	}
	r.bus.on("DeclareGroup", func() error { return errors.New("no room") })
	_, err := r.PutGroup(t.Context(), faena.Group{Name: "one"})
	if e := isKind(t, err, faena.KindUnavailable); e.Reason != "group_not_declared" || !e.Retryable {
		t.Errorf("the error is %+v", e)
	}
	_, err = r.Group(t.Context(), "one")
	isKind(t, err, faena.KindNotFound)
	r.bus.on("DeclareGroup", nil)

	var puts sync.WaitGroup
	errs := make([]error, 3)
	for i, name := range []string{"one", "two", "three"} {
		puts.Go(func() { _, errs[i] = r.PutGroup(t.Context(), faena.Group{Name: name}) })
	}
	puts.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if e := isKind(t, err, faena.KindConflict); e.Reason != "groups_full" || !strings.Contains(e.Message, "64") {
			t.Errorf("the error is %+v", e)
		}
	}
	if made != 1 {
		t.Errorf("%d were made", made)
	}
	if _, err := r.PutGroup(t.Context(), faena.Group{Name: "zz0"}); err != nil { // it is there
		t.Error(err)
	}

	single := start(t)
	_, err = single.PutGroup(t.Context(), faena.Group{Name: "gpu"})
	if e := isKind(t, err, faena.KindConflict); e.Reason != "groups_fixed" {
		t.Errorf("the error is %+v", e)
	}
	if list, err := single.Groups(t.Context()); err != nil || len(list) != 1 || list[0].Name != group || list[0].Pending() {
		t.Errorf("the groups are %+v, %v", list, err)
	}
}

// A group is pending until a worker of it was there; then functions may name it, at every API, also when the worker has gone.
func TestControl_Group_Pending(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	two := one.another("api-2", several)
	_, err := one.PutGroup(t.Context(), faena.Group{Name: "gpu", Recipient: "age1gpu"})
	noError(t, err)
	two.knows("gpu")
	one.grant("ann", map[string]int{group: 5, "gpu": 5})
	one.grant("bob", map[string]int{group: 5})
	for _, api := range []*rig{one, two} {
		isField(t, api.into("gpu", "f"), "group", "is pending")
		isField(t, api.into("absent", "f"), "group", "does not exist or is not granted")
		_, _, _, _, err := api.Deploy(t.Context(), "bob", faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i", Group: "gpu"}})
		isField(t, err, "group", "not granted")
	}
	one.resolver.mu.Lock()
	if one.resolver.n > 0 {
		t.Error("a registry was asked for what is refused anyway")
	}
	one.resolver.mu.Unlock()

	w := one.workerOf("gpu", "g1", 1, echo)
	one.ready("gpu")
	two.ready("gpu")
	noError(t, one.into("gpu", "f"))
	noError(t, two.into("gpu", "g"))
	w.stop()
	third := one.another("api-3", several)
	noError(t, third.into("gpu", "h"))
	_, rev, _, _, err := third.Deploy(t.Context(), "ann", faena.Deployment{Name: "h", Registry: &faena.Credentials{Username: "u", Password: "p"},
		Spec: faena.Spec{Image: "i", Group: "gpu"}})
	noError(t, err)
	if !strings.HasPrefix(string(rev.Sealed), "for age1gpu: ") {
		t.Errorf("credentials are sealed %s", rev.Sealed)
	}
}

// What a function of another group does is found, followed and cancelled like any other, and counts in the usage, at every
// API.
func TestControl_Group_Activations(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	two := one.another("api-2", several)
	one.newGroup("gpu")
	two.knows("gpu")
	one.grant("ann", map[string]int{group: 3, "gpu": 2})
	noError(t, one.into("gpu", "g"))
	noError(t, one.into(group, "f"))
	hold := newGate()
	wd := one.worker(4, hold.run)
	wg := one.workerOf("gpu", "g1", 4, func(j *job) (string, faena.Reason) {
		j.say("log of " + string(j.parameter))
		return hold.run(j)
	})

	inGPU, inDefault := one.begin("g", "gpu"), one.begin("f", "default")
	two.becomes(inGPU.ID, faena.StateRunning)
	two.becomes(inDefault.ID, faena.StateRunning)
	if rec := two.becomes(inGPU.ID, faena.StateRunning); rec.Group != "gpu" || rec.Worker != "g1" {
		t.Errorf("the record is %+v", rec)
	}
	if _, p, err := two.Logs(t.Context(), "ann", inGPU.ID); err != nil || string(p) != "log of gpu" {
		t.Errorf("the log so far is %q, %v", p, err)
	}
	one.begin("g", "second")
	_, err := two.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "g"})
	if e := isKind(t, err, faena.KindLimit); !strings.Contains(e.Message, "in group gpu") {
		t.Errorf("the message is %q", e.Message)
	}
	for _, api := range []*rig{one, two} {
		list, err := api.Activations(t.Context(), faena.HistoryQuery{User: "ann", Limit: 10})
		if err != nil || len(list) != 3 {
			t.Errorf("there are %d, %v", len(list), err)
		}
		usage, err := api.Usage(t.Context(), "ann")
		if err != nil || usage.Active != 3 || usage.Limit != 5 {
			t.Errorf("the usage is %+v, %v", usage, err)
		}
	}
	one.nats.counters(t, "ann", map[string]string{activeCounter: "3"})
	state, err := two.Group(t.Context(), "gpu")
	if err != nil || state.Active != 2 || state.Workers != 1 {
		t.Errorf("the group is %+v, %v", state, err)
	}

	_, err = two.Cancel(t.Context(), "ann", inGPU.ID)
	noError(t, err)
	one.becomes(inGPU.ID, faena.StateCancelled)
	close(hold.open)
	one.becomes(inDefault.ID, faena.StateSucceeded)
	rec, err := two.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "g", Parameter: []byte("waited for")})
	if err != nil || string(rec.Result.Inline) != "waited for" {
		t.Errorf("the call gives %+v, %v", rec, err)
	}
	two.stored(4)
	if _, p, err := one.Result(t.Context(), "ann", rec.ID); err != nil || string(p) != "waited for" {
		t.Errorf("the result is %q, %v", p, err)
	}
	if _, p, err := one.Logs(t.Context(), "ann", rec.ID); err != nil || string(p) != "log of waited for" {
		t.Errorf("the log is %q, %v", p, err)
	}
	one.nats.counters(t, "ann", map[string]string{activeCounter: "0", completedCounter: "3", failedCounter: "1"})
	if wd.ran.Load() != 1 || wg.ran.Load() != 3 {
		t.Errorf("%d ran in the default group, %d in the other", wd.ran.Load(), wg.ran.Load())
	}

	// A grant that is withdrawn while something runs.
	hold2 := newGate()
	wg.does(hold2.run)
	last := one.begin("g", "last")
	one.becomes(last.ID, faena.StateRunning)
	one.grant("ann", map[string]int{group: 3})
	_, err = one.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "g"})
	if e := isKind(t, err, faena.KindForbidden); e.Reason != "group_not_granted" {
		t.Errorf("the error is %+v", e)
	}
	if usage, err := two.Usage(t.Context(), "ann"); err != nil || usage.Active != 1 || usage.Limit != 3 {
		t.Errorf("the usage is %+v, %v", usage, err)
	}
	two.becomes(last.ID, faena.StateRunning)
	close(hold2.open)
	two.becomes(last.ID, faena.StateSucceeded)
}

// The other APIs learn of a group that is made or removed, also where they are not told.
func TestControl_Group_Known(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	often := func(_ *rig, _ *Options, t *times) { t.groupsEvery = 300 * time.Millisecond }
	told, deaf := one.another("api-2", several), one.another("api-3", several, often)
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("TheMessageIsLost=%v", lost), func(t *testing.T) {
			if lost {
				one.bus.on("PublishChanged "+changedGroup, func() error { return faena.ErrRetry })
			}
			_, err := one.PutGroup(t.Context(), faena.Group{Name: "gpu"})
			noError(t, err)
			apis := []*rig{one, deaf}
			if !lost {
				apis = append(apis, told)
			}
			for _, api := range apis {
				api.knows("gpu")
			}
			// It records what ends there.
			rec := endedAgo(0)
			rec.Group = "gpu"
			_, err = one.bus.Bus.CreateRecord(t.Context(), &rec)
			noError(t, err)
			faenatest.EventuallyNil(t, patience, "it is recorded", func() error {
				_, err := one.documents.Activation(t.Context(), "ann", rec.ID)
				return err
			})
			faenatest.Eventually(t, patience, "the group has no work", func() bool {
				live, err := one.bus.LiveIDs(t.Context(), "gpu")
				return err == nil && len(live) == 0
			})
			noError(t, one.DeleteGroup(t.Context(), "gpu"))
			for _, api := range apis {
				api.knows()
				faenatest.EventuallyNil(t, patience, "nobody brings back its streams", func() error {
					noError(t, api.bus.Declare(t.Context())) // as after a lost connection
					if got := one.nats.streams(t, "gpu"); len(got) > 0 {
						noError(t, one.bus.RemoveGroup(t.Context(), "gpu"))
						return fmt.Errorf("there are %v", got)
					}
					return nil
				})
			}
			if !lost {
				return
			}
			if names := told.GroupNames(); len(names) != 1 {
				t.Errorf("one that was not told knows %v", names)
			}
		})
	}
	for _, api := range []*rig{one, deaf} {
		// A look that had begun before the group went is forgotten with the next one.
		faenatest.EventuallyNil(t, patience, api.o.Instance+" lacks nothing of the queue", func() error {
			if missing, ready := api.Ready(t.Context()); !ready || strings.Contains(strings.Join(missing, " "), "queue") {
				return fmt.Errorf("it is ready: %v, missing are %q", ready, missing)
			}
			return nil
		})
	}
}

// A group that does not answer, or cannot be declared, keeps nobody else from working.
func TestControl_Group_Broken(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	r.newGroup("bad")
	r.grant("ann", map[string]int{group: 5, "bad": 5})
	noError(t, r.into("bad", "b"))
	noError(t, r.into(group, "f"))
	r.worker(1, echo)
	js := r.nats.JetStream(t)
	for _, stream := range r.nats.streams(t, "bad") { // by hand
		noError(t, js.DeleteStream(t.Context(), stream))
	}
	faenatest.Eventually(t, patience, "the readiness names it", func() bool {
		missing, ready := r.Ready(t.Context())
		return ready && strings.Contains(strings.Join(missing, " "), "group bad")
	})
	rec, err := r.call("x")
	if err != nil || string(rec.Result.Inline) != "x" {
		t.Errorf("the call gives %+v, %v", rec, err)
	}
	list := r.stored(1)
	if got, err := r.Activation(t.Context(), "ann", list[0].ID); err != nil || got.State != faena.StateSucceeded {
		t.Errorf("the record is %+v, %v", got, err)
	}
	_, err = r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "b", Async: true})
	isKind(t, err, faena.KindUnavailable)

	other := r.another("api-2", several, func(r *rig, o *Options, _ *times) { // declares it anew
		bus := newFaultyBus(r.nats.connect(r.t, r.nats.URLs()...))
		var asked atomic.Int64
		bus.on("Fill", func() error { // and then one of the two does not answer
			if asked.Add(1)%2 == 0 {
				return faena.ErrRetry
			}
			return nil
		})
		o.Bus = bus
	})
	other.knows("bad")
	if missing, ready := other.Ready(t.Context()); !ready || !strings.Contains(strings.Join(missing, " "), "look at the storage of group") {
		t.Errorf("ready is %v, missing are %q", ready, missing)
	}
	faenatest.EventuallyNil(t, patience, "it works again", func() error {
		_, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "b", Async: true})
		return err
	})
}

// While the store is away an API starts with the default group, and learns of the others when it is back.
func TestControl_Group_StoreAwayAtStart(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	one.newGroup("gpu")
	one.grant("ann", map[string]int{group: 5, "gpu": 5})
	noError(t, one.into(group, "f"))
	one.worker(1, echo)
	two := one.another("api-2", several, func(r *rig, _ *Options, t *times) {
		r.documents.away.Store(true)
		t.groupsEvery = 100 * time.Millisecond
	})
	two.knows()
	rec := endedAgo(0)
	_, err := two.bus.Bus.CreateRecord(t.Context(), &rec)
	noError(t, err)
	if got := two.becomes(rec.ID, faena.StateSucceeded); got.ID != rec.ID {
		t.Errorf("the record is %+v", got)
	}
	two.documents.away.Store(false)
	two.knows("gpu")
	if got, err := two.call("x"); err != nil || string(got.Result.Inline) != "x" {
		t.Errorf("the call gives %+v, %v", got, err)
	}
}
