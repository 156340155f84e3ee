package httpapi

import (
	"fmt"
	"net/http"

	"faena.dev/faena/internal/faena"
)

// maxRedrive is how many dead letters one call runs again.
const maxRedrive = 100

// ofUser is whose dead letters a call is about: the caller's own, or, for an admin, those of the user that it names. "" is
// everybody, where there may be several.
func ofUser(r *http.Request, name OfUser, several bool) (string, error) {
	c := callOf(r.Context())
	switch {
	case name == "" || name == c.user.Name:
		return c.user.Name, nil
	case c.user.Role != faena.RoleAdmin:
		return "", forbidden("Dead letters of other users are for admins.")
	case name == "*" && several:
		return "", nil
	case !faena.ValidUser(name):
		return "", faena.Invalid(faena.FieldError{Field: "user", Message: fmt.Sprintf("is %q, must match %s", clip(name), faena.UserPattern)})
	}
	return name, nil
}

// letters reads what the calls about several dead letters have in common.
func (h handlers) letters(r *http.Request, user OfUser, function OfFunction, from PageCursor) (q faena.DeadLetterQuery, err error) {
	if q.User, err = ofUser(r, user, true); err != nil {
		return q, err
	}
	if function != "" && !faena.ValidName(function) {
		return q, faena.Invalid(faena.FieldError{Field: "function", Message: fmt.Sprintf("is %q, must match %s", clip(function), faena.NamePattern)})
	}
	q.Function = function
	q.From, err = cursorKey(from, faena.ValidActivationID)
	return q, err
}

// callNow is what a new activation takes over of the call that makes it.
func callNow(r *http.Request) faena.ActivationRequest {
	c := callOf(r.Context())
	return faena.ActivationRequest{Traceparent: c.traceparent, RequestID: c.requestID}
}

// ListDeadLetters lists dead letters, newest first.
func (h handlers) ListDeadLetters(w http.ResponseWriter, r *http.Request, params ListDeadLettersParams) {
	q, err := h.letters(r, params.User, params.Function, params.Cursor)
	if err == nil {
		q.Limit, err = pageSize(params.Limit)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	list, next, err := h.o.DeadLetters.DeadLetters(r.Context(), q)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, DeadLetterPage{Items: each(list, showDeadLetter), Next: cursorAfter(next)})
}

// cursorAfter is the cursor of a key that a use case has given; "" where there are no more.
func cursorAfter(key string) string {
	if key == "" {
		return ""
	}
	return cursor(key)
}

// GetDeadLetter reads a dead letter.
func (h handlers) GetDeadLetter(w http.ResponseWriter, r *http.Request, id ActivationID, params GetDeadLetterParams) {
	user, err := ofUser(r, params.User, false)
	var d faena.DeadLetter
	if err == nil {
		d, err = h.o.DeadLetters.DeadLetter(r.Context(), user, id)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	shown := showDeadLetter(d)
	if user == caller(r) { // an admin has no business with it
		shown.Parameter.include(d.Parameter.Inline)
	}
	h.writeJSON(w, r, http.StatusOK, shown)
}

// RedriveDeadLetter runs a dead letter again.
func (h handlers) RedriveDeadLetter(w http.ResponseWriter, r *http.Request, id ActivationID, params RedriveDeadLetterParams) {
	user, err := ofUser(r, params.User, false)
	var rec faena.Record
	if err == nil {
		rec, err = h.o.DeadLetters.Redrive(r.Context(), user, id, callNow(r))
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeAccepted(w, r, &rec)
}

// RedriveDeadLetters runs several dead letters again.
func (h handlers) RedriveDeadLetters(w http.ResponseWriter, r *http.Request, params RedriveDeadLettersParams) {
	q, err := h.letters(r, params.User, params.Function, params.Cursor)
	q.Limit = maxRedrive
	var all faena.Redriven
	if err == nil {
		all, err = h.o.DeadLetters.RedriveAll(r.Context(), q, callNow(r))
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	shown := showRedriven(all)
	shown.Next = cursorAfter(all.Next)
	h.writeJSON(w, r, http.StatusOK, shown)
}

// PurgeDeadLetter removes a dead letter.
func (h handlers) PurgeDeadLetter(w http.ResponseWriter, r *http.Request, id ActivationID, params PurgeDeadLetterParams) {
	user, err := ofUser(r, params.User, false)
	if err == nil {
		err = h.o.DeadLetters.PurgeDeadLetter(r.Context(), user, id)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// PurgeDeadLetters removes several dead letters.
func (h handlers) PurgeDeadLetters(w http.ResponseWriter, r *http.Request, params PurgeDeadLettersParams) {
	q, err := h.letters(r, params.User, params.Function, "")
	n := 0
	if err == nil {
		n, err = h.o.DeadLetters.PurgeDeadLetters(r.Context(), q)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, r, http.StatusOK, Purged{Purged: n})
}
