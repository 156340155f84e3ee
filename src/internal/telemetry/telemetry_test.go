package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

func newTest() *Metrics {
	return New(Build{Version: "v1.2.3", Revision: "abcdef", GoVersion: "go1.26"})
}

// serve runs the operations server on loopback.
func serve(t *testing.T, m *Metrics, ready Ready) (url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = m.Operations(ready, slog.New(slog.DiscardHandler))
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// scrape returns the value of each series as a scraper gets it.
func scrape(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	status, text := get(t, serve(t, m, always)+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", status, text)
	}
	series := map[string]string{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			series[line[:i]] = strings.TrimSpace(line[i+1:])
		}
	}
	return series
}

func always(context.Context) ([]string, bool) { return nil, true }

func expect(t *testing.T, series map[string]string, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if series[name] != value {
			t.Errorf("%s is %q, want %s", name, series[name], value)
		}
	}
}

func TestMetrics_Observers(t *testing.T) {
	m := newTest()
	m.Admitted("default", false)
	m.Admitted("default", true)
	m.Admitted("default", true)
	m.Refused("limit_reached")
	m.Conserved("default", &faena.Conservation{Backlog: 7, Queued: 3, Running: 2, Ended: 1, Drift: 4})
	m.Conserved("gone", &faena.Conservation{Backlog: 7})
	m.Conserved("gone", nil)
	m.Released("default")
	m.Leading(true)
	m.Swept("expired")
	m.Pruned(3)
	m.Trimmed(2)
	done := &faena.Record{State: faena.StateSucceeded, Timings: faena.Timings{QueueUS: 300, RunUS: 2_000, TotalUS: 2_600}}
	cold := &faena.Record{State: faena.StateFailed, Reason: faena.ReasonOOMKilled,
		Timings: faena.Timings{QueueUS: 300, PullUS: 4_000_000, StartUS: 200_000, RunUS: 50_000, StoreUS: 900, TotalUS: 4_300_000}}
	m.Settled(done)
	m.Settled(cold)
	m.Recorded(done)
	m.Recorded(cold)
	m.Recorded(&faena.Record{State: faena.StateCancelled, Reason: faena.ReasonCancelled})
	m.Abandoned("fenced")
	m.Unreadable("queue")
	m.Pulled(3*time.Second, nil)
	m.Pulled(time.Second, errors.New("denied"))
	m.Launched(150*time.Millisecond, nil)
	m.Removed("orphan")
	m.Request("POST", "/v1/functions/{name}/activations", 200, 3*time.Millisecond)
	m.Request("PROPFIND", "", 404, time.Millisecond)

	expect(t, scrape(t, m), map[string]string{
		`faena_build_info{go_version="go1.26",revision="abcdef",version="v1.2.3"}`:                       "1",
		`faena_activations_admitted_total{group="default",mode="sync"}`:                                  "1",
		`faena_activations_admitted_total{group="default",mode="async"}`:                                 "2",
		`faena_activations_refused_total{reason="limit_reached"}`:                                        "1",
		`faena_conservation_drift{group="default"}`:                                                      "4",
		`faena_activations{group="default",state="backlog"}`:                                             "7",
		`faena_activations{group="default",state="queued"}`:                                              "3",
		`faena_activations{group="default",state="running"}`:                                             "2",
		`faena_activations{group="default",state="ended"}`:                                               "1",
		`faena_activations{group="gone",state="backlog"}`:                                                "",
		`faena_conservation_drift{group="gone"}`:                                                         "",
		`faena_released_total{group="default"}`:                                                          "1",
		`faena_leader`:                                                                                   "1",
		`faena_swept_total{reason="expired"}`:                                                            "1",
		`faena_pruned_total`:                                                                             "3",
		`faena_dead_letters_trimmed_total`:                                                               "2",
		`faena_activations_total{reason="",state="succeeded"}`:                                           "1",
		`faena_activations_total{reason="oom_killed",state="failed"}`:                                    "1",
		`faena_activations_total{reason="cancelled",state="cancelled"}`:                                  "1",
		`faena_worker_settled_total{reason="oom_killed",state="failed"}`:                                 "1",
		`faena_activation_stage_seconds_count{stage="queue"}`:                                            "2",
		`faena_activation_stage_seconds_count{stage="pull"}`:                                             "1", // the warm one had none
		`faena_activation_stage_seconds_count{stage="start"}`:                                            "1",
		`faena_activation_stage_seconds_count{stage="run"}`:                                              "2",
		`faena_activation_stage_seconds_count{stage="store"}`:                                            "1",
		`faena_activation_stage_seconds_bucket{stage="run",le="0.0025"}`:                                 "1",
		`faena_activation_stage_seconds_bucket{stage="total",le="600"}`:                                  "2",
		`faena_worker_abandoned_total{reason="fenced"}`:                                                  "1",
		`faena_unreadable_total{where="queue"}`:                                                          "1",
		`faena_image_pull_seconds_count{outcome="ok"}`:                                                   "1",
		`faena_image_pull_seconds_count{outcome="failed"}`:                                               "1",
		`faena_container_launch_seconds_count{outcome="ok"}`:                                             "1",
		`faena_container_launch_seconds_count{outcome="failed"}`:                                         "0",
		`faena_worker_removed_total{what="orphan"}`:                                                      "1",
		`faena_http_requests_total{method="POST",route="/v1/functions/{name}/activations",status="200"}`: "1",
		`faena_http_requests_total{method="other",route="other",status="404"}`:                           "1",
		`faena_http_request_seconds_bucket{route="/v1/functions/{name}/activations",le="0.005"}`:         "1",
	})
}

