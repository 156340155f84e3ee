// Package dockerengine drives the local Docker Engine for a worker: it pulls images, makes, starts and removes the
// hardened containers that functions run in, and reads what the kernel counted about them. It is the only importer
// of the Docker client.
//
// Every call has a deadline of its own besides the caller's context. An engine that does not answer in time, or at
// all, is a faena.Error of KindUnavailable and ComponentEngine; what a user can act on carries a faena.Reason.
//
// What every container has in common, and why, is in hostConfig (container.go) and in DESIGN.md.
package dockerengine
