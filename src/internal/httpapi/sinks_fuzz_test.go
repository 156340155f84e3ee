package httpapi

import (
	"bytes"
	"context"
	"time"

	"faena.dev/faena/internal/faena"
)

// The ports of FuzzAPI, each with what its use cases rely on.
type (
	functionSink   struct{ s *sink }
	activationSink struct{ s *sink }
	userSink       struct{ s *sink }
	groupSink      struct{ s *sink }
	workerSink     struct{ s *sink }
	letterSink     struct{ s *sink }
)

func (f functionSink) Deploy(_ context.Context, _ string, d faena.Deployment) (faena.Function, faena.Revision, bool, []string, error) {
	if c := d.Registry; c != nil {
		f.s.secrets = append(f.s.secrets, c.Password)
		if c.Username == "" || c.Password == "" {
			f.s.t.Error("a registry's credentials are empty")
		}
	}
	if err := f.s.name(d.Name); err != nil {
		return faena.Function{}, faena.Revision{}, false, nil, err
	}
	if err := f.s.spec(d.Spec); err != nil {
		return faena.Function{}, faena.Revision{}, false, nil, err
	}
	if err := d.Condition.Check(head(d.Name), f.s.pick%2 == 0); err != nil {
		return faena.Function{}, faena.Revision{}, false, nil, err
	}
	rev := revision(d.Name)
	rev.Spec = d.Spec.WithDefaults()
	return head(d.Name), rev, f.s.pick%4 == 0, []string{"a warning"}, nil
}

func head(name string) faena.Function {
	return faena.Function{Name: name, Current: 1, Latest: 2, CreatedAt: time.Unix(1, 0).UTC(), UpdatedAt: time.Unix(2, 0).UTC()}
}

func revision(name string) faena.Revision {
	return faena.Revision{Function: name, Number: 1, Spec: faena.Spec{Image: "a"}.WithDefaults(), CreatedAt: time.Unix(1, 0).UTC(),
		Digest: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Pull: "a@sha256:aaaa"}
}

func (f functionSink) Function(_ context.Context, _, name string) (faena.Function, faena.Revision, error) {
	return head(name), revision(name), f.s.name(name)
}

func (f functionSink) Functions(_ context.Context, _, after string, limit int) ([]faena.Function, error) {
	f.s.page(limit, after, faena.ValidName)
	return []faena.Function{head("a"), head("b")}, f.s.fail(after)
}

func (f functionSink) Revisions(_ context.Context, _, name string, below, limit int) ([]faena.Revision, error) {
	f.s.page(limit, "", nil)
	if below < 0 {
		f.s.t.Errorf("revisions below %d", below)
	}
	return []faena.Revision{revision(name), revision(name)}, f.s.name(name)
}

func (f functionSink) Rollback(_ context.Context, _, name string, number int, c faena.Condition) (faena.Function, faena.Revision, error) {
	if number < 0 {
		f.s.t.Errorf("back to %d", number)
	}
	if err := c.Check(head(name), true); err != nil {
		return faena.Function{}, faena.Revision{}, err
	}
	return head(name), revision(name), f.s.name(name)
}

func (f functionSink) Delete(_ context.Context, _, name string, c faena.Condition) error {
	if err := c.Check(head(name), true); err != nil {
		return err
	}
	return f.s.name(name)
}

// request checks what Activate relies on.
func (a activationSink) request(r faena.ActivationRequest) (faena.Record, error) {
	if r.User != "ann" || !bytes.Equal(r.Parameter, a.s.parameter) || r.Expires < 0 || r.Expires > maxExpires*time.Second || r.ID != "" || r.RedrivenFrom != "" || r.Revision != 0 {
		a.s.t.Errorf("the request is %+v, the parameter %x", r, a.s.parameter)
	}
	if !validTraceparent(r.Traceparent) || len(r.RequestID) < 1 || len(r.RequestID) > 128 {
		a.s.t.Errorf("the trace is %q, the request's id %q", r.Traceparent, r.RequestID)
	}
	if err := a.s.name(r.Function); err != nil {
		return faena.Record{}, err
	}
	rec := a.s.record(r.User, madeID)
	rec.Traceparent, rec.RequestID = r.Traceparent, r.RequestID
	return rec, nil
}

func (a activationSink) Activate(_ context.Context, r faena.ActivationRequest) (faena.Record, error) {
	return a.request(r)
}

func (a activationSink) ActivateOnce(_ context.Context, key string, r faena.ActivationRequest) (faena.Record, bool, error) {
	if len(key) < 1 || len(key) > 255 {
		a.s.t.Errorf("the key is %q", key)
	}
	rec, err := a.request(r)
	return rec, a.s.pick%2 == 0, err
}

func (a activationSink) Activation(_ context.Context, user, id string) (faena.Record, error) {
	if err := a.s.id(id); err != nil {
		return faena.Record{}, err
	}
	return a.s.record(user, id), nil
}

func (a activationSink) Cancel(ctx context.Context, user, id string) (faena.Record, error) {
	return a.Activation(ctx, user, id)
}

func (a activationSink) Activations(_ context.Context, q faena.HistoryQuery) ([]faena.Record, error) {
	a.s.page(q.Limit, q.Before, faena.ValidActivationID)
	return []faena.Record{a.s.record(q.User, madeID), a.s.record(q.User, madeID), a.s.record(q.User, madeID)}, a.s.fail(q.Function)
}

func (a activationSink) Result(ctx context.Context, user, id string) (faena.Record, []byte, error) {
	r, err := a.Activation(ctx, user, id)
	return r, a.s.parameter, err
}

func (a activationSink) ResultOf(context.Context, *faena.Record) ([]byte, error) {
	return a.s.parameter, nil
}

