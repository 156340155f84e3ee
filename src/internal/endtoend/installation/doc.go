// Package installation puts an installation of several hosts together on one machine, as docs/operations.md says: APIs and workers
// as processes of their own, NATS servers, a document store, every connection by TLS and every daemon with its key. It is for tests
// and for the tools that test: what they call, and what they were told, is kept for a count at the end.
package installation
