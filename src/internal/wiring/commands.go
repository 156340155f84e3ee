package wiring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"

	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

// APIMain is the program faena-api: the daemon until ctx ends, or one of its commands. environ is as os.Environ returns it. It
// returns the exit code.
func APIMain(ctx context.Context, args []string, in io.Reader, out, errs io.Writer, environ []string) int {
	return apiProgram(in, out, errs, environ).run(ctx, args)
}

func apiProgram(in io.Reader, out, errs io.Writer, environ []string) *program {
	dir, socket := config.APIPaths(environ)
	p := &program{name: "faena-api", about: "faena-api is one API of an installation: REST in front, the queue behind it.", in: in, out: out, err: errs,
		settings: config.Settings(new(config.API)), service: config.StartedBySystemd(environ, os.Getpid())}
	p.load = func() (configured, error) {
		c, err := config.LoadAPI(environ)
		return configured{log: c.Log, check: func() error { return checkAPI(c) },
			run: func(ctx context.Context, log *slog.Logger) error { return RunAPI(ctx, c, log) }}, err
	}
	p.commands = []command{p.adminCreate(socket), p.groupsPut(socket), p.natsConfig(socket), p.keygen(dir, 0o700)}
	return p
}

// WorkerMain is the program faena-worker, likewise.
func WorkerMain(ctx context.Context, args []string, in io.Reader, out, errs io.Writer, environ []string) int {
	return workerProgram(in, out, errs, environ).run(ctx, args)
}

func workerProgram(in io.Reader, out, errs io.Writer, environ []string) *program {
	p := &program{name: "faena-worker", in: in, out: out, err: errs, settings: config.Settings(new(config.Worker)),
		service: config.StartedBySystemd(environ, os.Getpid()),
		about:   "faena-worker is one worker of an installation: it takes activations from the queue and runs them on the local Docker Engine."}
	p.load = func() (configured, error) {
		c, err := config.LoadWorker(environ)
		return configured{log: c.Log, check: func() error { return checkWorker(c) }, run: func(ctx context.Context, log *slog.Logger) error {
			if err := engineThere(c.Engine.DockerHost); err != nil {
				return err
			}
			return RunWorker(ctx, c, log)
		}}, err
	}
	p.commands = []command{p.keygen(config.WorkerDataDir(environ), 0o711)} // containers reach their sockets through it
	return p
}

func (p *program) keygen(dir string, mode os.FileMode) command {
	return command{"keygen", "[--dir DIR]", "Make the keys of the daemon, and print their public halves as JSON.\n" +
		"nats.nk is an nkey seed for FAENA_NATS_NKEY_FILE, seal.key an age identity for FAENA_SEAL_KEY_FILE. Keys that are there stay as they are.",
		func(flags *flag.FlagSet) func(context.Context, []string) error {
			to := flags.String("dir", dir, "The `DIR`ectory of the keys; it is made where it does not exist.")
			return func(_ context.Context, words []string) error {
				if len(words) > 0 {
					return usagef("%q is too much", words[0])
				}
				return keygen(*to, mode, p.out, p.err)
			}
		}}
}

// maxAdminAnswer bounds what is read of an answer.
const maxAdminAnswer = 1 << 20

const socketUsage = "The `PATH` of the daemon's admin socket."

func (p *program) adminCreate(socket string) command {
	return command{"admin create", "NAME [--password-stdin]", "Make a user an admin: a new one, or one that is there. Root only.\n" +
		"It asks the daemon, which must run on this host and be ready. Where the daemon checks passwords itself (FAENA_AUTH=local) and none is\n" +
		"given, a new one is made, which replaces the user's own, and is printed this once.",
		func(flags *flag.FlagSet) func(context.Context, []string) error {
			at := flags.String("socket", socket, socketUsage)
			fromStdin := flags.Bool("password-stdin", false, "Read the password from standard input.")
			return func(ctx context.Context, words []string) error {
				if len(words) != 1 {
					return usagef("give one name")
				}
				body := newAdmin{Name: words[0]}
				if *fromStdin {
					text, err := io.ReadAll(io.LimitReader(p.in, maxAdminBody/2))
					if err != nil {
						return fmt.Errorf("read the password: %w", err)
					}
					if body.Password = strings.TrimRight(string(text), "\r\n"); body.Password == "" {
						return usagef("there is no password on standard input")
					}
				}
				return p.askForAdmin(ctx, *at, body)
			}
		}}
}

