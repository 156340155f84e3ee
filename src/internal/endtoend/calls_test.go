package endtoend_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
)

// testCalls takes turns between the APIs: what one has taken the other one knows.
func (i *installation) testCalls(t *testing.T) {
	ann := i.user(t, "ann", 20)
	ann.deploy(t, "hello", nil, "say", "hello")
	ann.other().deploy(t, "copy", func(s *client.Spec) { s.Input = client.InputStdin }, "copy")
	var made []string
	for n := range 6 {
		here := ann.at(n % 2)
		word := fmt.Sprintf("world %d", n)
		var id string
		if n < 4 {
			var result string
			if id, result = here.run(t, "hello", word); result != "hello "+word {
				t.Errorf("the result is %q", result)
			}
		} else {
			id = here.queue(t, "hello", word)
		}
		made = append(made, id)
		a := here.other().is(t, 20*time.Second, id, client.StateSucceeded)
		if a.Result.Size != int64(len("hello "+word)) || a.Function != "hello" || a.Attempt != 1 {
			t.Errorf("the other API has %+v", a)
		}
		if got := here.other().result(t, id); got != "hello "+word {
			t.Errorf("the result at the other API is %q", got)
		}
		if got := here.other().logs(t, id); got != "log of "+word+"\n" {
			t.Errorf("the log at the other API is %q", got)
		}
	}
	large := strings.Repeat("0123456789abcde\n", 300<<10/16)
	for n := range 2 {
		id, result := ann.at(n).run(t, "copy", large)
		made = append(made, id)
		if result != large {
			t.Errorf("%d bytes come back of %d", len(result), len(large))
		}
		if got := ann.at(1-n).result(t, id); got != large {
			t.Errorf("the other API has %d bytes of %d", len(got), len(large))
		}
		if got := ann.at(1-n).logs(t, id); got != strings.Repeat("x", len(large)) {
			t.Errorf("the other API has %d bytes of log, %d were written", len(got), len(large))
		}
	}
	slices.Sort(made)
	for n := range 2 {
		list, err := ann.at(n).history(t)
		if got := ids(list); err != nil || !slices.Equal(got, made) {
			t.Errorf("%s lists %q, %v; called for were %q", i.apis[n].name, got, err, made)
		}
	}
}
