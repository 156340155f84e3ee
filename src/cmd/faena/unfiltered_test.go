package main

import (
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faenatest"
)

// TestUp_Unfiltered: an appliance that may not set packet rules does not run functions, unless it is told to; then it says so
// wherever somebody looks.
func TestUp_Unfiltered(t *testing.T) {
	a := newAccount(t)
	a.weak = true
	got := a.finish(a.upCommand(t.Context()), nil)
	if got.code != exitFailed {
		t.Errorf("it ends with %d, want %d", got.code, exitFailed)
	}
	for _, word := range []string{"CAP_NET_ADMIN", "FAENA_ALLOW_UNFILTERED=true", "--allow-unfiltered"} {
		if !strings.Contains(got.err, word) {
			t.Errorf("it does not say %s: %s", word, got.err)
		}
	}
	u := a.up("FAENA_ALLOW_UNFILTERED=true")
	if said := u.said.String(); !strings.Contains(said, "not filtered") || !strings.Contains(said, "CAP_NET_ADMIN") {
		t.Errorf("at its start it says %s", said)
	}
	a.deploy("arg", faenatest.Load(t, faenatest.Image(t, faenatest.ImageSpec{})), mode("arg")...)
	r := a.reaches(a.async("arg", "x"), ended)
	if r.State != client.StateSucceeded || !strings.Contains(strings.Join(r.Remarks, " "), "without packet rules") {
		t.Errorf("the record is %s with the remarks %q", r.State, r.Remarks)
	}
	faenatest.Eventually(t, 30*time.Second, "the list of workers says so", func() bool {
		return strings.Contains(a.faena("workers"), "packets are not filtered")
	})
	if got := a.run(nil, "doctor"); got.code == exitOK || !strings.Contains(got.out+got.err, "CAP_NET_ADMIN") {
		t.Errorf("doctor: %+v", got)
	}
}
