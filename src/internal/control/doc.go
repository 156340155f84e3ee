// Package control holds the use cases of faena-api: deploy a function, activate it, wait for it, cancel it, read
// what became of it, record it, and manage users. It knows the domain and the ports that it declares, and neither
// HTTP nor NATS nor a database.
//
// The way of one synchronous activation through this package:
//
//	Activate ─► catalog (function, limit) ─► slots (pick) ─► admission (record, then publish) ─► waiters (Completed)
//
// and, beside it, one loop each: the recorder (terminal records → documents), the projector (counters), the gauge
// (storage and workers, looked at once a second).
package control
