package endtoend_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/endtoend/installation"
)

// testCalls takes turns between the APIs: what one has taken the other one knows.
func (i life) testCalls(t *testing.T) {
	ann := i.User(t, "ann", 20)
	ann.Deploy(t, "hello", nil, "say", "hello")
	ann.Other().Deploy(t, "copy", func(s *client.Spec) { s.Input = client.InputStdin }, "copy")
	var made []string
	for n := range 6 {
		here := ann.At(n % 2)
		word := fmt.Sprintf("world %d", n)
		var id string
		if n < 4 {
			var result string
			if id, result = here.Run(t, "hello", word); result != "hello "+word {
				t.Errorf("the result is %q", result)
			}
		} else {
			id = here.Queue(t, "hello", word)
		}
		made = append(made, id)
		a := here.Other().Is(t, 20*time.Second, id, client.StateSucceeded)
		if a.Result.Size != int64(len("hello "+word)) || a.Function != "hello" || a.Attempt != 1 {
			t.Errorf("the other API has %+v", a)
		}
		if got := here.Other().Result(t, id); got != "hello "+word {
			t.Errorf("the result at the other API is %q", got)
		}
		if got := here.Other().Logs(t, id); got != "log of "+word+"\n" {
			t.Errorf("the log at the other API is %q", got)
		}
	}
	large := strings.Repeat("0123456789abcde\n", 300<<10/16)
	for n := range 2 {
		id, result := ann.At(n).Run(t, "copy", large)
		made = append(made, id)
		if result != large {
			t.Errorf("%d bytes come back of %d", len(result), len(large))
		}
		if got := ann.At(1-n).Result(t, id); got != large {
			t.Errorf("the other API has %d bytes of %d", len(got), len(large))
		}
		if got := ann.At(1-n).Logs(t, id); got != strings.Repeat("x", len(large)) {
			t.Errorf("the other API has %d bytes of log, %d were written", len(got), len(large))
		}
	}
	slices.Sort(made)
	for n := range 2 {
		list, err := ann.At(n).History(t)
		if got := installation.IDs(list); err != nil || !slices.Equal(got, made) {
			t.Errorf("%s lists %q, %v; called for were %q", i.APIs[n].Name, got, err, made)
		}
	}
}
