package wiring_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
	"faena.dev/faena/internal/natstest"
	"faena.dev/faena/internal/wiring"
)

// waiting is a daemon of a test that stands on something which is not there yet.
type waiting struct {
	ops  string   // its operations listener
	log  *logBook // all that it says
	stop func()   // returns when it has ended, which must be without an error
}

func (w *waiting) says(t *testing.T, status int, words string) {
	t.Helper()
	(*daemons)(nil).says(t, w.ops, status, words)
}

// becomesReady waits for readiness, and checks that the log was not filled meanwhile: once for each text.
func (w *waiting) becomesReady(t *testing.T) {
	t.Helper()
	w.says(t, http.StatusOK, `"ready":true`)
	faenatest.Eventually(t, 5*time.Second, "it says so", func() bool { return len(w.log.lines("takes activations")) == 1 })
	texts := map[string]bool{}
	for _, line := range w.log.lines("not ready; this is tried again") {
		_, missing, _ := strings.Cut(line, `"missing":`)
		if texts[missing] {
			t.Errorf("the log has twice: %s", line)
		}
		texts[missing] = true
	}
	if len(texts) > 0 && len(w.log.lines("what was missing is there now")) == 0 {
		t.Error("the log does not say that it was mended")
	}
}

// apiSettings are those of an API on loopback, in a directory.
func apiSettings(t *testing.T, dir string, more ...string) (environ []string, url, ops string) {
	t.Helper()
	url, ops = freeAddress(t), freeAddress(t)
	return append([]string{"FAENA_DATA_DIR=" + dir, "FAENA_ADMIN_SOCKET=" + filepath.Join(dir, "run", "admin.sock"), "FAENA_AUTH=local", "FAENA_INSTANCE=test",
		"FAENA_DRAIN_AFTER=1s", "FAENA_LISTEN=" + url, "FAENA_OPERATIONS_LISTEN=" + ops, "FAENA_NATS_MAX_STORE=256MiB", "FAENA_GROUP_MAX_STORE=128MiB"}, more...), url, ops
}

// startAPI starts an API in a directory of its own.
func startAPI(t *testing.T, more ...string) *waiting {
	t.Helper()
	environ, _, ops := apiSettings(t, shortDir(t), more...)
	return startAPIWith(t, environ, ops)
}

func startAPIWith(t *testing.T, environ []string, ops string) *waiting {
	t.Helper()
	c, err := config.LoadAPI(environ)
	if err != nil {
		t.Fatal(err)
	}
	w := &waiting{ops: ops, log: &logBook{}}
	log := slog.New(slog.NewJSONHandler(w.log, nil))
	w.stop = start(t, "faena-api", func(ctx context.Context) error { return wiring.RunAPI(ctx, c, log) })
	w.lives(t)
	return w
}

// lives waits until the operations listener is there, as it is long before what the daemon waits for.
func (w *waiting) lives(t *testing.T) {
	t.Helper()
	faenatest.EventuallyNil(t, 10*time.Second, "it lives", func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.ops+"/healthz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s, %w", res.Status, err)
		}
		return nil
	})
}

func TestRunAPI_NATSComesLater(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, natstest.Options{})
	nats.Stop(0)
	environ, url, ops := apiSettings(t, shortDir(t), "FAENA_NATS_URLS="+nats.URLs()[0])
	w := startAPIWith(t, environ, ops)
	w.says(t, http.StatusServiceUnavailable, "queue: "+nats.URLs()[0]+" takes no connection: start the server, or correct FAENA_NATS_URLS")
	if c, err := net.Dial("tcp", url); err == nil {
		_ = c.Close()
		t.Error("calls are taken that cannot be answered")
	}
	nats.Start(t, 0)
	w.becomesReady(t)
	if c, err := net.Dial("tcp", url); err != nil {
		t.Errorf("no call is taken: %v", err)
	} else {
		_ = c.Close()
	}
}

