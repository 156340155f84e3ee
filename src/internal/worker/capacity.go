package worker

import "runtime"

// Capacity is what a worker can run at once. Memory is counted for every container, idle and starting ones
// included, by its limit; CPU is counted for busy ones only, since an idle container uses none. The zero value of a
// field means its default.
type Capacity struct {
	Places      int   // activations at once; default: cores + 1, more would only lengthen the tail
	MemoryBytes int64 // of all containers together; default: three quarters of the host's
	// MilliCPUs is of all busy containers together, in thousandths. The default is 1,000 for each place, so that
	// functions of one CPU fill the places; one that asks for more than all runs alone.
	MilliCPUs  int64
	Containers int // that may exist at once; default 256, well below what one bridge takes (1,023)
}

func (c Capacity) withDefaults() Capacity {
	if c.Places <= 0 {
		c.Places = runtime.NumCPU() + 1
	}
	if c.MemoryBytes <= 0 {
		c.MemoryBytes = hostMemory() / 4 * 3
	}
	if c.MilliCPUs <= 0 {
		c.MilliCPUs = int64(c.Places) * 1000
	}
	if c.Containers <= 0 {
		c.Containers = 256
	}
	return c
}

// ledger counts what is in use. The pool's lock guards it.
type ledger struct {
	total      Capacity
	memory     int64 // of all containers, those being removed included
	leaving    int64 // of containers being removed: soon free
	cpu        int64 // of busy containers
	containers int
	going      int // containers being removed
}

// fits reports whether a container of so much memory may be made now.
func (l *ledger) fits(memory int64) bool {
	return l.memory+memory <= l.total.MemoryBytes && l.containers < l.total.Containers
}

// willFit reports whether it may be made when those being removed are gone.
func (l *ledger) willFit(memory int64) bool {
	return l.memory-l.leaving+memory <= l.total.MemoryBytes && l.containers-l.going < l.total.Containers
}

// possible reports whether it could be made on an empty worker.
func (l *ledger) possible(memory int64) bool { return memory <= l.total.MemoryBytes }

func (l *ledger) add(memory int64) {
	l.memory += memory
	l.containers++
}

func (l *ledger) leave(memory int64) {
	l.leaving += memory
	l.going++
}

func (l *ledger) left(memory int64) {
	l.leaving -= memory
	l.going--
	l.drop(memory)
}

func (l *ledger) drop(memory int64) {
	l.memory -= memory
	l.containers--
}

// milli is what a function of so many CPUs counts: at most the whole worker.
func (l *ledger) milli(cpus float64) int64 { return min(int64(cpus*1000), l.total.MilliCPUs) }

func (l *ledger) cpuFits(milli int64) bool { return l.cpu+milli <= l.total.MilliCPUs }
