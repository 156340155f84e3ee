// Package boltstore keeps the documents of an installation (functions with their revisions, users, groups, the
// history of activations) in one bbolt file. It is the store of the appliance in one process; see faena.Documents for the
// contract, and DESIGN.md for the layout of the file and why it is so.
package boltstore
