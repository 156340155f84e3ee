package faenatest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// clause is one sentence of the contract of faena.Documents.
type clause struct {
	name string
	test func(t *testing.T, s faena.Documents)
}

// Documents is the contract of the port faena.Documents as tests: an adapter runs them all. open returns a store that
// is empty, and closes it when the test ends.
func Documents(t *testing.T, open func(t testing.TB) faena.Documents) {
	for _, part := range []struct {
		name    string
		clauses []clause
	}{
		{"Functions", functionClauses},
		{"Conditions", conditionClauses},
		{"Users", userClauses},
		{"Erasure", erasureClauses},
		{"Groups", groupClauses},
		{"History", historyClauses},
		{"Pages", pageClauses},
		{"Usage", usageClauses},
		{"Pruning", pruneClauses},
		{"Retention", retentionClauses},
		{"Parallel", parallelClauses},
		{"Schema", schemaClauses},
		{"Store", storeClauses},
	} {
		t.Run(part.name, func(t *testing.T) {
			for _, c := range part.clauses {
				t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
			}
		})
	}
}

var storeClauses = []clause{
	{"Pings", func(t *testing.T, s faena.Documents) {
		ok(t, s.Ping(t.Context()))
	}},
	{"EveryCallIsListed", func(t *testing.T, s faena.Documents) {
		if want := reflect.TypeFor[faena.Documents]().NumMethod() - 1; len(calls(s)) != want {
			t.Errorf("the suite calls %d methods, the port has %d", len(calls(s)), want)
		}
	}},
	{"EveryCallHonoursTheContext", func(t *testing.T, s faena.Documents) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, call := range calls(s) {
			if err := call(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%s with a context that has ended returns %v", name, err)
			}
		}
	}},
	{"ClosedIsUnavailable", func(t *testing.T, s faena.Documents) {
		ok(t, s.Close())
		for name, call := range calls(s) {
			err := call(t.Context())
			e, isError := errors.AsType[*faena.Error](err)
			if !isError || e.Kind != faena.KindUnavailable || e.Component != faena.ComponentStore || !e.Retryable {
				t.Errorf("%s of a closed store returns %v, want a retryable Error that says unavailable and store", name, err)
			}
		}
		ok(t, s.Close())
	}},
	{"CloseWaitsForWhatIsUnderWay", func(t *testing.T, s faena.Documents) {
		var stored atomic.Int64
		var wg sync.WaitGroup
		started := make(chan struct{}, 4)
		for i := range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					if err := s.Insert(t.Context(), []faena.Record{record("ann", 1000*i+n)}); err != nil {
						kind(t, err, faena.KindUnavailable)
						return
					}
					stored.Add(1)
					if n == 0 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 4 {
			<-started
		}
		ok(t, s.Close())
		wg.Wait()
	}},
}

// calls are all methods but Close, each with arguments that would do.
func calls(s faena.Documents) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"AddRevision": func(ctx context.Context) error {
			_, _, err := s.AddRevision(ctx, revision("ann", "resize"), faena.Condition{})
			return err
		},
		"SetCurrent": func(ctx context.Context) error {
			_, err := s.SetCurrent(ctx, "ann", "resize", 1, faena.Condition{})
			return err
		},
		"Function":  func(ctx context.Context) error { _, err := s.Function(ctx, "ann", "resize"); return err },
		"Functions": func(ctx context.Context) error { _, err := s.Functions(ctx, "ann", "", 10); return err },
		"Revision":  func(ctx context.Context) error { _, err := s.Revision(ctx, "ann", "resize", 1); return err },
		"Revisions": func(ctx context.Context) error { _, err := s.Revisions(ctx, "ann", "resize", 0, 10); return err },
		"DeleteFunction": func(ctx context.Context) error {
			return s.DeleteFunction(ctx, "ann", "resize", faena.Condition{})
		},
		"PutUser":      func(ctx context.Context) error { _, err := s.PutUser(ctx, user("ann")); return err },
		"User":         func(ctx context.Context) error { _, err := s.User(ctx, "ann"); return err },
		"Users":        func(ctx context.Context) error { _, err := s.Users(ctx, "", 10); return err },
		"SetPassword":  func(ctx context.Context) error { return s.SetPassword(ctx, "ann", "$argon2id$new") },
		"EraseUser":    func(ctx context.Context) error { return s.EraseUser(ctx, "ann") },
		"PutGroup":     func(ctx context.Context) error { _, err := s.PutGroup(ctx, group("gpu")); return err },
		"Group":        func(ctx context.Context) error { _, err := s.Group(ctx, "gpu"); return err },
		"Groups":       func(ctx context.Context) error { _, err := s.Groups(ctx); return err },
		"DeleteGroup":  func(ctx context.Context) error { return s.DeleteGroup(ctx, "gpu") },
		"ConnectGroup": func(ctx context.Context) error { return s.ConnectGroup(ctx, "gpu", epoch) },
		"GroupUses":    func(ctx context.Context) error { _, err := s.GroupUses(ctx, "gpu", 10); return err },
		"Insert":       func(ctx context.Context) error { return s.Insert(ctx, []faena.Record{record("ann", 1)}) },
		"Activation":   func(ctx context.Context) error { _, err := s.Activation(ctx, "ann", id(1)); return err },
		"Recorded":     func(ctx context.Context) error { _, err := s.Recorded(ctx, "ann", []string{id(1)}); return err },
		"Activations": func(ctx context.Context) error {
			_, err := s.Activations(ctx, faena.HistoryQuery{User: "ann", Limit: 10})
			return err
		},
		"UserUsage":    func(ctx context.Context) error { _, err := s.UserUsage(ctx, "ann"); return err },
		"UsageByHour":  func(ctx context.Context) error { _, err := s.UsageByHour(ctx, "ann", epoch, 10); return err },
		"Prune":        func(ctx context.Context) error { _, err := s.Prune(ctx, epoch, 10); return err },
		"HistoryStats": func(ctx context.Context) error { _, err := s.HistoryStats(ctx); return err },
		"Ping":         s.Ping,
	}
}

