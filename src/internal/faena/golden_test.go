package faena

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// update writes the golden files that are missing: go test ./internal/faena -update. Those of a version are never written
// again: what daemons of different versions say to each other changes with a new SchemaVersion only, and then all files are
// written to a new directory. The old ones stay: a build reads what the version before it has written. make lint compares
// them with those of the release before.
var update = flag.Bool("update", false, "write the golden files of a new schema version")

// goldenDir has the golden files of a schema version.
func goldenDir(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%d", version))
}

// The JSON of all that is stored or sent, every field set.
func TestGolden(t *testing.T) {
	code := 3
	spec := Spec{Image: "registry.example.org/team/resize:1", Command: []string{"/resize"}, Args: []string{"-q"}, Input: InputStdin, TimeoutMS: 5000,
		MemoryBytes: 128 << 20, CPUs: 0.5, PIDs: 64, ResultLimitBytes: 1 << 20, TmpfsBytes: 64 << 20, Env: map[string]string{"LEVEL": "7"},
		Isolation: IsolationFresh, Warm: 2, Group: "default", Capabilities: []string{"CHOWN"}, WritableRoot: true, Labels: map[string]string{"team": "images"},
		Retries: 3, RetryOn: []Reason{ReasonTimeout}, RetryDelayMS: 1000, RetryMaxDelayMS: 60_000}
	config := ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, Env: []string{"PATH=/bin"}, WorkingDir: "/work", User: "1000:1000",
		Volumes: []string{"/data"}, StopSignal: "SIGTERM"}
	revision := Revision{Schema: 2, User: "jorgeSD", Function: "resize", Number: 3, Spec: spec, Digest: "sha256:5e",
		Pull: "registry.example.org/team/resize@sha256:5e", SizeBytes: 2 << 20, Config: config, Sealed: []byte{0, 0xff}, CreatedAt: moment}
	blob := Blob{Size: 3, Inline: []byte{0, 0xff, '\n'}, Object: "out.id.1", Truncated: true, Dropped: 12}
	record := Record{Schema: 2, ID: "01956a3e-0f5b-7cc1-8a2b-0123456789ab", User: "jorgeSD", Group: "default", Function: "resize", Revision: 3,
		Digest: "sha256:5e", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", RequestID: "req-1", Instance: "api-1",
		Slot: 4, Publication: 1, StartWithinMS: 640_000, WithinMS: 640_000, Backlogged: true, NotBefore: &moment, Parameter: &blob, ParameterObject: "in.id", State: StateFailed, Reason: ReasonExitNonzero, Message: "It exited with 3.",
		CancelRequested: true, Attempt: 1, Worker: "w1", Sequence: 42,
		Failures:     []Failure{{Attempt: 1, Reason: ReasonTimeout, Message: "It ran too long.", Worker: "w0", EndedAt: moment}},
		RedrivenFrom: "01956a3e-0f5b-7cc1-8a2b-0123456789aa", ExitCode: &code, Signal: 9, Warm: true, PeakMemoryBytes: 1 << 20,
		Remarks: []string{"pids limit met 3 times"}, Result: blob, Log: blob,
		Timings:    Timings{QueueUS: 1, PullUS: 2, StartUS: 3, RunUS: 4, StoreUS: 5, TotalUS: 6},
		AdmittedAt: moment, StartedAt: &moment, EndedAt: &moment}
	for name, v := range map[string]any{
		"record": &record,
		"message": &Message{Schema: 2, ID: "01956a3e-0f5b-7cc1-8a2b-0123456789ab", Record: &record, RecordRevision: 41, Revision: &revision,
			Parameter: blob},
		"revision": &revision,
		"function": &Function{Schema: 2, User: "jorgeSD", Name: "resize", Current: 2, Latest: 3, Version: 4, CreatedAt: moment, UpdatedAt: moment},
		"user": &User{Schema: 2, Name: "jorgeSD", Role: RoleAdmin, Groups: map[string]int{"default": 20}, PasswordHash: "$argon2id$x", Deleted: true,
			CreatedAt: moment, UpdatedAt: moment},
		"worker_engine": &Worker{Schema: 2, ID: "w1", Group: "default", Host: "host-1", Version: "1.2.3", Places: 3, MemoryBytes: 4 << 30, MilliCPUs: 2000,
			Busy: 1, Containers: 2, Draining: true, NotReady: "The disk is full.", Unfiltered: "It may not.", StartedAt: moment, SeenAt: moment,
			Engine: &Engine{Version: "28.5.2", Advice: []string{AdviceNoLiveRestore, AdviceStorageDriver + "=vfs"}}},
		"dead_letter": &DeadLetter{Schema: 2, ID: "01956a3e-0f5b-7cc1-8a2b-0123456789ab", User: "jorgeSD", Group: "default", Function: "resize", Revision: 3,
			Reason: ReasonWorkerLost, Message: "It was lost.", Attempts: 2, Worker: "w1", Parameter: blob, Raw: []byte{0, 0xff}, At: moment,
			Redriven: "01956a3e-0f5b-7cc1-8a2b-0123456789ac"},
		"idempotency_claim": &IdempotencyClaim{Schema: 2, ID: "01956a3e-0f5b-7cc1-8a2b-0123456789ab", Group: "default", Function: "resize",
			ParameterSHA256: "e3b0", ClaimedAt: moment},
		"group": &Group{Schema: 2, Name: "gpu", Nkey: "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4", Recipient: "age1x",
			ConnectedAt: &moment, CreatedAt: moment, UpdatedAt: moment},
	} {
		t.Run(name, func(t *testing.T) {
			if empty := unset(reflect.ValueOf(v), name); empty != "" {
				t.Fatalf("%s is not set: a new field belongs into this test", empty)
			}
			got, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, append(got, '\n'))
			again := reflect.New(reflect.TypeOf(v).Elem())
			if err := json.Unmarshal(got, again.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again.Interface(), v) {
				t.Errorf("read again it is %+v", again.Elem())
			}
		})
	}
}