// A certificate is replaced and the server started again, as an operator would.
func TestRunAPI_WrongCertificate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wrong func(*testing.T, *faenatest.CA) faenatest.Certificate
		want  string
	}{
		"of another CA": {func(t *testing.T, _ *faenatest.CA) faenatest.Certificate { return faenatest.NewCA(t).Issue("nats") },
			"has a certificate of another CA than FAENA_NATS_CA_FILE has"},
		"expired": {func(_ *testing.T, ca *faenatest.CA) faenatest.Certificate { return ca.IssueExpired("old") }, "has a certificate that was valid until"},
		"for other names": {func(_ *testing.T, ca *faenatest.CA) faenatest.Certificate {
			return ca.IssueClient("other", "elsewhere")
		}, "has a certificate for other names"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := faenatest.NewCA(t)
			shown, right := ca.Issue("shown"), ca.Issue("right")
			nats := natstest.Start(t, natstest.Options{TLS: true, CA: ca, Certificate: &shown})
			restart := func(with faenatest.Certificate) {
				nats.Stop(0)
				replace(t, with.CertFile, shown.CertFile)
				replace(t, with.KeyFile, shown.KeyFile)
				nats.Start(t, 0)
			}
			restart(c.wrong(t, ca))
			w := startAPI(t, "FAENA_NATS_URLS="+nats.URLs()[0], "FAENA_NATS_CA_FILE="+ca.File)
			w.says(t, http.StatusServiceUnavailable, "queue: "+nats.URLs()[0]+" "+c.want)
			restart(right)
			w.becomesReady(t)
		})
	}
}

// The daemon's own CA file may be what is wrong: it is read anew.
func TestRunAPI_WrongCA(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, natstest.Options{TLS: true})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	replace(t, faenatest.NewCA(t).File, ca)
	w := startAPI(t, "FAENA_NATS_URLS="+nats.URLs()[0], "FAENA_NATS_CA_FILE="+ca)
	w.says(t, http.StatusServiceUnavailable, "has a certificate of another CA than FAENA_NATS_CA_FILE has")
	replace(t, nats.CA.File, ca)
	w.becomesReady(t)
}

func TestRunAPI_UnknownNkey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	own, other := keys(t, filepath.Join(dir, "own")), keys(t, filepath.Join(dir, "other"))
	nats := natstest.Start(t, natstest.Options{Authorization: authorization(t, other.Nkey)})
	w := startAPI(t, "FAENA_NATS_URLS="+nats.URLs()[0], "FAENA_NATS_NKEY_FILE="+filepath.Join(dir, "own", "nats.nk"))
	w.says(t, http.StatusServiceUnavailable, "queue: "+nats.URLs()[0]+" does not know the nkey of FAENA_NATS_NKEY_FILE")
	nats.Authorize(t, authorization(t, own.Nkey))
	w.becomesReady(t)
}

// The streams are of an installation that had one server, and has three now.
func TestRunAPI_TooFewReplicas(t *testing.T) {
	t.Parallel()
	nats := natstest.StartCluster(t, 3, natstest.Options{})
	shared := []string{"FAENA_NATS_URLS=" + strings.Join(nats.URLs(), ","), "FAENA_NATS_CA_FILE=" + nats.CA.File}
	one := startAPI(t, shared...)
	one.says(t, http.StatusOK, `"ready":true`)
	one.stop()
	w := startAPI(t, append(shared, "FAENA_NATS_REPLICAS=3")...)
	w.says(t, http.StatusServiceUnavailable, "queue: FAENA_NATS_REPLICAS is 3, stream ")
	js := nats.JetStream(t)
	for info := range js.ListStreams(t.Context()).Info() {
		info.Config.Replicas = 3
		if _, err := js.UpdateStream(t.Context(), info.Config); err != nil {
			t.Fatal(err)
		}
	}
	w.becomesReady(t)
}

