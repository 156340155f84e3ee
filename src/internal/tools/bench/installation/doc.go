// Package installation starts a whole installation on this machine, each part as a process of its own: NATS servers, a
// document store, APIs, workers. So what each costs can be told apart, and parts can come and go while others work. Below
// them is an image registry in this process, for the functions.
//
// Everything is in a temporary directory and on ports of 127.0.0.1. Close ends all of it; a part ends too when this
// process is killed.
package installation
