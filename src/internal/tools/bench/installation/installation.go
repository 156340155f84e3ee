package installation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/seal"
	"faena.dev/faena/internal/tools/certificates"
)

// maxStore is what a NATS server may keep on disk, and groupStore what of it the group may take.
const (
	maxStore   = 16 << 30
	groupStore = 8 << 30
)

// Options say what an installation is made of.
type Options struct {
	// Programs is the directory of faena-api, faena-worker and faena-init.
	Programs string
	// Self is the program whose main calls Part: the NATS servers are made of it. Default: this one.
	Self string
	// Servers is how many NATS servers there are, and how many keep each stream: 1 or 3.
	Servers int
	// SharedDocuments gives the APIs a document store of their own host: the MongoDB that FAENA_TEST_MONGODB_URI names,
	// otherwise FerretDB. Without it the documents are a file of the only API.
	SharedDocuments bool
}

// Installation is one that runs. Its methods are for one goroutine at a time, but for what Client gives.
type Installation struct {
	Admin User // may do everything

	o             Options
	dir           string
	ports         ports
	authority     *certificates.Authority
	authorization []byte // the block of the NATS servers' configuration
	group         groupKeys
	images        *images
	servers       []*natsServer
	documents     *documents // nil where the only API has them
	apis, workers []*daemon
	ids           int      // of daemons, so far
	everyWorker   []string // ids of those that have run
}

// groupKeys are the public halves of the workers' keys.
type groupKeys struct {
	Nkey      string `json:"nkey"`
	Recipient string `json:"recipient"`
}

// Start starts NATS servers, the document store, and so many APIs and workers; all of them are ready when it returns.
func Start(ctx context.Context, o Options, apis, workers int) (_ *Installation, err error) {
	dir, err := os.MkdirTemp("", "faena-bench") // short: sockets of containers are below it
	if err != nil {
		return nil, err
	}
	i := &Installation{o: o, dir: dir, Admin: User{"admin", "a-password-of-admin"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.Close(ctx))
		}
	}()
	if err := os.Chmod(dir, 0o711); err != nil { // containers reach their sockets through it
		return nil, err
	}
	if i.images, err = serveImages(); err != nil {
		return nil, err
	}
	if i.authority, err = certificates.New(dir); err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{i.makeKeys, i.startNATS, i.startDocuments,
		func(ctx context.Context) error { return i.SetAPIs(ctx, apis) }, i.makeAdmin,
		func(ctx context.Context) error { return i.SetWorkers(ctx, workers) }}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// Files of the daemons' keys. All APIs share two, and all workers.
func (i *Installation) keyFiles(role string) (nkey, sealing string) {
	return filepath.Join(i.dir, role+".nk"), filepath.Join(i.dir, role+"-seal.key")
}

// makeKeys makes the keys of all daemons, and what the NATS servers are told of them.
func (i *Installation) makeKeys(context.Context) error {
	public := map[string]groupKeys{}
	for _, role := range []string{roleAPI, roleWorker} {
		nkeyFile, sealFile := i.keyFiles(role)
		seed, nkey, err := natsbus.NewNkey()
		if err != nil {
			return err
		}
		if err := os.WriteFile(nkeyFile, seed, 0o600); err != nil {
			return err
		}
		identity, err := seal.LoadOrCreate(sealFile)
		if err != nil {
			return err
		}
		public[role] = groupKeys{nkey, identity.Recipient()}
	}
	i.group = public[roleWorker]
	var err error
	i.authorization, err = natsbus.Authorization(public[roleAPI].Nkey, map[string]string{group: i.group.Nkey})
	return err
}

// group is the group that all workers are in.
const group = "default"

