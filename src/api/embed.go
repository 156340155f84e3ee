// Package api holds the contract of the REST interface. Types and routes of the server and of the client are
// generated from it: `make generate`.
package api

import _ "embed"

// Specification is openapi.yaml, byte by byte. It must not be changed.
//
//go:embed openapi.yaml
var Specification []byte
