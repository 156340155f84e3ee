package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/httpapi"
)

const (
	gpuNkey      = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	gpuRecipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	gpuKeys      = `{"nkey": "` + gpuNkey + `", "recipient": "` + gpuRecipient + `"}`
)

type (
	functions = httpapi.Functions
	users     = httpapi.Users
)

// cluster is what the command line sees of an installation of many hosts: the real REST interface, before use cases that
// are no more than their outcomes.
type cluster struct {
	functions // those that are not here are not called
	users

	mu       sync.Mutex
	groups   map[string]faena.GroupState
	profiles map[string]faena.User
	workers  []faena.Worker
	found    faena.Diagnosis
	err      error // of a diagnosis
}

// newCluster serves a cluster with two groups, in which all is well. The logins admin and ann are the ones of its users.
func newCluster(t *testing.T) (*account, *cluster) {
	t.Helper()
	then := time.Now().Add(-time.Hour).UTC()
	ready := func(name string, workers int) faena.GroupState {
		return faena.GroupState{Group: faena.Group{Name: name, ConnectedAt: &then, CreatedAt: then, UpdatedAt: then}, Workers: workers, Ready: workers}
	}
	c := &cluster{groups: map[string]faena.GroupState{"default": ready("default", 2), "batch": ready("batch", 1)}, profiles: map[string]faena.User{
		"admin": {Name: "admin", Role: faena.RoleAdmin}, "ann": {Name: "ann", Role: faena.RoleUser, Groups: map[string]int{"default": 20, "batch": 5}}}}
	for id, group := range map[string]string{"w1": "default", "w2": "default", "w3": "batch"} {
		c.workers = append(c.workers, faena.Worker{ID: id, Group: group, Version: "v1." + id[1:], Places: 3, StartedAt: then, SeenAt: then})
	}
	c.found = faena.Diagnosis{Instance: "a1", Version: "v1.1", Leader: "a2", Documents: faena.DocumentsHealth{Kind: "mongodb"}}
	for i := range 3 {
		name := fmt.Sprintf("n%d", i+1)
		c.found.Servers = append(c.found.Servers, faena.QueueServer{Address: name + ":4222", Name: name, Version: "2.15.2"})
	}
	for i := range 12 {
		c.found.Streams = append(c.found.Streams, faena.StreamHealth{Name: fmt.Sprintf("S%d", i+1), Replicas: 3, Wanted: 3, Leader: "n1"})
	}
	c.found.Clocks = []faena.ClockDifference{{Of: "api a1", Ahead: 3 * time.Millisecond}, {Of: "worker batch/w3", Ahead: -20 * time.Millisecond}}

	api := httpapi.New(httpapi.Options{Functions: c, Users: c, Groups: c, Diagnoser: c, Workers: c, Health: c, Auth: c, Logger: slog.New(slog.DiscardHandler)})
	s := httptest.NewUnstartedServer(nil)
	s.Config = api.Server()
	s.Start()
	t.Cleanup(s.Close)
	a := newAccount(t)
	if err := os.MkdirAll(filepath.Join(a.home, ".config", "faena"), 0o700); err != nil {
		t.Fatal(err)
	}
	for profile, user := range map[string]string{"default": "admin", "ann": "ann"} {
		login := fmt.Sprintf(`{"url": %q, "username": %q, "password": "x"}`, s.URL, user)
		if err := os.WriteFile(filepath.Join(a.home, ".config", "faena", profile+".json"), []byte(login), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a, c
}

func (c *cluster) Authenticate(r *http.Request) (faena.User, error) {
	name, _, _ := r.BasicAuth()
	return c.User(r.Context(), name)
}

func (c *cluster) Ready(context.Context) ([]string, bool) { return nil, true }

func (c *cluster) Functions(context.Context, string, string, int) ([]faena.Function, error) {
	return nil, nil
}

func (c *cluster) Workers(context.Context) ([]faena.Worker, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.workers, nil
}

func (c *cluster) DrainWorker(_ context.Context, id string, drain bool) (faena.Worker, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.workers {
		if w := &c.workers[i]; w.ID == id {
			w.Draining = drain
			return *w, nil
		}
	}
	return faena.Worker{}, faena.NotFound("worker", id)
}

func (c *cluster) Diagnose(context.Context) (faena.Diagnosis, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found, c.err
}

func (c *cluster) User(_ context.Context, name string) (faena.User, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.profiles[name]
	if !ok {
		return u, faena.NotFound("user", name)
	}
	u.Groups = maps.Clone(u.Groups)
	return u, nil
}

func (c *cluster) PutUser(_ context.Context, u faena.User, _ string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, there := c.profiles[u.Name]
	c.profiles[u.Name] = u
	return !there, nil
}

func (c *cluster) Groups(context.Context) (list []faena.GroupState, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.groups)) {
		list = append(list, c.groups[name])
	}
	return list, nil
}

func (c *cluster) Group(_ context.Context, name string) (faena.GroupState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, there := c.groups[name]
	if !there {
		return g, faena.NotFound("group", name)
	}
	return g, nil
}

func (c *cluster) PutGroup(_ context.Context, g faena.Group) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := g.Validate(); err != nil {
		return false, err
	}
	was, there := c.groups[g.Name]
	g.ConnectedAt = was.ConnectedAt
	was.Group = g
	c.groups[g.Name] = was
	return !there, nil
}

