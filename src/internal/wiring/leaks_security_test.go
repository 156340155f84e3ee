package wiring_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/wiring"
)

// What a run is given that others must not see. The payloads stand in the queue and in the store by design, and nowhere else; the
// secrets stand nowhere in clear.
var (
	payloads = map[string]string{"a parameter as an argument": "PARAM-arg-5d2f81", "a parameter on standard input": "PARAM-stdin-93be07", "a large parameter": "PARAM-large-c4417a",
		"a parameter that was refused": "PARAM-refused-18aa36", "what a function logs": "LOGGED-0b77e2", "a variable of a function": "VARIABLE-e6f190"}
	secrets = map[string]string{"the admin's password": "a-password-of-" + wiring.FirstAdmin, "a user's password": "a-password-of-jorgeSD", "the password before": "PASSWORD-before-2c9d",
		"a password that was tried": "PASSWORD-tried-7711", "a password in a body that is none": "PASSWORD-malformed-aa0e", "the registry's password": pullPassword,
		"a registry's password that was refused": "PASSWORD-registry-4f5b", "an idempotency key": "KEY-idempotent-88d1"}
)

// forms are the ways in which a word may be written: as it is, and in base 64 wherever it begins.
func forms(word string) (list [][]byte) {
	list = append(list, []byte(word))
	for before := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, before), word...))
		list = append(list, []byte(text[(before*8+5)/6:len(text)-4]))
	}
	return list
}

// has reports whether a text has a word, in any form.
func has(text []byte, word string) bool {
	for _, form := range forms(word) {
		if bytes.Contains(text, form) {
			return true
		}
	}
	return false
}

