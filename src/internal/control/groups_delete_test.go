package control

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// streams are those of a group.
func (n *natsServer) streams(t *testing.T, group string) (names []string) {
	t.Helper()
	list := n.JetStream(t).StreamNames(t.Context())
	for name := range list.Name() {
		if strings.HasSuffix(name, "-"+group) {
			names = append(names, name)
		}
	}
	noError(t, list.Err())
	slices.Sort(names)
	return names
}

func TestControl_DeleteGroup(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	r.newGroup("gpu")
	if got := r.nats.streams(t, "gpu"); len(got) < 3 {
		t.Errorf("the streams are %v", got)
	}
	inUse := func(words ...string) {
		t.Helper()
		e := isKind(t, r.DeleteGroup(t.Context(), "gpu"), faena.KindConflict)
		for _, w := range words {
			if e.Reason != "group_in_use" || !strings.Contains(e.Message, w) {
				t.Errorf("the error is %s: %q, want %q in it", e.Reason, e.Message, w)
			}
		}
	}
	if e := isKind(t, r.DeleteGroup(t.Context(), group), faena.KindConflict); e.Reason != "default_group" {
		t.Errorf("the error is %+v", e)
	}
	for _, name := range []string{"absent", "g.pu", "*", ">", ""} {
		isKind(t, r.DeleteGroup(t.Context(), name), faena.KindNotFound)
	}
	r.grant("ann", map[string]int{group: 5, "gpu": 5})
	inUse("user ann")
	noError(t, r.into("gpu", "g"))
	id := r.begin("g", "x").ID
	r.grant("ann", map[string]int{group: 5})
	inUse("function ann/g")
	noError(t, r.into(group, "g")) // its earlier revision does not count
	inUse("has work", "1 activation of user ann")
	noError(t, cancelled(r.Cancel(t.Context(), "ann", id)))
	r.stored(1)
	for i := range usesShown + 5 {
		r.grant(fmt.Sprintf("u%02d", i), map[string]int{"gpu": 1})
	}
	inUse("user u00, user u01", "and others")
	for i := range usesShown + 5 {
		r.grant(fmt.Sprintf("u%02d", i), map[string]int{group: 1})
	}
	faenatest.EventuallyNil(t, patience, "it can be removed", func() error { return r.DeleteGroup(t.Context(), "gpu") })
	if got := r.nats.streams(t, "gpu"); len(got) != 0 {
		t.Errorf("the streams are %v", got)
	}
	r.knows()
	isKind(t, r.DeleteGroup(t.Context(), "gpu"), faena.KindNotFound)
	_, err := r.Group(t.Context(), "gpu")
	isKind(t, err, faena.KindNotFound)

	// What was there is told of what it was.
	if rec := r.becomes(id, faena.StateCancelled); rec.Group != "gpu" {
		t.Errorf("the record is %+v", rec)
	}
	_, _, err = r.Rollback(t.Context(), "ann", "g", 1, faena.Condition{})
	isField(t, err, "group", "does not exist or is not granted")
	_, err = r.PutUser(t.Context(), faena.User{Name: "ann", Groups: map[string]int{"gpu": 1}}, "")
	isField(t, err, "groups.gpu", "does not exist")
	old := endedAgo(time.Minute)
	old.Group, old.Result = "gpu", faena.Blob{Size: 1, Object: "out.1"}
	noError(t, r.documents.Insert(t.Context(), []faena.Record{old}))
	_, _, err = r.Result(t.Context(), "ann", old.ID)
	isKind(t, err, faena.KindGone)

	r.newGroup("gpu") // once more, as a new one
	r.grant("ann", map[string]int{group: 5, "gpu": 5})
	noError(t, r.into("gpu", "g"))
	r.workerOf("gpu", "g1", 1, echo)
	rec, err := r.Activate(t.Context(), faena.ActivationRequest{User: "ann", Function: "g", Parameter: []byte("x")})
	if err != nil || string(rec.Result.Inline) != "x" {
		t.Errorf("the call gives %+v, %v", rec, err)
	}
}

// A removal that was cut short is finished by the same call.
func TestControl_DeleteGroup_Again(t *testing.T) {
	t.Parallel()
	r := start(t, several)
	for name, at := range map[string]func(fn func() error){
		"TheStreamsStay":  func(fn func() error) { r.bus.on("RemoveGroup", fn) },
		"TheDocumentIs":   func(fn func() error) { r.documents.on("DeleteGroup", fn) },
		"TheWorkIsHidden": func(fn func() error) { r.bus.on("LiveIDs", fn) },
	} {
		t.Run(name, func(t *testing.T) {
			r.newGroup("gpu")
			at(func() error { return faena.ErrRetry })
			err := r.DeleteGroup(t.Context(), "gpu")
			if err == nil || faena.IsKind(err, faena.KindNotFound) {
				t.Errorf("it ends with %v", err)
			}
			if len(r.nats.streams(t, "gpu")) == 0 {
				t.Error("the streams are gone")
			}
			at(nil)
			if err := r.DeleteGroup(t.Context(), "gpu"); err != nil && !faena.IsKind(err, faena.KindNotFound) {
				t.Error(err)
			}
			if got := r.nats.streams(t, "gpu"); len(got) != 0 {
				t.Errorf("the streams are %v", got)
			}
			r.knows()
		})
	}
}

// An API that reads the groups while one is removed leaves nothing of it behind.
func TestControl_DeleteGroup_WhileItIsRead(t *testing.T) {
	t.Parallel()
	one := start(t, several)
	two := one.another("api-2", several)
	reading, removed := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(reading); <-removed })
	two.bus.on("DeclareGroup", func() error { first(); return nil })
	_, err := one.PutGroup(t.Context(), faena.Group{Name: "gpu"})
	noError(t, err)
	<-reading
	noError(t, one.DeleteGroup(t.Context(), "gpu"))
	close(removed)
	one.knows()
	from := two.documents.count("Groups")
	faenatest.Eventually(t, patience, "the other has read them again", func() bool { return two.documents.count("Groups") > from })
	two.knows()
	if got := one.nats.streams(t, "gpu"); len(got) != 0 {
		t.Errorf("the streams are %v", got)
	}
}
