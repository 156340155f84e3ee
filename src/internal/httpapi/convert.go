package httpapi

import (
	"unicode/utf8"

	"faena.dev/faena/internal/faena"
)

// The domain's values in the contract's words. What is not named here is never shown.

func specOf(s Spec) faena.Spec {
	return faena.Spec{Image: s.Image, Command: s.Command, Args: s.Args, Input: faena.Input(s.Input), TimeoutMS: s.TimeoutMs,
		MemoryBytes: s.MemoryBytes, CPUs: s.Cpus, PIDs: s.Pids, ResultLimitBytes: s.ResultLimitBytes, TmpfsBytes: s.TmpfsBytes,
		Env: s.Env, Isolation: faena.Isolation(s.Isolation), Warm: s.Warm, Group: s.Group, Capabilities: s.Capabilities,
		WritableRoot: s.WritableRoot, Labels: s.Labels, Retries: s.Retries, RetryOn: words[faena.Reason](s.RetryOn),
		RetryDelayMS: s.RetryDelayMs, RetryMaxDelayMS: s.RetryMaxDelayMs}
}

func showSpec(s faena.Spec) Spec {
	return Spec{Image: s.Image, Command: s.Command, Args: s.Args, Input: Input(s.Input), TimeoutMs: s.TimeoutMS,
		MemoryBytes: s.MemoryBytes, Cpus: s.CPUs, Pids: s.PIDs, ResultLimitBytes: s.ResultLimitBytes, TmpfsBytes: s.TmpfsBytes,
		Env: s.Env, Isolation: Isolation(s.Isolation), Warm: s.Warm, Group: s.Group, Capabilities: s.Capabilities,
		WritableRoot: s.WritableRoot, Labels: s.Labels, Retries: s.Retries, RetryOn: words[string](s.RetryOn),
		RetryDelayMs: s.RetryDelayMS, RetryMaxDelayMs: s.RetryMaxDelayMS}
}

// words turns a list of words into one of another type; nil stays nil.
func words[U, T ~string](list []T) (out []U) {
	for _, w := range list {
		out = append(out, U(w))
	}
	return out
}

func showRevision(r faena.Revision) Revision {
	return Revision{Revision: r.Number, Spec: showSpec(r.Spec), Digest: r.Digest, Pull: r.Pull, SizeBytes: r.SizeBytes,
		RegistryCredentials: len(r.Sealed) > 0, Entrypoint: r.Config.Entrypoint, Cmd: r.Config.Cmd, CreatedAt: r.CreatedAt}
}

func showFunction(f faena.Function, r faena.Revision, warnings []string) Function {
	return Function{Name: f.Name, Current: f.Current, Latest: f.Latest, Revision: showRevision(r), Warnings: warnings,
		CreatedAt: f.CreatedAt, UpdatedAt: f.UpdatedAt}
}

func showHead(f faena.Function) FunctionHead {
	return FunctionHead{Name: f.Name, Current: f.Current, Latest: f.Latest, CreatedAt: f.CreatedAt, UpdatedAt: f.UpdatedAt}
}

// showRecord shows a record without the bytes of its result and log.
func showRecord(r faena.Record) Activation {
	a := Activation{ActivationID: r.ID, Function: r.Function, Revision: r.Revision, Digest: r.Digest, Group: r.Group,
		State: State(r.State), Reason: string(r.Reason), Message: r.Message, CancelRequested: r.CancelRequested, Attempt: r.Attempt,
		Worker: r.Worker, ExitCode: r.ExitCode, Signal: r.Signal, Warm: r.Warm, PeakMemoryBytes: r.PeakMemoryBytes,
		Remarks: r.Remarks, Result: showSize(r.Result), Log: showSize(r.Log), Timings: Timings{QueueUs: r.Timings.QueueUS,
			PullUs: r.Timings.PullUS, StartUs: r.Timings.StartUS, RunUs: r.Timings.RunUS, StoreUs: r.Timings.StoreUS, TotalUs: r.Timings.TotalUS},
		Backlogged: r.Backlogged && !r.State.Terminal(), NotBefore: r.NotBefore, RedrivenFrom: r.RedrivenFrom, // what ended in the backlog does not wait
		Traceparent: r.Traceparent, RequestID: r.RequestID, AdmittedAt: r.AdmittedAt, StartedAt: r.StartedAt, EndedAt: r.EndedAt}
	for _, f := range r.Failures {
		a.Failures = append(a.Failures, AttemptFailure{Attempt: f.Attempt, Reason: string(f.Reason), Message: f.Message, Worker: f.Worker, EndedAt: f.EndedAt})
	}
	if e, ok := faena.Explain(r.Reason); ok {
		a.Component, a.Retryable = Component(e.Component), e.Retryable
	}
	return a
}

