package faena_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// FuzzSpec: whatever a spec says, setting its defaults and checking it do not panic, a second time changes nothing, and one that
// passes is in the ranges that a container, a message and a timer can have.
func FuzzSpec(f *testing.F) {
	for _, s := range []string{`{}`, `{"image":"r.example/a:1"}`, `{"image":"a","timeout_ms":-1,"memory_bytes":1,"cpus":1e300,"pids":0,"warm":101}`,
		`{"image":"a","env":{"A":"b","FAENA_X":"","1":"","B":"\u0000"},"labels":{"a/b.c":"d","":""}}`,
		`{"image":"a","command":["/bin/sh","-c"],"args":["\u0000",""],"input":"stdin","isolation":"fresh","group":"gpu"}`,
		`{"image":"a","retries":3}`, `{"image":"a","retries":10,"retry_on":["timeout","exit_nonzero"],"retry_delay_ms":3600000,"retry_max_delay_ms":3600000}`,
		`{"image":"a","retries":-1,"retry_on":["cancelled"],"retry_delay_ms":9223372036854775807,"retry_max_delay_ms":1}`,
		`{"image":"a","retry_delay_ms":5}`, `{"image":"a","capabilities":["CHOWN","SYS_ADMIN"],"writable_root":true,"tmpfs_bytes":1048576}`} {
		f.Add([]byte(s), 1, 0.5)
	}
	f.Fuzz(func(t *testing.T, text []byte, attempt int, jitter float64) {
		var s faena.Spec
		if json.Unmarshal(text, &s) != nil {
			return
		}
		whole := s.WithDefaults()
		if again := whole.WithDefaults(); !reflect.DeepEqual(again, whole) {
			t.Errorf("defaults of defaults differ: %+v and %+v", whole, again)
		}
		before, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		err = whole.Validate()
		if after, _ := json.Marshal(whole); string(after) != string(before) {
			t.Errorf("the check has changed the spec: %s and %s", before, after)
		}
		if err != nil {
			if !faena.IsKind(err, faena.KindInvalid) {
				t.Errorf("%s is refused as %v", text, err)
			}
			return
		}
		validSpec(t, whole)
		var back faena.Spec
		if err := json.Unmarshal(before, &back); err != nil || back.WithDefaults().Validate() != nil {
			t.Errorf("what was taken is refused when it is read again: %s: %v", before, err)
		}
		if jitter >= 0 && jitter < 1 && attempt >= 1 {
			for _, reason := range faena.Reasons() {
				after, again := whole.Retry(reason, attempt, jitter)
				if after < 0 || after > faena.MaxRetryDelay || again && (attempt > whole.Retries || whole.Retries == 0) {
					t.Errorf("attempt %d for %s is again %v after %v", attempt, reason, again, after)
				}
			}
		}
	})
}

// validSpec checks what others rely on of a spec that was taken.
func validSpec(t *testing.T, s faena.Spec) {
	t.Helper()
	token(t, "group", s.Group)
	switch {
	case s.Image == "", s.Timeout() < 100*time.Millisecond, s.Timeout() > faena.MaxTimeout, s.MemoryBytes < 16<<20, s.MemoryBytes > 64<<30,
		!(s.CPUs >= 0.05 && s.CPUs <= 64), s.PIDs < 1, s.PIDs > 4096, s.ResultLimitBytes < 1, s.ResultLimitBytes > 64<<20,
		s.TmpfsBytes < 1<<20, s.Warm < 0, s.Warm > 100, s.Retries < 0, s.Retries > 10:
		t.Errorf("taken is %+v", s)
	}
	for k, v := range s.Env {
		if k == "" || len(k) > 128 || len(k)+1+len(v) > faena.MaxArgBytes {
			t.Errorf("taken is the variable %q", k)
		}
	}
}
