package installation

import (
	"cmp"
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

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natstest"
)

const (
	// Places is how many activations a worker runs at once.
	Places = 3
	// DrainAfter is FAENA_DRAIN_AFTER.
	DrainAfter = 2 * time.Second

	// maxStore is each NATS server's max_file_store, and FAENA_NATS_MAX_STORE.
	maxStore = 5 << 30

	AdminName  = "ops" // the first admin
	gatewaySAN = "gateway.faena.test"

	FunctionPath = "/function" // in the images
)

// Puller may pull from the registry.
var Puller = faena.Credentials{Username: "Puller", Password: "correct-horse-battery"}

// Installation is two APIs, two workers of group default, three NATS servers and a document store. First the APIs check passwords
// themselves, later they are behind a gateway, which is the test.
type Installation struct {
	Dir           string // of all files: short, since sockets of containers are below it
	CA            *faenatest.CA
	NATS          *natstest.Servers // nil where Options.Servers brings others
	Documents     Documents
	APIs, Workers []*Daemon
	All           []*Daemon
	Registry      string       // host:port
	Image         string       // of the function
	Keys          PublicKeys   // of group default
	Gateway       *http.Client // with the gateway's certificate
	Password      string       // the first admin's
	Network       string       // of the containers
	Ledger        Ledger

	t        testing.TB // that it lives as long as
	o        Options
	programs string
	init     string // faena-init
	gateways *faenatest.CA
	servers  Servers
	ports    []int // for daemons, that are left
}

// Options say what an installation is made of.
type Options struct {
	APIs, Workers int      // 2 where it is 0
	Places        int      // of each worker: Places where it is 0
	Race          bool     // the programs have the race detector
	Failpoints    bool     // the programs have failpoints: see Daemon.Tell
	API, Worker   []string // settings of each, beyond those that it needs
	Groups        []string // beyond the default one, each with one worker, which has its name: see WorkerID
	// Servers starts NATS with the file of faena-api nats-config in its configuration; nil: three servers in this process.
	Servers func(i *Installation, authorization []byte) Servers
}

// Servers are the messaging system.
type Servers interface {
	URLs() []string
	// JetStream is what an operator sees.
	JetStream(t testing.TB) jetstream.JetStream
}

// PublicKeys is what keygen prints.
type PublicKeys struct {
	Nkey string `json:"nkey"`
	Text string `json:"-"` // as it is printed
}

// Install puts an installation together in the order of docs/operations.md. Everything is gone when the test ends.
func Install(t testing.TB, o Options) *Installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "fe") // short: sockets of containers are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { // containers reach their sockets through it
		t.Fatal(err)
	}
	o.APIs, o.Workers, o.Places = cmp.Or(o.APIs, 2), cmp.Or(o.Workers, 2), cmp.Or(o.Places, Places)
	i := &Installation{t: t, o: o, Dir: dir, init: faenatest.InitBinary(t), programs: filepath.Join(dir, "bin"), CA: faenatest.NewCA(t),
		gateways: faenatest.NewCA(t), ports: faenatest.Ports(t, 2*(o.APIs+o.Workers+len(o.Groups))+4),
		Network: "faena-" + strings.ToLower(rand.Text()[:8]), Registry: faenatest.Registry(t, faenatest.RegistryOptions{Username: Puller.Username, Password: Puller.Password})}
	if err := os.Mkdir(i.programs, 0o755); err != nil {
		t.Fatal(err)
	}
	buildPrograms(t, i.programs, o)
	engine := faenatest.Engine(t)
	t.Cleanup(func() { engine.Delete(t, "/networks/"+i.Network) })
	i.Image = i.Push(t, "say", "v1")
	certificate := i.gateways.IssueClient("gateway", gatewaySAN)
	i.Gateway = &http.Client{Transport: &http.Transport{TLSClientConfig: i.CA.Client(certificate), ForceAttemptHTTP2: true}, Timeout: 2 * time.Minute}
	t.Cleanup(i.Gateway.CloseIdleConnections)

	keys := i.connect(t)
	i.start(t)
	for n, group := range i.groups() {
		i.Faena(t, keys[n], "groups", "put", group, "--keys", "-")
		if n > 0 {
			i.NewWorker(group, group, group).Start(t)
		}
	}
	for n := range i.APIs {
		for _, group := range i.groups() {
			i.GroupIs(t, n, group, client.GroupStateReady)
		}
		i.LacksNothing(t, i.APIs[n])
	}
	return i
}

