package installation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// mongoVariable names the environment variable with the URI of a MongoDB to use, and ferretSource is where FerretDB is
// built otherwise, seen from the module.
const (
	mongoVariable = "FAENA_TEST_MONGODB_URI"
	ferretSource  = "internal/ferrettest/ferretdb"
)

// documents is the store that several APIs share.
type documents struct {
	kind     string
	settings []string // of the APIs
	process  *Process // nil where the server was there
	uri      string   // of the server that was there, with credentials
	database string
}

// Documents says what the document store is.
func (i *Installation) Documents() string {
	if i.documents == nil {
		return "bbolt"
	}
	return i.documents.kind
}

// startDocuments uses the server that is there, or starts FerretDB; neither where the only API has the documents itself.
func (i *Installation) startDocuments(ctx context.Context) error {
	if !i.o.SharedDocuments {
		return nil
	}
	d := &documents{database: NewDatabase(), uri: MongoDB()}
	i.documents = d
	if d.uri != "" {
		d.kind = "MongoDB"
		return i.useMongoDB(d)
	}
	d.kind = "FerretDB"
	bin, data, socket := filepath.Join(i.dir, "ferretdb"), filepath.Join(i.dir, "documents"), filepath.Join(i.dir, "documents.sock")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, ".")
	cmd.Dir, cmd.Env = ferretSource, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build FerretDB: %w: %s", err, out)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	var err error
	// It looks through all documents wherever MongoDB has an index. What is measured comes first: history catches up.
	if d.process, err = launch("documents", i.dir, i.environ(), "nice", "-n", "10", bin, data, socket); err != nil {
		return err
	}
	d.settings = []string{"FAENA_MONGODB_URI=mongodb://" + url.PathEscape(socket) + "/", "FAENA_MONGODB_DATABASE=" + d.database}
	return d.process.await(ctx, func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// useMongoDB takes the credentials out of the URI: a daemon has them from a file.
func (i *Installation) useMongoDB(d *documents) error {
	u, err := url.Parse(d.uri)
	if err != nil {
		return fmt.Errorf("%s is no URI", mongoVariable) // the error would repeat it, with its password
	}
	if password, set := u.User.Password(); set {
		file := filepath.Join(i.dir, "mongodb-password")
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			return err
		}
		d.settings = append(d.settings, "FAENA_MONGODB_USERNAME="+u.User.Username(), "FAENA_MONGODB_PASSWORD_FILE="+file)
	}
	u.User = nil
	d.settings = append(d.settings, "FAENA_MONGODB_URI="+u.String(), "FAENA_MONGODB_DATABASE="+d.database)
	return nil
}

// close ends FerretDB, whose files go with the installation's directory, or drops the database.
func (d *documents) close(ctx context.Context) error {
	if d.uri != "" {
		return DropDatabase(ctx, d.uri, d.database)
	}
	if d.process != nil {
		d.process.kill()
	}
	return nil
}

// MongoDB is the URI of the MongoDB that may be used, with its credentials; "" where there is none.
func MongoDB() string { return os.Getenv(mongoVariable) }

var databases atomic.Int64

// NewDatabase is a name that no database there has.
func NewDatabase() string {
	return fmt.Sprintf("faena_bench_%d_%d_%d", os.Getpid(), time.Now().UnixMilli(), databases.Add(1))
}

// DropDatabase removes a database with all that is in it.
func DropDatabase(ctx context.Context, uri, name string) (err error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return fmt.Errorf("drop database %s: %s cannot be used", name, mongoVariable) // the error may repeat it, with its password
	}
	defer func() { err = errors.Join(err, client.Disconnect(ctx)) }()
	if err := client.Database(name).Drop(ctx); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}
