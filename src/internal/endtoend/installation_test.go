package endtoend_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
)

const (
	// places is how many activations a worker runs at once.
	places = 3
	// drainAfter is FAENA_DRAIN_AFTER.
	drainAfter = 2 * time.Second

	// maxStore is each NATS server's max_file_store, and FAENA_NATS_MAX_STORE.
	maxStore = 5 << 30

	adminName  = "ops"
	gatewaySAN = "gateway.faena.test"

	functionPath = "/function" // in the images
)

var puller = faena.Credentials{Username: "puller", Password: "correct-horse-battery"}

// installation is two APIs, two workers of group default, three NATS servers and a document store. First the APIs check passwords
// themselves, later they are behind a gateway, which is the test.
type installation struct {
	t             *testing.T // that it lives as long as
	dir, programs string
	init          string // faena-init
	ca, gateways  *faenatest.CA
	nats          *natstest.Servers
	documents     documents
	apis, workers []*daemon
	all           []*daemon
	registry      string       // host:port
	image         string       // of the function
	keys          publicKeys   // of group default
	gateway       *http.Client // with the gateway's certificate
	password      string       // the first admin's
	ports         []int        // for daemons, that are left
	network       string       // of the containers
	ledger        ledger
}

// publicKeys is what keygen prints.
type publicKeys struct {
	Nkey string `json:"nkey"`
	text string // as it is printed
}

// install puts an installation together in the order of docs/operations.md. Everything is gone when the test ends.
func install(t *testing.T) *installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "fe") // short: sockets of containers are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { // containers reach their sockets through it
		t.Fatal(err)
	}
	i := &installation{t: t, dir: dir, init: faenatest.InitBinary(t), programs: filepath.Join(dir, "bin"), ca: faenatest.NewCA(t), gateways: faenatest.NewCA(t), ports: faenatest.Ports(t, 12),
		network: "faena-" + strings.ToLower(rand.Text()[:8]), registry: faenatest.Registry(t, faenatest.RegistryOptions{Username: puller.Username, Password: puller.Password})}
	if err := os.Mkdir(i.programs, 0o755); err != nil {
		t.Fatal(err)
	}
	buildPrograms(t, i.programs)
	engine := faenatest.Engine(t)
	t.Cleanup(func() { engine.Delete(t, "/networks/"+i.network) })
	i.image = i.push(t, "say", "v1")
	certificate := i.gateways.IssueClient("gateway", gatewaySAN)
	i.gateway = &http.Client{Transport: &http.Transport{TLSClientConfig: i.ca.Client(certificate), ForceAttemptHTTP2: true}, Timeout: 2 * time.Minute}
	t.Cleanup(i.gateway.CloseIdleConnections)

	apiKeys := i.keygen(t, "faena-api", "api")
	i.keys = i.keygen(t, "faena-worker", faena.DefaultGroup)
	i.nats = natstest.StartCluster(t, 3, natstest.Options{CA: i.ca, MaxStore: maxStore, Authorization: []byte(i.run(t, "faena-api", "nats-config",
		"--api-nkey", apiKeys.Nkey, "--group", faena.DefaultGroup+"="+i.keys.Nkey))})
	i.documents = openDocuments(t, i.ca, dir)
	for n := range 2 {
		i.apis = append(i.apis, i.newAPI(fmt.Sprintf("api-%d", n+1)))
		i.apis[n].start(t)
	}
	for n := range 2 {
		i.workers = append(i.workers, i.newWorker(fmt.Sprintf("%d", n+1), faena.DefaultGroup, faena.DefaultGroup))
		i.workers[n].start(t)
	}
	for _, d := range append(i.apis, i.workers...) {
		i.serves(t, d)
	}
	i.password = strings.TrimSpace(i.run(t, "faena-api", "admin", "create", adminName, "--socket", i.socket(i.apis[0].name)))
	i.login(t, 0, adminName, i.password)
	i.faena(t, i.keys.text, "groups", "put", faena.DefaultGroup, "--keys", "-")
	for n := range i.apis {
		i.groupIs(t, n, faena.DefaultGroup, client.GroupStateReady)
		i.lacksNothing(t, i.apis[n])
	}
	return i
}