func (i *Installation) groups() []string { return append([]string{faena.DefaultGroup}, i.o.Groups...) }

// connect makes all keys, starts NATS with them, and the document store. It returns the groups' public keys.
func (i *Installation) connect(t testing.TB) (keys []string) {
	t.Helper()
	config := []string{"nats-config", "--api-nkey", i.Keygen(t, "faena-api", "api").Nkey}
	for n, group := range i.groups() {
		k := i.Keygen(t, "faena-worker", group)
		if n == 0 {
			i.Keys = k
		}
		keys, config = append(keys, k.Text), append(config, "--group", group+"="+k.Nkey)
	}
	authorization := []byte(i.Run(t, "faena-api", config...))
	if i.o.Servers != nil {
		i.servers = i.o.Servers(i, authorization)
	} else {
		i.NATS = natstest.StartCluster(t, 3, natstest.Options{CA: i.CA, MaxStore: maxStore, Authorization: authorization})
		i.servers = i.NATS
	}
	i.Documents = openDocuments(t, i.CA, i.Dir)
	return keys
}

// start starts the APIs and the workers of group default, and makes the first admin.
func (i *Installation) start(t testing.TB) {
	t.Helper()
	for n := range i.o.APIs {
		i.APIs = append(i.APIs, i.NewAPI(fmt.Sprintf("api-%d", n+1)))
		i.APIs[n].Start(t)
	}
	for n := range i.o.Workers {
		i.Workers = append(i.Workers, i.NewWorker(fmt.Sprintf("%d", n+1), faena.DefaultGroup, faena.DefaultGroup))
		i.Workers[n].Start(t)
	}
	for _, d := range slices.Concat(i.APIs, i.Workers) {
		i.Serves(t, d)
	}
	i.Password = strings.TrimSpace(i.Run(t, "faena-api", "admin", "create", AdminName, "--socket", i.Socket(i.APIs[0].Name)))
	i.Login(t, 0, AdminName, i.Password)
}

// JetStream is what an operator of the servers sees.
func (i *Installation) JetStream(t testing.TB) jetstream.JetStream { return i.servers.JetStream(t) }

// Program is the path of a program.
func (i *Installation) Program(name string) string { return filepath.Join(i.programs, name) }

// Socket is the admin socket of an API.
func (i *Installation) Socket(api string) string { return filepath.Join(i.Dir, api, "admin.sock") }

// Daemon is the daemon of a name: an API's instance or a worker's id, which WorkerID tells.
func (i *Installation) Daemon(t testing.TB, name string) *Daemon {
	t.Helper()
	at := slices.IndexFunc(i.All, func(d *Daemon) bool { return d.Name == name })
	if at < 0 {
		t.Fatalf("there is no %q", name)
	}
	return i.All[at]
}

// WorkerID is the id of the worker of a name: a number in group default, the group's elsewhere.
func (i *Installation) WorkerID(name string) string { return filepath.Base(i.Dir) + "-" + name }

// Run is a command of a daemon's program, which must succeed, and returns what it prints.
func (i *Installation) Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	r := command(t, environ(i.Dir), "", i.Program(program), args...)
	if r.Code != 0 {
		t.Fatalf("%s %q ends with %d: %s", program, args, r.Code, r.Errs)
	}
	return r.Out
}

