package natsbus

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/nats-io/nats.go"
)

// Refused asks each of o's servers by itself, all at once, and says in one line why they take no connection: which server,
// which setting, what to do. It returns nil where all of them do. It is for people, after Connect has failed: the client
// library tries all servers and tells of the last one only, or of none.
func Refused(ctx context.Context, o Options) error {
	words := make([]string, len(o.URLs))
	var asks sync.WaitGroup
	for i, url := range o.URLs {
		asks.Go(func() {
			one := o
			one.URLs = []string{url}
			b, err := Connect(ctx, one)
			switch {
			case err == nil:
				b.Close()
			case o.confined() && errors.Is(err, nats.ErrNoResponders):
				// The server (2.15) sets up what a new account imports when it starts, or reads its configuration the next time.
				words[i] = "knows the key of group " + o.Group + ", but answers nothing to it: reload its configuration once more, which a new group needs, or see that it has JetStream"
			default:
				words[i] = because(err)
			}
		})
	}
	asks.Wait()
	// Servers with one trouble are named together, in the order of the setting.
	var said []string
	for i, w := range words {
		if w == "" {
			continue
		}
		servers := o.URLs[i]
		for k := i + 1; k < len(words); k++ {
			if words[k] == w {
				servers, words[k] = servers+", "+o.URLs[k], ""
			}
		}
		if servers != o.URLs[i] {
			servers = "each of " + servers
		}
		said = append(said, servers+" "+w)
	}
	if len(said) == 0 {
		return nil
	}
	return errors.New(strings.Join(said, "; "))
}

// because says why one server takes no connection, as the rest of a sentence that begins with the server.
func because(err error) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	text := err.Error()
	has := func(words string) bool { return strings.Contains(strings.ToLower(text), words) }
	switch {
	case errors.As(err, &authority):
		return "has a certificate of another CA than FAENA_NATS_CA_FILE has: give it the CA that issued the server's certificate"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("has a certificate that was valid until %s: renew it, or set this host's clock", invalid.Cert.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
	case errors.As(err, &host):
		return "has a certificate for other names: name the server in FAENA_NATS_URLS as its certificate does"
	case has("tls: certificate required"), has("tls: bad certificate"), has("tls: unknown certificate"), has("tls: expired certificate"):
		return "asks for a client certificate that it accepts: set FAENA_NATS_CERT_FILE and FAENA_NATS_KEY_FILE (" + text + ")"
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "speaks no TLS: give it a certificate, or leave out FAENA_NATS_CA_FILE and FAENA_NATS_CERT_FILE and write nats:// in FAENA_NATS_URLS"
	case errors.Is(err, nats.ErrNkeysNotSupported):
		return "asks nobody for an nkey: give it the authorization that faena-api nats-config prints, or leave out FAENA_NATS_NKEY_FILE"
	case errors.Is(err, nats.ErrAuthorization), has("authorization violation"):
		return "does not know the nkey of FAENA_NATS_NKEY_FILE, or asks for one: put what faena-api nats-config prints into the servers' configuration and reload them"
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, syscall.ECONNREFUSED):
		return "takes no connection: start the server, or correct FAENA_NATS_URLS"
	case unknownHost(err):
		return "has a name that nobody knows: correct FAENA_NATS_URLS, or the name service of this host"
	case timedOut(err) && has("connect to nats"):
		return "does not answer: start the server, open the way to it, or correct FAENA_NATS_URLS"
	}
	return "cannot be used: " + text
}

func unknownHost(err error) bool {
	_, ok := errors.AsType[*net.DNSError](err)
	return ok
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, nats.ErrTimeout) || errors.Is(err, os.ErrDeadlineExceeded)
}

// HasGroup reports whether a group's queue is declared.
func (b *Bus) HasGroup(ctx context.Context, group string) (bool, error) {
	_, err := b.QueueDepth(ctx, group)
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}
