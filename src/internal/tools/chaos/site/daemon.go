package site

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Daemon is an API or a worker.
type Daemon struct {
	*Process
	Cable           *Cable
	URL, Operations string
	Disk            *Disk   // of a worker: its data directory
	Engine          *Engine // of a worker

	control string // socket of the build for faults
}

// places is how many activations a worker runs at once.
const places = 3

// minFree is the free space below which a worker takes nothing.
const minFree = 8 << 20

func (s *Site) newAPI(n int) (*Daemon, error) {
	name := fmt.Sprintf("api-%d", n)
	cert, err := s.authority.Issue(name)
	if err != nil {
		return nil, err
	}
	listen := s.port()
	d := &Daemon{URL: "https://" + listen, Operations: s.port(), Cable: s.network.cables[n]}
	d.control = filepath.Join(s.dir, name+".fp")
	env := append(s.shared(d, "api"), "FAENA_AUTH=local", "FAENA_INSTANCE="+name, "FAENA_DATA_DIR="+filepath.Join(s.dir, name), "FAENA_ADMIN_SOCKET="+s.adminSocket(n),
		"FAENA_LISTEN="+listen, "FAENA_TLS_CERT_FILE="+cert.Cert, "FAENA_TLS_KEY_FILE="+cert.Key, "FAENA_NATS_REPLICAS=3", "FAENA_DRAIN_AFTER=2s",
		"FAENA_MONGODB_URI="+s.documents.URI(), "FAENA_MONGODB_CA_FILE="+s.authority.File,
		fmt.Sprintf("FAENA_NATS_MAX_STORE=%d", serverMax), fmt.Sprintf("FAENA_GROUP_MAX_STORE=%d", groupStore))
	d.Process = newProcess(name, s.logs, env, s.program("faena-api"))
	if d.socket, err = openSocket(listen); err != nil {
		return nil, err
	}
	s.apis = append(s.apis, d)
	return d, nil
}

// openSocket is what systemd does with faena-api.socket: who connects while the API is away waits for it.
func openSocket(address string) (*os.File, error) {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }() // the file is another descriptor of it
	listener, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("%s is no TCP socket", address)
	}
	return listener.File()
}

func (s *Site) adminSocket(n int) string { return filepath.Join(s.dir, fmt.Sprintf("api-%d.admin", n)) }

func (s *Site) newWorker(ctx context.Context, n int) (d *Daemon, err error) {
	name := fmt.Sprintf("%s-w%d", filepath.Base(s.dir), n)
	d = &Daemon{Operations: s.port(), Cable: s.network.cables[2+n], control: filepath.Join(s.dir, fmt.Sprintf("w%d.fp", n))}
	if d.Engine, err = newEngine(s.dir, s.logs, fmt.Sprintf("engine-%d", n), fmt.Sprintf("198.19.%d.%d/25", s.network.third, 128*(n-1))); err != nil {
		return nil, err
	}
	s.workers = append(s.workers, d)
	if err := d.Engine.Run(ctx); err != nil {
		return nil, err
	}
	if d.Disk, err = newDisk(filepath.Join(s.dir, fmt.Sprintf("w%d", n)), 48<<20); err != nil {
		return nil, err
	}
	env := append(s.shared(d, "worker"), "FAENA_WORKER_ID="+name, "FAENA_DATA_DIR="+d.Disk.Dir, "DOCKER_HOST=unix://"+d.Engine.Socket,
		"FAENA_DOCKER_NETWORK="+name, fmt.Sprintf("FAENA_WORKER_PLACES=%d", places), "FAENA_WORKER_DRAIN_WITHIN=10s", "FAENA_INIT_PATH="+s.program("faena-init"),
		"FAENA_DISK_PATH="+d.Disk.Dir, fmt.Sprintf("FAENA_DISK_MIN_FREE=%d", minFree), "FAENA_WORKER_ALLOW="+s.LedgerAddress())
	d.Process = newProcess(name, s.logs, env, s.program("faena-worker"))
	return d, nil
}

// shared are the settings of every daemon.
func (s *Site) shared(d *Daemon, role string) []string {
	return append(s.environ(), "FAENA_OPERATIONS_LISTEN="+d.Operations, "FAENA_LOG_LEVEL=info", "FAENA_LOG_FORMAT=text", "FAENA_NATS_URLS="+natsURLs(d.Cable),
		"FAENA_NATS_CA_FILE="+s.authority.File, "FAENA_NATS_NKEY_FILE="+filepath.Join(s.keyDir(role), "nats.nk"), "FAENA_SEAL_KEY_FILE="+filepath.Join(s.keyDir(role), "seal.key"),
		"FAENA_REGISTRY_PRIVATE_HOSTS="+s.registry, "FAENA_FAILPOINTS="+d.control)
}

// Run starts a daemon and waits until it takes work.
func (d *Daemon) Run(ctx context.Context) error {
	if err := d.Start(); err != nil {
		return err
	}
	return d.Await(ctx)
}

// Await waits until it takes work.
func (d *Daemon) Await(ctx context.Context) error { return d.await(ctx, d.Ready) }

// Ready asks its operations listener whether it takes work.
func (d *Daemon) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Operations+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it is read
	text, err := io.ReadAll(res.Body)
	var says struct{ Missing []string }
	if err == nil {
		err = json.Unmarshal(text, &says)
	}
	if err == nil && (res.StatusCode != http.StatusOK || len(says.Missing) > 0) {
		err = fmt.Errorf("it answers %d: %s", res.StatusCode, strings.Join(says.Missing, "; "))
	}
	return err
}

// Metrics are what its operations listener says, by the names with their labels.
func (d *Daemon) Metrics(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Operations+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it is read
	values := make(map[string]string)
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && !strings.HasPrefix(name, "#") {
			values[name] = value
		}
	}
	return values, lines.Err()
}

// Freeze stops it without its knowing, and Thaw lets it go on.
func (d *Daemon) Freeze() error { return d.Signal(syscall.SIGSTOP) }

// Thaw is the opposite of Freeze.
func (d *Daemon) Thaw() error { return d.Signal(syscall.SIGCONT) }

// StepClock puts its wall clock ahead of the host's by by, which may be negative.
func (d *Daemon) StepClock(by time.Duration) error {
	c, err := net.DialTimeout("unix", d.control, 5*time.Second)
	if err != nil {
		return fmt.Errorf("step the clock of %s: %w", d.Name, err)
	}
	defer func() { _ = c.Close() }() // it has answered
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "clock %v\n", by); err != nil {
		return fmt.Errorf("step the clock of %s: %w", d.Name, err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || answer != "ok\n" {
		return fmt.Errorf("step the clock of %s: it answers %q: %w", d.Name, answer, err)
	}
	return nil
}
