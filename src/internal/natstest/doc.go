// Package natstest runs real NATS servers in the process of a test: one, or a cluster with JetStream and TLS, that can be
// stopped and started again one by one. It knows NATS's own client and nothing of ours. Only tests import it.
package natstest
