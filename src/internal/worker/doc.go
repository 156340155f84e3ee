// Package worker holds the use cases of faena-worker: take activations from a group's queue, run them in warm
// containers, and settle them. It knows the domain, the protocol to faena-init (package sandbox) and the ports that
// it declares, and neither NATS nor the Docker Engine.
//
// The way of one activation through this package, all in the goroutine of one place:
//
//	Next ─► decide (claim.go) ─► container (images.go, pool.go) ─► claim ─► run (run.go) ─► settle (settle.go) ─► Next
//
// What has failed and may be run again is queued again instead (retries.go), what nobody will run any more becomes a dead letter
// before it is settled (deadletters.go), and what is held stands in a file for this worker's next life (journal.go, ADR 14).
//
// Beside it, one loop each: progress (confirms and re-reads what is held, fences what cannot be confirmed),
// health (engine and disk: not ready means that nothing is claimed), heartbeat, advice (what the engine's settings lack), the pool's housekeeping, the sweep
// of orphans, the removal of images.
//
// The way of a container (pool.go):
//
//	           launch                 take                 release, isolation reuse
//	(nothing) ────────► starting ───► idle ◄──────────────────────────────────────┐
//	                        │          │ └──────────────► busy ───────────────────┘
//	                        │ failed   │ idle TTL,          │ isolation fresh, or retired: out of memory, timeout,
//	                        ▼          │ room for others    ▼ killed, tampered with, protocol error, init gone
//	                    (nothing)      └────────────────► removed
//
// A container serves one revision of one user's function, and one activation at a time.
package worker
