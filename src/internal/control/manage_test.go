package control

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

func TestControl_PutUser(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := r.another("api-2")
	created, err := r.PutUser(t.Context(), faena.User{Name: "ann"}, "secret")
	noError(t, err)
	u, err := r.User(t.Context(), "ann")
	noError(t, err)
	if !created || u.Role != faena.RoleUser || u.Groups[group] != faena.DefaultSlots || u.PasswordHash != "hash of secret" || u.CreatedAt.IsZero() {
		t.Errorf("created is %v, the user %+v", created, u)
	}
	created, err = r.PutUser(t.Context(), faena.User{Name: "ann", Role: faena.RoleAdmin, Groups: map[string]int{group: 3}}, "")
	noError(t, err)
	again, err := other.User(t.Context(), "ann")
	noError(t, err)
	if created || again.Role != faena.RoleAdmin || again.Groups[group] != 3 || again.PasswordHash != u.PasswordHash || !again.CreatedAt.Equal(u.CreatedAt) {
		t.Errorf("created is %v, the user %+v", created, again)
	}
	for _, c := range []struct {
		name     string
		user     faena.User
		password string
		kind     faena.Kind
	}{
		{"ABadName", faena.User{Name: "a:b"}, "", faena.KindInvalid},
		{"ALimitOfNone", faena.User{Name: "bob", Groups: map[string]int{group: 0}}, "", faena.KindInvalid},
		{"AnUnknownGroup", faena.User{Name: "bob", Groups: map[string]int{"gpu": 1}}, "", faena.KindInvalid},
		{"APasswordThatCannotBeSent", faena.User{Name: "bob"}, "a b", faena.KindInvalid},
		{"ANameInAnotherCase", faena.User{Name: "Ann"}, "", faena.KindConflict},
	} {
		_, err := r.PutUser(t.Context(), c.user, c.password)
		if !faena.IsKind(err, c.kind) {
			t.Errorf("%s: the error is %v", c.name, err)
		}
	}
	if list, err := r.Users(t.Context(), "", 10); err != nil || len(list) != 1 {
		t.Errorf("there are %v, %v", list, err)
	}
}

// A new password holds at once, in every API.
func TestControl_SetPassword(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := r.another("api-2")
	other.hearsOnly()
	r.user("ann", 1)
	noError(t, r.SetPassword(t.Context(), "ann", "new"))
	u, err := other.Profile(t.Context(), "ann")
	noError(t, err)
	if u.PasswordHash != "hash of new" {
		t.Errorf("the hash is %q", u.PasswordHash)
	}
	noError(t, r.SetPassword(t.Context(), "ann", "newer"))
	faenatest.EventuallyNil(t, patience, "the other API has forgotten it", func() error {
		u, err := other.Profile(t.Context(), "ann")
		if err == nil && u.PasswordHash != "hash of newer" {
			err = errors.New(u.PasswordHash)
		}
		return err
	})
	other.passwords.mu.Lock()
	defer other.passwords.mu.Unlock()
	if !slices.Contains(other.passwords.forgot, "ann") {
		t.Error("the other API still believes the old password")
	}
	isKind(t, r.SetPassword(t.Context(), "bob", "new"), faena.KindNotFound)
	isKind(t, r.SetPassword(t.Context(), "ann", "a:b"), faena.KindInvalid)
}

func TestControl_DeleteUser(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := r.another("api-2")
	other.hearsOnly()
	r.user("ann", 10)
	r.deploy("ann", "f")
	g := newGate()
	w := r.worker(1, echo)
	if _, err := other.call("x"); err != nil { // it knows her, and has a history
		t.Fatal(err)
	}
	r.stored(1)
	w.does(g.run)
	r.accepted("running")
	faenatest.Eventually(t, patience, "one runs", func() bool { return g.running.Load() == 1 })
	r.accepted("queued")
	r.accepted("queued")

	noError(t, r.DeleteUser(t.Context(), "ann"))
	faenatest.Eventually(t, patience, "nothing is live", func() bool {
		live, err := r.bus.LiveRecords(t.Context(), group, "ann")
		return err == nil && len(live) == 0
	})
	if n := w.ran.Load(); n != 2 {
		t.Errorf("%d ran", n)
	}
	if list := r.stored(0); len(list) != 0 {
		t.Errorf("the history has %d", len(list))
	}
	_, err := r.User(t.Context(), "ann")
	isKind(t, err, faena.KindNotFound)
	faenatest.EventuallyNil(t, patience, "the other API refuses her", func() error {
		if _, err := other.call("x"); !faena.IsKind(err, faena.KindNotFound) {
			return err
		}
		return nil
	})
	isKind(t, r.DeleteUser(t.Context(), "ann"), faena.KindNotFound)
	_, err = r.PutUser(t.Context(), faena.User{Name: "ann"}, "")
	isKind(t, err, faena.KindConflict)
	r.nats.counters(t, "ann", map[string]string{activeCounter: "0", completedCounter: "0"})
}

