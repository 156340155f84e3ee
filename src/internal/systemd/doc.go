// Package systemd is what a daemon says to systemd and takes from it: that it is ready, what it is doing, that it is
// alive, and sockets that were opened for it, so that a restart refuses no connection. Where systemd is not there,
// all of it does nothing.
package systemd
