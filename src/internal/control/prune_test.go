package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// old stores activations of ann's that were admitted a while ago, each with a result and a log that are objects.
func (r *rig) old(ago time.Duration, n int, changes ...func(*faena.Record)) []faena.Record {
	r.t.Helper()
	records := make([]faena.Record, n)
	for i := range records {
		rec := endedAgo(ago)
		rec.Result, rec.Log = faena.Blob{Size: 6, Object: "out." + rec.ID + ".1"}, faena.Blob{Size: 3, Object: "log." + rec.ID + ".1"}
		for _, change := range changes {
			change(&rec)
		}
		for object, data := range map[string]string{rec.Result.Object: "result", rec.Log.Object: "log"} {
			if object != "" {
				noError(r.t, r.bus.PutObject(r.t.Context(), rec.Group, object, []byte(data)))
			}
		}
		records[i] = rec
	}
	noError(r.t, r.documents.Insert(r.t.Context(), records))
	return records
}

func keep(age time.Duration, bytes int64) change {
	return func(_ *rig, o *Options, _ *times) { o.Retention, o.RetentionBytes = age, bytes }
}

// What is older than the retention goes, with its result and log; its usage stays, and who asks for it is told that it has
// expired. What is younger stays, and what is live.
func TestControl_Prune_ByAge(t *testing.T) {
	t.Parallel()
	r := start(t, hasty, keep(24*time.Hour, 0))
	other := r.another("api-2", hasty)
	r.user("ann", 5)
	r.deploy("ann", "f")
	live := r.accepted("live")
	gone := append(r.old(30*time.Hour, 3), r.old(26*time.Hour, 2, func(rec *faena.Record) { rec.State = faena.StateFailed })...)
	young := r.old(22*time.Hour, 2)
	r.history(2)
	faenatest.Eventually(t, patience, "the objects are gone", func() bool { return r.nats.objects(t, group) == 2*len(young) })

	for _, api := range []*rig{r, other} {
		for _, rec := range gone {
			for what, ask := range api.asks() {
				err := ask(rec.ID)
				if e := isKind(t, err, faena.KindGone); e.Reason != "activation_expired" || e.Activation != rec.ID || !strings.Contains(e.Message, "before 20") {
					t.Errorf("the %s of an old one gives %+v", what, e)
				}
			}
		}
		for _, id := range []string{idAt(time.Now()), idAt(time.Now().Add(-22 * time.Hour)), idAt(time.Now().Add(time.Hour))} {
			for _, ask := range api.asks() {
				isKind(t, ask(id), faena.KindNotFound)
			}
		}
		_, p, err := api.Result(t.Context(), "ann", young[0].ID)
		if err != nil || string(p) != "result" {
			t.Errorf("the result of a young one is %q, %v", p, err)
		}
		if _, p, err := api.Logs(t.Context(), "ann", young[1].ID); err != nil || string(p) != "log" {
			t.Errorf("the log of a young one is %q, %v", p, err)
		}
		usage, err := api.Usage(t.Context(), "ann")
		if err != nil || usage.Completed != 5 || usage.Failed != 2 || usage.Active != 1 {
			t.Errorf("the usage is %+v, %v", usage, err)
		}
	}
	r.becomes(live, faena.StateQueued)
	faenatest.Eventually(t, patience, "all are counted", func() bool { return r.observer.prunedSoFar() == len(gone) })
}

// asks are the ways to ask for one of ann's activations.
func (r *rig) asks() map[string]func(id string) error {
	return map[string]func(id string) error{
		"record": func(id string) error { _, err := r.Activation(r.t.Context(), "ann", id); return err },
		"result": func(id string) error { _, _, err := r.Result(r.t.Context(), "ann", id); return err },
		"log":    func(id string) error { _, _, err := r.Logs(r.t.Context(), "ann", id); return err },
		"log as it grows": func(id string) error {
			_, err := r.FollowLogs(r.t.Context(), "ann", id, func(int64, []byte) error { return nil })
			return err
		},
	}
}

