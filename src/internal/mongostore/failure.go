package mongostore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/auth"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"faena.dev/faena/internal/faena"
)

// What MongoDB answers to one who may not do something.
const (
	codeUnauthorized         = 13
	codeAuthenticationFailed = 18
)

// failed makes what the port promises of an error of the driver: the context's own where the caller has ended that, otherwise one
// that says that the store is away, with the server's words, and with the setting to look at where it is one of those.
func (s *Store) failed(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		if s.life.Err() != nil && !errors.Is(ended, context.DeadlineExceeded) {
			return closed()
		}
		if errors.Is(ended, context.Canceled) {
			return ended
		}
		err = errors.Join(err, ended)
	}
	reason, message := explain(err)
	return faena.Unavailable(faena.ComponentStore, reason, message, words{err, s.clean(strings.ReplaceAll(err.Error(), "\n", ": "))})
}

func closed() error {
	return faena.Unavailable(faena.ComponentStore, "store_closed", "The document store is closed.", nil)
}

// words is an error whose text has no credentials.
type words struct {
	err  error
	text string
}

func (w words) Error() string { return w.text }
func (w words) Unwrap() error { return w.err }

// explain finds out what an operator can mend.
func explain(err error) (reason, message string) {
	// The driver looks for a server until it gives up, and keeps what each of them said.
	nobody, looking := errors.AsType[topology.ServerSelectionError](err)
	if looking {
		for _, server := range nobody.Desc.Servers {
			err = errors.Join(err, server.LastError)
		}
	}
	switch {
	case hasCode(err, codeAuthenticationFailed), has[*auth.Error](err) && !has[net.Error](err):
		return "store_unauthenticated",
			"The document store refuses the credentials: look at FAENA_MONGODB_USERNAME and FAENA_MONGODB_PASSWORD_FILE."
	case hasCode(err, codeUnauthorized):
		return "store_forbidden",
			"The document store does not let its user do this: give the one of FAENA_MONGODB_USERNAME the role readWrite on the database."
	case has[x509.UnknownAuthorityError](err):
		return "store_certificate", "The document store shows a certificate of another authority: look at FAENA_MONGODB_CA_FILE."
	case has[x509.CertificateInvalidError](err):
		return "store_certificate",
			"The document store shows a certificate that is not valid, or not now: renew it, or look at FAENA_MONGODB_CA_FILE."
	case has[x509.HostnameError](err):
		return "store_certificate", "The document store shows a certificate for another name than the one in FAENA_MONGODB_URI."
	case has[tls.RecordHeaderError](err), has[tls.AlertError](err), has[*tls.CertificateVerificationError](err):
		return "store_tls", "The document store cannot be spoken to by TLS: look at FAENA_MONGODB_URI and FAENA_MONGODB_CA_FILE."
	case has[*net.DNSError](err):
		return "store_unknown_host", "The host of the document store is not known: look at FAENA_MONGODB_URI."
	case looking && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return "store_tls", "The document store ends each connection at once: see in FAENA_MONGODB_URI whether it is to be spoken to by TLS."
	case has[*net.OpError](err):
		return "store_unavailable", "The document store cannot be reached at FAENA_MONGODB_URI now. Try again."
	}
	return "store_unavailable", "The document store cannot be used now. Try again."
}

func has[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func hasCode(err error, code int) bool {
	if e, ok := errors.AsType[driver.Error](err); ok && int(e.Code) == code {
		return true
	}
	e, ok := errors.AsType[mongo.ServerError](err)
	return ok && e.HasErrorCode(code)
}

// cleaner makes texts fit for a log: the driver quotes a URI that it cannot use.
func cleaner(o Options) func(string) string {
	secrets := []string{o.Password}
	if c := options.Client().ApplyURI(o.URI); c.Auth != nil {
		secrets = append(secrets, c.Auth.Password)
	}
	// As they are written in the URI, which may be none that can be taken apart.
	if _, rest, ok := strings.Cut(o.URI, "://"); ok {
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			secrets = append(secrets, rest[:at])
			if _, password, ok := strings.Cut(rest[:at], ":"); ok {
				secrets = append(secrets, password)
			}
		}
	}
	var pairs []string
	for _, secret := range secrets {
		if secret != "" {
			pairs = append(pairs, secret, "…")
		}
	}
	return strings.NewReplacer(pairs...).Replace
}
