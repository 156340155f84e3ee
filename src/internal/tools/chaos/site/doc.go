// Package site is an installation that can be broken. Each part is a process of its own: the NATS servers in a network namespace,
// which each daemon reaches by a cable of its own that can be pulled; for each worker a Docker Engine, as if it were on a host of
// its own; the document store behind the relay of package ferrettest. What is small enough to be filled up is a file system in
// memory. Close ends and removes all of it.
package site