func (p *program) askForAdmin(ctx context.Context, socket string, body newAdmin) error {
	var made adminMade
	if err := askAdminFor(ctx, socket, http.MethodPost, adminsPath, body, &made); err != nil {
		return err
	}
	if made.Created {
		fmt.Fprintf(p.err, "User %s is new, and an admin.\n", body.Name)
	} else {
		fmt.Fprintf(p.err, "User %s is an admin.\n", body.Name)
	}
	if made.Password != "" {
		fmt.Fprintln(p.err, "The password, which is not shown again:")
		fmt.Fprintln(p.out, made.Password)
	}
	return nil
}

func (p *program) natsConfig(socket string) command {
	return command{"nats-config", "[--api-nkey U… [--group NAME=U…] …]", "Print the authorization block of the NATS servers' configuration.\n" +
		"With --api-nkey it is made of the keys that are given, for a first start. Otherwise the daemon is asked, which must run on this host: it\n" +
		"knows its own key and those of all groups. Root only. Every server gets the same; one that runs is to reload it twice where a group is new.",
		func(flags *flag.FlagSet) func(context.Context, []string) error {
			at := flags.String("socket", socket, socketUsage)
			api := flags.String("api-nkey", "", "The public `NKEY` of the APIs, which faena-api keygen prints.")
			groups := map[string]string{}
			flags.Func("group", "A group and the public nkey of its workers, as `NAME=NKEY`; once for each group.", func(text string) error {
				name, nkey, _ := strings.Cut(text, "=")
				if !faena.ValidName(name) || nkey == "" {
					return errors.New("write NAME=NKEY")
				}
				groups[name] = nkey
				return nil
			})
			return func(ctx context.Context, words []string) (err error) {
				var block []byte
				switch {
				case len(words) > 0:
					return usagef("%q is too much", words[0])
				case *api != "":
					if block, err = natsbus.Authorization(*api, groups); err != nil {
						return usageError{err}
					}
				case len(groups) > 0:
					return usagef("--group goes with --api-nkey")
				default:
					if block, err = askAdmin(ctx, *at, http.MethodGet, natsConfigPath, nil); err != nil {
						return err
					}
				}
				if _, err = p.out.Write(block); err == nil {
					fmt.Fprintln(p.err, "This is for the configuration of every NATS server. One that runs is to reload it twice: what a new group needs is there only then.")
				}
				return err
			}
		}}
}

// askAdmin asks the daemon on this host, over its admin socket. What the daemon refuses is an error in its words.
func askAdmin(ctx context.Context, socket, method, path string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, adminFor)
	defer cancel()
	res, err := reachAdmin(ctx, socket, method, path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	if err := refusedIn(res); err != nil {
		return nil, err
	}
	if text, err = io.ReadAll(io.LimitReader(res.Body, maxAdminAnswer)); err != nil {
		return nil, fmt.Errorf("ask faena-api: %w", err)
	}
	return text, nil
}

// askAdminFor asks likewise, and reads the answer into out.
func askAdminFor(ctx context.Context, socket, method, path string, body, out any) error {
	text, err := askAdmin(ctx, socket, method, path, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the answer of faena-api: %w", err)
	}
	return nil
}

// reachAdmin sends a request to the daemon on this host, over its admin socket. The caller closes the answer's body.
func reachAdmin(ctx context.Context, socket, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://faena-api"+path, body)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask faena-api: %w. Is it running on this host, are you root, and is %s its socket (FAENA_ADMIN_SOCKET, --socket)?",
			errors.Unwrap(err), socket)
	}
	return res, nil
}

// refusedIn is what the daemon says in an answer that is none of success, nil for one that is.
func refusedIn(res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	var no refusal
	if json.NewDecoder(io.LimitReader(res.Body, maxAdminAnswer)).Decode(&no) != nil || no.Error == "" {
		no.Error = "it answers " + res.Status
	}
	return errors.New(strings.TrimSpace(no.Error))
}
