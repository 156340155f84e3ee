// Package telemetry is how a daemon can be watched: its logger, its metrics, and the operations listener that serves
// /metrics, /healthz and /readyz.
//
// Metrics implements the observers that control, worker and httpapi declare. What it costs on the way of an
// activation is a map lookup and a few atomic additions: whatever has labels is made the first time and kept. Labels
// never hold a user, a function or an activation, and each kind of metric has a bound on how many label values it
// takes; what is beyond is counted as "other".
package telemetry
