// Package ferrettest gives tests a server that speaks MongoDB's protocol: the one that FAENA_TEST_MONGODB_URI names, otherwise
// FerretDB (command ferretdb, below this package), which can be stopped, killed and started again on the same files, and whose
// clients can be cut off at any command. Only tests import it.
//
// FerretDB runs in a process of its own, for three reasons. It decodes every document of a collection for each query but one by id,
// since it knows how to use no other index: with the race detector that would be four times slower. It can be killed. And
// what it needs stays out of the module that the programs are made of. It ends with the process that has started it.
package ferrettest