// Two APIs on one document store, which is not there when they start.
func TestRunAPI_MongoDBComesLater(t *testing.T) {
	t.Parallel()
	ca := faenatest.NewCA(t)
	cert := ca.Issue("mongodb")
	store := ferrettest.Start(t, ferrettest.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile})
	store.Stop(t)
	nats := natstest.Start(t, natstest.Options{})
	dir := shortDir(t)
	keys(t, dir)
	shared := []string{"FAENA_NATS_URLS=" + nats.URLs()[0], "FAENA_MONGODB_URI=" + store.URI(), "FAENA_MONGODB_DATABASE=start",
		"FAENA_SEAL_KEY_FILE=" + filepath.Join(dir, "seal.key")}
	one, oneURL, oneOps := apiSettings(t, shortDir(t), append(shared, "FAENA_MONGODB_CA_FILE="+ca.File, "FAENA_INSTANCE=one")...)
	two, twoURL, twoOps := apiSettings(t, shortDir(t), append(shared, "FAENA_MONGODB_CA_FILE="+ca.File, "FAENA_INSTANCE=two")...)
	a, b := startAPIWith(t, one, oneOps), startAPIWith(t, two, twoOps)
	a.says(t, http.StatusServiceUnavailable, "documents: ping the document store: The document store cannot be reached at FAENA_MONGODB_URI now")
	if r := command(t, wiring.APIMain, one, "", "admin", "create", "ann"); r.code != 1 || !strings.Contains(r.errs, "faena-api is not ready: documents: ") {
		t.Errorf("admin create ends with %d: %s", r.code, r.errs)
	}
	store.Restart(t)
	a.becomesReady(t)
	b.becomesReady(t)
	if r := command(t, wiring.APIMain, one, "a-password-of-ann", "admin", "create", "ann", "--password-stdin"); r.code != 0 {
		t.Fatal(r.errs)
	}
	for _, url := range []string{oneURL, twoURL} {
		d, err := client.Read[client.Diagnosis]((&daemons{url: url}).login(t, "ann").GetDiagnosis(t.Context()))
		if err != nil || d.Documents.Kind != "mongodb" {
			t.Errorf("it is %+v, %v", d.Documents, err)
		}
	}
	other := startAPI(t, append(shared, "FAENA_MONGODB_CA_FILE="+faenatest.NewCA(t).File)...)
	other.says(t, http.StatusServiceUnavailable, "documents: ping the document store: The document store shows a certificate of another authority: look at FAENA_MONGODB_CA_FILE")
}

// A stop does not wait for what the daemon waits for: here for a server that takes the connection and never says a word.
func TestRunAPI_StoppedWhileItWaits(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	w := startAPI(t, "FAENA_NATS_URLS=nats://"+silent.Addr().String())
	w.says(t, http.StatusServiceUnavailable, "it is starting")
	began := time.Now()
	w.stop()
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if _, body := missing(t, w.ops); !strings.Contains(body, "refused") {
		t.Errorf("it still answers: %s", body)
	}
}

// startWorker starts a worker of a test; it must leave no container.
func startWorker(t *testing.T, more ...string) *waiting {
	t.Helper()
	dir := shortDir(t)
	w := &waiting{ops: freeAddress(t), log: &logBook{}}
	id := "test-" + filepath.Base(dir)
	c, err := config.LoadWorker(append([]string{"FAENA_DATA_DIR=" + dir, "FAENA_WORKER_ID=" + id, "FAENA_OPERATIONS_LISTEN=" + w.ops,
		"FAENA_DOCKER_HOST=" + faenatest.Engine(t).Host, "FAENA_INIT_PATH=" + faenatest.InitBinary(t), "FAENA_DISK_MIN_FREE=1MiB"}, more...))
	if err != nil {
		t.Fatal(err)
	}
	faenatest.NoContainersLeft(t, id)
	log := slog.New(slog.NewJSONHandler(w.log, nil))
	w.stop = start(t, "faena-worker", func(ctx context.Context) error { return wiring.RunWorker(ctx, c, log) })
	w.lives(t)
	return w
}

