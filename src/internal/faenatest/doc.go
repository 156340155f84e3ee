// Package faenatest has what the tests of several packages need: the Docker Engine, images of a fixture program in
// any shape, image registries, the built faena-init, and checks that nothing is left over. Only tests import it.
//
// It knows the engine as plain HTTP and no adapter of ours, so that it can be used to test each of them.
package faenatest