// The oldest hours go while there is more than the bytes, but never the hour that it is.
func TestControl_Prune_BySize(t *testing.T) {
	t.Parallel()
	large := func(rec *faena.Record) {
		rec.Result, rec.Log = faena.Blob{Size: 40_000, Inline: []byte(strings.Repeat("x", 40_000))}, faena.Blob{}
	}
	for _, c := range []struct {
		name  string
		bytes int64
		stay  int
	}{
		{"RoomForTwoHours", 300_000, 6},
		{"RoomForNothing", 1, 3},
		{"NoLimit", 0, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, hasty, keep(0, c.bytes))
			r.user("ann", 5)
			var last []faena.Record
			for hours := range 4 {
				last = r.old(time.Duration(3-hours)*time.Hour-time.Minute, 3, large) // the hour may change meanwhile
			}
			if c.bytes > 0 {
				r.history(c.stay)
				if n := r.documents.count("Prune"); n == 0 {
					t.Error("nothing was pruned")
				}
			}
			if c.name == "RoomForTwoHours" {
				faenatest.Eventually(t, patience, "it is less than the limit", func() bool {
					stats, err := r.documents.HistoryStats(t.Context())
					return err == nil && stats.Bytes <= c.bytes
				})
			}
			leads(t, takesOver, r)
			from := r.bus.count("ActiveByUser") // of the sweeper and the projection, which go on beside
			faenatest.Eventually(t, patience, "the leader goes on", func() bool { return r.bus.count("ActiveByUser") > from+5 })
			r.history(c.stay)
			for _, rec := range last {
				if _, err := r.Activation(t.Context(), "ann", rec.ID); err != nil {
					t.Errorf("one of this hour gives %v", err)
				}
			}
			if c.bytes == 0 && r.documents.count("Prune") > 0 {
				t.Error("something was pruned")
			}
		})
	}
}

// A store that is away is tried again, and an object that cannot be removed keeps nothing else.
func TestControl_Prune_Again(t *testing.T) {
	t.Parallel()
	r := start(t, hasty, keep(24*time.Hour, 0))
	r.user("ann", 5)
	leads(t, takesOver, r)
	r.documents.on("Prune", func() error { return errAway })
	r.old(30*time.Hour, pruneBatch, func(rec *faena.Record) { rec.Result, rec.Log = faena.Blob{}, faena.Blob{} })
	r.old(30*time.Hour, 2)
	tries := r.documents.count("Prune")
	faenatest.Eventually(t, patience, "it is tried", func() bool { return r.documents.count("Prune") > tries+2 })
	r.history(pruneBatch + 2)
	failed := false
	r.bus.on("DeleteObject", func() error {
		if failed {
			return nil
		}
		failed = true
		return errors.New("no")
	})
	r.documents.on("Prune", nil)
	r.history(0)
	faenatest.EventuallyNil(t, patience, "the other objects are gone", func() (err error) {
		if n := r.nats.objects(t, group); n != 1 {
			err = fmt.Errorf("there are %d", n)
		}
		return err
	})
	faenatest.Eventually(t, patience, "all are counted", func() bool { return r.observer.prunedSoFar() == pruneBatch+2 })
}

// While the store is away nobody is told that something has expired.
func TestControl_Prune_StoreAway(t *testing.T) {
	t.Parallel()
	r := start(t, hasty, keep(24*time.Hour, 0))
	gone := r.old(30*time.Hour, 1)[0]
	r.history(0)
	isKind(t, r.asks()["record"](gone.ID), faena.KindGone)
	r.documents.away.Store(true)
	for _, ask := range r.asks() {
		isKind(t, ask(gone.ID), faena.KindUnavailable)
	}
	r.documents.away.Store(false)
	isKind(t, r.asks()["result"](gone.ID), faena.KindGone)
}

// A user keeps so many dead letters in a group, the newest; nobody else loses any.
func TestControl_TrimLetters(t *testing.T) {
	t.Parallel()
	r := start(t, several, hasty, func(_ *rig, _ *Options, t *times) { t.lettersMost = 3 })
	r.newGroup("gpu")
	elsewhere := r.deadLetter(func(d *faena.DeadLetter) { d.Group = "gpu" })
	bobs := r.deadLetter(func(d *faena.DeadLetter) { d.User = "bob" })
	var all []string
	for range 8 {
		all = append(all, r.deadLetter())
	}
	want := append(slices.Clone(all[5:]), elsewhere)
	slices.Sort(want)
	faenatest.EventuallyNil(t, patience, "ann has the newest only", func() error {
		got := r.letters("ann")
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("there are %v, want %v", got, want)
		}
		return nil
	})
	asked := r.bus.count("DeadLetterIDs")
	faenatest.Eventually(t, patience, "it is looked for again", func() bool { return r.bus.count("DeadLetterIDs") > asked+4 })
	if got := r.letters("bob"); !slices.Equal(got, []string{bobs}) || len(r.letters("ann")) != len(want) || r.observer.trimmedSoFar() != 5 {
		t.Errorf("bob has %v, ann %v, %d are counted", got, r.letters("ann"), r.observer.trimmedSoFar())
	}
}
