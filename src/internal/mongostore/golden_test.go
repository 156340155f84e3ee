package mongostore

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"faena.dev/faena/internal/faena"
)

// update writes the golden files that are missing: go test ./internal/mongostore -update. Those of a version are never written again:
// what is stored changes with a new faena.SchemaVersion only, and then all files are written to a new directory.
var update = flag.Bool("update", false, "write the golden files of a new schema version")

var moment = time.Date(2026, 3, 1, 12, 30, 0, 7_000_000, time.UTC)

// domain has every field of a type of the domain set, as its own golden file does.
func domain[T any](t *testing.T, name string) T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "faena", "testdata", fmt.Sprintf("schema-%d", faena.SchemaVersion), name+".golden.json"))
	ok(t, err)
	var v T
	ok(t, json.Unmarshal(text, &v))
	return v
}

// The BSON of all that is stored, as extended JSON, every field set; and read again it is what it was.
func TestGolden(t *testing.T) {
	rev, record := domain[faena.Revision](t, "revision"), domain[faena.Record](t, "record")
	rev.Spec.Labels = map[string]string{"example.org/team": "images", "$50%": "a.b"}
	head, older := must(encode(rev))(t), must(encode(rev))(t)
	record.Result.Inline, record.Log.Inline = nil, nil // of the payload
	record.Parameter = nil                             // of what has ended there is none
	const activation = "jorgeSD/01956a3e-0f5b-7cc1-8a2b-0123456789ab"
	pruned := moment
	sums := counts{Completed: 2, Failed: 1, RunUS: 3}
	for name, v := range map[string]any{
		"function": &functionDocument{ID: "jorgeSD/resize", Schema: 2, Incarnation: "mf3k2-9x", Group: "default",
			Function: domain[faena.Function](t, "function"), Revision: head},
		"revision": &revisionDocument{ID: "jorgeSD/resize/mf3k2-9x/0000000003", Schema: 2, Revision: older},
		"user": &userDocument{ID: "jorgesd", Schema: 2, Granted: []string{"default"}, User: domain[faena.User](t, "user"),
			Erasure: erasureBegun},
		"group": &groupDocument{ID: "gpu", Schema: 2, Group: domain[faena.Group](t, "group")},
		"activation": &activationDocument{ID: activation, Schema: 2, Record: must(encode(record))(t), Payload: true, Bytes: 900,
			Mark: "+jorgeSD/2026-03"},
		"pruned":  &activationDocument{ID: activation, Schema: 2, Bytes: 900, Mark: "-jorgeSD/2026-03", PrunedAt: &pruned},
		"payload": &payloadDocument{ID: activation, Schema: 2, Result: []byte{0, 0xff, '\n'}, Log: []byte("log\n")},
		"usage": &usageDocument{ID: "jorgeSD/2026-03", Schema: 2, Version: 7, Counts: sums, Bytes: 1800, Hours: map[hour]*counts{"0112": &sums},
			Counted: []string{"+" + activation}},
		"schema":  &schemaDocument{ID: schemaID, Schema: 2},
		"horizon": &horizonDocument{ID: horizonID, Schema: 2, Hour: moment.Truncate(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			raw := must(encode(v))(t)
			text := must(bson.MarshalExtJSONIndent(raw, true, false, "", "  "))(t)
			golden(t, name, append(text, '\n'))
			again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			d := bson.NewDecoder(bson.NewDocumentReader(bytes.NewReader(raw)))
			d.UseJSONStructTags()
			d.SetRegistry(registry)
			ok(t, d.Decode(again))
			if !reflect.DeepEqual(again, v) {
				t.Errorf("read again it is %+v\nand was %+v", again, v)
			}
		})
	}
	if got := must(decode[faena.Revision](head))(t); !reflect.DeepEqual(got, rev) {
		t.Errorf("the revision is %+v\nand was %+v", got, rev)
	}
	if got := must(decode[faena.Record](must(encode(record))(t)))(t); !reflect.DeepEqual(got, record) {
		t.Errorf("the record is %+v\nand was %+v", got, record)
	}
}

// A field that is added to faena.Blob is added to blobDocument too.
func TestGolden_Blob(t *testing.T) {
	if blob, document := reflect.TypeFor[faena.Blob]().NumField(), reflect.TypeFor[blobDocument]().NumField(); blob != document+1 {
		t.Errorf("a blob has %d fields besides its bytes, its document %d", blob-1, document)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", fmt.Sprintf("schema-%d", faena.SchemaVersion), name+".golden.json")
	if _, err := os.Stat(path); *update && os.IsNotExist(err) {
		ok(t, os.MkdirAll(filepath.Dir(path), 0o755))
		ok(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	ok(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("what is stored has changed without a new SchemaVersion: %s would be\n%s\nand is\n%s", path, got, want)
	}
}
