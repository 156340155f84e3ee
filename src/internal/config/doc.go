// Package config reads the settings of the daemons from FAENA_* environment variables. It is the only package that
// looks at the environment, and only the daemons import it: everything else takes its own options.
//
// A load begins with the defaults, takes every FAENA_* variable, and checks the whole. It is strict, so that a
// setting that is misspelt, or that no daemon has any more, is found when the daemon starts and not when it is
// missed: an unknown variable, a value that cannot be read, a file that cannot be opened, or settings that do not
// go together refuse the start. All problems are reported at once, each with its setting, what is wrong with it, and
// what would be right. A variable that is empty counts as not set.
//
// Secrets are files. A setting FAENA_X_FILE that holds one, and that is not set, is looked for among the credentials
// that systemd passes to a service, under the name faena.x (LoadCredential=faena.x:/path, ImportCredential=faena.*).
//
// The comments on the fields below are the documentation: docs/settings.md and the packages' configuration files
// are made from them.
package config

//go:generate go run ../tools/settings ../../../docs/settings.md ../../../packaging/etc
