// Package mongostore keeps the documents of an installation (functions with their revisions, users, groups, the history of
// activations) in MongoDB. It is the store of an installation with several hosts: any number of daemons use one database at once,
// and each may be killed between any two of its writes. See faena.Documents for the contract, and DESIGN.md for the layout of the
// database, the order of writes, and why it is so.
package mongostore
