// Package natsbus is Faena's messaging on NATS JetStream: the queue of activations, their live records, large objects,
// and the hints between daemons. It is the only importer of nats.go and nats-server; every name is in names.go.
//
// Writes answer with one of the outcomes of package faena (ErrSlotTaken, ErrFull, ErrRetry, ErrUnknown, ErrStale): each
// is one try with a deadline of its own, the client library's retries are off, and while there is no connection nothing
// is kept for later, so that "not stored" can be said for certain. Reads that decide something go to the leader.
package natsbus
