package wiring_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// operations asks the operations listener.
func (i *installation) operations(t *testing.T, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+i.appliance.OperationsAddress()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
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

// metrics are the values of all series, by their name with labels, as they are written.
func (i *installation) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	status, text := i.operations(t, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", status, text)
	}
	series := map[string]float64{}
	for line := range strings.Lines(text) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		series[line[:at]] = value
	}
	return series
}

// become waits until the metrics have values, less what they were before.
func (i *installation) become(t *testing.T, before, want map[string]float64) {
	t.Helper()
	faenatest.EventuallyNil(t, 10*time.Second, "the metrics are true", func() error {
		now, wrong := i.metrics(t), []string(nil)
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got, is := now[name]; !is || got-before[name] != want[name] {
				wrong = append(wrong, fmt.Sprintf("%s is %v (there: %v), want %v", name, got-before[name], is, want[name]))
			}
		}
		if wrong != nil {
			return fmt.Errorf("%s", strings.Join(wrong, "; "))
		}
		return nil
	})
}

// quiet are the values of an appliance where nothing happens.
var quiet = map[string]float64{
	"faena_queue_up":                                     1,
	`faena_queue_messages{group="default"}`:              0,
	`faena_queue_records{group="default"}`:               0,
	`faena_conservation_drift{group="default"}`:          0,
	`faena_activations{group="default",state="running"}`: 0,
	`faena_pool_containers{state="busy"}`:                0,
	`faena_pool_containers{state="starting"}`:            0,
	"faena_pool_waiting":                                 0,
	"faena_pool_cpus":                                    0,
}

func testMetrics(t *testing.T, i *installation) {
	c := i.user(t, "meter", 1)
	i.deploy(t, c, "arg", nil, "arg")
	i.deploy(t, c, "exit", nil, "exit")
	i.deploy(t, c, "size", nil, "size")
	i.become(t, nil, quiet)
	before := i.metrics(t)
	t.Run("they count what has happened", func(t *testing.T) {
		for range 3 {
			must(t, c, "arg", "x")
		}
		ended(t, c, async(t, c, "arg", "x"))
		must(t, c, "size", strconv.Itoa(300<<10)) // over what a record holds
		if _, err := activate(t.Context(), c, "exit", []byte("3")); failure(t, err).Reason != "exit_nonzero" {
			t.Error(err)
		}
		if _, err := activate(t.Context(), c, "nobody", nil); failure(t, err).Status != http.StatusNotFound {
			t.Error(err)
		}
		const route = `route="/v1/functions/{name}/activations"`
		i.become(t, before, map[string]float64{
			`faena_activations_admitted_total{group="default",mode="sync"}`:       5,
			`faena_activations_admitted_total{group="default",mode="async"}`:      1,
			`faena_activations_total{reason="",state="succeeded"}`:                5,
			`faena_activations_total{reason="exit_nonzero",state="failed"}`:       1,
			`faena_worker_settled_total{reason="",state="succeeded"}`:             5,
			`faena_worker_settled_total{reason="exit_nonzero",state="failed"}`:    1,
			`faena_activation_stage_seconds_count{stage="queue"}`:                 6,
			`faena_activation_stage_seconds_count{stage="run"}`:                   6,
			`faena_activation_stage_seconds_count{stage="total"}`:                 6,
			`faena_activation_stage_seconds_count{stage="start"}`:                 3, // the first of each function
			`faena_activation_stage_seconds_count{stage="store"}`:                 1,
			`faena_container_launch_seconds_count{outcome="ok"}`:                  3,
			`faena_http_requests_total{method="POST",` + route + `,status="200"}`: 4,
			`faena_http_requests_total{method="POST",` + route + `,status="202"}`: 1,
			`faena_http_requests_total{method="POST",` + route + `,status="502"}`: 1,
			`faena_http_requests_total{method="POST",` + route + `,status="404"}`: 1,
			`faena_http_request_seconds_count{` + route + `}`:                     7,
		})
	})
	t.Run("they show what happens", func(t *testing.T) {
		i.deploy(t, c, "stubborn", nil, "stubborn")
		id := async(t, c, "stubborn", "")
		running(t, c, id)
		if _, err := activate(t.Context(), c, "arg", nil); failure(t, err).Status != http.StatusTooManyRequests { // its limit is 1
			t.Error(err)
		}
		i.become(t, nil, map[string]float64{
			`faena_pool_containers{state="busy"}`:                1,
			"faena_pool_cpus":                                    1,
			`faena_queue_messages{group="default"}`:              1,
			`faena_queue_records{group="default"}`:               1,
			`faena_conservation_drift{group="default"}`:          0,
			`faena_activations{group="default",state="running"}`: 1,
			`faena_activations{group="default",state="backlog"}`: 0,
		})
		i.become(t, before, map[string]float64{`faena_activations_refused_total{reason="limit_reached"}`: 1})
		if _, err := client.Read[client.Activation](c.CancelActivation(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		ended(t, c, id)
	})
	t.Run("and then nothing again", func(t *testing.T) {
		i.become(t, nil, quiet)
		faenatest.EventuallyNil(t, 10*time.Second, "the idle containers are those that the engine has", func() error {
			there, counted := len(faenatest.Engine(t).Containers(t, "faena.worker="+i.worker)), i.metrics(t)[`faena_pool_containers{state="idle"}`]
			if there == 0 || float64(there) != counted {
				return fmt.Errorf("%d are there, %v are counted", there, counted)
			}
			return nil
		})
		m := i.metrics(t)
		if fill := m[`faena_queue_fill_ratio{group="default"}`]; fill <= 0 || fill >= 0.8 {
			t.Errorf("the stores are full by %v", fill)
		}
		if m["process_resident_memory_bytes"] == 0 || m["go_goroutines"] == 0 || m[`faena_image_pull_seconds_count{outcome="ok"}`] == 0 ||
			m["faena_pool_memory_bytes"] < 32<<20 {
			t.Error("the process, the pulls and the pool's memory are not counted")
		}
	})
}

func testHealth(t *testing.T, i *installation) {
	if status, body := i.operations(t, "/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz answers %d %q", status, body)
	}
	if status, body := i.operations(t, "/readyz"); status != http.StatusOK || body != `{"ready":true,"missing":[]}`+"\n" {
		t.Errorf("/readyz answers %d %q", status, body)
	}
	if status, _ := i.operations(t, "/v1/functions"); status != http.StatusNotFound {
		t.Errorf("the operations listener answers %d to the API's routes", status)
	}
	stranger, err := client.New(client.Options{URL: i.appliance.URL()})
	if err != nil {
		t.Fatal(err)
	}
	if live, err := client.Read[client.Liveness](stranger.GetHealth(t.Context())); err != nil || live.Status != "ok" {
		t.Errorf("the API's /healthz answers %+v, %v", live, err)
	}
	if ready, err := client.Read[client.Readiness](stranger.GetReadiness(t.Context())); err != nil || !ready.Ready || len(ready.Missing) != 0 {
		t.Errorf("the API's /readyz answers %+v, %v", ready, err)
	}
}
