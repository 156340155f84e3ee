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
	where    *prometheus.GaugeVec
	drift    *prometheus.GaugeVec
	released *children[string, prometheus.Counter]
	leading  prometheus.Gauge
	swept    *children[string, prometheus.Counter]
	pruned   prometheus.Counter
	trimmed  prometheus.Counter

	unreadable *children[string, prometheus.Counter]

	settled    *children[ending, prometheus.Counter]
	retried    *children[string, prometheus.Counter]
	letters    *children[string, prometheus.Counter]
	handedBack prometheus.Counter
	draining   prometheus.Gauge
	containers *prometheus.GaugeVec
	stages     stages
	abandoned  *children[string, prometheus.Counter]
	pulls      attempts
	launches   attempts
	removed    *children[string, prometheus.Counter]

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
	m.where = gauge(m.registry, "faena_activations",
		"Activations by where they are: backlog, queued, running, or ended and not in history yet. The API that leads tells.", "group", "state")
	m.drift = gauge(m.registry, "faena_conservation_drift",
		"Records without a message and messages without a live record; anything but 0 for long is a defect. The API that leads tells.", "group")
	m.released = words(counter(m.registry, "faena_released_total", "Activations that have left the backlog for a slot.", "group"))
	m.leading = gauge(m.registry, "faena_leader", "Whether this API leads: it projects, releases, sweeps and prunes.").WithLabelValues()
	m.swept = words(counter(m.registry, "faena_swept_total", "Activations that nobody else would have ended, by reason.", "reason"))
	m.pruned = counter(m.registry, "faena_pruned_total", "Records of ended activations removed by age or size.").WithLabelValues()
	m.trimmed = counter(m.registry, "faena_dead_letters_trimmed_total", "Dead letters removed since their users had too many.").WithLabelValues()
}

func (m *Metrics) ofWorker() {
	m.settled = endings(counter(m.registry, "faena_worker_settled_total", "Activations that this worker ended.", "state", "reason"))
	m.stages = newStages(histogram(m.registry, "faena_activation_stage_seconds",
		"How long activations that this worker ended took, by stage; start of a cold one only.", "stage"))
	m.retried = words(counter(m.registry, "faena_worker_retries_total", "Activations that this worker has queued again, by why the attempt ended.", "reason"))
	m.letters = words(counter(m.registry, "faena_worker_dead_letters_total", "Dead letters that this worker has written.", "reason"))
	m.handedBack = counter(m.registry, "faena_worker_handed_back_total",
		"Messages that an earlier life of this worker held, handed back at its start.").WithLabelValues()
	m.draining = gauge(m.registry, "faena_worker_draining", "Whether this worker takes nothing more because it was asked to drain.").WithLabelValues()
	m.containers = gauge(m.registry, "faena_worker_containers_drift",
		"Containers of this worker that the engine has and its pool has not (unknown), or the other way round (missing), at the last sweep.", "what")
	m.abandoned = words(counter(m.registry, "faena_worker_abandoned_total",
		"Activations given up without being settled, their results thrown away.", "reason"))
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

// Conserved sets where the activations of a group are; nil: it is not for this process to say any more.
func (m *Metrics) Conserved(group string, is *faena.Conservation) {
	if is == nil {
		m.where.DeletePartialMatch(prometheus.Labels{"group": group})
		m.drift.DeleteLabelValues(group)
		return
	}
	m.drift.WithLabelValues(group).Set(float64(is.Drift))
	for state, n := range map[string]int{"backlog": is.Backlog, "queued": is.Queued, "running": is.Running, "ended": is.Ended} {
		m.where.WithLabelValues(group, state).Set(float64(n))
	}
}

// Released counts an activation that has left the backlog for a slot.
func (m *Metrics) Released(group string) { m.released.get(group).Inc() }

// Leading sets whether this API leads.
func (m *Metrics) Leading(yes bool) { set(m.leading, yes) }

func set(g prometheus.Gauge, yes bool) {
	if yes {
		g.Set(1)
	} else {
		g.Set(0)
	}
}

// Swept counts an activation that the leader ended since nobody else would have.
func (m *Metrics) Swept(reason faena.Reason) { m.swept.get(string(reason)).Inc() }

// Pruned counts records that were removed.
func (m *Metrics) Pruned(n int) { m.pruned.Add(float64(n)) }

// Trimmed counts dead letters that were removed since their users had too many.
func (m *Metrics) Trimmed(n int) { m.trimmed.Add(float64(n)) }

// Settled counts an activation that this worker ended, and how long its stages took.
func (m *Metrics) Settled(r *faena.Record) {
	m.settled.get(ending{r.State, r.Reason}).Inc()
	m.stages.observe(r)
}

// Retried counts an activation that this worker has queued again.
func (m *Metrics) Retried(reason faena.Reason) { m.retried.get(string(reason)).Inc() }

// DeadLettered counts a dead letter.
func (m *Metrics) DeadLettered(reason faena.Reason) { m.letters.get(string(reason)).Inc() }

// HandedBack counts what an earlier life of this worker held.
func (m *Metrics) HandedBack() { m.handedBack.Inc() }

// Draining sets whether this worker takes nothing more.
func (m *Metrics) Draining(yes bool) { set(m.draining, yes) }

// Containers sets how many containers only the engine knows, and how many only the pool.
func (m *Metrics) Containers(unknown, missing int) {
	m.containers.WithLabelValues("unknown").Set(float64(unknown))
	m.containers.WithLabelValues("missing").Set(float64(missing))
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
