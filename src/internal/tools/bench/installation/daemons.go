package installation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// daemon is an API or a worker.
type daemon struct {
	process    *Process
	id, dir    string
	url        string // of an API
	operations string // host:port
}

// SetAPIs starts or stops as many APIs as there have to be more or less. Clients that exist go on calling those that
// they were made for.
func (i *Installation) SetAPIs(ctx context.Context, n int) (err error) {
	i.apis, err = i.set(ctx, i.apis, n, i.startAPI)
	return err
}

// SetWorkers is SetAPIs for workers: it waits until the APIs know of them.
func (i *Installation) SetWorkers(ctx context.Context, n int) (err error) {
	if i.workers, err = i.set(ctx, i.workers, n, i.startWorker); err != nil || n == 0 {
		return err
	}
	c := i.Client()
	defer c.Close()
	return i.workers[0].process.await(ctx, func(ctx context.Context) error {
		var says struct {
			State string
			Ready int
		}
		err := c.Get(ctx, i.Admin, "/v1/groups/"+group, &says)
		if err == nil && (says.State != "ready" || says.Ready != n) {
			err = fmt.Errorf("the group is %s, and %d of %d workers take activations", says.State, says.Ready, n)
		}
		return err
	})
}

// set starts them one after the other: FerretDB, unlike MongoDB, breaks where two APIs make their indexes at once.
func (i *Installation) set(ctx context.Context, have []*daemon, n int, start func(id string) (*daemon, error)) ([]*daemon, error) {
	for len(have) < n {
		i.ids++
		d, err := start(fmt.Sprintf("%s-%d", filepath.Base(i.dir), i.ids))
		if err != nil {
			return have, err
		}
		have = append(have, d)
		if err := d.process.await(ctx, d.ready); err != nil {
			return have, err
		}
	}
	gone := slices.Clone(have[n:])
	return have[:n], stopAll(processes(gone))
}

func (i *Installation) startAPI(id string) (*daemon, error) {
	d := &daemon{id: id, dir: filepath.Join(i.dir, id)}
	listen, err := i.ports.address()
	if err != nil {
		return nil, err
	}
	if d.operations, err = i.ports.address(); err != nil {
		return nil, err
	}
	cert, err := i.authority.Issue(id)
	if err != nil {
		return nil, err
	}
	d.url = "https://" + listen
	settings := []string{"FAENA_AUTH=local", "FAENA_INSTANCE=" + id, "FAENA_LISTEN=" + listen, "FAENA_TLS_CERT_FILE=" + cert.Cert, "FAENA_TLS_KEY_FILE=" + cert.Key,
		"FAENA_ADMIN_SOCKET=" + adminSocket(d.dir), "FAENA_DRAIN_AFTER=5s", fmt.Sprintf("FAENA_NATS_MAX_STORE=%d", int64(maxStore)),
		fmt.Sprintf("FAENA_GROUP_MAX_STORE=%d", int64(groupStore))}
	if i.documents != nil {
		settings = append(settings, i.documents.settings...)
	}
	d.process, err = i.launch(id, roleAPI, append(settings, i.shared(roleAPI, d)...))
	return d, err
}

func (i *Installation) startWorker(id string) (d *daemon, err error) {
	d = &daemon{id: id, dir: filepath.Join(i.dir, id)}
	i.everyWorker = append(i.everyWorker, id)
	if d.operations, err = i.ports.address(); err != nil {
		return nil, err
	}
	initPath, err := filepath.Abs(filepath.Join(i.o.Programs, "faena-init"))
	if err != nil {
		return nil, err
	}
	settings := []string{"FAENA_WORKER_ID=" + id, "FAENA_WORKER_DRAIN_WITHIN=20s", "FAENA_INIT_PATH=" + initPath, "FAENA_DISK_MIN_FREE=1MiB"}
	d.process, err = i.launch(id, roleWorker, append(settings, i.shared(roleWorker, d)...))
	return d, err
}

// shared are the settings that both kinds of daemons have.
func (i *Installation) shared(role string, d *daemon) []string {
	nkey, sealing := i.keyFiles(role)
	return []string{"FAENA_DATA_DIR=" + d.dir, "FAENA_OPERATIONS_LISTEN=" + d.operations, "FAENA_LOG_LEVEL=warn", "FAENA_LOG_FORMAT=text",
		"FAENA_NATS_URLS=" + i.natsURLs(), "FAENA_NATS_CA_FILE=" + i.authority.File, "FAENA_NATS_NKEY_FILE=" + nkey,
		fmt.Sprintf("FAENA_NATS_REPLICAS=%d", i.o.Servers), "FAENA_SEAL_KEY_FILE=" + sealing, "FAENA_REGISTRY_PRIVATE_HOSTS=" + i.images.address}
}

// ready asks the daemon's operations listener.
func (d *daemon) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.operations+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it is read
	var says struct {
		Ready   bool
		Missing []string
	}
	if err := json.NewDecoder(res.Body).Decode(&says); err != nil {
		return err
	}
	if !says.Ready {
		return errors.New(strings.Join(says.Missing, "; "))
	}
	return nil
}

// WorkerCount is the sum of a counter of the only worker, over all its labels.
func (i *Installation) WorkerCount(ctx context.Context, metric string) (sum int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.workers[0].operations+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }() // it is read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == metric || strings.HasPrefix(name, metric+"{") {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("the worker says %s: %w", line, err)
			}
			sum += int(n)
		}
	}
	return sum, nil
}
