package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"faena.dev/faena/internal/faena"
)

// Bounds of what clients or faults could otherwise fill.
const (
	maxWords  = 128  // groups, refusals and other words of our own
	maxRoutes = 2048 // combinations of method, route and status
)

// seconds are the buckets of all durations, from a process's start to the longest timeout of a function.
var seconds = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
	60, 120, 300, 600}

// Build is what a daemon was built from.
type Build struct{ Version, Revision, GoVersion string }

// Metrics are the metrics of one process. All methods are safe for concurrent use and return at once.
type Metrics struct {
	registry *prometheus.Registry

	admitted *children[admission, prometheus.Counter]
	refused  *children[string, prometheus.Counter]
	ended    *children[ending, prometheus.Counter]
	drift    prometheus.Gauge
	leading  prometheus.Gauge
	swept    *children[string, prometheus.Counter]
	pruned   prometheus.Counter

	unreadable *children[string, prometheus.Counter]

	settled   *children[ending, prometheus.Counter]
	stages    stages
	abandoned *children[string, prometheus.Counter]
	pulls     attempts
	launches  attempts
	removed   *children[string, prometheus.Counter]

	requests *children[request, prometheus.Counter]
	latency  *children[string, prometheus.Observer]
}

type admission struct {
	group string
	async bool
}

type ending struct {
	state  faena.State
	reason faena.Reason
}

type request struct {
	method, route string
	status        int
}

// New makes the metrics of a process that was built from b.
func New(b Build) *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge(r, "faena_build_info", "What this process was built from; always 1.", "version", "revision", "go_version").
		WithLabelValues(b.Version, b.Revision, b.GoVersion).Set(1)
	m := &Metrics{registry: r}
	m.unreadable = words(counter(r, "faena_unreadable_total",
		"Messages and records of another version that were met and put back, each time.", "where"))
	m.ofControl()
	m.ofWorker()
	m.ofHTTP()
	return m
}

func (m *Metrics) ofControl() {
	admitted := counter(m.registry, "faena_activations_admitted_total", "Activations accepted by this API.", "group", "mode")
	m.admitted = newChildren(2*maxWords, admission{group: other}, func(a admission) prometheus.Counter {
		mode := "sync"
		if a.async {
			mode = "async"
		}
		return admitted.WithLabelValues(a.group, mode)
	})
	m.refused = words(counter(m.registry, "faena_activations_refused_total", "Activations refused by this API, by reason.", "reason"))
	m.ended = endings(counter(m.registry, "faena_activations_total", "Activations that ended, as recorded by this API.", "state", "reason"))
	m.drift = gauge(m.registry, "faena_conservation_drift",
		"Activations admitted less those live or ended; anything but 0 for long is a defect. Of an appliance in one process only.").WithLabelValues()
	m.leading = gauge(m.registry, "faena_leader", "Whether this API leads: it projects, sweeps and prunes.").WithLabelValues()
	m.swept = words(counter(m.registry, "faena_swept_total", "Activations that nobody else would have ended, by reason.", "reason"))
	m.pruned = counter(m.registry, "faena_pruned_total", "Records of ended activations removed by age or size.").WithLabelValues()
}

func (m *Metrics) ofWorker() {
	m.settled = endings(counter(m.registry, "faena_worker_settled_total", "Activations that this worker ended.", "state", "reason"))
	m.stages = newStages(histogram(m.registry, "faena_activation_stage_seconds",
		"How long activations that this worker ended took, by stage; start of a cold one only.", "stage"))
	m.abandoned = words(counter(m.registry, "faena_worker_abandoned_total", "Activations given up without being settled.", "reason"))
	m.pulls = newAttempts(histogram(m.registry, "faena_image_pull_seconds", "Pulls of images.", "outcome"))
	m.launches = newAttempts(histogram(m.registry, "faena_container_launch_seconds", "Making and starting of containers.", "outcome"))
	m.removed = words(counter(m.registry, "faena_worker_removed_total", "Orphaned containers and unused images removed.", "what"))
}

func (m *Metrics) ofHTTP() {
	requests := counter(m.registry, "faena_http_requests_total", "Requests answered.", "method", "route", "status")
	m.requests = newChildren(maxRoutes, request{method: other, route: other}, func(q request) prometheus.Counter {
		return requests.WithLabelValues(q.method, q.route, strconv.Itoa(q.status))
	})
	latency := histogram(m.registry, "faena_http_request_seconds", "Requests answered; of an activation the wait for its end too.", "route")
	m.latency = newChildren(maxWords, other, func(route string) prometheus.Observer { return latency.WithLabelValues(route) })
}