func (i *installation) program(name string) string { return filepath.Join(i.programs, name) }
func (i *installation) socket(api string) string   { return filepath.Join(i.dir, api, "admin.sock") }

// run is a command of a daemon's program, which must succeed, and returns what it prints.
func (i *installation) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	r := command(t, environ(i.dir), "", i.program(program), args...)
	if r.code != 0 {
		t.Fatalf("%s %q ends with %d: %s", program, args, r.code, r.errs)
	}
	return r.out
}

// keygen makes the keys of all APIs, or of a group, in a directory of that name.
func (i *installation) keygen(t *testing.T, program, name string) (keys publicKeys) {
	t.Helper()
	text := i.run(t, program, "keygen", "--dir", i.keyDir(name))
	if err := json.Unmarshal([]byte(text), &keys); err != nil {
		t.Fatalf("%s keygen prints %q: %v", program, text, err)
	}
	keys.text = text
	return keys
}

// faena is the command line, as the user of a login, by default the admin; it must succeed.
func (i *installation) faena(t *testing.T, input string, args ...string) string {
	t.Helper()
	r := i.tryFaena(t, input, args...)
	if r.code != 0 {
		t.Fatalf("faena %q ends with %d: %s", args, r.code, r.errs)
	}
	return r.out
}

func (i *installation) tryFaena(t *testing.T, input string, args ...string) outcome {
	t.Helper()
	return command(t, environ(i.dir), input, i.program("faena"), args...)
}

// login logs a user in at an API, as profile NAME-N; the first one is the default.
func (i *installation) login(t *testing.T, api int, user, password string) {
	t.Helper()
	args := []string{"login", i.apis[api].url, "--user", user, "--cacert", i.ca.File, "--password-stdin"}
	if user != adminName || api > 0 {
		args = append(args, "--profile", fmt.Sprintf("%s-%d", user, api))
	}
	i.faena(t, password, args...)
}

func (i *installation) keyDir(name string) string { return filepath.Join(i.dir, "keys-"+name) }

func (i *installation) port() (address string) {
	address = fmt.Sprintf("127.0.0.1:%d", i.ports[0])
	i.ports = i.ports[1:]
	return address
}

// shared are the settings of every daemon, with the keys of a role.
func (i *installation) shared(role string) []string {
	return []string{"FAENA_NATS_URLS=" + strings.Join(i.nats.URLs(), ","), "FAENA_NATS_CA_FILE=" + i.ca.File,
		"FAENA_NATS_NKEY_FILE=" + filepath.Join(i.keyDir(role), "nats.nk"), "FAENA_SEAL_KEY_FILE=" + filepath.Join(i.keyDir(role), "seal.key"),
		"FAENA_REGISTRY_PRIVATE_HOSTS=" + i.registry}
}

// newAPI makes an API that checks passwords itself.
func (i *installation) newAPI(name string) *daemon {
	certificate := i.ca.Issue(name)
	address := i.port()
	d := &daemon{name: name, program: i.program("faena-api"), operations: i.port(), url: "https://" + address, log: &logBook{}}
	d.base = environ(i.dir, append(append(i.shared("api"), i.documents.settings()...), "FAENA_INSTANCE="+name, "FAENA_DATA_DIR="+filepath.Join(i.dir, name),
		"FAENA_ADMIN_SOCKET="+i.socket(name), "FAENA_LISTEN="+address, "FAENA_OPERATIONS_LISTEN="+d.operations, "FAENA_TLS_CERT_FILE="+certificate.CertFile,
		"FAENA_TLS_KEY_FILE="+certificate.KeyFile, "FAENA_NATS_REPLICAS=3", "FAENA_DRAIN_AFTER="+drainAfter.String(),
		fmt.Sprintf("FAENA_NATS_MAX_STORE=%d", maxStore))...)
	d.env = append(slices.Clip(d.base), "FAENA_AUTH=local")
	i.attend(d)
	return d
}

// believe makes an API that does not run believe the gateway from its next start on.
func (i *installation) believe(d *daemon) {
	d.env = append(slices.Clip(d.base), "FAENA_AUTH=gateway", "FAENA_AUTH_GATEWAY_CA_FILE="+i.gateways.File, "FAENA_AUTH_GATEWAY_SAN="+gatewaySAN)
	d.believes = true
}

