package seal

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"faena.dev/faena/internal/faena"
)

func newIDs(t *testing.T, of Identity) *IDs {
	t.Helper()
	ids, err := NewIDs(of)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestIDs(t *testing.T) {
	t.Parallel()
	api := newIdentity(t)
	ids, same, others := newIDs(t, api), newIDs(t, api), newIDs(t, newIdentity(t))
	seen := map[string]bool{}
	for range 10_000 {
		id, err := ids.New("ann", "default")
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] || !faena.ValidActivationID(id) || !same.Made("ann", "default", id) {
			t.Fatalf("%s was there already, or is no id of an activation, or is not known by another API", id)
		}
		seen[id] = true
	}
	id, err := ids.New("ann", "default")
	if err != nil {
		t.Fatal(err)
	}
	sec, nsec := uuid.MustParse(id).Time().UnixTime()
	if age := time.Since(time.Unix(sec, nsec)); age < -time.Second || age > time.Minute {
		t.Errorf("the time in it is %v ago", age)
	}
	plain := uuid.Must(uuid.NewV7()).String()
	for name, made := range map[string]bool{
		"another user":     ids.Made("bob", "default", id),
		"another group":    ids.Made("ann", "gpu", id),
		"another key":      others.Made("ann", "default", id),
		"another time":     ids.Made("ann", "default", "00000000"+id[8:]),
		"another end":      ids.Made("ann", "default", id[:26]+plain[26:]),
		"made by somebody": ids.Made("ann", "default", plain),
		"upper case":       ids.Made("ann", "default", strings.ToUpper(id)),
		"no id":            ids.Made("ann", "default", "x"),
	} {
		if made {
			t.Errorf("%s: it passes", name)
		}
	}
}

func BenchmarkIDs_Made(b *testing.B) {
	x, err := LoadOrCreate(b.TempDir() + "/key")
	if err != nil {
		b.Fatal(err)
	}
	ids, err := NewIDs(x)
	if err != nil {
		b.Fatal(err)
	}
	id, err := ids.New("ann", "default")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		ids.Made("ann", "default", id)
	}
}