// Admitted counts an activation that was accepted.
func (m *Metrics) Admitted(group string, async bool) { m.admitted.get(admission{group, async}).Inc() }

// Refused counts an activation that was not.
func (m *Metrics) Refused(reason string) { m.refused.get(reason).Inc() }

// Recorded counts an activation that has ended, wherever it ended.
func (m *Metrics) Recorded(r *faena.Record) { m.ended.get(ending{r.State, r.Reason}).Inc() }

// Drift sets how many activations are missing from the count of what was admitted, is live and has ended.
func (m *Metrics) Drift(n int64) { m.drift.Set(float64(n)) }

// Leading sets whether this API leads.
func (m *Metrics) Leading(yes bool) {
	if yes {
		m.leading.Set(1)
	} else {
		m.leading.Set(0)
	}
}

// Swept counts an activation that the leader ended since nobody else would have.
func (m *Metrics) Swept(reason faena.Reason) { m.swept.get(string(reason)).Inc() }

// Pruned counts records that were removed.
func (m *Metrics) Pruned(n int) { m.pruned.Add(float64(n)) }

// Settled counts an activation that this worker ended, and how long its stages took.
func (m *Metrics) Settled(r *faena.Record) {
	m.settled.get(ending{r.State, r.Reason}).Inc()
	m.stages.observe(r)
}

// Abandoned counts an activation that this worker gave up without settling it.
func (m *Metrics) Abandoned(why string) { m.abandoned.get(why).Inc() }

// Unreadable counts a message or record of another version that was met and put back.
func (m *Metrics) Unreadable(where string) { m.unreadable.get(where).Inc() }

// Pulled counts an image pull.
func (m *Metrics) Pulled(took time.Duration, err error) { m.pulls.observe(took, err) }

// Launched counts a container that was started, or not.
func (m *Metrics) Launched(took time.Duration, err error) { m.launches.observe(took, err) }

// Removed counts what was cleaned up.
func (m *Metrics) Removed(what string) { m.removed.get(what).Inc() }

// Request counts a request that was answered. route is the path's template, or "" where none matched.
func (m *Metrics) Request(method, route string, status int, took time.Duration) {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS":
	default:
		method = other // a client may send any word
	}
	if route == "" {
		route = other
	}
	m.requests.get(request{method, route, status}).Inc()
	m.latency.get(route).Observe(took.Seconds())
}

// stages are the histograms of an activation's stages.
type stages struct{ queue, pull, start, run, store, total prometheus.Observer }

func newStages(h *prometheus.HistogramVec) stages {
	of := func(stage string) prometheus.Observer { return h.WithLabelValues(stage) }
	return stages{of("queue"), of("pull"), of("start"), of("run"), of("store"), of("total")}
}

func (s *stages) observe(r *faena.Record) {
	t := &r.Timings
	s.queue.Observe(float64(t.QueueUS) / 1e6)
	s.total.Observe(float64(t.TotalUS) / 1e6)
	// What did not happen is no observation: pulls of 0 s would hide the ones that there were.
	for _, stage := range []struct {
		us int64
		of prometheus.Observer
	}{{t.PullUS, s.pull}, {t.StartUS, s.start}, {t.RunUS, s.run}, {t.StoreUS, s.store}} {
		if stage.us > 0 {
			stage.of.Observe(float64(stage.us) / 1e6)
		}
	}
}

// attempts are the histograms of something that may fail.
type attempts struct{ ok, failed prometheus.Observer }

func newAttempts(h *prometheus.HistogramVec) attempts {
	return attempts{h.WithLabelValues("ok"), h.WithLabelValues("failed")}
}

func (a *attempts) observe(took time.Duration, err error) {
	if err != nil {
		a.failed.Observe(took.Seconds())
		return
	}
	a.ok.Observe(took.Seconds())
}

// words are counters by a word of our own.
func words(c *prometheus.CounterVec) *children[string, prometheus.Counter] {
	return newChildren(maxWords, other, func(word string) prometheus.Counter { return c.WithLabelValues(word) })
}

// endings are counters by how activations end: as many as the domain has states and reasons.
func endings(c *prometheus.CounterVec) *children[ending, prometheus.Counter] {
	return newChildren(maxWords, ending{other, other}, func(e ending) prometheus.Counter {
		return c.WithLabelValues(string(e.state), string(e.reason))
	})
}

func counter(r *prometheus.Registry, name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.MustRegister(c)
	return c
}

func gauge(r *prometheus.Registry, name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.MustRegister(g)
	return g
}

func histogram(r *prometheus.Registry, name, help string, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds}, labels)
	r.MustRegister(h)
	return h
}
