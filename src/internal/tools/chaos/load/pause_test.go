package load

import (
	"context"
	"testing"
	"time"
)

func TestLoad_Pause(t *testing.T) {
	l := &Load{}
	l.enter(t.Context())
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Pause(short); err == nil {
		t.Error("there is rest although a call has not ended")
	}
	entered := make(chan struct{})
	go func() {
		defer close(entered)
		l.enter(t.Context())
	}()
	l.leave()
	if err := l.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-entered:
		t.Error("a call was made in a pause")
	default:
	}
	l.Resume()
	<-entered
	if n := l.inside.Load(); n != 1 {
		t.Errorf("%d calls are being made, want 1", n)
	}
}
