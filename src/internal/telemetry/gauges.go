package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// askTimeout bounds what a scrape waits for the messaging system.
const askTimeout = 2 * time.Second

// PoolStats are the numbers of a worker's pool; worker.PoolStats converts to it.
type PoolStats struct {
	Starting, Idle, Busy int
	Waiting              int // activations that wait for a container
	MemoryBytes          int64
	MilliCPUs            int64
}

// Pool adds the numbers of a worker's pool, read at each scrape. It is called once.
func (m *Metrics) Pool(stats func() PoolStats) {
	containers := prometheus.NewDesc("faena_pool_containers", "Containers of the pool, by state.", []string{"state"}, nil)
	waiting := prometheus.NewDesc("faena_pool_waiting", "Activations that wait for a container.", nil, nil)
	memory := prometheus.NewDesc("faena_pool_memory_bytes", "Memory of all containers, by their limits.", nil, nil)
	cpus := prometheus.NewDesc("faena_pool_cpus", "CPUs of the busy containers, by their limits.", nil, nil)
	m.registry.MustRegister(prometheus.CollectorFunc(func(out chan<- prometheus.Metric) {
		s := stats() // once, so that the numbers go together
		out <- measure(containers, float64(s.Starting), "starting")
		out <- measure(containers, float64(s.Idle), "idle")
		out <- measure(containers, float64(s.Busy), "busy")
		out <- measure(waiting, float64(s.Waiting))
		out <- measure(memory, float64(s.MemoryBytes))
		out <- measure(cpus, float64(s.MilliCPUs)/1000)
	}))
}

// QueueStats are the numbers of one group in the messaging system.
type QueueStats struct {
	Group    string
	Messages uint64  // in the stream: activations queued or running
	Records  uint64  // in the bucket: those, and ended ones that are not recorded yet
	Fill     float64 // of the fullest store, as a fraction of 1
}

// Queue adds the numbers of the groups, asked for at each scrape. While stats fails, they are left out and
// faena_queue_up is 0. It is called once.
func (m *Metrics) Queue(stats func(ctx context.Context) ([]QueueStats, error)) {
	label := []string{"group"}
	up := prometheus.NewDesc("faena_queue_up", "Whether the messaging system answers.", nil, nil)
	messages := prometheus.NewDesc("faena_queue_messages", "Activations in the stream: queued or running.", label, nil)
	records := prometheus.NewDesc("faena_queue_records", "Live records, and ended ones that are not recorded yet.", label, nil)
	fill := prometheus.NewDesc("faena_queue_fill_ratio", "How full the fullest store is; new work is refused from 0.8 on.", label, nil)
	m.registry.MustRegister(prometheus.CollectorFunc(func(out chan<- prometheus.Metric) {
		// A collector is given no context: the scrape it works for is bounded here.
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		groups, err := stats(ctx)
		if err != nil {
			out <- measure(up, 0)
			return
		}
		out <- measure(up, 1)
		for _, s := range groups {
			out <- measure(messages, float64(s.Messages), s.Group)
			out <- measure(records, float64(s.Records), s.Group)
			out <- measure(fill, s.Fill, s.Group)
		}
	}))
}

func measure(d *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}