// The worker's way: no server, then no group, then no engine.
func TestRunWorker_EverythingComesLater(t *testing.T) {
	t.Parallel()
	nats, engine := natstest.Start(t, natstest.Options{}), relayEngine(t, filepath.Join(shortDir(t), "engine"))
	nats.Stop(0)
	engine.away()
	w := startWorker(t, "FAENA_NATS_URLS="+nats.URLs()[0], "FAENA_DOCKER_HOST=unix://"+engine.path)
	w.says(t, http.StatusServiceUnavailable, "queue: "+nats.URLs()[0]+" takes no connection")
	nats.Start(t, 0)
	w.says(t, http.StatusServiceUnavailable, "queue: group default is not there yet: start a faena-api")
	startAPI(t, "FAENA_NATS_URLS="+nats.URLs()[0])
	w.says(t, http.StatusServiceUnavailable, "worker: open the Docker Engine, which FAENA_DOCKER_HOST or DOCKER_HOST names")
	engine.back(t)
	w.becomesReady(t)
}

// A group from its keys to its first worker: the servers know it when what nats-config prints is in their configuration.
func TestRunWorker_GroupIsMadeLater(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	own, gpu := keys(t, filepath.Join(dir, "own")), keys(t, filepath.Join(dir, "gpu"))
	nats := natstest.Start(t, natstest.Options{TLS: true, Authorization: authorization(t, own.Nkey)})
	shared := []string{"FAENA_NATS_URLS=" + nats.URLs()[0], "FAENA_NATS_CA_FILE=" + nats.CA.File}
	environ, url, ops := apiSettings(t, dir, append(shared, "FAENA_NATS_NKEY_FILE="+filepath.Join(dir, "own", "nats.nk"))...)
	startAPIWith(t, environ, ops).becomesReady(t)
	w := startWorker(t, append(shared, "FAENA_WORKER_GROUP=gpu", "FAENA_NATS_NKEY_FILE="+filepath.Join(dir, "gpu", "nats.nk"),
		"FAENA_SEAL_KEY_FILE="+filepath.Join(dir, "gpu", "seal.key"))...)
	w.says(t, http.StatusServiceUnavailable, "queue: "+nats.URLs()[0]+" does not know the nkey of FAENA_NATS_NKEY_FILE")

	if r := command(t, wiring.APIMain, environ, "a-password-of-ann", "admin", "create", "ann", "--password-stdin"); r.code != 0 {
		t.Fatal(r.errs)
	}
	ann := (&daemons{url: url}).login(t, "ann")
	if _, err := client.Read[client.Group](ann.PutGroup(t.Context(), "gpu", client.GroupKeys{Nkey: gpu.Nkey, Recipient: gpu.Recipient})); err != nil {
		t.Fatal(err)
	}
	r := command(t, wiring.APIMain, environ, "", "nats-config")
	if r.code != 0 {
		t.Fatal(r.errs)
	}
	nats.Authorize(t, []byte(r.out))
	w.becomesReady(t)
	faenatest.EventuallyNil(t, 20*time.Second, "the group has its first worker", func() error {
		g, err := client.Read[client.Group](ann.GetGroup(t.Context(), "gpu"))
		if err == nil && (g.State != client.GroupStateReady || g.Ready != 1) {
			err = fmt.Errorf("it is %+v", g)
		}
		return err
	})
}

