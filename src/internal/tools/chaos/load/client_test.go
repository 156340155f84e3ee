package load

import (
	"errors"
	"net/http"
	"testing"

	"faena.dev/faena/internal/tools/chaos/history"
)

func TestLoad_Judge(t *testing.T) {
	id := http.Header{"Faena-Activation-Id": {"id-1"}}
	for _, c := range []struct {
		name    string
		async   bool
		answer  Answer
		outcome history.Outcome
		id      string
		strange bool
	}{
		{"200", false, Answer{Status: 200, Header: id}, history.Accepted, "id-1", false},
		{"200 without an id", false, Answer{Status: 200}, history.Accepted, "", true},
		{"202", true, Answer{Status: 202, Header: id}, history.Accepted, "id-1", false},
		{"202 of a call that waits", false, Answer{Status: 202, Header: id}, history.Accepted, "id-1", false},
		{"502", false, Answer{Status: 502, Body: []byte(`{"reason":"exit_nonzero","activation_id":"id-2"}`)}, history.Accepted, "id-2", false},
		{"no worker", false, Answer{Status: 503, Body: []byte(`{"reason":"no_worker","retryable":true,"activation_id":"id-2"}`)}, history.Accepted, "id-2", false},
		{"not accepted", false, Answer{Status: 503, Body: []byte(`{"reason":"queue_unavailable","retryable":true}`)}, history.Refused, "", false},
		{"503 that is final", false, Answer{Status: 503, Body: []byte(`{"reason":"queue_unavailable"}`)}, history.Refused, "", true},
		{"perhaps accepted", false, Answer{Status: 503, Body: []byte(`{"outcome_unknown":true,"activation_id":"id-2"}`)}, history.Unknown, "id-2", false},
		{"at the limit", false, Answer{Status: 429, Body: []byte(`{}`)}, history.Refused, "", false},
		{"its key is being admitted", false, Answer{Status: 409, Body: []byte(`{"reason":"idempotency_in_progress"}`)}, history.Unknown, "", false},
		{"500", false, Answer{Status: 500, Body: []byte(`{"reason":"internal"}`)}, history.Refused, "", true},
		{"no problem document", false, Answer{Status: 502, Body: []byte("Bad Gateway")}, history.Unknown, "", true},
		{"the connection was refused", false, Answer{Err: errors.New("refused")}, history.Refused, "", false},
		{"the connection broke", false, Answer{Err: errors.New("broke"), Sent: true}, history.Unknown, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.answer.Header == nil {
				c.answer.Header = http.Header{}
			}
			var got history.Call
			judge(&got, c.answer, c.async)
			if got.Outcome != c.outcome || got.ID != c.id || (got.Strange != "") != c.strange {
				t.Errorf("it is taken for %+v", got)
			}
		})
	}
}
