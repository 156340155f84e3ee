// Package buildinfo says what a program was built from.
package buildinfo
