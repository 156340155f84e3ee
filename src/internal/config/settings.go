package config

import (
	"log/slog"
	"time"
)

// Up is the settings of `faena up`, the whole appliance in one process.
type Up struct {
	// DataDir is the absolute path of the directory that holds everything: queue, documents, images, keys and sockets.
	// Default: $STATE_DIRECTORY, or /var/lib/faena for root, or $XDG_DATA_HOME/faena, which is ~/.local/share/faena.
	DataDir string `envconfig:"DATA_DIR"`
	// RegistryListen is the address of the built-in image registry: loopback only, since it is plain HTTP.
	RegistryListen Address `envconfig:"REGISTRY_LISTEN"`
	// AdminSocket is the absolute path of the Unix socket on which root, and the user that this program runs as, make admins
	// and give a lost one a new password. Default: admin.sock in the data directory.
	AdminSocket string `envconfig:"ADMIN_SOCKET"`

	Serve      Serve
	Log        Log
	Limits     Limits
	Retention  Retention
	Server     Server
	Registries Registries
	Worker     Pool
	Engine     Engine
}

// API is the settings of faena-api.
type API struct {
	// DataDir is the absolute path of the directory that the daemon keeps its own files in.
	// Default: $STATE_DIRECTORY, or /var/lib/faena-api.
	DataDir string `envconfig:"DATA_DIR"`
	// AdminSocket is the absolute path of the Unix socket on which root, and the user that this daemon runs as, make admins,
	// give a lost one a new password, and ask for the NATS servers' configuration: `faena-api admin`, `faena-api nats-config`.
	// Default: admin.sock in $RUNTIME_DIRECTORY, or in /run/faena-api.
	AdminSocket string `envconfig:"ADMIN_SOCKET"`
	// SealKeyFile is the APIs' age identity, for what is sealed, such as registry credentials. All APIs of an installation share
	// one: what was sealed for it cannot be opened without. Default: seal.key in the data directory, which is made where it
	// does not exist, and is right for a single API.
	SealKeyFile SecretFile `envconfig:"SEAL_KEY_FILE"`

	Serve      Serve
	Log        Log
	Limits     Limits
	Retention  Retention
	MongoDB    MongoDB
	NATS       NATS
	Storage    Storage
	Registries Registries
}

// Worker is the settings of faena-worker.
type Worker struct {
	// DataDir is the absolute path of the directory that holds the worker's lock, its list of images and the sockets of
	// its containers. Default: $STATE_DIRECTORY, or /var/lib/faena-worker.
	DataDir string `envconfig:"DATA_DIR"`
	// OperationsListen is the address of /metrics, /healthz and /readyz. It asks nobody who he is: keep it behind a
	// firewall.
	OperationsListen Address `envconfig:"OPERATIONS_LISTEN"`
	// SealKeyFile is the age identity of this worker's group, for what is sealed, such as registry credentials. All hosts of a
	// group share one, and no other group has it. Default: seal.key in the data directory, which is made where it does not
	// exist, and is right for a group of one host.
	SealKeyFile SecretFile `envconfig:"SEAL_KEY_FILE"`

	Log        Log
	NATS       NATS
	Registries Registries
	Pool       Pool
	Engine     Engine
}

// Serve is how the REST API is served.
type Serve struct {
	// Listen is the address of the REST API. Beyond loopback it needs FAENA_TLS_CERT_FILE and FAENA_TLS_KEY_FILE. Where systemd
	// opens the socket, as with the packages, that of faena-api.socket counts instead: systemctl edit faena-api.socket, or a file
	// in /etc/systemd/system/faena-api.socket.d.
	Listen Address `envconfig:"LISTEN"`
	// OperationsListen is the address of /metrics, /healthz and /readyz. It asks nobody who he is: keep it behind a
	// firewall.
	OperationsListen Address `envconfig:"OPERATIONS_LISTEN"`
	// TLSCertFile is the certificate of the REST API with its chain, in PEM.
	TLSCertFile File `envconfig:"TLS_CERT_FILE"`
	// TLSKeyFile is the key of that certificate, in PEM.
	TLSKeyFile SecretFile `envconfig:"TLS_KEY_FILE"`
	// Auth says who authenticates the callers: `local`, the API itself by Basic credentials, or `gateway`, which sets
	// X-Consumer-Username and is known by its client certificate.
	Auth AuthMode `envconfig:"AUTH"`
	// GatewayCAFile is the CA that issues client certificates to gateways, and to nobody else, in PEM. With
	// FAENA_AUTH=gateway only.
	GatewayCAFile File `envconfig:"AUTH_GATEWAY_CA_FILE"`
	// GatewaySAN is the DNS name that the gateway's certificate must have. With FAENA_AUTH=gateway only.
	GatewaySAN string `envconfig:"AUTH_GATEWAY_SAN"`
	// Instance is the name of this API, unique in the installation: letters, digits, - and _. Default: the host's name.
	Instance string `envconfig:"INSTANCE"`
	// Arch is the architecture of the worker hosts, for which images are resolved: `amd64` or `arm64`. Default: this
	// host's.
	Arch string `envconfig:"ARCH"`
}

