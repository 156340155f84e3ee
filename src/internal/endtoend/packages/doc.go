// Package packages tests the Debian packages on hosts of their own, with systemd as process 1: installation, settings that are wrong, what the
// units may not do, deaths, upgrades under load, removal. Its tests have the build tag packages, since they want what testing/packages.sh makes;
// make test-packages runs them.
package packages
