// Package endtoend tests an installation of several hosts on one machine: APIs and workers as processes of their own, three NATS
// servers, a document store, every connection by TLS and every daemon with its key, put together as docs/operations.md says. Parts
// are stopped, killed and started again while others work. It has tests only.
package endtoend
