// Package wiring puts the parts together: the API of one instance, one worker, and the adapters between ports whose
// types differ. The programs in cmd, faena-api, faena-worker and `faena up`, are all made of it, so that the appliance
// in one process runs the same code as the daemons apart. It decides nothing itself.
package wiring
