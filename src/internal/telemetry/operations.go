package telemetry

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds what a health check waits for.
const readyTimeout = 3 * time.Second

// Ready names everything that is missing; ready stays true for what the daemon can do without.
type Ready func(ctx context.Context) (missing []string, ready bool)

// Readiness is the body of /readyz.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing"`
}

// Operations returns a server of /metrics, /healthz and /readyz, for a listener of its own that strangers cannot
// reach. The caller runs it.
//
// /healthz is 200 as long as the process answers at all. /readyz is 200, or 503 where the daemon must not be given
// work, and names in both cases what is missing.
func (m *Metrics) Operations(ready Ready, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4,
		Timeout: 10 * time.Second,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // a caller that has gone needs no answer
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { answerReady(w, r, ready) })
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func answerReady(w http.ResponseWriter, r *http.Request, ready Ready) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	missing, ok := ready(ctx)
	if missing == nil {
		missing = []string{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(Readiness{Ready: ok, Missing: missing}) // a caller that has gone needs no answer
}