// Keygen makes the keys of all APIs, or of a group, in a directory of that name.
func (i *Installation) Keygen(t testing.TB, program, name string) (keys PublicKeys) {
	t.Helper()
	text := i.Run(t, program, "keygen", "--dir", i.KeyDir(name))
	if err := json.Unmarshal([]byte(text), &keys); err != nil {
		t.Fatalf("%s keygen prints %q: %v", program, text, err)
	}
	keys.Text = text
	return keys
}

// Faena is the command line, as the user of a login, by default the admin; it must succeed.
func (i *Installation) Faena(t testing.TB, input string, args ...string) string {
	t.Helper()
	r := i.TryFaena(t, input, args...)
	if r.Code != 0 {
		t.Fatalf("faena %q ends with %d: %s", args, r.Code, r.Errs)
	}
	return r.Out
}

// TryFaena is Faena that may fail.
func (i *Installation) TryFaena(t testing.TB, input string, args ...string) Outcome {
	t.Helper()
	return command(t, environ(i.Dir), input, i.Program("faena"), args...)
}

// Login logs a user in at an API, as profile NAME-N; the first one is the default.
func (i *Installation) Login(t testing.TB, api int, user, password string) {
	t.Helper()
	args := []string{"login", i.APIs[api].URL, "--user", user, "--cacert", i.CA.File, "--password-stdin"}
	if user != AdminName || api > 0 {
		args = append(args, "--profile", fmt.Sprintf("%s-%d", user, api))
	}
	i.Faena(t, password, args...)
}

// KeyDir is where Keygen writes.
func (i *Installation) KeyDir(name string) string { return filepath.Join(i.Dir, "keys-"+name) }

func (i *Installation) port() (address string) {
	address = fmt.Sprintf("127.0.0.1:%d", i.ports[0])
	i.ports = i.ports[1:]
	return address
}

// shared are the settings of every Daemon, with the keys of a role.
func (i *Installation) shared(role string) []string {
	return []string{"FAENA_NATS_URLS=" + strings.Join(i.servers.URLs(), ","), "FAENA_NATS_CA_FILE=" + i.CA.File,
		"FAENA_NATS_NKEY_FILE=" + filepath.Join(i.KeyDir(role), "nats.nk"), "FAENA_SEAL_KEY_FILE=" + filepath.Join(i.KeyDir(role), "seal.key"),
		"FAENA_REGISTRY_PRIVATE_HOSTS=" + i.Registry}
}

// NewAPI makes an API that checks passwords itself.
func (i *Installation) NewAPI(name string) *Daemon {
	certificate := i.CA.Issue(name)
	address := i.port()
	d := &Daemon{Name: name, program: i.Program("faena-api"), Operations: i.port(), URL: "https://" + address, control: i.control(name), log: &logBook{}}
	replicas := min(len(i.servers.URLs()), 3)
	d.base = environ(i.Dir, append(slices.Concat(i.shared("api"), i.Documents.Settings(), i.o.API), "FAENA_INSTANCE="+name, "FAENA_DATA_DIR="+filepath.Join(i.Dir, name),
		"FAENA_ADMIN_SOCKET="+i.Socket(name), "FAENA_LISTEN="+address, "FAENA_OPERATIONS_LISTEN="+d.Operations, "FAENA_TLS_CERT_FILE="+certificate.CertFile,
		"FAENA_TLS_KEY_FILE="+certificate.KeyFile, fmt.Sprintf("FAENA_NATS_REPLICAS=%d", replicas), "FAENA_DRAIN_AFTER="+DrainAfter.String(),
		fmt.Sprintf("FAENA_NATS_MAX_STORE=%d", maxStore))...)
	d.Env = append(slices.Clip(d.base), "FAENA_AUTH=local")
	i.attend(d)
	return d
}

// Believe makes an API that does not run believe the gateway from its next start on.
func (i *Installation) Believe(d *Daemon) {
	d.Env = append(slices.Clip(d.base), "FAENA_AUTH=gateway", "FAENA_AUTH_GATEWAY_CA_FILE="+i.gateways.File, "FAENA_AUTH_GATEWAY_SAN="+gatewaySAN)
	d.Believes = true
}