func (c *cluster) DeleteGroup(_ context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.groups[name]; !there {
		return faena.NotFound("group", name)
	}
	for _, u := range c.profiles {
		if u.Groups[name] > 0 {
			return &faena.Error{Kind: faena.KindConflict, Reason: "group_in_use", Component: faena.ComponentCaller, Message: "It is used by user " + u.Name + "."}
		}
	}
	delete(c.groups, name)
	return nil
}

// An admin makes a group with the keys of its first host, grants it, takes it back and removes it.
func TestGroups(t *testing.T) {
	t.Parallel()
	a, _ := newCluster(t)
	file := filepath.Join(t.TempDir(), "gpu.json")
	if err := os.WriteFile(file, []byte(gpuKeys+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const pending = "Group gpu is pending: functions may name it once NATS knows its key (faena-api nats-config) and a worker of it has connected.\n"
	if got := a.run(nil, "groups", "put", "gpu", "--keys", file); got != (answer{exitOK, "", pending}) {
		t.Errorf("put: %+v", got)
	}
	want := "NAME     STATE    WORKERS  READY  ACTIVE\nbatch    ready    1        1      0\ndefault  ready    2        2      0\ngpu      pending  0        0      0\n"
	if got := a.faena("groups"); got != want {
		t.Errorf("the list is\n%s", got)
	}
	for _, want := range []string{"\nstate      pending\n", "\nnkey       " + gpuNkey + "\n", "\nrecipient  " + gpuRecipient + "\n"} {
		if got := a.faena("groups", "show", "gpu"); !strings.Contains(got, want) {
			t.Errorf("show has no %q:\n%s", want, got)
		}
	}
	for _, flags := range [][]string{{"--recipient", gpuRecipient[:len(gpuRecipient)-1] + "q"}, {}} { // what no flag names stays
		if g := decode[client.Group](a, append([]string{"groups", "put", "gpu"}, flags...)...); g.Nkey != gpuNkey || g.Recipient != gpuRecipient[:len(gpuRecipient)-1]+"q" {
			t.Errorf("put %q: %+v", flags, g)
		}
	}
	if got := a.run(strings.NewReader(gpuKeys), "groups", "put", "gpu", "--keys", "-"); got.code != exitOK {
		t.Errorf("put from standard input: %+v", got)
	}
	if g := decode[client.Group](a, "groups", "show", "gpu"); g.Nkey != gpuNkey || g.Recipient != gpuRecipient || g.State != client.GroupStatePending {
		t.Errorf("show -o json: %+v", g)
	}
	for _, c := range []struct {
		args, says string
		code       int
	}{
		{"users put ann --limit gpu=5", "limits batch=5,default=20,gpu=5.\n", exitOK},
		{"groups delete gpu", "used by user ann", exitInvalid},
		{"users put ann --revoke gup", `--revoke is "gup": ann has batch=5,default=20,gpu=5`, exitInvalid},
		{"users put ann --revoke gpu,batch", "limits default=20.\n", exitOK},
		{"groups delete gpu", "Group gpu is gone.\n", exitOK},
		{"groups delete gpu", "group_not_found", exitNotFound},
		{"groups show gpu", "group_not_found", exitNotFound},
	} {
		if got := a.run(nil, strings.Fields(c.args)...); got.code != c.code || got.out != "" || !strings.Contains(got.err, c.says) {
			t.Errorf("%s: %+v, want %d and %q", c.args, got, c.code, c.says)
		}
	}
	for _, args := range []string{"groups", "groups put gpu", "groups show batch", "groups delete batch"} {
		if got := a.run(nil, append(strings.Fields(args), "--profile", "ann")...); got.code != exitUnauthenticated || got.out != "" {
			t.Errorf("who is no admin calls %s: %+v", args, got)
		}
	}
}

func TestGroups_Refused(t *testing.T) {
	t.Parallel()
	a, c := newCluster(t)
	for _, r := range []struct{ name, args, in, says string }{
		{"both ways", "put gpu --keys - --nkey " + gpuNkey, gpuKeys, "--keys has both keys"},
		{"an absent file", "put gpu --keys /nonexistent/keys", "", "/nonexistent/keys"},
		{"no JSON", "put gpu --keys -", gpuNkey, "faena-worker keygen"},
		{"nothing", "put gpu --keys -", "", "faena-worker keygen"},
		{"half of it", "put gpu --keys -", `{"nkey": "` + gpuNkey + `"}`, "recipient is missing"},
		{"a private key", "put gpu --keys -", `{"nkey": "` + gpuNkey + `", "seed": "SUAsecret"}`, `"seed"`},
		{"an nkey that is none", "put gpu --nkey x", "", "nkey: "},
		{"a name that is none", "put g.pu", "", "name: "},
		{"no name", "put", "", "NAME is missing"},
		{"no such command", "make gpu", "", "groups"},
	} {
		t.Run(r.name, func(t *testing.T) {
			got := a.of(t).run(strings.NewReader(r.in), append([]string{"groups"}, strings.Fields(r.args)...)...)
			if got.code == exitOK || got.out != "" || !strings.Contains(got.err, r.says) || strings.Contains(got.err, "SUAsecret") {
				t.Errorf("got %+v, want %q", got, r.says)
			}
		})
	}
	if list, _ := c.Groups(t.Context()); len(list) != 2 {
		t.Errorf("the groups are %+v", list)
	}
}

// change changes what the next call sees.
func (c *cluster) change(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}