// TLS reports whether the API is served over TLS.
func (s Serve) TLS() bool { return s.TLSCertFile != "" && s.TLSKeyFile.Path != "" }

// Log is what is logged and how.
type Log struct {
	// Format is the form of a log line: `json`, `text`, or `journal`, which has each attribute as a field of the systemd journal, such
	// as ACTIVATION_ID. Default: journal where standard error goes there anyway; otherwise json, and text of `faena up`.
	Format LogFormat `envconfig:"LOG_FORMAT"`
	// Level is the least severe level that is logged: `debug`, `info`, `warn` or `error`.
	Level slog.Level `envconfig:"LOG_LEVEL"`
}

// Limits bound what callers may ask for.
type Limits struct {
	// MaxParameter is the largest parameter on standard input. One argument holds at most 131,071 bytes anyway.
	MaxParameter Size `envconfig:"MAX_PARAMETER"`
	// AsyncStartWithin is the latest start of an asynchronous activation after it was accepted.
	AsyncStartWithin time.Duration `envconfig:"ASYNC_START_WITHIN"`
	// BacklogLimit is how many asynchronous activations of a user may wait in a group beyond the user's limit, until slots are free;
	// 0 refuses them instead.
	BacklogLimit int `envconfig:"BACKLOG_LIMIT"`
	// DrainAfter is how long a stopping API goes on waiting for activations before it answers 202 with a Location.
	DrainAfter time.Duration `envconfig:"DRAIN_AFTER"`
}

// Retention is how long the history of activations is kept.
type Retention struct {
	// Age is how long a record is kept, with its result and its logs, after the activation was accepted. Usage per hour stays.
	Age time.Duration `envconfig:"RETENTION"`
	// Bytes is how much history the document store keeps; the oldest goes first. 0: only age counts.
	Bytes Size `envconfig:"RETENTION_BYTES"`
}

// MongoDB is where the APIs of an installation keep users, functions and history.
type MongoDB struct {
	// URI is where the document store of all APIs is: mongodb://host:port,host:port/?replicaSet=name, or mongodb+srv://name.
	// Default: none; then the documents are one file in the data directory, which is for an installation with a single API.
	URI string `envconfig:"MONGODB_URI"`
	// Database is the name of the database there.
	Database string `envconfig:"MONGODB_DATABASE"`
	// Username is the user that the APIs log in as. Default: none.
	Username string `envconfig:"MONGODB_USERNAME"`
	// PasswordFile is the password of that user.
	PasswordFile SecretFile `envconfig:"MONGODB_PASSWORD_FILE"`
	// CAFile is the CA that the servers' certificates must come from, in PEM; with it every connection is TLS. Default: the
	// host's own list, where the URI says tls=true.
	CAFile File `envconfig:"MONGODB_CA_FILE"`
}

// Storage is how much the NATS servers may keep.
type Storage struct {
	// MaxStore is how much disk one NATS server may use for streams: its max_file_store, or less. New work is refused from 80 %
	// on.
	MaxStore Size `envconfig:"NATS_MAX_STORE"`
	// GroupStore is how much of it one group of workers may take, in parts of sixteen: 3 for its queue, 3 for its backlog, 4 for
	// its live records, 5 for its objects, 1 for its dead letters. New work of the group is refused from 80 % of queue, records or
	// objects on.
	GroupStore Size `envconfig:"GROUP_MAX_STORE"`
}

// Server is the NATS server inside `faena up`.
type Server struct {
	// Sync says when a write reaches the disk: `interval`, every two minutes, loses the last moments in a power cut;
	// `always`, before it is acknowledged, loses nothing and takes three times as long.
	Sync Sync `envconfig:"NATS_SYNC"`
	// MaxStore is how much disk the queue, the live records and the objects may take together. New work is refused
	// from 80 % on.
	MaxStore Size `envconfig:"NATS_MAX_STORE"`
}

