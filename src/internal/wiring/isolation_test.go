package wiring_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// served is for whom a container once ran.
type served struct {
	user     string
	function string
	revision int
}

// A warm container serves one revision of one user's function, however alike the others are.
func testIsolation(t *testing.T, i *installation) {
	var mu sync.Mutex
	containers := map[string]served{} // by hostname
	note := func(t *testing.T, by served, env string) {
		mu.Lock()
		defer mu.Unlock()
		name := variable(env, "HOSTNAME")
		before, known := containers[name]
		switch {
		case name == "":
			t.Errorf("%+v ran nowhere: %q", by, env)
		case known && before != by:
			t.Errorf("container %s ran %+v, and then %+v", name, before, by)
		}
		if variable(env, "FAENA_FUNCTION") != by.function || variable(env, "FAENA_REVISION") != strconv.Itoa(by.revision) || variable(env, "OWNER") != by.user {
			t.Errorf("%+v was given the environment %q", by, env)
		}
		containers[name] = by
	}
	users := map[string]*client.Client{"castor": i.user(t, "castor", 20), "pollux": i.user(t, "pollux", 20)}
	for revision := range 2 { // both are the same
		var wg sync.WaitGroup
		for user, c := range users {
			for _, function := range []string{"one", "two"} {
				i.deploy(t, c, function, func(s *client.Spec) { s.Env = map[string]string{"OWNER": user} }, "env")
				by := served{user, function, revision + 1}
				wg.Go(func() {
					for range 2 {
						out, err := activate(t.Context(), c, function, nil)
						if err != nil {
							t.Error(err)
							return
						}
						note(t, by, string(out))
					}
				})
			}
		}
		wg.Wait()
	}
	for _, c := range users {
		if _, err := client.Read[client.Function](c.RollbackFunction(t.Context(), "one", &client.RollbackFunctionParams{}, client.Rollback{})); err != nil {
			t.Fatal(err)
		}
	}
	for user, c := range users {
		note(t, served{user, "one", 1}, must(t, c, "one", ""))
	}
	if len(containers) < 8 {
		t.Errorf("%d containers served 8 revisions", len(containers))
	}
	i.labelled(t, containers)
}

// labelled checks that who looks at the containers that are still there sees for whom they are.
func (i *installation) labelled(t *testing.T, by map[string]served) {
	t.Helper()
	var list []struct {
		Id     string //nolint:revive // the engine's spelling
		Labels map[string]string
	}
	faenatest.Engine(t).Get(t, "/containers/json?filters="+url.QueryEscape(`{"label":["faena.worker=`+i.worker+`"]}`), &list)
	found := 0
	for _, c := range list {
		want, ours := by[c.Id[:12]]
		if !ours {
			continue
		}
		found++
		if l := c.Labels; l["faena.user"] != want.user || l["faena.function"] != want.function || l["faena.revision"] != strconv.Itoa(want.revision) {
			t.Errorf("the container of %+v has the labels %v", want, l)
		}
	}
	if found == 0 {
		t.Error("none of the containers is there")
	}
}

const secretOfFunction = "s3cret-of-a-function"

// What is secret is where it is needed, and nowhere else.
func testSecrets(t *testing.T, i *installation) {
	c := i.user(t, "keeper", 20)
	secret := func(s *client.Spec) { s.Env = map[string]string{"TOKEN": secretOfFunction} }
	i.deploy(t, c, "env", secret, "env")
	i.deploy(t, c, "stubborn", secret, "stubborn")
	i.deploy(t, c, "none", func(s *client.Spec) { secret(s); s.Command = []string{"/none"} })
	if env := must(t, c, "env", ""); variable(env, "TOKEN") != secretOfFunction || strings.Contains(env, pullPassword) {
		t.Errorf("the function has the environment %q", env)
	}
	if _, err := activate(t.Context(), c, "none", nil); strings.Contains(fmt.Sprintf("%+v", failure(t, err).Problem), secretOfFunction) {
		t.Error("a problem document tells the secret")
	}
	id := async(t, c, "stubborn", "")
	running(t, c, id)
	defer func() {
		if _, err := client.Read[client.Activation](c.CancelActivation(t.Context(), id)); err != nil {
			t.Error(err)
		}
	}()
	credentials := []string{pullPassword, i.password, "a-password-of-keeper"}
	t.Run("in the log", func(t *testing.T) {
		for _, word := range append(credentials, secretOfFunction) {
			for _, line := range i.log.lines(word) {
				t.Errorf("%s", line)
			}
		}
	})
	t.Run("in records and functions", func(t *testing.T) {
		for _, path := range []string{"/v1/activations", "/v1/activations/" + id} {
			if body := i.get(t, "keeper", path); len(body) < 100 || bytes.Contains(body, []byte(secretOfFunction)) {
				t.Errorf("%s says %s", path, body)
			}
		}
		for _, path := range []string{"/v1/functions", "/v1/functions/env", "/v1/functions/env/revisions"} {
			if body := i.get(t, "keeper", path); len(body) < 100 || bytes.Contains(body, []byte(pullPassword)) {
				t.Errorf("%s says %s", path, body)
			}
		}
	})
	t.Run("in what the engine tells of containers", func(t *testing.T) {
		d := faenatest.Engine(t)
		ids := d.Containers(t, "faena.user=keeper")
		for _, id := range ids {
			var all map[string]any
			d.Get(t, "/containers/"+id+"/json", &all)
			for _, word := range append(credentials, secretOfFunction) {
				if text := fmt.Sprint(all); strings.Contains(text, word) {
					t.Errorf("container %s is %s", id, text)
				}
			}
		}
		if len(ids) < 2 {
			t.Errorf("there are %d", len(ids))
		}
	})
	t.Run("in the list of processes", func(t *testing.T) { testProcesses(t, id, append(credentials, secretOfFunction)) })
	t.Run("on the disk", func(t *testing.T) { i.nowhere(t, credentials) })
}

// testProcesses looks at every process of this host: no command line has a word of those, and no environment but that
// of the activation's own process.
func testProcesses(t *testing.T, id string, words []string) {
	var own []string
	faenatest.Eventually(t, 10*time.Second, "the activation has its one process", func() bool {
		own = processes(t, id)
		return len(own) == 1
	})
	for _, file := range []string{"cmdline", "environ"} {
		paths, err := filepath.Glob("/proc/[0-9]*/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil || path == own[0] {
				continue // it has ended
			}
			for _, word := range words {
				if bytes.Contains(text, []byte(word)) {
					t.Errorf("%s has %s", path, word)
				}
			}
		}
	}
}

// nowhere looks through all that the appliance keeps.
func (i *installation) nowhere(t *testing.T, words []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(i.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // removed meanwhile
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // removed meanwhile
		}
		files++
		for _, word := range words {
			if bytes.Contains(text, []byte(word)) {
				t.Errorf("%s has %s", path, word)
			}
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("%d files were looked at, %v", files, err)
	}
}

// get reads what the API answers to one of the test's users, as it is.
func (i *installation) get(t *testing.T, user, path string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.appliance.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(user, "a-password-of-"+user)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s: %s, %v", path, res.Status, body, err)
	}
	return body
}