// makeAdmin makes the first user at the first API's socket, and lets the group's keys be known.
func (i *Installation) makeAdmin(ctx context.Context) error {
	cmd, err := i.command(ctx, roleAPI, "admin", "create", i.Admin.Name, "--password-stdin")
	if err != nil {
		return err
	}
	cmd.Env = append(i.environ(), "FAENA_ADMIN_SOCKET="+adminSocket(i.apis[0].dir))
	cmd.Stdin = strings.NewReader(i.Admin.Password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the first admin: %w: %s", err, out)
	}
	keys, err := json.Marshal(i.group)
	if err != nil {
		return err
	}
	c := i.Client()
	defer c.Close()
	_, err = c.Send(ctx, i.Admin, http.MethodPut, "/v1/groups/"+group, keys, "Content-Type", "application/json")
	return err
}

func adminSocket(dir string) string { return filepath.Join(dir, "admin.sock") }

// Client calls the APIs that run now, in turn.
func (i *Installation) Client() *Client {
	var urls []string
	for _, d := range i.apis {
		urls = append(urls, d.url)
	}
	return NewClient(urls, i.authority.Client())
}

// NewUser makes a user with a limit of active activations.
func (i *Installation) NewUser(ctx context.Context, c *Client, name string, limit int) (User, error) {
	who := User{name, "a-password-of-" + name}
	profile, err := json.Marshal(map[string]any{"role": "user", "groups": map[string]int{group: limit}, "password": who.Password})
	if err != nil {
		return who, err
	}
	_, err = c.Send(ctx, i.Admin, http.MethodPut, "/v1/users/"+name, profile, "Content-Type", "application/json")
	return who, err
}

// Push makes an image of a program and returns the reference to it, for Deploy.
func (i *Installation) Push(ctx context.Context, bin string) (ref string, err error) {
	return i.images.push(ctx, bin)
}

// Deploy makes a function of a user. spec is what it has besides the image.
func (i *Installation) Deploy(ctx context.Context, c *Client, who User, name, image string, spec map[string]any) error {
	all := map[string]any{"image": image}
	for k, v := range spec {
		all[k] = v
	}
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	_, err = c.Send(ctx, who, http.MethodPut, "/v1/functions/"+name, body, "Content-Type", "application/json")
	return err
}

// APIs, Workers and Servers are the processes that run now.
func (i *Installation) APIs() []*Process    { return processes(i.apis) }
func (i *Installation) Workers() []*Process { return processes(i.workers) }
func (i *Installation) Servers() (list []*Process) {
	for _, s := range i.servers {
		if s.process != nil {
			list = append(list, s.process)
		}
	}
	return list
}

func processes(daemons []*daemon) (list []*Process) {
	for _, d := range daemons {
		list = append(list, d.process)
	}
	return list
}

// Parts are the kinds of processes that are the control plane, in the order of a report.
var Parts = []string{"APIs", "NATS", "workers"}

// Control is what each part of the control plane has used, all its processes together and without containers.
func (i *Installation) Control() (map[string]Usage, error) {
	use := make(map[string]Usage, len(Parts))
	for part, list := range map[string][]*Process{"APIs": i.APIs(), "NATS": i.Servers(), "workers": i.Workers()} {
		var err error
		if use[part], err = usageOf(list); err != nil {
			return nil, err
		}
	}
	return use, nil
}

// DataDir is where the first API keeps its own files.
func (i *Installation) DataDir() string { return i.apis[0].dir }

// Close stops everything that still runs and removes what it has left. Its error says which part did not end as it
// should. ctx may have ended: that is how the caller was told to stop.
func (i *Installation) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	var errs []error
	errs = append(errs, stopAll(i.Workers()))
	for _, id := range i.everyWorker {
		errs = append(errs, removeContainers(ctx, id))
	}
	errs = append(errs, stopAll(i.APIs()))
	if i.documents != nil {
		errs = append(errs, i.documents.close(ctx))
	}
	errs = append(errs, stopAll(i.Servers()))
	if i.images != nil {
		errs = append(errs, i.images.close(ctx))
	}
	i.ports.release()
	return errors.Join(append(errs, os.RemoveAll(i.dir))...)
}
