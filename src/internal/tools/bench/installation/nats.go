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

	natsd "github.com/nats-io/nats-server/v2/server"
)

// natsServer is one NATS server, and what its configuration says.
type natsServer struct {
	name                 string
	port, route, monitor int
	process              *Process
}

// startNATS starts one server, or a cluster of several, which have TLS then between each other.
func (i *Installation) startNATS(ctx context.Context) (err error) {
	for k := range i.o.Servers {
		s := &natsServer{name: fmt.Sprintf("nats-%d", k+1)}
		for _, port := range []*int{&s.port, &s.route, &s.monitor} {
			if *port, err = i.ports.take(); err != nil {
				return err
			}
		}
		i.servers = append(i.servers, s)
	}
	for _, s := range i.servers {
		text, err := i.natsConfig(s)
		if err != nil {
			return err
		}
		file := filepath.Join(i.dir, s.name+".conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		if s.process, err = i.launch(s.name, roleNATS, nil, file); err != nil {
			return err
		}
	}
	for _, s := range i.servers {
		if err := s.process.await(ctx, s.ready); err != nil {
			return err
		}
	}
	return nil
}

// natsConfig is a server's file, as an operator would write it.
func (i *Installation) natsConfig(s *natsServer) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %s\nlisten: \"127.0.0.1:%d\"\nhttp: \"127.0.0.1:%d\"\n", s.name, s.port, s.monitor)
	fmt.Fprintf(&b, "ping_interval: \"10s\"\nping_max: 2\n")
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file_store: %d, max_memory_store: %d }\n", filepath.Join(i.dir, s.name), int64(maxStore), 256<<20)
	if i.authority != nil {
		c, err := i.authority.Issue(s.name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "tls { cert_file: %q, key_file: %q, timeout: 10 }\n", c.Cert, c.Key)
		if len(i.servers) > 1 {
			fmt.Fprintf(&b, "cluster {\n  name: bench, listen: \"127.0.0.1:%d\"\n", s.route)
			fmt.Fprintf(&b, "  tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 10 }\n  routes: [\n", c.Cert, c.Key, i.authority.File)
			for _, other := range i.servers {
				fmt.Fprintf(&b, "    \"tls://127.0.0.1:%d\"\n", other.route)
			}
			b.WriteString("  ]\n}\n")
		}
	}
	b.Write(i.authorization)
	return b.String(), nil
}

// natsURLs are of all servers, for a setting.
func (i *Installation) natsURLs() string {
	scheme := "nats"
	if i.authority != nil {
		scheme = "tls"
	}
	urls := make([]string, len(i.servers))
	for k, s := range i.servers {
		urls[k] = fmt.Sprintf("%s://127.0.0.1:%d", scheme, s.port)
	}
	return strings.Join(urls, ",")
}

// ready reports whether JetStream takes requests: where there is a cluster it has to have a leader.
func (s *natsServer) ready(ctx context.Context) error {
	var health struct{ Status, Error string }
	if err := s.look(ctx, "/healthz", &health); err != nil {
		return err
	}
	if health.Status != "ok" {
		return errors.New(health.Error)
	}
	return nil
}

// look asks the server's monitoring endpoint.
func (s *natsServer) look(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", s.monitor, path), nil)
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

// Stream is what a NATS server itself says of a stream and its one consumer.
type Stream struct {
	Messages    uint64 // that it holds
	Bytes       uint64 // on disk
	Delivered   uint64 // how often the consumer has given a message away, each time counted
	Redelivered int    // messages that were given away more than once, of those that are not acknowledged yet
}

// Stream asks the first NATS server for a stream; there must be no other server, and no more than one consumer.
func (i *Installation) Stream(ctx context.Context, name string) (s Stream, err error) {
	var all struct {
		AccountDetails []natsd.AccountDetail `json:"account_details"`
	}
	if err := i.servers[0].look(ctx, "/jsz?streams=true&consumers=true", &all); err != nil {
		return s, fmt.Errorf("ask the NATS server for its streams: %w", err)
	}
	for _, account := range all.AccountDetails {
		for _, stream := range account.Streams {
			if stream.Name != name {
				continue
			}
			s.Messages, s.Bytes = stream.State.Msgs, stream.State.Bytes
			for _, c := range stream.Consumer {
				s.Delivered, s.Redelivered = c.Delivered.Consumer, c.NumRedelivered
			}
			return s, nil
		}
	}
	return s, fmt.Errorf("the NATS server has no stream %s", name)
}

// runNATS is the process of one server. It runs until ctx ends.
func runNATS(ctx context.Context, file string) error {
	o, err := natsd.ProcessConfigFile(file)
	if err != nil {
		return fmt.Errorf("read the NATS server's configuration: %w", err)
	}
	o.NoSigs = true // ctx is how it is told to stop
	s, err := natsd.NewServer(o)
	if err != nil {
		return fmt.Errorf("start the NATS server: %w", err)
	}
	s.ConfigureLogger()
	s.Start()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