// systemd hears the words of /readyz while the daemon waits, that it is ready when activations are taken, and that it stops.
func TestRunAPI_TellsSystemd(t *testing.T) {
	dir := shortDir(t)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	t.Setenv("WATCHDOG_USEC", "1000000")
	hears := func(want string) {
		t.Helper()
		got := make([]byte, 4096)
		if err := manager.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := manager.Read(got)
			if err != nil {
				t.Fatalf("systemd does not hear %q: %v", want, err)
			}
			if text := string(got[:n]); text == want {
				return
			} else if strings.Contains(text, "READY=1") || strings.Contains(text, "STOPPING=1") {
				t.Fatalf("systemd hears %q before %q", text, want)
			}
		}
	}
	nats := natstest.Start(t, natstest.Options{})
	nats.Stop(0)
	w := startAPI(t, "FAENA_NATS_URLS="+nats.URLs()[0])
	hears("STATUS=waiting for queue: " + nats.URLs()[0] + " takes no connection: start the server, or correct FAENA_NATS_URLS")
	nats.Start(t, 0)
	hears("READY=1\nSTATUS=takes activations")
	hears("WATCHDOG=1")
	go w.stop()
	hears("STOPPING=1\nSTATUS=stopping, and waiting for what runs")
	w.stop()
}

// What is wrong with the settings is said at once, whatever else is missing.
func TestMain_WrongSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nothing := filepath.Join(dir, "nothing")
	if err := os.WriteFile(nothing, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := faenatest.NewCA(t)
	keys(t, dir)
	seal := "FAENA_SEAL_KEY_FILE=" + filepath.Join(dir, "seal.key")
	one, two := ca.Issue("one"), ca.Issue("two")
	for name, c := range map[string]struct {
		worker     bool
		env        []string
		want, also string
	}{
		"unknown setting":                    {false, []string{"FAENA_COLOUR=red"}, "FAENA_COLOUR is no setting", ""},
		"no certificate in the CA file":      {false, []string{"FAENA_NATS_CA_FILE=" + nothing}, "FAENA_NATS_CA_FILE", "there is no certificate in"},
		"key of another certificate":         {true, []string{"FAENA_NATS_CERT_FILE=" + one.CertFile, "FAENA_NATS_KEY_FILE=" + two.KeyFile}, "FAENA_NATS_KEY_FILE", "does not match"},
		"no nkey":                            {true, []string{"FAENA_NATS_NKEY_FILE=" + nothing}, "FAENA_NATS_NKEY_FILE", nothing},
		"no sealing key":                     {false, []string{"FAENA_SEAL_KEY_FILE=" + nothing}, "FAENA_SEAL_KEY_FILE", nothing},
		"no address of a store":              {false, []string{seal, "FAENA_MONGODB_URI=mongodb://h:0/?replicaSet"}, "FAENA_MONGODB_URI cannot be used", ""},
		"no certificate of its CA":           {false, []string{seal, "FAENA_MONGODB_URI=mongodb://h", "FAENA_MONGODB_CA_FILE=" + nothing}, "FAENA_MONGODB_CA_FILE", "there is no certificate in"},
		"the API's own certificate":          {false, []string{"FAENA_TLS_CERT_FILE=" + one.CertFile, "FAENA_TLS_KEY_FILE=" + two.KeyFile}, "certificate and key", "does not match"},
		"a first process that is no program": {true, []string{"FAENA_INIT_PATH=" + nothing}, "FAENA_INIT_PATH", "is no program"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			environ, _, ops := apiSettings(t, shortDir(t), "FAENA_NATS_URLS=nats://"+freeAddress(t))
			main := wiring.APIMain
			if c.worker {
				environ, main = []string{"FAENA_DATA_DIR=" + shortDir(t), "FAENA_OPERATIONS_LISTEN=" + ops, "FAENA_INIT_PATH=" + faenatest.InitBinary(t)}, wiring.WorkerMain
			}
			var out, errs bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if code := main(ctx, nil, strings.NewReader(""), &out, &errs, append(environ, c.env...)); code != 3 || !strings.Contains(errs.String(), c.want) ||
				!strings.Contains(errs.String(), c.also) {
				t.Errorf("it ends with %d and says: %s", code, errs.String())
			}
		})
	}
}

// shortDir is a directory whose path leaves room for those of sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "faena")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { // containers reach their sockets through it
		t.Fatal(err)
	}
	return dir
}

// replace copies a file over another one.
func replace(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