// An installation keeps an admin: nobody else could make one.
func TestControl_LastAdmin(t *testing.T) {
	t.Parallel()
	r := start(t)
	put := func(name string, role faena.Role) error {
		_, err := r.PutUser(t.Context(), faena.User{Name: name, Role: role}, "")
		return err
	}
	noError(t, put("root", faena.RoleAdmin))
	noError(t, put("ann", faena.RoleUser))
	noError(t, put("root", faena.RoleAdmin)) // changes nothing
	isKind(t, put("root", faena.RoleUser), faena.KindConflict)
	isKind(t, r.DeleteUser(t.Context(), "root"), faena.KindConflict)
	noError(t, put("zoe", faena.RoleAdmin))
	noError(t, put("root", faena.RoleUser))
	isKind(t, r.DeleteUser(t.Context(), "zoe"), faena.KindConflict)
	noError(t, r.DeleteUser(t.Context(), "root"))
	noError(t, r.DeleteUser(t.Context(), "ann"))
}

// What could not be cancelled at the first try is cancelled by the second, although the user is gone.
func TestControl_DeleteUser_Again(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	r.accepted("queued")
	noError(t, r.documents.EraseUser(t.Context(), "ann")) // and then the queue was away
	noError(t, r.DeleteUser(t.Context(), "ann"))
	busy, err := r.bus.BusySlots(t.Context(), group, "ann")
	if err != nil || len(busy) != 0 {
		t.Errorf("slots in use are %v, %v", busy, err)
	}
}

func TestControl_Deploy(t *testing.T) {
	t.Parallel()
	r := start(t)
	other := r.another("api-2")
	other.hearsOnly()
	r.user("ann", 10)
	w := r.worker(1, func(j *job) (string, faena.Reason) { return j.message.Revision.Digest, "" })

	creds := &faena.Credentials{Username: "robot", Password: "s3cret"}
	f, rev, created, warnings, err := r.Deploy(t.Context(), "ann", faena.Deployment{Name: "f", Registry: creds,
		Spec: faena.Spec{Image: "registry.example.org/f:1", Input: faena.InputStdin, WritableRoot: true}})
	noError(t, err)
	if !created || f.Current != 1 || rev.Number != 1 || len(warnings) != 1 || rev.Spec.MemoryBytes != faena.DefaultMemoryBytes {
		t.Errorf("created is %v, the head %+v, the revision %+v, the warnings %q", created, f, rev, warnings)
	}
	if !strings.HasSuffix(rev.Pull, "+amd64") || *r.resolver.creds != *creds || !strings.HasPrefix(string(rev.Sealed), "for default: ") ||
		strings.Contains(string(rev.Sealed), creds.Password) {
		t.Errorf("the revision is %+v", rev)
	}
	first, err := other.call("")
	noError(t, err)
	if string(first.Result.Inline) != rev.Digest {
		t.Errorf("what ran is %s", first.Result.Inline)
	}

	second := r.deploy("ann", "f")
	faenatest.Eventually(t, patience, "the other API runs the new one", func() bool {
		rec, err := other.call("")
		return err == nil && rec.Revision == 2 && string(rec.Result.Inline) != rev.Digest
	})
	f, _, err = r.Rollback(t.Context(), "ann", "f", 0, faena.Condition{IfMatch: second.ETag()})
	noError(t, err)
	rec, err := r.call("")
	noError(t, err)
	if f.Current != 1 || rec.Revision != 1 {
		t.Errorf("the head is %+v, what ran %d", f, rec.Revision)
	}
	_, _, err = r.Rollback(t.Context(), "ann", "f", 0, faena.Condition{})
	if e := isKind(t, err, faena.KindConflict); e.Reason != "no_earlier_revision" {
		t.Errorf("the error is %+v", e)
	}
	_, _, err = r.Rollback(t.Context(), "ann", "f", 9, faena.Condition{})
	isKind(t, err, faena.KindNotFound)
	if list, err := r.Revisions(t.Context(), "ann", "f", 0, 10); err != nil || len(list) != 2 || list[0].Number != 2 {
		t.Errorf("the revisions are %v, %v", list, err)
	}
	_, err = r.Revisions(t.Context(), "ann", "absent", 0, 10)
	isKind(t, err, faena.KindNotFound)
	if w.ran.Load() < 3 {
		t.Errorf("%d ran", w.ran.Load())
	}
}

