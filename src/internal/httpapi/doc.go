// Package httpapi serves Faena's REST interface. The contract is api/openapi.yaml: request and response types and
// the routing glue are generated from it; the rest of this package turns requests into calls of use cases, which it
// knows only through the interfaces in ports.go, and their outcomes into responses. It is the one place that knows
// which HTTP status an error has (status.go).
package httpapi
