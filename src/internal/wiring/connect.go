package wiring

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/mongostore"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/seal"
)

// checkNATS reads everything that the settings name for the connection to NATS, and returns the public half of the nkey; ""
// where there is none. Its error is a settingError.
func checkNATS(c config.NATS) (nkey string, err error) {
	if err := secure(c, &natsbus.Options{}); err != nil {
		return "", settingError{err}
	}
	if c.NkeyFile.Path == "" {
		return "", nil
	}
	if nkey, err = natsbus.PublicNkey(bytes.TrimSpace(c.NkeyFile.Secret.Reveal())); err != nil {
		return "", settingError{fmt.Errorf("read FAENA_NATS_NKEY_FILE %s: %w", c.NkeyFile.Path, err)}
	}
	return nkey, nil
}

// connect makes one try to connect to the NATS servers of the settings. An error says which server, which setting, what to do.
func connect(ctx context.Context, c config.NATS, o natsbus.Options) (*natsbus.Bus, error) {
	o.URLs, o.Replicas = c.URLs, c.Replicas
	if err := secure(c, &o); err != nil {
		return nil, err
	}
	type outcome struct {
		bus *natsbus.Bus
		err error
	}
	// While the library dials it hears of no context. A stop does not wait for it: what connects too late is closed.
	tried := make(chan outcome)
	go func() {
		bus, err := natsbus.Connect(ctx, o)
		if err != nil && ctx.Err() == nil {
			if why := natsbus.Refused(ctx, o); why != nil {
				err = why
			}
		}
		select {
		case tried <- outcome{bus, err}:
		case <-ctx.Done():
			if err == nil {
				bus.Close()
			}
		}
	}()
	select {
	case t := <-tried:
		return t.bus, t.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// secure sets what is read from files: the CA, the client's certificate, the nkey. They are read at each try, the certificate
// at each connection, so that one that was replaced is taken.
func secure(c config.NATS, o *natsbus.Options) (err error) {
	if c.NkeyFile.Path != "" {
		seed, err := os.ReadFile(c.NkeyFile.Path)
		if err != nil {
			return fmt.Errorf("read FAENA_NATS_NKEY_FILE: %w", err)
		}
		o.NkeySeed = bytes.TrimSpace(seed)
	}
	if c.CAFile == "" && c.CertFile == "" {
		return nil
	}
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		if o.TLS.RootCAs, err = authorities("FAENA_NATS_CA_FILE", c.CAFile); err != nil {
			return err
		}
	}
	if c.CertFile != "" {
		own := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(string(c.CertFile), c.KeyFile.Path)
			if err != nil {
				return nil, fmt.Errorf("read FAENA_NATS_CERT_FILE and FAENA_NATS_KEY_FILE: %w", err)
			}
			return &pair, nil
		}
		if _, err := own(); err != nil {
			return err
		}
		o.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	return nil
}

// authorities reads the certificates of CAs.
func authorities(setting string, path config.File) (*x509.CertPool, error) {
	text, err := os.ReadFile(string(path))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", setting, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read %s: there is no certificate in %s", setting, path)
	}
	return pool, nil
}

// identityOf reads a daemon's sealing key. An error of the file that the setting names is a settingError.
func identityOf(key config.SecretFile, dir string) (seal.Identity, error) {
	if key.Path == "" {
		return seal.LoadOrCreate(filepath.Join(dir, sealKeyFile))
	}
	id, err := seal.ParseIdentity(key.Secret.Reveal())
	if err != nil {
		return id, settingError{fmt.Errorf("read FAENA_SEAL_KEY_FILE %s: %w", key.Path, err)}
	}
	return id, nil
}

// documents are the document store of an API, and what an operator is told of it.
type documents struct {
	faena.Documents
	kind    string
	warning func() string
	file    *boltstore.Store // nil where they are in MongoDB

	noBackup string
}

// openDocuments opens MongoDB, which need not answer yet, or the file of a single API.
func openDocuments(ctx context.Context, c config.API, log *slog.Logger) (documents, error) {
	if c.MongoDB.URI == "" {
		store, err := boltstore.Open(filepath.Join(c.DataDir, "documents.db"), boltstore.Options{})
		if err != nil {
			return documents{}, err
		}
		return documents{Documents: store, kind: "bbolt", warning: func() string { return "" }, file: store}, nil
	}
	o := mongostore.Options{URI: c.MongoDB.URI, Database: c.MongoDB.Database, Username: c.MongoDB.Username,
		Password: string(bytes.TrimRight(c.MongoDB.PasswordFile.Secret.Reveal(), "\r\n")), Logger: log}
	if c.MongoDB.CAFile != "" {
		pool, err := authorities("FAENA_MONGODB_CA_FILE", c.MongoDB.CAFile)
		if err != nil {
			return documents{}, settingError{err}
		}
		o.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	store, err := mongostore.Open(ctx, o)
	if err != nil {
		return documents{}, settingError{err}
	}
	return documents{Documents: store, kind: "mongodb", warning: store.Warning, noBackup: notOfMongoDB}, nil
}
