package faena

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// valid is a spec with nothing wrong; each case changes one thing.
func valid() Spec {
	return Spec{Image: "registry.example.org/team/resize:1"}.WithDefaults()
}

func TestSpec_Validate_Ranges(t *testing.T) {
	number := func(field string, set func(*Spec, int64), lo, hi int64) []rangeCase {
		at := func(v int64) func(*Spec) { return func(s *Spec) { set(s, v) } }
		return []rangeCase{{field, at(lo), ""}, {field, at(hi), ""}, {field, at(lo - 1), field}, {field, at(hi + 1), field}, {field, at(math.MinInt64), field}}
	}
	cases := slices.Concat(
		number("timeout_ms", func(s *Spec, v int64) { s.TimeoutMS = v }, 100, 600_000),
		number("memory_bytes", func(s *Spec, v int64) { s.MemoryBytes = v }, 16<<20, 64<<30),
		number("pids", func(s *Spec, v int64) { s.PIDs = v }, 1, 4096),
		number("result_limit_bytes", func(s *Spec, v int64) { s.ResultLimitBytes = v }, 1, 64<<20),
		number("tmpfs_bytes", func(s *Spec, v int64) { s.TmpfsBytes = v }, 1<<20, 4<<30),
		number("warm", func(s *Spec, v int64) { s.Warm = int(v) }, 0, 100),
	)
	for _, c := range []struct {
		cpus float64
		bad  bool
	}{{0.05, false}, {64, false}, {1.5, false}, {0.049, true}, {64.01, true}, {0, true}, {-1, true}, {math.NaN(), true}, {math.Inf(1), true}} {
		bad := ""
		if c.bad {
			bad = "cpus"
		}
		cases = append(cases, rangeCase{"cpus", func(s *Spec) { s.CPUs = c.cpus }, bad})
	}
	runRanges(t, cases)
}

// rangeCase is a change of a valid spec, and the field that is wrong then.
type rangeCase struct {
	name   string
	change func(*Spec)
	bad    string // "" for none
}

func TestSpec_Validate_Texts(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	env := func(k, v string) func(*Spec) { return func(s *Spec) { s.Env = map[string]string{k: v} } }
	label := func(k, v string) func(*Spec) { return func(s *Spec) { s.Labels = map[string]string{k: v} } }
	runRanges(t, []rangeCase{
		{"image missing", func(s *Spec) { s.Image = "" }, "image"},
		{"image as long as may be", func(s *Spec) { s.Image = long(512) }, ""},
		{"image too long", func(s *Spec) { s.Image = long(513) }, "image"},
		{"input stdin", func(s *Spec) { s.Input = InputStdin }, ""},
		{"input both", func(s *Spec) { s.Input = InputBoth }, ""},
		{"input of another word", func(s *Spec) { s.Input = "file" }, "input"},
		{"input in capitals", func(s *Spec) { s.Input = "ARG" }, "input"},
		{"isolation fresh", func(s *Spec) { s.Isolation = IsolationFresh }, ""},
		{"isolation of another word", func(s *Spec) { s.Isolation = "vm" }, "isolation"},
		{"group", func(s *Spec) { s.Group = "gpu-2" }, ""},
		{"group in capitals", func(s *Spec) { s.Group = "GPU" }, "group"},
		{"group that would be two tokens", func(s *Spec) { s.Group = "a.b" }, "group"},

		{"command", func(s *Spec) { s.Command = []string{"/bin/sh", "-c", ""} }, ""},
		{"command with NUL", func(s *Spec) { s.Command = []string{"/bin/sh", "a\x00b"} }, "command[1]"},
		{"argument as long as may be", func(s *Spec) { s.Args = []string{long(131_071)} }, ""},
		{"argument too long", func(s *Spec) { s.Args = []string{"a", "b", long(131_072)} }, "args[2]"},

		{"env", env("_LEVEL9", "any\tvalue\n"), ""},
		{"env empty", env("LEVEL", ""), ""},
		{"env without a name", env("", "v"), "env."},
		{"env that begins with a digit", env("9L", "v"), "env.9L"},
		{"env with an equals sign", env("A=B", "v"), "env.A=B"},
		{"env name as long as may be", env(long(128), "v"), ""},
		{"env name too long", env(long(129), "v"), "env." + long(129)},
		{"env that is ours", env("FAENA_ATTEMPT", "v"), "env.FAENA_ATTEMPT"},
		{"env that is nearly ours", env("FAENA", "v"), ""},
		{"env with NUL", env("LEVEL", "\x00"), "env.LEVEL"},
		{"env as long as may be", env("LEVEL", long(131_071-6)), ""},
		{"env too long", env("LEVEL", long(131_071-5)), "env.LEVEL"},

		{"label", label("team.example.org/tier", "a b"), ""},
		{"label empty", label("tier", ""), ""},
		{"label with the longest value", label("tier", long(256)), ""},
		{"label with too long a value", label("tier", long(257)), "labels.tier"},
		{"label without a name", label("", "v"), "labels."},
		{"label that ends in a dot", label("tier.", "v"), "labels.tier."},
		{"label with the longest name", label(long(128), "v"), ""},
		{"label with too long a name", label(long(129), "v"), "labels." + long(129)},

		{"every capability that may be given", func(s *Spec) {
			s.Capabilities = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}
		}, ""},
		{"capability that is never given", func(s *Spec) { s.Capabilities = []string{"CHOWN", "SYS_ADMIN"} }, "capabilities[1]"},
		{"capability with its prefix", func(s *Spec) { s.Capabilities = []string{"CAP_CHOWN"} }, "capabilities[0]"},
	})
}

