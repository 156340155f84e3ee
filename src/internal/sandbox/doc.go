// Package sandbox is the protocol between a worker and faena-init, the first process of every function container, and
// the worker's end of it.
//
// They share one Unix socket. The worker listens before it starts the container; init connects, says hello, and then
// runs one process after the other:
//
//	worker → init   start (argv, env, directory), then stdin in pieces and its end, where there is one
//	init → worker   stdout and stderr in pieces as they come, then exit
//
// A frame is a type of one byte, a length of four bytes, little-endian, and as many bytes. Everything from a container
// is hostile: a frame that is too large, unknown, or out of turn ends the connection, and with it the container. When the
// worker closes the connection init kills everything and exits.
package sandbox
