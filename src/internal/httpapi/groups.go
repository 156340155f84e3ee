package httpapi

import (
	"context"
	"net/http"

	"faena.dev/faena/internal/faena"
)

// ListGroups lists all groups in order of name.
func (h handlers) ListGroups(w http.ResponseWriter, r *http.Request) {
	list, err := h.o.Groups.Groups(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, GroupList{Items: each(list, showGroup)})
}

// PutGroup makes or changes a group.
func (h handlers) PutGroup(w http.ResponseWriter, r *http.Request, name GroupName) {
	var body GroupKeys
	if err := h.decode(w, r, &body, false); err != nil {
		h.fail(w, r, err)
		return
	}
	created, err := h.o.Groups.PutGroup(r.Context(), faena.Group{Name: name, Nkey: body.Nkey, Recipient: body.Recipient})
	var g faena.GroupState
	if err == nil {
		g, err = h.o.Groups.Group(r.Context(), name)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writePut(w, r, created, "/v1/groups/"+name, showGroup(g))
}

// GetGroup reads a group.
func (h handlers) GetGroup(w http.ResponseWriter, r *http.Request, name GroupName) {
	g, err := h.o.Groups.Group(r.Context(), name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, showGroup(g))
}

// DeleteGroup removes a group that nobody uses.
func (h handlers) DeleteGroup(w http.ResponseWriter, r *http.Request, name GroupName) {
	if err := h.o.Groups.DeleteGroup(r.Context(), name); err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// GetDiagnosis tells what is wrong with the installation.
func (h handlers) GetDiagnosis(w http.ResponseWriter, r *http.Request) {
	d, err := h.o.Diagnoser.Diagnose(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, showDiagnosis(d))
}

// absent stands in for use cases that an API is made without.
type absent struct{}

func (absent) err() error {
	return &faena.Error{Kind: faena.KindUnavailable, Reason: "not_offered", Component: faena.ComponentAPI, Message: "This instance does not offer the call."}
}

func (a absent) Groups(context.Context) ([]faena.GroupState, error) { return nil, a.err() }
func (a absent) Group(context.Context, string) (faena.GroupState, error) {
	return faena.GroupState{}, a.err()
}
func (a absent) PutGroup(context.Context, faena.Group) (bool, error) { return false, a.err() }
func (a absent) DeleteGroup(context.Context, string) error           { return a.err() }
func (a absent) Diagnose(context.Context) (faena.Diagnosis, error)   { return faena.Diagnosis{}, a.err() }