func runRanges(t *testing.T, cases []rangeCase) {
	t.Helper()
	for _, c := range cases {
		s := valid()
		c.change(&s)
		err := s.Validate()
		if c.bad == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != KindInvalid || len(e.Fields) != 1 || e.Fields[0].Field != c.bad || e.Fields[0].Message == "" || e.Retryable {
			t.Errorf("%s: the error is %+v, want one that names %s alone", c.name, err, c.bad)
		}
	}
}

func TestSpec_Validate_NamesEveryField(t *testing.T) {
	err := Spec{Input: "x", TimeoutMS: 1, CPUs: 65, Env: map[string]string{"B=": "", "A=": ""}}.Validate()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatal(err)
	}
	var fields []string
	for _, f := range e.Fields {
		fields = append(fields, f.Field)
	}
	want := []string{"image", "input", "isolation", "timeout_ms", "memory_bytes", "pids", "result_limit_bytes", "tmpfs_bytes", "cpus", "group", "env.A=", "env.B="}
	if !slices.Equal(fields, want) {
		t.Errorf("the fields are %v, want %v", fields, want)
	}
	if !strings.Contains(e.Message, "image: is missing") {
		t.Errorf("the message is %q", e.Message)
	}
}

func TestSpec_Validate_SaysTheRange(t *testing.T) {
	s := valid()
	s.MemoryBytes = 1
	e, ok := errors.AsType[*Error](s.Validate())
	if !ok || !strings.Contains(e.Fields[0].Message, "is 1, must be from 16777216 to 68719476736 bytes") {
		t.Errorf("the message is %v", e)
	}
}

func TestSpec_WithDefaults(t *testing.T) {
	s := Spec{Image: "i"}.WithDefaults()
	if err := s.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
	if s.Input != InputArg || s.Timeout() != time.Minute || s.MemoryBytes != 128<<20 || s.CPUs != 1 || s.PIDs != 128 ||
		s.ResultLimitBytes != 16<<20 || s.TmpfsBytes != 64<<20 || s.Isolation != IsolationReuse || s.Warm != 0 || s.Group != "default" {
		t.Errorf("the defaults are %+v", s)
	}
	own := Spec{Image: "i", Input: InputBoth, TimeoutMS: 100, MemoryBytes: 16 << 20, CPUs: 0.05, PIDs: 1, ResultLimitBytes: 1,
		TmpfsBytes: 1 << 20, Isolation: IsolationFresh, Group: "gpu"}
	same(t, own.WithDefaults(), own)
}