// The documents that the clauses use. Times are whole milliseconds, as every store keeps them.

var epoch = time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)

func revision(user, function string) faena.Revision {
	return faena.Revision{
		Schema: faena.SchemaVersion, User: user, Function: function,
		Spec:   faena.Spec{Image: "registry.example.org/team/" + function + ":1", Env: map[string]string{"LEVEL": "7"}}.WithDefaults(),
		Digest: "sha256:5e", Pull: "registry.example.org/team/" + function + "@sha256:5e", SizeBytes: 2 << 20,
		Config:    faena.ImageConfig{Entrypoint: []string{"/bin/" + function}, Cmd: []string{"-x"}, Env: []string{"PATH=/bin"}},
		Sealed:    []byte("age\x00\xff sealed"),
		CreatedAt: epoch,
	}
}

func user(name string) faena.User {
	return faena.User{Schema: faena.SchemaVersion, Name: name, Role: faena.RoleUser, Groups: map[string]int{faena.DefaultGroup: 20},
		PasswordHash: "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA", CreatedAt: epoch, UpdatedAt: epoch}
}

// id is the n-th activation id; ids are in the order of n.
func id(n int) string { return fmt.Sprintf("0195%04x-%04x-7000-8000-%012x", n>>16, n&0xffff, n) }

// record is the n-th activation of a user: of function "resize", succeeded, n seconds after epoch.
func record(user string, n int) faena.Record {
	started, ended, code := epoch.Add(time.Duration(n)*time.Second), epoch.Add(time.Duration(n)*time.Second+50*time.Millisecond), 0
	return faena.Record{
		Schema: faena.SchemaVersion, ID: id(n), User: user, Group: faena.DefaultGroup, Function: "resize", Revision: 3,
		Digest: "sha256:5e", RequestID: "req-1", Slot: 2, Publication: 1, StartWithinMS: 640_000,
		State: faena.StateSucceeded, Attempt: 1, Worker: "w1", Sequence: 99, ExitCode: &code, Warm: true,
		Remarks: []string{"pids limit met 3 times"},
		Result:  faena.Blob{Size: 5, Inline: []byte("a\x00\xff\r\n")},
		Log:     faena.Blob{Size: 4, Inline: []byte("log\n"), Truncated: true, Dropped: 12},
		Timings: faena.Timings{QueueUS: 300, RunUS: 1000, TotalUS: 1500}, AdmittedAt: epoch.Add(time.Duration(n) * time.Second),
		StartedAt: &started, EndedAt: &ended,
	}
}

// failed is record(user, n) for another function, failed for a reason.
func failed(user string, n int, function string, reason faena.Reason) faena.Record {
	e, _ := faena.Explain(reason)
	r := record(user, n)
	r.Function, r.State, r.Reason, r.Message = function, e.State, reason, "It "+string(reason)+"."
	return r
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kind checks that err has kind k.
func kind(t testing.TB, err error, k faena.Kind) {
	t.Helper()
	if !faena.IsKind(err, k) {
		t.Errorf("the error is %v, want one of kind %s", err, k)
	}
}

// same compares documents as they are written: empty and absent are the same.
func same(t testing.TB, got, want any) {
	t.Helper()
	g, err := json.Marshal(got)
	ok(t, err)
	w, err := json.Marshal(want)
	ok(t, err)
	if string(g) != string(w) {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}

// must returns v, or fails the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		ok(t, err)
		return v
	}
}
