package wiring

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"syscall"
	"time"

	"faena.dev/faena/internal/auth"
	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/config"
	"faena.dev/faena/internal/dockerengine"
)

// checkAPI looks at everything that the settings name and this host has, without any change and without a word to anybody else. It
// returns all that is wrong, each a settingError, joined.
func checkAPI(c config.API) error {
	return errors.Join(checkServed(c.Serve), checkSealKey(c.SealKeyFile, "faena-api"), checkBus(c.NATS), checkAuthority("FAENA_MONGODB_CA_FILE", c.MongoDB.CAFile))
}

// checkWorker is checkAPI.
func checkWorker(c config.Worker) error {
	return errors.Join(checkSealKey(c.SealKeyFile, "faena-worker"), checkBus(c.NATS), checkInit(c.Engine.InitPath))
}

// wrong is a settingError.
func wrong(format string, args ...any) error { return settingError{fmt.Errorf(format, args...)} }

func checkServed(s config.Serve) error {
	ca := checkAuthority("FAENA_AUTH_GATEWAY_CA_FILE", s.GatewayCAFile)
	if !s.TLS() {
		return ca
	}
	cert, err := os.ReadFile(string(s.TLSCertFile))
	if err != nil {
		return errors.Join(wrong("FAENA_TLS_CERT_FILE: %w", err), ca)
	}
	pair, err := auth.ServerTLS(cert, s.TLSKeyFile.Secret.Reveal())
	if err != nil {
		return errors.Join(wrong("FAENA_TLS_CERT_FILE %s and FAENA_TLS_KEY_FILE %s: %w; they must be PEM, and of one pair", s.TLSCertFile, s.TLSKeyFile, err), ca)
	}
	return errors.Join(expired("FAENA_TLS_CERT_FILE", s.TLSCertFile, pair.Certificates[0]), ca)
}

// expired returns an error where a certificate is too old. One that is not valid yet is let pass: a clock that is behind is set soon.
func expired(setting string, path config.File, pair tls.Certificate) error {
	leaf := pair.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return wrong("%s %s: %w", setting, path, err)
		}
	}
	if clock.Now().After(leaf.NotAfter) {
		return wrong("%s %s has expired, on %s: put a new certificate there", setting, path, leaf.NotAfter.UTC().Format(time.DateTime))
	}
	return nil
}

func checkSealKey(key config.SecretFile, program string) error {
	if key.Path == "" { // then the daemon makes one
		return nil
	}
	if _, err := identityOf(key, ""); err != nil {
		return wrong("%w; %s keygen makes one", err, program)
	}
	return nil
}

func checkBus(c config.NATS) error {
	if _, err := checkNATS(c); err != nil {
		return err
	}
	if c.CertFile == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(string(c.CertFile), c.KeyFile.Path)
	if err != nil {
		return wrong("FAENA_NATS_CERT_FILE and FAENA_NATS_KEY_FILE: %w", err)
	}
	return expired("FAENA_NATS_CERT_FILE", c.CertFile, pair)
}

func checkAuthority(setting string, path config.File) error {
	if path == "" {
		return nil
	}
	if _, err := authorities(setting, path); err != nil {
		return settingError{err}
	}
	return nil
}

// engineThere returns an error where the socket of the engine is not there, or not for this worker. A worker that finds it at its start
// waits for it whenever it is away; one that does not is on a host without an engine, and ends for good, so that somebody sees it.
func engineThere(host string) error {
	u, err := url.Parse(host)
	if err != nil || u.Scheme != "unix" {
		return nil // it is asked over the network
	}
	switch err := syscall.Access(u.Path, 2 /* W_OK: to connect */); {
	case errors.Is(err, fs.ErrNotExist):
		return wrong("there is no Docker Engine at %s, which FAENA_DOCKER_HOST or DOCKER_HOST names: install docker.io or docker-ce, "+
			"see that it runs (systemctl status docker), or name another one, and start this worker again", host)
	case errors.Is(err, fs.ErrPermission):
		return wrong("this worker may not use the Docker Engine at %s, which FAENA_DOCKER_HOST or DOCKER_HOST names: its user is to be in the group of that "+
			"socket, which is docker (SupplementaryGroups=docker)", host)
	}
	return nil // the engine says what else is wrong
}

// oldestAPI is the API of Docker Engine 20.10, which is 1.41.
const oldestAPI = 41

// oldEngine returns a settingError where the engine is too old.
func oldEngine(ctx context.Context, docker *dockerengine.Engine, host string) error {
	about, err := docker.Info(ctx)
	if err != nil {
		return err
	}
	var major, minor int
	if _, err := fmt.Sscanf(about.APIVersion, "%d.%d", &major, &minor); err == nil && (major > 1 || major == 1 && minor >= oldestAPI) {
		return nil
	}
	return wrong("the Docker Engine at %s, which FAENA_DOCKER_HOST or DOCKER_HOST names, is too old: it is version %s, with API %s, and 20.10, with API 1.%d, "+
		"is the oldest that will do. Upgrade it", host, about.Version, about.APIVersion, oldestAPI)
}

// listenError says of an address that cannot be listened on what to do. Only one that this host may have later is worth another try.
func listenError(err error, setting string, address config.Address) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return wrong("%w (%s is %s): another process listens there, which ss -ltnp shows; end it, or choose another port", err, setting, address)
	case errors.Is(err, fs.ErrPermission):
		return wrong("%w (%s is %s): ports below 1024 are root's; choose another one", err, setting, address)
	}
	return fmt.Errorf("%w (%s is %s)", err, setting, address)
}

// makeDataDir makes the data directory where there is none.
func makeDataDir(path string, mode os.FileMode) error {
	err := os.MkdirAll(path, mode)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EROFS):
		return wrong("make the data directory, which FAENA_DATA_DIR names: %w. Name one that this daemon may write to", err)
	}
	return fmt.Errorf("make the data directory, which FAENA_DATA_DIR names: %w", err)
}