// newWorker makes a worker of a group, with the keys of a group, which is the same one unless it pretends.
func (i *installation) newWorker(name, group, keys string) *daemon {
	d := &daemon{name: filepath.Base(i.dir) + "-" + name, program: i.program("faena-worker"), operations: i.port(), log: &logBook{}}
	d.env = environ(i.dir, append(i.shared(keys), "FAENA_WORKER_ID="+d.name, "FAENA_WORKER_GROUP="+group, "FAENA_DATA_DIR="+filepath.Join(i.dir, name),
		"FAENA_OPERATIONS_LISTEN="+d.operations, fmt.Sprintf("FAENA_WORKER_PLACES=%d", places), "FAENA_WORKER_DRAIN_WITHIN=10s",
		"FAENA_INIT_PATH="+i.init, "FAENA_DOCKER_NETWORK="+i.network, "FAENA_DISK_MIN_FREE=1MiB")...)
	faenatest.NoContainersLeft(i.t, d.name)
	i.attend(d)
	return d
}

// attend makes a daemon end with the test, and looks at what it has said.
func (i *installation) attend(d *daemon) {
	i.all = append(i.all, d)
	i.t.Cleanup(func() {
		i.stopAll(i.t)
		d.log.check(i.t, d.name)
	})
}

// stopAll stops all daemons at once.
func (i *installation) stopAll(t *testing.T) {
	t.Helper()
	running := slices.DeleteFunc(slices.Clone(i.all), func(d *daemon) bool { return d.cmd == nil })
	for _, d := range running {
		d.terminate(t)
	}
	for _, d := range running {
		d.wait(t)
	}
}

// push makes an image of the function program, which gets these arguments, and returns its reference.
func (i *installation) push(t *testing.T, args ...string) string {
	t.Helper()
	program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join("testdata", "function.c")))
	if err != nil {
		t.Fatal(err)
	}
	image := faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: []string{functionPath}, Cmd: args, Files: []faenatest.File{{Path: functionPath, Data: program}}})
	return faenatest.Push(t, i.registry, "function", image, &puller)
}

// readiness is what a daemon says on its operations listener.
func readiness(t *testing.T, d *daemon) (status int, r client.Readiness, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.operations+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, r, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return res.StatusCode, r, err
}

// serves waits until a daemon takes calls, or activations.
func (i *installation) serves(t *testing.T, d *daemon) {
	t.Helper()
	within(t, 40*time.Second, d.name+" is ready", func() error {
		status, r, err := readiness(t, d)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d: missing %q", status, r.Missing)
		}
		return err
	})
}

// lacksNothing waits until a daemon names nothing as missing.
func (i *installation) lacksNothing(t *testing.T, d *daemon) {
	t.Helper()
	within(t, 20*time.Second, d.name+" lacks nothing", func() error {
		_, r, err := readiness(t, d)
		if err == nil && len(r.Missing) > 0 {
			err = fmt.Errorf("missing %q", r.Missing)
		}
		return err
	})
}

// groupIs waits until an API sees a group in a state.
func (i *installation) groupIs(t *testing.T, api int, name string, want client.GroupState) {
	t.Helper()
	within(t, 20*time.Second, "group "+name+" is "+string(want), func() error {
		g, err := client.Read[client.Group](i.admin(api).get(t, "/v1/groups/"+name))
		if err == nil && g.State != want {
			err = fmt.Errorf("it is %s", g.State)
		}
		return err
	})
}

// within is faenatest.EventuallyNil for conditions that cost a daemon something: it looks twenty times a second. What takes long is
// logged.
func within(t *testing.T, limit time.Duration, what string, cond func() error) {
	t.Helper()
	const long = 3 * time.Second
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	var last error
	faenatest.EventuallyNil(t, limit, what, func() error {
		if last != nil {
			<-tick.C
		}
		err := cond()
		if err != nil {
			last = err
		}
		return err
	})
	if took := time.Since(began); took > long {
		t.Logf("%v until %s; before: %v", took.Round(100*time.Millisecond), what, last)
	}
}