// NATS is the connection to the NATS servers.
type NATS struct {
	// URLs are the servers: nats://host:port, or tls://host:port, separated by commas.
	URLs List `envconfig:"NATS_URLS"`
	// CAFile is the CA that the servers' certificates must come from, in PEM. Default: the host's own list.
	CAFile File `envconfig:"NATS_CA_FILE"`
	// CertFile is a client certificate, in PEM, where the servers ask for one.
	CertFile File `envconfig:"NATS_CERT_FILE"`
	// KeyFile is the key of that certificate, in PEM.
	KeyFile SecretFile `envconfig:"NATS_KEY_FILE"`
	// NkeyFile is the nkey seed that this daemon identifies itself with, as `keygen` writes it: all APIs share one, and all
	// workers of a group. Default: none, for servers that ask nobody who he is.
	NkeyFile SecretFile `envconfig:"NATS_NKEY_FILE"`
	// Replicas is how many servers keep each stream and bucket: 1 or 3.
	Replicas int `envconfig:"NATS_REPLICAS"`
}

// Registries are the image registries that may be asked. The addresses of a registry, of its token realm and of
// redirects are checked when they are dialled: private, loopback and metadata addresses are refused unless allowed here.
type Registries struct {
	// Allowed are the only registries that images may come from: host or host:port, separated by commas. Default: any.
	Allowed Hosts `envconfig:"REGISTRIES"`
	// PrivateNetworks are prefixes of private addresses that registries may have, for example 10.20.0.0/16.
	PrivateNetworks Prefixes `envconfig:"REGISTRY_PRIVATE_NETWORKS"`
	// PrivateHosts are registries that may have any private address: host or host:port.
	PrivateHosts Hosts `envconfig:"REGISTRY_PRIVATE_HOSTS"`
	// Insecure are registries that are spoken to without TLS: host or host:port. The Docker Engine keeps a list of its own.
	Insecure Hosts `envconfig:"REGISTRY_INSECURE"`
}

// Pool is what a worker runs at once.
type Pool struct {
	// ID is the name of this worker, unique in the installation: letters, digits, - and _. Default: the host's name.
	ID string `envconfig:"WORKER_ID"`
	// Group is the group of worker hosts that this one belongs to.
	Group string `envconfig:"WORKER_GROUP"`
	// Places is how many activations run at once. Default: cores + 1; more only lengthens the tail.
	Places int `envconfig:"WORKER_PLACES"`
	// Memory is what all containers may have together, by their limits, for example 6GiB. Default: three quarters of the host's.
	Memory Size `envconfig:"WORKER_MEMORY"`
	// CPUs is what all running activations may have together, for example 3.5. Default: one for each place.
	CPUs float64 `envconfig:"WORKER_CPUS"`
	// Containers is how many may exist at once, idle ones included.
	Containers int `envconfig:"WORKER_CONTAINERS"`
	// IdleTTL is how long an idle container is kept warm.
	IdleTTL time.Duration `envconfig:"WORKER_IDLE_TTL"`
	// Starts is how many containers are started at once.
	Starts int `envconfig:"WORKER_STARTS"`
	// Capabilities are the Linux capabilities that function specs may ask for, without CAP_, for example CHOWN,SETUID,SETGID.
	Capabilities List `envconfig:"WORKER_CAPABILITIES"`
	// Allow is what functions may reach besides the internet: networks or addresses, each with or without a port (of TCP and UDP), for
	// example 10.0.0.5:5432,10.20.0.0/16,[fd00::5]:443. Everything else that is private, and this host, is denied to them.
	Allow Exceptions `envconfig:"WORKER_ALLOW"`
	// AllowUnfiltered has functions run also where their packets cannot be filtered, for example since this program may not set
	// packet rules. They reach whatever this host reaches then, and this host. `faena up --allow-unfiltered` is the same.
	AllowUnfiltered bool `envconfig:"ALLOW_UNFILTERED"`
	// DrainWithin is how long a stopping worker waits for what it runs before it kills it.
	DrainWithin time.Duration `envconfig:"WORKER_DRAIN_WITHIN"`
	// DiskPath is a path on the disk that is watched. Default: where the Docker Engine keeps its images.
	DiskPath string `envconfig:"DISK_PATH"`
	// DiskHigh is how much of the disk may be in use before unused images are removed, as a fraction of 1.
	DiskHigh float64 `envconfig:"DISK_HIGH"`
	// DiskLow is how much may be in use when removing ends, as a fraction of 1.
	DiskLow float64 `envconfig:"DISK_LOW"`
	// DiskMinFree is the free space below which no activation is taken.
	DiskMinFree Size `envconfig:"DISK_MIN_FREE"`
}

// Engine is the Docker Engine that runs the containers.
type Engine struct {
	// DockerHost is where the Docker Engine answers. Default: $DOCKER_HOST, or unix:///var/run/docker.sock.
	DockerHost string `envconfig:"DOCKER_HOST"`
	// Network is the shared bridge of the containers, made where it does not exist.
	Network string `envconfig:"DOCKER_NETWORK"`
	// InitPath is the absolute path of faena-init. Default: beside this program, or /usr/lib/faena/faena-init.
	InitPath string `envconfig:"INIT_PATH"`
}
