package httpapi

import (
	"net/http"

	"faena.dev/faena/api"
)

// The three routes that ask nobody who he is.

func (a *API) getHealth(w http.ResponseWriter, r *http.Request) {
	a.writeJSON(w, r, http.StatusOK, Liveness{Status: "ok"})
}

// getReadiness names everything that is missing, also where activations go on without it.
func (a *API) getReadiness(w http.ResponseWriter, r *http.Request) {
	missing, ready := a.o.Health.Ready(r.Context())
	if missing == nil {
		missing = []string{}
	}
	if !ready {
		a.writeProblem(w, r, Problem{Status: http.StatusServiceUnavailable, Title: "Not available", Reason: "not_ready",
			Component: ComponentAPI, Retryable: true, Detail: "This instance cannot take activations.", Missing: missing})
		return
	}
	a.writeJSON(w, r, http.StatusOK, Readiness{Ready: true, Missing: missing})
}

func (a *API) getSpecification(w http.ResponseWriter, _ *http.Request) {
	writeBytes(w, http.StatusOK, "application/yaml", api.Specification)
}