// A deployment that is refused changes nothing: the revision before goes on serving.
func TestControl_Deploy_Refused(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	denied := &faena.Error{Kind: faena.KindInvalid, Reason: string(faena.ReasonImageDenied), Component: faena.ComponentRegistry, Message: "Denied."}
	big := map[string]string{"A": strings.Repeat("x", 100_000), "B": strings.Repeat("x", 100_000), "C": strings.Repeat("x", 100_000)}
	for _, c := range []struct {
		name   string
		d      faena.Deployment
		err    error
		config faena.ImageConfig
		kind   faena.Kind
		reason string
	}{
		{name: "ABadName", d: faena.Deployment{Name: "F", Spec: faena.Spec{Image: "i"}}, kind: faena.KindInvalid, reason: "invalid"},
		{name: "ABadSpec", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i", PIDs: -1}}, kind: faena.KindInvalid, reason: "invalid"},
		{name: "AGroupThatIsNotGranted", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i", Group: "gpu"}}, kind: faena.KindInvalid, reason: "invalid"},
		{name: "AnImageThatIsDenied", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i"}}, err: denied, kind: faena.KindInvalid, reason: "image_denied"},
		{name: "NoCommand", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i"}}, config: faena.ImageConfig{Entrypoint: []string{}},
			kind: faena.KindInvalid, reason: "no_command"},
		{name: "AVolumeThatCannotBe", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i"}},
			config: faena.ImageConfig{Entrypoint: []string{"/f"}, Volumes: []string{"/data", "/dev/shm", "/proc/x"}}, kind: faena.KindInvalid, reason: "volume_impossible"},
		{name: "ARevisionThatIsTooLarge", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i", Env: big}}, kind: faena.KindTooLarge, reason: "revision_too_large"},
		{name: "AConditionThatDoesNotHold", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i"}, Condition: faena.Condition{IfMatch: `"x"`}},
			kind: faena.KindPrecondition, reason: "precondition_failed"},
		{name: "AConditionComesBeforeTheRegistry", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i"}, Condition: faena.Condition{IfNoneMatch: true}},
			err: denied, kind: faena.KindPrecondition, reason: "precondition_failed"},
		{name: "OneThatMustBeNew", d: faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i"}, Condition: faena.Condition{IfNoneMatch: true}},
			kind: faena.KindPrecondition, reason: "precondition_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.resolver.err, r.resolver.config = c.err, c.config
			defer func() { r.resolver.err, r.resolver.config = nil, faena.ImageConfig{} }()
			_, _, _, _, err := r.Deploy(t.Context(), "ann", c.d)
			if e := isKind(t, err, c.kind); e.Reason != c.reason {
				t.Errorf("the error is %+v", e)
			}
		})
	}
	f, rev, err := r.Function(t.Context(), "ann", "f")
	if err != nil || f.Latest != 1 || rev.Number != 1 {
		t.Errorf("the head is %+v, %v", f, err)
	}
	if list, err := r.Functions(t.Context(), "ann", "", 10); err != nil || len(list) != 1 {
		t.Errorf("the functions are %v, %v", list, err)
	}
	_, _, _, _, err = r.Deploy(t.Context(), "bob", faena.Deployment{Name: "f", Spec: faena.Spec{Image: "i"}})
	isKind(t, err, faena.KindNotFound)
}

// Deleting a function ends what is queued of it and tells who waits; what runs goes on, and so do other functions.
func TestControl_Delete(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.user("ann", 10)
	r.deploy("ann", "f")
	r.deploy("ann", "g")
	g := newGate()
	w := r.worker(1, g.run)
	running := r.accepted("running")
	faenatest.Eventually(t, patience, "one runs", func() bool { return g.running.Load() == 1 })
	queued := r.accepted("queued")
	rec, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "g", Async: true})
	noError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		if rec, err := r.call("waits"); err != nil || rec.State != faena.StateCancelled || rec.Reason != faena.ReasonFunctionDeleted {
			t.Errorf("the call gives %+v, %v", rec, err)
		}
	})
	faenatest.Eventually(t, patience, "all are in", func() bool {
		busy, err := r.bus.BusySlots(t.Context(), group, "ann")
		return err == nil && len(busy) == 4
	})
	isKind(t, r.Delete(t.Context(), "ann", "f", faena.Condition{IfMatch: `"x"`}), faena.KindPrecondition)
	noError(t, r.Delete(t.Context(), "ann", "f", faena.Condition{}))
	wg.Wait()
	if rec := r.becomes(queued, faena.StateCancelled); rec.Reason != faena.ReasonFunctionDeleted {
		t.Errorf("the record is %+v", rec)
	}
	_, err = r.call("x")
	isKind(t, err, faena.KindNotFound)
	close(g.open)
	r.becomes(running, faena.StateSucceeded)
	r.becomes(rec.ID, faena.StateSucceeded)
	isKind(t, r.Delete(t.Context(), "ann", "f", faena.Condition{}), faena.KindNotFound)
	if list, err := r.Activations(t.Context(), faena.HistoryQuery{User: "ann", Function: "f", Limit: 10}); err != nil || len(list) != 3 {
		t.Errorf("the history has %d, %v", len(list), err)
	}
	if n := w.ran.Load(); n != 2 {
		t.Errorf("%d ran", n)
	}
	r.quiet()
}

func TestControl_Workers(t *testing.T) {
	t.Parallel()
	r := start(t)
	if list, err := r.Workers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("there are %v, %v", list, err)
	}
	w := r.worker(3, echo)
	if list, err := r.Workers(t.Context()); err != nil || len(list) != 1 || list[0].ID != w.id || list[0].Places != 3 {
		t.Errorf("there are %v, %v", list, err)
	}
	w.stop()
	if list, err := r.Workers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("there are %v, %v", list, err)
	}
}
