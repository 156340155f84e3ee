package httpapi

import (
	"net/http"
	"strconv"
	"strings"

	"faena.dev/faena/internal/faena"
)

func caller(r *http.Request) string { return callOf(r.Context()).user.Name }

// PutFunction deploys a new revision.
func (h handlers) PutFunction(w http.ResponseWriter, r *http.Request, name FunctionName, params PutFunctionParams) {
	cond := faena.Condition{IfMatch: params.IfMatch, IfNoneMatch: params.IfNoneMatch == "*"}
	if params.IfNoneMatch != "" && !cond.IfNoneMatch {
		h.fail(w, r, faena.Invalid(faena.FieldError{Field: "If-None-Match", Message: "must be * with PUT"}))
		return
	}
	var spec Spec
	if err := h.decode(w, r, &spec, false); err != nil {
		h.fail(w, r, err)
		return
	}
	d := faena.Deployment{Name: name, Spec: specOf(spec), Condition: cond}
	if c := spec.Registry; c != nil {
		if c.Username == "" || c.Password == "" || len(c.Username) > 256 || len(c.Password) > 16384 {
			h.fail(w, r, faena.Invalid(faena.FieldError{Field: "registry", Message: "needs a username of 1 to 256 bytes and a password of 1 to 16384"}))
			return
		}
		d.Registry = &faena.Credentials{Username: c.Username, Password: c.Password}
	}
	f, rev, created, warnings, err := h.o.Functions.Deploy(r.Context(), caller(r), d)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("ETag", f.ETag())
	h.writePut(w, r, created, "/v1/functions/"+name, showFunction(f, rev, warnings))
}

// GetFunction reads a function with the revision that serves.
func (h handlers) GetFunction(w http.ResponseWriter, r *http.Request, name FunctionName, params GetFunctionParams) {
	f, rev, err := h.o.Functions.Function(r.Context(), caller(r), name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("ETag", f.ETag())
	for tag := range strings.SplitSeq(params.IfNoneMatch, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == "*" || tag == f.ETag() {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.writeJSON(w, r, http.StatusOK, showFunction(f, rev, rev.Warnings()))
}

// DeleteFunction removes a function with all its revisions.
func (h handlers) DeleteFunction(w http.ResponseWriter, r *http.Request, name FunctionName, params DeleteFunctionParams) {
	if err := h.o.Functions.Delete(r.Context(), caller(r), name, faena.Condition{IfMatch: params.IfMatch}); err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ListFunctions lists functions in order of name.
func (h handlers) ListFunctions(w http.ResponseWriter, r *http.Request, params ListFunctionsParams) {
	list, next, err := pageOf(params.Limit, params.Cursor, faena.ValidName, func(f faena.Function) string { return f.Name },
		func(after string, n int) ([]faena.Function, error) {
			return h.o.Functions.Functions(r.Context(), caller(r), after, n)
		})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, FunctionPage{Items: each(list, showHead), Next: next})
}

// ListRevisions lists a function's revisions, newest first.
func (h handlers) ListRevisions(w http.ResponseWriter, r *http.Request, name FunctionName, params ListRevisionsParams) {
	list, next, err := pageOf(params.Limit, params.Cursor, validNumber, func(v faena.Revision) string { return strconv.Itoa(v.Number) },
		func(after string, n int) ([]faena.Revision, error) {
			below, _ := strconv.Atoi(after) // "" is 0, from the newest; anything else was checked
			return h.o.Functions.Revisions(r.Context(), caller(r), name, below, n)
		})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, RevisionPage{Items: each(list, showRevision), Next: next})
}

// RollbackFunction lets an earlier revision serve again.
func (h handlers) RollbackFunction(w http.ResponseWriter, r *http.Request, name FunctionName, params RollbackFunctionParams) {
	var body Rollback
	if err := h.decode(w, r, &body, true); err != nil {
		h.fail(w, r, err)
		return
	}
	if body.Revision < 0 {
		h.fail(w, r, faena.Invalid(faena.FieldError{Field: "revision", Message: "must be the number of a revision, or 0 for the one before the current"}))
		return
	}
	f, rev, err := h.o.Functions.Rollback(r.Context(), caller(r), name, body.Revision, faena.Condition{IfMatch: params.IfMatch})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("ETag", f.ETag())
	h.writeJSON(w, r, http.StatusOK, showFunction(f, rev, rev.Warnings()))
}
