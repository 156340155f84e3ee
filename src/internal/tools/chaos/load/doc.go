// Package load calls the APIs of an installation as its users do through a gateway, takes down what they are told, and keeps the
// ledger that their functions write.
package load