func (a activationSink) Logs(ctx context.Context, user, id string) (faena.Record, []byte, error) {
	return a.Result(ctx, user, id)
}

func (a activationSink) FollowLogs(ctx context.Context, user, id string, fn func(int64, []byte) error) (faena.Record, error) {
	r, err := a.Activation(ctx, user, id)
	if err != nil {
		return r, err
	}
	return r, fn(int64(a.s.pick), a.s.parameter)
}

func (u userSink) profile(name string) (faena.User, error) {
	if !faena.ValidUser(name) {
		return faena.User{}, faena.NotFound("user", name)
	}
	return faena.User{Name: name, Role: faena.RoleUser, Groups: map[string]int{"default": 1}, CreatedAt: time.Unix(1, 0).UTC(), UpdatedAt: time.Unix(1, 0).UTC()}, u.s.fail(name)
}

func (u userSink) PutUser(_ context.Context, p faena.User, password string) (bool, error) {
	u.s.secrets = append(u.s.secrets, password)
	_, err := u.profile(p.Name)
	return u.s.pick%2 == 0, err
}

func (u userSink) User(_ context.Context, name string) (faena.User, error) { return u.profile(name) }

func (u userSink) Users(_ context.Context, after string, limit int) ([]faena.User, error) {
	u.s.page(limit, after, faena.ValidUser)
	p, err := u.profile("bob")
	return []faena.User{p, p}, err
}

func (u userSink) DeleteUser(_ context.Context, name string) error {
	_, err := u.profile(name)
	return err
}

func (u userSink) SetPassword(_ context.Context, name, password string) error {
	u.s.secrets = append(u.s.secrets, password)
	_, err := u.profile(name)
	return err
}

func (u userSink) Usage(_ context.Context, name string) (faena.UserUsage, error) {
	_, err := u.profile(name)
	return faena.UserUsage{Active: 1, Limit: 2}, err
}

func (g groupSink) state(group faena.Group) (faena.GroupState, error) {
	if err := group.Validate(); err != nil {
		return faena.GroupState{}, err
	}
	return faena.GroupState{Group: group}, g.s.fail(group.Name)
}

func (g groupSink) Groups(context.Context) ([]faena.GroupState, error) {
	state, err := g.state(faena.Group{Name: "gpu"})
	return []faena.GroupState{state}, err
}

func (g groupSink) Group(_ context.Context, name string) (faena.GroupState, error) {
	return g.state(faena.Group{Name: name})
}

func (g groupSink) PutGroup(_ context.Context, group faena.Group) (bool, error) {
	_, err := g.state(group)
	return g.s.pick%2 == 0, err
}

func (g groupSink) DeleteGroup(_ context.Context, name string) error {
	_, err := g.state(faena.Group{Name: name})
	return err
}

func (g groupSink) Diagnose(context.Context) (faena.Diagnosis, error) {
	return faena.Diagnosis{Instance: "a", Version: "b"}, g.s.fail("")
}

func (w workerSink) Workers(context.Context) ([]faena.Worker, error) {
	return []faena.Worker{{ID: "w1", Group: "default", StartedAt: time.Unix(1, 0).UTC(), SeenAt: time.Unix(1, 0).UTC()}}, w.s.fail("")
}

func (w workerSink) DrainWorker(ctx context.Context, id string, drain bool) (faena.Worker, error) {
	list, err := w.Workers(ctx)
	list[0].ID, list[0].Draining = id, drain
	return list[0], err
}

func (w workerSink) Ready(context.Context) ([]string, bool) { return nil, w.s.pick%2 == 0 }

func letter(user, id string) faena.DeadLetter {
	return faena.DeadLetter{ID: id, User: user, Group: "default", Function: "tool", Revision: 1, Reason: faena.ReasonWorkerLost, Message: "It was lost.", Attempts: 1, Worker: "w1",
		At: time.Unix(1, 0).UTC()}
}

func (l letterSink) query(q faena.DeadLetterQuery) error {
	if q.User != "" && !faena.ValidUser(q.User) || q.Function != "" && !faena.ValidName(q.Function) || q.From != "" && !faena.ValidActivationID(q.From) || q.Limit < 0 || q.Limit > maxPage+1 {
		l.s.t.Errorf("dead letters of %+v are asked for", q)
	}
	return l.s.fail(q.User)
}

func (l letterSink) DeadLetters(_ context.Context, q faena.DeadLetterQuery) ([]faena.DeadLetter, string, error) {
	return []faena.DeadLetter{letter("ann", madeID)}, madeID, l.query(q)
}

func (l letterSink) DeadLetter(_ context.Context, user, id string) (faena.DeadLetter, error) {
	d := letter(user, id)
	d.Parameter = faena.Blob{Size: int64(len(l.s.parameter)), Inline: l.s.parameter}
	return d, l.s.id(id)
}

func (l letterSink) Redrive(_ context.Context, user, id string, call faena.ActivationRequest) (faena.Record, error) {
	if err := l.s.id(id); err != nil {
		return faena.Record{}, err
	}
	if !validTraceparent(call.Traceparent) || call.User != "" || call.Function != "" {
		l.s.t.Errorf("the call is %+v", call)
	}
	return l.s.record(user, madeID), nil
}

func (l letterSink) RedriveAll(_ context.Context, q faena.DeadLetterQuery, _ faena.ActivationRequest) (faena.Redriven, error) {
	return faena.Redriven{Accepted: []faena.Redrive{{From: madeID, ID: madeID}}, Next: madeID}, l.query(q)
}

func (l letterSink) PurgeDeadLetter(_ context.Context, _, id string) error { return l.s.id(id) }

func (l letterSink) PurgeDeadLetters(_ context.Context, q faena.DeadLetterQuery) (int, error) {
	return 3, l.query(q)
}