// hasNone checks a text against words.
func hasNone(t *testing.T, where string, text []byte, words ...map[string]string) {
	t.Helper()
	for _, list := range words {
		for what, word := range list {
			if has(text, word) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
}

// TestSecurity_Leaks runs activations of every kind through faena-api and faena-worker with their most talkative logs, MongoDB and a NATS
// server, and then looks everywhere.
func TestSecurity_Leaks(t *testing.T) {
	t.Parallel()
	d, log, dir, database := talkative(t)
	c := d.login(t, "jorgeSD")
	id := d.gossip(t, c)
	running(t, c, id)
	t.Run("the logs of both daemons", func(t *testing.T) {
		log.mu.Lock()
		defer log.mu.Unlock()
		hasNone(t, "the log", log.text.Bytes(), payloads, secrets)
		if n := bytes.Count(log.text.Bytes(), []byte("\n")); n < 50 || !has(log.text.Bytes(), id) {
			t.Errorf("it has %d lines, or nothing of the activation that runs", n)
		}
	})
	t.Run("what the engine tells of containers", func(t *testing.T) {
		ids := faenatest.Engine(t).Containers(t, "faena.user=jorgeSD")
		for _, id := range ids {
			var all map[string]any
			faenatest.Engine(t).Get(t, "/containers/"+id+"/json", &all)
			hasNone(t, "container "+id, fmt.Append(nil, all), payloads, secrets)
		}
		if len(ids) < 3 {
			t.Errorf("there are %d", len(ids))
		}
	})
	t.Run("the list of processes", func(t *testing.T) {
		words := []string{payloads["a parameter as an argument"], payloads["a variable of a function"]} // of the one that runs
		for _, secret := range secrets {
			words = append(words, secret)
		}
		testProcessesOf(t, id, words)
	})
	t.Run("the queue's streams, buckets and objects", func(t *testing.T) {
		seen := d.messages(t)
		hasNone(t, "NATS", seen, secrets)
		if !has(seen, payloads["a parameter as an argument"]) {
			t.Error("not even the parameter of what runs was found there")
		}
	})
	if _, err := client.Read[client.Activation](c.CancelActivation(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	ended(t, c, id)
	t.Run("the document store", func(t *testing.T) {
		var all []byte
		faenatest.Eventually(t, 20*time.Second, "results and logs are recorded", func() bool {
			all = documents(t, database)
			return has(all, payloads["a parameter on standard input"]) && has(all, payloads["what a function logs"])
		})
		hasNone(t, "MongoDB", all, secrets)
	})
	t.Run("the daemons' files", func(t *testing.T) { cleanFiles(t, dir) })
}

// talkative starts the daemons in a directory, on a database of their own, with all that they say in one log.
func talkative(t *testing.T) (d *daemons, log *logBook, dir string, database *mongo.Database) {
	t.Helper()
	dir = shortDir(t)
	images := faenatest.Registry(t, faenatest.RegistryOptions{Username: puller.Username, Password: puller.Password})
	uri := ferrettest.URI(t)
	name := ferrettest.Database(t, uri)
	store, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Disconnect(context.WithoutCancel(t.Context())) })
	d = &daemons{nats: natstest.Start(t, natstest.Options{}), worker: "test-" + filepath.Base(dir), workerOp: freeAddress(t),
		fixture: (&installation{registry: images}).push(t, "fixture", faenatest.ImageSpec{Entrypoint: []string{faenatest.FixturePath}})}
	keys(t, dir)
	keys(t, filepath.Join(dir, "w"))
	shared := []string{"FAENA_NATS_URLS=" + d.nats.URLs()[0], "FAENA_REGISTRY_PRIVATE_HOSTS=" + images, "FAENA_LOG_LEVEL=debug"}
	settings, url, ops := apiSettings(t, filepath.Join(dir, "api"), append(shared, "FAENA_MONGODB_URI="+uri, "FAENA_MONGODB_DATABASE="+name,
		"FAENA_SEAL_KEY_FILE="+filepath.Join(dir, "seal.key"))...)
	d.url, d.apiOps = url, ops
	api, err := config.LoadAPI(settings)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := config.LoadWorker(append([]string{"FAENA_DATA_DIR=" + filepath.Join(dir, "w"), "FAENA_WORKER_ID=" + d.worker, "FAENA_WORKER_DRAIN_WITHIN=10s",
		"FAENA_OPERATIONS_LISTEN=" + d.workerOp, "FAENA_DOCKER_HOST=" + faenatest.Engine(t).Host, "FAENA_INIT_PATH=" + faenatest.InitBinary(t), "FAENA_DISK_MIN_FREE=1MiB"}, shared...))
	if err != nil {
		t.Fatal(err)
	}
	faenatest.NoContainersLeft(t, d.worker)
	log = &logBook{}
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	start(t, "faena-api", func(ctx context.Context) error { return wiring.RunAPI(ctx, api, logger) })
	d.ready(t, d.apiOps)
	start(t, "faena-worker", func(ctx context.Context) error { return wiring.RunWorker(ctx, worker, logger) })
	d.ready(t, d.workerOp)
	if r := command(t, wiring.APIMain, settings, secrets["the admin's password"], "admin", "create", wiring.FirstAdmin, "--password-stdin"); r.code != 0 {
		t.Fatalf("no admin can be made: %s", r.errs)
	}
	d.admin = d.login(t, wiring.FirstAdmin)
	d.makeGroup(t, filepath.Join(dir, "w", "seal.key"))
	return d, log, dir, store.Database(name)
}

// gossip gives the installation everything that it must keep to itself, and returns the activation that still runs.
func (d *daemons) gossip(t *testing.T, c *client.Client) (id string) {
	t.Helper()
	profile := client.UserProfile{Groups: map[string]int{"default": 10}, Password: secrets["the password before"]}
	if _, err := client.Read[client.User](d.admin.PutUser(t.Context(), "jorgeSD", profile)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read[struct{}](d.admin.PutPassword(t.Context(), "jorgeSD", client.Password{Password: secrets["a user's password"]})); err != nil {
		t.Fatal(err)
	}
	d.raw(t, http.StatusUnauthorized, http.MethodGet, "/v1/functions", secrets["a password that was tried"], "")
	d.raw(t, http.StatusBadRequest, http.MethodPut, "/v1/users/jorgeSD/password", secrets["a user's password"], `{"password":"`+secrets["a password in a body that is none"])
	d.raw(t, http.StatusUnprocessableEntity, http.MethodPut, "/v1/functions/x", secrets["a user's password"],
		`{"image":"`+d.fixture+`","registry":{"username":"puller","password":"`+secrets["a registry's password that was refused"]+`"}}`)
	deploy := func(name string, input client.Input, mode string) {
		spec := client.Spec{Image: d.fixture, Args: []string{mode}, Input: input, MemoryBytes: 32 << 20, Cpus: 0.2, Registry: &puller, Env: map[string]string{"TOKEN": payloads["a variable of a function"]}}
		if _, err := client.Read[client.Function](c.PutFunction(t.Context(), name, &client.PutFunctionParams{}, spec)); err != nil {
			t.Fatal(err)
		}
	}
	deploy("arg", client.InputArg, "arg")
	deploy("cat", client.InputStdin, "cat")
	deploy("env", client.InputBoth, "env")
	deploy("stubborn", client.InputArg, "stubborn")
	must(t, c, "arg", payloads["a parameter as an argument"])
	must(t, c, "cat", payloads["a parameter on standard input"])
	must(t, c, "cat", strings.Repeat(payloads["a large parameter"]+"\n", 20_000))
	must(t, c, "env", "")
	if _, _, err := call(t.Context(), c, "arg", []byte("x"), http.Header{"Idempotency-Key": {secrets["an idempotency key"]}}); err != nil {
		t.Fatal(err)
	}
	for _, function := range []string{"arg", "none"} { // too long, and for nobody
		if _, err := activate(t.Context(), c, function, []byte(strings.Repeat(payloads["a parameter that was refused"], 10_000))); err == nil {
			t.Errorf("%s takes it", function)
		}
	}
	logs := client.Spec{Image: d.fixture, MemoryBytes: 32 << 20, Cpus: 0.2, Registry: &puller}
	if _, err := client.Read[client.Function](c.PutFunction(t.Context(), "logs", &client.PutFunctionParams{}, logs)); err != nil {
		t.Fatal(err)
	}
	if _, err := activate(t.Context(), c, "logs", []byte(payloads["what a function logs"])); !strings.Contains(fmt.Sprintf("%+v", failure(t, err).Problem), payloads["what a function logs"]) {
		t.Errorf("its caller is not told what it has logged: %v", err)
	}
	return async(t, c, "stubborn", payloads["a parameter as an argument"])
}

// raw sends a request as jorgeSD with a password.
func (d *daemons) raw(t *testing.T, want int, method, path, password, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+d.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("jorgeSD", password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != want {
		t.Errorf("%s %s is answered %s, want %d", method, path, res.Status, want)
	}
}

// messages is everything that NATS keeps.
func (d *daemons) messages(t *testing.T) (all []byte) {
	t.Helper()
	js := d.nats.JetStream(t)
	streams := 0
	for info := range js.ListStreams(t.Context()).Info() {
		streams++
		stream, err := js.Stream(t.Context(), info.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		for seq := max(1, info.State.FirstSeq); seq <= info.State.LastSeq; seq++ {
			m, err := stream.GetMsg(t.Context(), seq)
			if err == jetstream.ErrMsgNotFound { //nolint:errorlint // removed
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			all = fmt.Appendf(all, "%s %v ", m.Subject, m.Header)
			all = append(all, m.Data...)
		}
	}
	if streams < 6 {
		t.Errorf("there are %d streams", streams)
	}
	return all
}

// documents is everything that a database keeps.
func documents(t *testing.T, database *mongo.Database) (all []byte) {
	t.Helper()
	names, err := database.ListCollectionNames(t.Context(), bson.D{})
	if err != nil || len(names) < 5 {
		t.Fatalf("the collections are %v, %v", names, err)
	}
	for _, name := range names {
		cursor, err := database.Collection(name).Find(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		for cursor.Next(t.Context()) {
			all = append(all, cursor.Current...)
		}
		if err := cursor.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// cleanFiles looks through all that the daemons keep for themselves: neither payloads nor secrets are there.
func cleanFiles(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // removed meanwhile
		}
		if text, err := os.ReadFile(path); err == nil {
			files++
			hasNone(t, path, text, payloads, secrets)
		}
		return nil
	})
	if err != nil || files < 3 {
		t.Errorf("%d files were looked at, %v", files, err)
	}
}

// testProcessesOf is testProcesses, but that the activation's own process has its parameter as an argument.
func testProcessesOf(t *testing.T, id string, words []string) {
	t.Helper()
	own := ""
	faenatest.Eventually(t, 10*time.Second, "the activation has its one process", func() bool {
		list := processes(t, id)
		if len(list) == 1 {
			own = filepath.Dir(list[0])
		}
		return own != ""
	})
	for _, file := range []string{"cmdline", "environ"} {
		paths, err := filepath.Glob("/proc/[0-9]*/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil || filepath.Dir(path) == own {
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
