package endtoend_test

import (
	"testing"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

// documents is the document store of an installation.
type documents interface {
	// settings are those of the APIs.
	settings() []string
	// stop ends it, for its clients, and start brings it back with all that it had.
	stop(t *testing.T)
	start(t *testing.T)
}

func openDocuments(t *testing.T, ca *faenatest.CA) documents {
	t.Helper()
	cert := ca.Issue("mongodb")
	return &ferret{ferrettest.Start(t, ferrettest.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile}), ca}
}

// ferret is FerretDB.
type ferret struct {
	server *ferrettest.Server
	ca     *faenatest.CA
}

func (f *ferret) settings() []string {
	return []string{"FAENA_MONGODB_URI=" + f.server.URI(), "FAENA_MONGODB_CA_FILE=" + f.ca.File}
}

func (f *ferret) stop(t *testing.T)  { f.server.Stop(t) }
func (f *ferret) start(t *testing.T) { f.server.Restart(t) }
