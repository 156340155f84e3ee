package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// examined is what the doctor writes, with single spaces, and his exit code.
func (a *account) examined() (found string, code int) {
	a.t.Helper()
	got := a.run(nil, "doctor")
	for line := range strings.Lines(got.out) {
		found += strings.Join(strings.Fields(line), " ") + "\n"
	}
	return found, got.code
}

// Of an installation in which all is well there is one good line for each check, and one for all streams.
func TestDoctor_AllIsWell(t *testing.T) {
	t.Parallel()
	a, c := newCluster(t)
	c.change(func() { c.found.Documents.Warning = "It is no replica set." }) // it works all the same
	found, code := a.examined()
	for _, want := range []string{"api ok a1, version v1.1", "leader ok a2", "nats n3:4222 ok n3, version 2.15.2", "streams ok 12 streams, 3 replicas each, in sync",
		"documents ok mongodb, but: It is no replica set.", "group batch ok 1 of 1 worker ready, version v1.3",
		"group default ok 2 of 2 workers ready, versions v1.1 and v1.2", "clocks of hosts ok 2 clocks within 20ms of the NATS servers'", "unreadable ok nothing"} {
		if !strings.Contains(found, "\n"+want+"\n") {
			t.Errorf("there is no %q:\n%s", want, found)
		}
	}
	if code != exitOK || strings.Contains(found, "BAD") || strings.Count(found, "streams") != 2 {
		t.Errorf("it ends with %d:\n%s", code, found)
	}
	for _, f := range decode[[]finding](a, "doctor") {
		if !f.OK || f.Check == "" || f.Detail == "" {
			t.Errorf("in JSON there is %+v", f)
		}
	}
	got := a.run(nil, "doctor", "--profile", "ann")
	if got.code != exitOK || !strings.Contains(got.out, "installation  ok  only an admin sees ") || strings.Contains(got.out, "nats") {
		t.Errorf("who is no admin: %+v", got)
	}
}