func TestMetrics_Cardinality(t *testing.T) {
	m := newTest()
	for i := range 5000 {
		m.Refused(fmt.Sprint("reason ", i))
		m.Request(fmt.Sprint("METHOD", i), fmt.Sprint("/route/", i), i, 0)
		m.Recorded(&faena.Record{State: faena.State(fmt.Sprint("state ", i))})
	}
	counts := map[string]int{}
	series := scrape(t, m)
	for name := range series {
		family, _, _ := strings.Cut(name, "{")
		counts[family]++
	}
	for family, most := range map[string]int{
		"faena_activations_refused_total":   maxWords + 1,
		"faena_activations_total":           maxWords + 1,
		"faena_http_requests_total":         maxRoutes + 1,
		"faena_http_request_seconds_count":  maxWords + 1,
		"faena_worker_settled_total":        0,
		"faena_http_request_seconds_bucket": (maxWords + 1) * (len(seconds) + 1),
	} {
		if counts[family] > most {
			t.Errorf("%s has %d series, the bound is %d", family, counts[family], most)
		}
	}
	expect(t, series, map[string]string{`faena_activations_refused_total{reason="other"}`: fmt.Sprint(5000 - maxWords)})
}

func TestMetrics_IsSafeForConcurrentUse(t *testing.T) {
	m := newTest()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				m.Refused(fmt.Sprint((g + i) % 20))
				m.Settled(&faena.Record{State: faena.StateSucceeded})
			}
		})
	}
	wg.Wait()
	expect(t, scrape(t, m), map[string]string{`faena_worker_settled_total{reason="",state="succeeded"}`: "1600",
		`faena_activations_refused_total{reason="7"}`: "80"})
}

func TestMetrics_Pool(t *testing.T) {
	m := newTest()
	m.Pool(func() PoolStats {
		return PoolStats{Starting: 1, Idle: 2, Busy: 3, Waiting: 4, MemoryBytes: 128 << 20, MilliCPUs: 1500}
	})
	expect(t, scrape(t, m), map[string]string{
		`faena_pool_containers{state="starting"}`: "1", `faena_pool_containers{state="idle"}`: "2",
		`faena_pool_containers{state="busy"}`: "3", `faena_pool_waiting`: "4", `faena_pool_memory_bytes`: "1.34217728e+08",
		`faena_pool_cpus`: "1.5",
	})
}

func TestMetrics_Queue(t *testing.T) {
	t.Run("reachable", func(t *testing.T) {
		m := newTest()
		m.Queue(func(ctx context.Context) ([]QueueStats, error) {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a scrape may wait for ever")
			}
			return []QueueStats{{Group: "default", Messages: 7, Records: 9, Fill: 0.25}}, nil
		})
		expect(t, scrape(t, m), map[string]string{`faena_queue_up`: "1", `faena_queue_messages{group="default"}`: "7",
			`faena_queue_records{group="default"}`: "9", `faena_queue_fill_ratio{group="default"}`: "0.25"})
	})
	t.Run("away", func(t *testing.T) {
		m := newTest()
		m.Queue(func(context.Context) ([]QueueStats, error) { return nil, errors.New("no servers available") })
		series := scrape(t, m)
		expect(t, series, map[string]string{`faena_queue_up`: "0", `faena_leader`: "0"})
		if v, ok := series[`faena_queue_messages{group="default"}`]; ok {
			t.Errorf("the depth of a queue that is away is given as %s", v)
		}
	})
}

func TestMetrics_Operations(t *testing.T) {
	missing, ok := []string{"document store: connection refused"}, true
	url := serve(t, newTest(), func(ctx context.Context) ([]string, bool) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a health check may wait for ever")
		}
		return missing, ok
	})
	readiness := func(wantStatus int, want string) {
		t.Helper()
		status, body := get(t, url+"/readyz")
		if status != wantStatus || strings.TrimSpace(body) != want {
			t.Errorf("/readyz answers %d %s, want %d %s", status, body, wantStatus, want)
		}
	}
	readiness(200, `{"ready":true,"missing":["document store: connection refused"]}`)
	ok = false
	readiness(503, `{"ready":false,"missing":["document store: connection refused"]}`)
	missing, ok = nil, true
	readiness(200, `{"ready":true,"missing":[]}`)

	if status, body := get(t, url+"/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("/healthz answers %d %q", status, body)
	}
	if status, _ := get(t, url+"/debug/pprof/"); status != 404 {
		t.Errorf("another path answers %d", status)
	}
	res, err := http.Post(url+"/readyz", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST answers %s", res.Status)
	}
}

func TestNewLogger(t *testing.T) {
	var out strings.Builder
	NewLogger(&out, true, slog.LevelWarn).Info("not this one")
	NewLogger(&out, true, slog.LevelInfo).Info("started", "activation_id", "0190")
	var line struct{ Level, Msg, ActivationID string }
	if err := json.Unmarshal([]byte(strings.ReplaceAll(out.String(), "activation_id", "ActivationID")), &line); err != nil {
		t.Fatalf("%q is no line of JSON: %v", out.String(), err)
	}
	if line.Level != "INFO" || line.Msg != "started" || line.ActivationID != "0190" {
		t.Errorf("the line is %+v", line)
	}
	out.Reset()
	NewLogger(&out, false, slog.LevelInfo).Info("started", "place", 3)
	if !strings.HasSuffix(out.String(), "level=INFO msg=started place=3\n") {
		t.Errorf("the line is %q", out.String())
	}
}

// Observers are called for every activation.
func BenchmarkMetrics_Settled(b *testing.B) {
	m := newTest()
	r := &faena.Record{State: faena.StateSucceeded, Timings: faena.Timings{QueueUS: 300, RunUS: 2_000, TotalUS: 2_600}}
	b.ReportAllocs()
	for b.Loop() {
		m.Settled(r)
	}
}