// NewWorker makes a worker of a group, with the keys of a group, which is the same one unless it pretends.
func (i *Installation) NewWorker(name, group, keys string) *Daemon {
	d := &Daemon{Name: i.WorkerID(name), program: i.Program("faena-worker"), Operations: i.port(), control: i.control(name), log: &logBook{}}
	d.Env = environ(i.Dir, append(slices.Concat(i.shared(keys), i.o.Worker), "FAENA_WORKER_ID="+d.Name, "FAENA_WORKER_GROUP="+group, "FAENA_DATA_DIR="+filepath.Join(i.Dir, name),
		"FAENA_OPERATIONS_LISTEN="+d.Operations, fmt.Sprintf("FAENA_WORKER_PLACES=%d", i.o.Places), "FAENA_WORKER_DRAIN_WITHIN=10s",
		"FAENA_INIT_PATH="+i.init, "FAENA_DOCKER_NETWORK="+i.Network, "FAENA_DISK_MIN_FREE=1MiB")...)
	faenatest.NoContainersLeft(i.t, d.Name)
	i.attend(d)
	return d
}

// attend makes a daemon end with the test, and looks at what it has said.
func (i *Installation) attend(d *Daemon) {
	i.All = append(i.All, d)
	i.t.Cleanup(func() {
		i.StopAll(i.t)
		d.log.check(i.t, d.Name)
	})
}

// StopAll stops all daemons at once.
func (i *Installation) StopAll(t testing.TB) {
	t.Helper()
	running := slices.DeleteFunc(slices.Clone(i.All), func(d *Daemon) bool { return d.cmd == nil })
	for _, d := range running {
		d.Terminate(t)
	}
	for _, d := range running {
		d.Wait(t)
	}
}

// Push makes an image of the function program, which gets these arguments, and returns its reference.
func (i *Installation) Push(t testing.TB, args ...string) string {
	t.Helper()
	program, err := os.ReadFile(faenatest.CProgram(t, filepath.Join(faenatest.SourceDir(t), "internal/endtoend/installation/testdata/function.c")))
	if err != nil {
		t.Fatal(err)
	}
	image := faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: []string{FunctionPath}, Cmd: args, Files: []faenatest.File{{Path: FunctionPath, Data: program}}})
	return faenatest.Push(t, i.Registry, "function", image, &Puller)
}

// Readiness is what a daemon says on its operations listener.
func Readiness(t testing.TB, d *Daemon) (status int, r client.Readiness, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.Operations+"/readyz", nil)
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

// Serves waits until a daemon takes calls, or activations.
func (i *Installation) Serves(t testing.TB, d *Daemon) {
	t.Helper()
	Within(t, 40*time.Second, d.Name+" is ready", func() error {
		status, r, err := Readiness(t, d)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d: missing %q", status, r.Missing)
		}
		return err
	})
}

// LacksNothing waits until a daemon names nothing as missing.
func (i *Installation) LacksNothing(t testing.TB, d *Daemon) {
	t.Helper()
	Within(t, 20*time.Second, d.Name+" lacks nothing", func() error {
		_, r, err := Readiness(t, d)
		if err == nil && len(r.Missing) > 0 {
			err = fmt.Errorf("missing %q", r.Missing)
		}
		return err
	})
}

// GroupIs waits until an API sees a group in a state.
func (i *Installation) GroupIs(t testing.TB, api int, name string, want client.GroupState) {
	t.Helper()
	Within(t, 20*time.Second, "group "+name+" is "+string(want), func() error {
		g, err := client.Read[client.Group](i.Admin(api).Get(t, "/v1/groups/"+name))
		if err == nil && g.State != want {
			err = fmt.Errorf("it is %s", g.State)
		}
		return err
	})
}

// Within is faenatest.EventuallyNil for conditions that cost a daemon something: it looks twenty times a second. What takes long is
// logged.
func Within(t testing.TB, limit time.Duration, what string, cond func() error) {
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
