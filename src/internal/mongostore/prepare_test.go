package mongostore

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

// A server that does not answer for an index is not waited for without an end: Ping says so, and it is asked again.
func TestOpen_IndexesTakeLong(t *testing.T) {
	server := ferrettest.Start(t, ferrettest.Options{})
	relay := server.NewRelay(t)
	answers := make(chan struct{})
	answer := sync.OnceFunc(func() { close(answers) })
	defer answer()
	relay.SetFault(func(command string) ferrettest.Fault {
		if command == "createIndexes" {
			<-answers
		}
		return ferrettest.None
	})
	s := open(t, Options{URI: relay.URI(), indexTimeout: 200 * time.Millisecond})
	faenatest.EventuallyNil(t, 10*time.Second, "Ping says that an index is not there", func() error {
		if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "create index") {
			return errors.Join(errors.New("it says something else"), err)
		}
		return nil
	})
	ok(t, s.Insert(t.Context(), records("ann", 1)))
	answer()
	ok(t, s.settled(t).Ping(t.Context()))
}
