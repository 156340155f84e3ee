package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// Server is a NATS server.
type Server struct {
	*Process
	Disk *Disk // what it stores

	n       int // of all, from 1
	monitor string
}

// Sizes of the stores.
const (
	serverDisk = 1280 << 20 // of a server's disk
	serverMax  = 1 << 30    // of it what the server may use for streams
	groupStore = 512 << 20  // of that what the group may use
)

func (s *Site) newServer(n int) (*Server, error) {
	name := fmt.Sprintf("nats-%d", n)
	disk, err := newDisk(filepath.Join(s.dir, name), serverDisk)
	if err != nil {
		return nil, err
	}
	server := &Server{Disk: disk, n: n}
	s.servers = append(s.servers, server)
	server.monitor = fmt.Sprintf("http://%s:%d", s.own.Far, 8220+n)
	cert, err := s.authority.Issue(name, s.network.far()...)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %s\nlisten: \"0.0.0.0:%d\"\nhttp: \"0.0.0.0:%d\"\nping_interval: \"10s\"\nping_max: 2\n", name, 4220+n, 8220+n)
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file_store: %d, max_memory_store: %d }\n", filepath.Join(disk.Dir, "js"), serverMax, 64<<20)
	fmt.Fprintf(&b, "tls { cert_file: %q, key_file: %q, timeout: 10 }\n", cert.Cert, cert.Key)
	// Addresses of servers are not given to clients: each is to use its own cable.
	fmt.Fprintf(&b, "cluster {\n  name: chaos, listen: \"127.0.0.1:%d\", no_advertise: true\n", 6220+n)
	fmt.Fprintf(&b, "  tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 10 }\n  routes: [\n", cert.Cert, cert.Key, s.authority.File)
	for k := range serverCount {
		fmt.Fprintf(&b, "    \"tls://127.0.0.1:%d\"\n", 6221+k)
	}
	b.WriteString("  ]\n}\n")
	b.WriteString(s.authorization)
	file := filepath.Join(s.dir, name+".conf")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return nil, err
	}
	server.Process = newProcess(name, s.logs, s.environ(), "ip", "netns", "exec", s.network.prefix, s.natsServer, "-c", file)
	return server, nil
}

const serverCount = 3

// natsURLs are those of all servers by a cable.
func natsURLs(c *Cable) string {
	urls := make([]string, serverCount)
	for k := range urls {
		urls[k] = fmt.Sprintf("tls://%s:%d", c.Far, 4221+k)
	}
	return strings.Join(urls, ",")
}

// Healthy asks the server itself: everything that it stores is in step with the others.
func (s *Server) Healthy(ctx context.Context) error {
	var health struct{ Status, Error string }
	if err := s.look(ctx, "/healthz", &health); err != nil {
		return err
	}
	if health.Status != "ok" {
		return errors.New(health.Error)
	}
	return nil
}

func (s *Server) look(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.monitor+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it is read
	return json.NewDecoder(res.Body).Decode(out)
}

// Run starts it, and waits until it is in step.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(); err != nil {
		return err
	}
	return s.await(ctx, s.Healthy)
}

// Leader is the server that leads a stream.
func (s *Site) Leader(ctx context.Context, stream string) (*Server, error) {
	for _, server := range s.servers {
		var all struct {
			AccountDetails []struct {
				Streams []struct {
					Name    string                  `json:"name"`
					Cluster struct{ Leader string } `json:"cluster"`
				} `json:"stream_detail"`
			} `json:"account_details"`
		}
		if !server.Runs() || server.look(ctx, "/jsz?streams=true", &all) != nil {
			continue
		}
		for _, account := range all.AccountDetails {
			for _, st := range account.Streams {
				for _, leader := range s.servers {
					if st.Name == stream && st.Cluster.Leader == leader.Name {
						return leader, nil
					}
				}
			}
		}
	}
	return nil, fmt.Errorf("no NATS server knows the leader of %s", stream)
}
