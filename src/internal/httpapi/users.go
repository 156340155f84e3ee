package httpapi

import (
	"net/http"

	"faena.dev/faena/internal/faena"
)

// PutUser makes or changes a user.
func (h handlers) PutUser(w http.ResponseWriter, r *http.Request, name UserName) {
	var body UserProfile
	if err := h.decode(w, r, &body, false); err != nil {
		h.fail(w, r, err)
		return
	}
	u := faena.User{Name: name, Role: faena.Role(body.Role), Groups: body.Groups}
	created, err := h.o.Users.PutUser(r.Context(), u, body.Password)
	if err == nil {
		u, err = h.o.Users.User(r.Context(), name)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writePut(w, r, created, "/v1/users/"+name, showUser(u))
}

// GetUser reads a user.
func (h handlers) GetUser(w http.ResponseWriter, r *http.Request, name UserName) {
	u, err := h.o.Users.User(r.Context(), name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, showUser(u))
}

// DeleteUser removes a user with everything it has.
func (h handlers) DeleteUser(w http.ResponseWriter, r *http.Request, name UserName) {
	if err := h.o.Users.DeleteUser(r.Context(), name); err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ListUsers lists users in order of name.
func (h handlers) ListUsers(w http.ResponseWriter, r *http.Request, params ListUsersParams) {
	list, next, err := pageOf(params.Limit, params.Cursor, faena.ValidUser, func(u faena.User) string { return u.Name },
		func(after string, n int) ([]faena.User, error) { return h.o.Users.Users(r.Context(), after, n) })
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, UserPage{Items: each(list, showUser), Next: next})
}

// PutPassword replaces a password.
func (h handlers) PutPassword(w http.ResponseWriter, r *http.Request, name UserName) {
	var body Password
	if err := h.decode(w, r, &body, false); err != nil {
		h.fail(w, r, err)
		return
	}
	if err := h.o.Users.SetPassword(r.Context(), name, body.Password); err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// GetUsage counts a user's activations.
func (h handlers) GetUsage(w http.ResponseWriter, r *http.Request, name UserName) {
	u, err := h.o.Users.Usage(r.Context(), name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, Usage{Active: u.Active, Completed: u.Completed, Failed: u.Failed, Limit: u.Limit, Backlog: u.Backlog})
}
