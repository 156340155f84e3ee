package httpapi

import "net/http"

// ListWorkers lists the workers that are present.
func (h handlers) ListWorkers(w http.ResponseWriter, r *http.Request) {
	list, err := h.o.Workers.Workers(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, WorkerList{Items: each(list, showWorker)})
}

// DrainWorker makes a worker take nothing more.
func (h handlers) DrainWorker(w http.ResponseWriter, r *http.Request, id WorkerID) {
	h.drain(w, r, id, true)
}

// ResumeWorker makes a worker take activations again.
func (h handlers) ResumeWorker(w http.ResponseWriter, r *http.Request, id WorkerID) {
	h.drain(w, r, id, false)
}

func (h handlers) drain(w http.ResponseWriter, r *http.Request, id WorkerID, drain bool) {
	worker, err := h.o.Workers.DrainWorker(r.Context(), id, drain)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, showWorker(worker))
}
