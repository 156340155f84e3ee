package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// pullPassword is what the registry of the site asks for.
const pullPassword = "a-password-for-pulling"

// The password of an image's registry comes from standard input and is nowhere in clear afterwards.
func testPrivateImage(a *account, s *site) {
	ref := faenatest.Push(a.t, s.private, "hello", faenatest.Image(a.t, faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath, "arg"}}),
		&faena.Credentials{Username: "puller", Password: pullPassword})
	deploy := func(password string) answer {
		return a.run(strings.NewReader(password+"\n"), "deploy", "private", "--image", ref, "--memory", "32MiB",
			"--registry-username", "puller", "--registry-password-stdin")
	}
	if got := deploy("wrong"); got.code != exitInvalid || !strings.Contains(got.err, "image_denied") {
		a.t.Errorf("with a wrong password: %+v", got)
	}
	if got := a.run(nil, "deploy", "private", "--image", ref); got.code != exitInvalid || !strings.Contains(got.err, "image_denied") {
		a.t.Errorf("without a password: %+v", got)
	}
	if got := deploy(pullPassword); got.code != exitOK {
		a.t.Fatalf("deploy: %+v", got)
	}
	if got := a.faena("invoke", "private", "pulled"); got != "pulled" {
		a.t.Errorf("it answers %q", got)
	}
	if shown := a.faena("functions", "private", "-o", "json") + s.said.String(); strings.Contains(shown, pullPassword) {
		a.t.Error("the password is shown")
	}
	err := filepath.WalkDir(a.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // a container's directory may be gone since it was listed
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte(pullPassword)) {
			a.t.Errorf("the password stands in %s", path)
		}
		return nil
	})
	if err != nil {
		a.t.Error(err)
	}
}

func testWorkers(a *account, s *site) {
	workers := decode[[]client.Worker](a, "workers")
	if len(workers) != 1 || workers[0].ID != s.worker || !workers[0].Ready || workers[0].Places != places {
		a.t.Errorf("the workers are %+v", workers)
	}
	if table := strings.Split(a.faena("workers"), "\n"); len(table) != 3 || !strings.HasPrefix(table[1], s.worker+"  default ") {
		a.t.Errorf("the table is\n%s", strings.Join(table, "\n"))
	}
}

// An appliance in one process has one group, which stays as it is.
func testFixedGroups(a *account, _ *site) {
	if list := decode[[]client.Group](a, "groups"); len(list) != 1 || list[0].Name != "default" || list[0].State != client.GroupStateReady || list[0].Ready != 1 {
		a.t.Errorf("the groups are %+v", list)
	}
	for args, want := range map[string]string{"put gpu": "groups_fixed", "put default": "groups_fixed", "delete default": "default_group"} {
		got := a.run(nil, append([]string{"groups"}, strings.Fields(args)...)...)
		if got.code != exitInvalid || got.out != "" || !strings.Contains(got.err, want) {
			a.t.Errorf("groups %s: %+v, want %s", args, got, want)
		}
	}
}

// The doctor names the first thing that is wrong, and says by its exit code whether anything is.
func testDoctor(a *account, s *site) {
	for _, f := range decode[[]finding](a, "doctor") {
		if !f.OK {
			a.t.Errorf("%s: %s", f.Check, f.Detail)
		}
	}
	if found, _ := a.examined(); !strings.Contains(found, "\nworkers ok 1 of 1 ready\n") || !strings.Contains(found, "\ndocuments ok bbolt\n") {
		a.t.Errorf("it finds\n%s", found)
	}
	bad := func(profile, url, password string) {
		text := fmt.Sprintf(`{"url": %q, "username": "admin", "password": %q}`, url, password)
		if err := os.WriteFile(filepath.Join(a.home, ".config", "faena", profile+".json"), []byte(text), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	bad("away", "http://127.0.0.1:1", "x")
	bad("stranger", s.url, "wrong")
	for _, c := range []struct{ profile, check, says string }{
		{"none", "login", "there is no login"},
		{"away", "appliance", "Is it running (of the packages: systemctl status faena-api"},
		{"stranger", "credentials", "unauthenticated"},
	} {
		a.t.Run(c.profile, func(t *testing.T) {
			got := a.of(t).run(nil, "doctor", "--profile", c.profile)
			if got.code != exitFailed || !strings.Contains(got.out, "\n"+c.check+" ") || !strings.Contains(got.out, " BAD  ") || !strings.Contains(got.out, c.says) {
				t.Errorf("got %+v", got)
			}
		})
	}
}
