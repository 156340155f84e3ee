// Package registry asks image registries: it pins a reference to a digest at deploy time, says which registries may be
// reached at all, and is the appliance's own registry on loopback.
//
// Asking a registry that a user names is a way into the network. So every address is checked when it is dialled, after
// its name was resolved, for token realms and redirects too (design section 5); see reach.go.
package registry
