// Package faena is the domain: what a function, a revision, an activation and a user are, which states an
// activation passes through, which limits hold, and what an error means. It performs no I/O and imports the
// standard library only; every other package of the module may import it.
//
// The life of an activation (design section 3):
//
//	            claim              settle
//	queued ─────────────► running ─────────► succeeded | failed | timed_out | cancelled | lost
//	  │ ▲                    │
//	  │ └────────────────────┘ another attempt
//	  └──────────────────────────────────────────────► failed | cancelled | lost
//
// A terminal state is never left. All changes of a stored Record are compare-and-set by whoever makes them.
package faena