func showSize(b faena.Blob) Output {
	return Output{Size: b.Size, Truncated: b.Truncated, Dropped: b.Dropped}
}

// include adds the bytes of an output.
func (o *Output) include(p []byte) {
	switch {
	case len(p) == 0:
	case utf8.Valid(p):
		o.Text = string(p)
	default:
		o.Base64 = p
	}
}

// showDeadLetter shows a dead letter without the bytes of its parameter.
func showDeadLetter(d faena.DeadLetter) DeadLetter {
	return DeadLetter{ActivationID: d.ID, User: d.User, Group: d.Group, Function: d.Function, Revision: d.Revision, Reason: string(d.Reason),
		Message: d.Message, Attempts: d.Attempts, Worker: d.Worker, Parameter: showSize(d.Parameter), Unreadable: len(d.Raw) > 0, At: d.At}
}

func showRedriven(all faena.Redriven) Redriven {
	return Redriven{
		Redriven: each(all.Accepted, func(r faena.Redrive) Redrive { return Redrive{From: r.From, ActivationID: r.ID} }),
		Refused: each(all.Refused, func(r faena.Redrive) RedriveRefusal {
			return RedriveRefusal{From: r.From, Reason: r.Err.Reason, Message: r.Err.Message, Retryable: r.Err.Retryable}
		})}
}

func showUser(u faena.User) User {
	return User{Name: u.Name, Role: Role(u.Role), Groups: u.Groups, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt}
}

func showWorker(w faena.Worker) Worker {
	var engine *Engine
	if w.Engine != nil {
		engine = &Engine{Version: w.Engine.Version, Advice: w.Engine.Advice}
	}
	return Worker{ID: w.ID, Group: w.Group, Host: w.Host, Version: w.Version, Places: w.Places, MemoryBytes: w.MemoryBytes,
		MilliCpus: w.MilliCPUs, Busy: w.Busy, Containers: w.Containers, Ready: w.NotReady == "" && !w.Draining, NotReady: w.NotReady, Unfiltered: w.Unfiltered,
		Draining: w.Draining, Engine: engine, StartedAt: w.StartedAt, SeenAt: w.SeenAt}
}

func showGroup(g faena.GroupState) Group {
	state := GroupStateReady
	if g.Pending() {
		state = GroupStatePending
	}
	return Group{Name: g.Name, Nkey: g.Nkey, Recipient: g.Recipient, State: state, Workers: g.Workers, Ready: g.Ready, Active: g.Active,
		CreatedAt: g.CreatedAt, UpdatedAt: g.UpdatedAt}
}

func showDiagnosis(d faena.Diagnosis) Diagnosis {
	return Diagnosis{Instance: d.Instance, Version: d.Version, Leader: d.Leader,
		Servers: each(d.Servers, func(s faena.QueueServer) QueueServer {
			return QueueServer{Address: s.Address, Name: s.Name, Version: s.Version, Problem: s.Problem}
		}),
		Streams: each(d.Streams, func(s faena.StreamHealth) StreamHealth {
			return StreamHealth{Name: s.Name, Group: s.Group, Replicas: s.Replicas, Wanted: s.Wanted, Leader: s.Leader, Behind: s.Behind, Problem: s.Problem}
		}),
		Documents: DocumentsHealth{Kind: d.Documents.Kind, Problem: d.Documents.Problem, Warning: d.Documents.Warning},
		Clocks: each(d.Clocks, func(c faena.ClockDifference) ClockDifference {
			return ClockDifference{Of: c.Of, AheadMs: c.Ahead.Milliseconds()}
		}),
		Unreadable: each(d.Unreadable, func(u faena.Unreadable) Unreadable {
			return Unreadable{Where: u.Where, Group: u.Group, User: u.User, ActivationID: u.ID, Schema: u.Schema, Problem: u.Problem,
				Sequence: int64(u.Sequence)}
		})}
}