// What has got an optional field without a new SchemaVersion is written, and read again, as before where that is not set.
func TestGolden_WithoutLaterFields(t *testing.T) {
	for name, want := range map[string]any{
		"worker": &Worker{Schema: 2, ID: "w1", Group: "default", Host: "host-1", Version: "1.2.3", Places: 3, MemoryBytes: 4 << 30, MilliCPUs: 2000,
			Busy: 1, Containers: 2, Draining: true, NotReady: "The disk is full.", Unfiltered: "It may not.", StartedAt: moment, SeenAt: moment},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.MarshalIndent(want, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, append(text, '\n'))
			got := reflect.New(reflect.TypeOf(want).Elem())
			if err := json.Unmarshal(text, got.Interface()); err != nil || !reflect.DeepEqual(got.Interface(), want) {
				t.Errorf("read again it is %+v, %v", got.Elem(), err)
			}
		})
	}
}

// A record or message that says little is small: it is written for every activation.
func TestGolden_WithoutOptionalFields(t *testing.T) {
	got, err := json.MarshalIndent(struct {
		Record  *Record
		Message *Message
		User    *User
	}{&Record{}, &Message{}, &User{}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "empty", append(got, '\n'))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join(goldenDir(SchemaVersion), name+".golden.json")
	if _, err := os.Stat(path); *update && os.IsNotExist(err) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("what is stored or sent has changed without a new SchemaVersion: %s would be\n%s\nand is\n%s", path, got, want)
	}
}

// unset names a field, at any depth, that has its zero value; "" where there is none.
func unset(v reflect.Value, path string) string {
	switch {
	case v.IsZero():
		return path
	case v.Kind() == reflect.Pointer:
		return unset(v.Elem(), path)
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeOf(moment):
		for i := range v.NumField() {
			if empty := unset(v.Field(i), path+"."+v.Type().Field(i).Name); empty != "" {
				return empty
			}
		}
	}
	return ""
}

func TestCredentials_PrintRedacted(t *testing.T) {
	c := Credentials{Username: "robot", Password: "s3cret"}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("deploy", "value", c, "pointer", &c, slog.Group("nested", "creds", c))
	}
	printed := []string{log.String(), c.String(), c.GoString(), fmt.Sprint(c, &c), fmt.Errorf("pull with %v", c).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		printed = append(printed, fmt.Sprintf(verb, c), fmt.Sprintf(verb, &c), fmt.Sprintf(verb, []Credentials{c}), fmt.Sprintf(verb, Deployment{Registry: &c}))
	}
	for _, text := range printed {
		if strings.Contains(text, c.Password) || strings.Contains(text, c.Username) {
			t.Errorf("the credentials are in %q", text)
		}
	}
}

// same compares as JSON: empty and absent are the same.
func same(t *testing.T, got, want any) {
	t.Helper()
	g, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(g, w) {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}