// Each trouble has a line of its own that says where it is and what to do, and the exit code says that there is one.
func TestDoctor_Troubles(t *testing.T) {
	t.Parallel()
	a, c := newCluster(t)
	slices.SortFunc(c.workers, func(a, b faena.Worker) int { return strings.Compare(a.ID, b.ID) })
	well, groups, workers := c.found, c.groups["batch"], c.workers
	for _, trouble := range []struct {
		name string
		make func()
		want []string
	}{
		{"no leader", func() { c.found.Leader = "" }, []string{"leader BAD no API leads: "}},
		{"a server is away", func() { c.found.Servers[1] = faena.QueueServer{Address: "n2:4222", Problem: "It is away: start it."} },
			[]string{"nats n1:4222 ok ", "nats n2:4222 BAD It is away: start it.\n"}},
		{"a server is old", func() { c.found.Servers[1].Problem = "It is older than 2.12." }, []string{"nats n2:4222 BAD It is older than 2.12.\n"}},
		{"few replicas", func() {
			c.found.Streams[2].Replicas, c.found.Streams[2].Problem = 1, "FAENA_NATS_REPLICAS is 3, it has 1."
		},
			[]string{"streams BAD S3: FAENA_NATS_REPLICAS is 3, it has 1.\n"}},
		{"a server of all is away", func() {
			for i := range c.found.Streams {
				c.found.Streams[i].Behind, c.found.Streams[i].Problem = []string{"n2 (away)", "n3 (7 behind)"}, "it takes nothing: start them"
			}
		}, []string{"streams BAD S1, S2, S3, S4 and 8 more: it takes nothing: start them (n2 (away), n3 (7 behind))\n"}},
		{"several troubles", func() {
			c.found.Streams[2].Problem, c.found.Streams[3].Problem = "It is not there.", "Its consumer is paused."
		},
			[]string{"streams BAD S3: It is not there.\n", "streams BAD S4: Its consumer is paused.\n"}},
		{"no document store", func() { c.found.Documents.Problem = "It does not answer." }, []string{"documents BAD mongodb: It does not answer.\n"}},
		{"a pending group", func() { groups.ConnectedAt = nil; c.groups["batch"] = groups }, []string{"group batch BAD it is pending, ", "group default ok "}},
		{"no worker", func() { groups.Workers, groups.Ready = 0, 0; c.groups["batch"] = groups }, []string{"group batch BAD it has no worker: start faena-worker "}},
		{"none is ready", func() { groups.Workers, groups.Ready = 2, 0; c.groups["batch"] = groups }, []string{"group batch BAD none of 2 workers is ready: faena workers "}},
		{"a clock that is behind", func() { c.found.Clocks[1].Ahead = -1500 * time.Millisecond },
			[]string{"clock of worker batch/w3 BAD it is 1.5s behind the NATS servers': set up time synchronisation there\n"}},
		{"a clock that is ahead", func() { c.found.Clocks[0].Ahead = time.Hour }, []string{"clock of api a1 BAD it is 1h0m0s ahead of the NATS servers': "}},
		{"what cannot be read", func() {
			c.found.Unreadable = []faena.Unreadable{{Where: "queue", Group: "gpu", User: "ann", ID: "id-1", Schema: 7, Problem: "It is of the future.", Sequence: 9},
				{Where: "records", Problem: "It is no JSON."}}
		}, []string{"unreadable BAD 2, not run and not lost. ", "nats stream rmm ACTIVATIONS-<group> <sequence>", "nats stream purge KV_activations-<group> --subject '$KV.activations-<group>.<user>.<activation>'",
			"in queue BAD group gpu, user ann, activation id-1, sequence 9, schema version 7: It is of the future.\n",
			"in records BAD no schema version: It is no JSON.\n"}},
		{"much that cannot be read", func() { c.found.Unreadable = slices.Repeat([]faena.Unreadable{{Where: "queue"}}, faena.MaxUnreadable) }, []string{"unreadable BAD 100 or more, not run "}},
		{"nothing is known", func() {
			c.found.Servers, c.found.Streams = []faena.QueueServer{{Problem: "The queue is away."}}, []faena.StreamHealth{{Problem: "They are not known."}}
			c.found.Unreadable = []faena.Unreadable{{Problem: "It is not known."}}
		}, []string{"nats BAD The queue is away.\n", "streams BAD They are not known.\n", "unreadable BAD It is not known.\n"}},
		{"an engine without limits", func() {
			c.workers[0].Engine = &faena.Engine{Version: "28.5.2", Advice: []string{faena.AdviceNoMirror, faena.AdviceNoPIDsLimit}}
			c.workers[2].Engine = &faena.Engine{Version: "20.10.24", Advice: []string{faena.AdviceNoPIDsLimit, faena.AdviceFewAddresses + "=13"}}
		}, []string{"docker engines BAD w1, w3: the kernel limits no container's processes, ", "docker engines BAD w3: the network of functions has addresses for 13 containers, ",
			"docker engines advice w1: every worker pulls from Docker Hub itself, ", "docker engines BAD "}},
		{"a worker that is not ready", func() { c.workers[1].NotReady = "The disk has 3 MiB free." }, []string{"worker w2 BAD The disk has 3 MiB free."}},
		{"all workers are drained", func() {
			for i := range c.workers {
				c.workers[i].Draining, c.workers[i].NotReady = true, "It was drained: faena workers resume "+c.workers[i].ID
			}
		}, []string{"worker w2 advice It was drained: faena workers resume w2\n", "workers BAD no worker is ready: w3 was drained: faena workers resume w3\n"}},
		{"packets that are not filtered", func() { c.workers[1].Unfiltered = "it may not" },
			[]string{"packets of w2 BAD functions reach its host and whatever it reaches: it may not. Mend that ", "take FAENA_ALLOW_UNFILTERED away"}},
		{"no diagnosis", func() {
			c.err = faena.Unavailable(faena.ComponentQueue, "queue_unavailable", "The queue is away.", nil)
		},
			[]string{"installation BAD The queue is away. (queue_unavailable)\n"}},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			was := groups
			c.change(func() {
				c.found, c.workers = well, slices.Clone(workers)
				c.found.Servers, c.found.Streams, c.found.Clocks = slices.Clone(well.Servers), slices.Clone(well.Streams), slices.Clone(well.Clocks)
				trouble.make()
			})
			defer c.change(func() { groups, c.groups["batch"], c.err, c.workers = was, was, nil, workers })
			found, code := a.of(t).examined()
			for _, want := range trouble.want {
				if !strings.Contains(found, want) {
					t.Errorf("there is no %q:\n%s", want, found)
				}
			}
			if code != exitFailed {
				t.Errorf("it ends with %d", code)
			}
			check, _, _ := strings.Cut(trouble.want[len(trouble.want)-1], " BAD ")
			if strings.Contains(found, "\n"+check+" ok ") {
				t.Errorf("%s is good and bad at once:\n%s", check, found)
			}
		})
	}
	c.change(func() { c.found = well; c.found.Clocks = []faena.ClockDifference{{Of: "api a1", Ahead: time.Second}} })
	if found, code := a.examined(); code != exitOK {
		t.Errorf("with a second it ends with %d:\n%s", code, found)
	}
}
