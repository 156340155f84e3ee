package faena

import "time"

// Diagnosis is what an API can tell of its installation: for whoever looks for what is wrong.
type Diagnosis struct {
	Instance string // of the API that answers
	Version  string
	Leader   string // the instance that leads; "" where none does

	Servers    []QueueServer
	Streams    []StreamHealth
	Documents  DocumentsHealth
	Clocks     []ClockDifference
	Unreadable []Unreadable // at most MaxUnreadable
}

// MaxUnreadable bounds what a Diagnosis shows of messages and records that cannot be read.
const MaxUnreadable = 100

// QueueServer is one NATS server.
type QueueServer struct {
	Address string
	Name    string // "" while it cannot be reached
	Version string
	Problem string // what is wrong, with the remedy; "" for none
}

// StreamHealth is one stream, bucket or object store.
type StreamHealth struct {
	Name     string
	Group    string // "" for what belongs to all
	Replicas int    // that it has
	Wanted   int    // that FAENA_NATS_REPLICAS asks for
	Leader   string // the server that leads it; "" where none does
	Behind   []string
	Problem  string // "" for none
}

// DocumentsHealth is the document store.
type DocumentsHealth struct {
	Kind    string // "bbolt", "mongodb"
	Problem string // why it cannot be used now; "" for none
	Warning string // what an operator should know although it works; "" for none
}

// ClockDifference is how far a clock is ahead of the queue's.
type ClockDifference struct {
	Of    string        // "api <instance>", "worker <group>/<id>"
	Ahead time.Duration // negative: behind. Accurate to about the time of a request, of a worker to two heartbeats.
}

// Unreadable is a message or record of a schema version that this build does not read. It is neither run nor lost.
type Unreadable struct {
	Where    string // "queue", "records"
	Group    string
	User     string
	ID       string // of the activation, where that can be told
	Schema   int    // as it says of itself; 0 where even that cannot be read
	Problem  string
	Sequence uint64 // in its stream
}
