package httpapi

import (
	"net/http"

	"faena.dev/faena/internal/faena"
)

// answer is how an error of a kind is answered.
type answer struct {
	status int
	title  string
}

// answers is the one place that gives an error its status.
var answers = map[faena.Kind]answer{
	faena.KindMalformed:       {http.StatusBadRequest, "Malformed request"},
	faena.KindUnauthenticated: {http.StatusUnauthorized, "Not authenticated"},
	faena.KindForbidden:       {http.StatusForbidden, "Not allowed"},
	faena.KindNotFound:        {http.StatusNotFound, "Not found"},
	faena.KindConflict:        {http.StatusConflict, "Conflict"},
	faena.KindGone:            {http.StatusGone, "Gone"},
	faena.KindPrecondition:    {http.StatusPreconditionFailed, "Precondition failed"},
	faena.KindTooLarge:        {http.StatusRequestEntityTooLarge, "Too large"},
	faena.KindInvalid:         {http.StatusUnprocessableEntity, "Not valid"},
	faena.KindLimit:           {http.StatusTooManyRequests, "At a limit"},
	faena.KindInternal:        {http.StatusInternalServerError, "Internal error"},
	faena.KindUnavailable:     {http.StatusServiceUnavailable, "Not available"},
}

// answerTo returns how an error of kind k is answered; a kind that is not in the table is a bug, hence internal.
func answerTo(k faena.Kind) answer {
	if a, ok := answers[k]; ok {
		return a
	}
	return answers[faena.KindInternal]
}

// answerToFailure returns how an activation that ended without success is answered: 503 where no worker ever
// started it, so that the call may simply be made again, and 502 otherwise.
func answerToFailure(r *faena.Record) answer {
	if r.Reason == faena.ReasonNoWorker || r.Reason == faena.ReasonExpired {
		return answer{http.StatusServiceUnavailable, "Not started"}
	}
	return answer{http.StatusBadGateway, "The function failed"}
}
