package faena

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Input says how the parameter reaches the function's process.
type Input string

const (
	// InputArg appends the parameter to ENTRYPOINT and CMD as the last argument.
	InputArg Input = "arg"
	// InputStdin writes the parameter to the process's standard input; no argument is appended.
	InputStdin Input = "stdin"
	// InputBoth does both.
	InputBoth Input = "both"
)

// Isolation says what an activation shares with the ones before it.
type Isolation string

const (
	// IsolationReuse gives each activation a new process in a warm container of its revision.
	IsolationReuse Isolation = "reuse"
	// IsolationFresh gives each activation a new container, made ahead of time.
	IsolationFresh Isolation = "fresh"
)

// Defaults and ranges of a Spec.
const (
	DefaultTimeout = 60 * time.Second
	MinTimeout     = 100 * time.Millisecond
	MaxTimeout     = 600 * time.Second

	DefaultMemoryBytes = 128 << 20
	MinMemoryBytes     = 16 << 20
	MaxMemoryBytes     = 64 << 30

	DefaultCPUs = 1.0
	MinCPUs     = 0.05
	MaxCPUs     = 64.0

	DefaultPIDs = 128
	MinPIDs     = 1
	MaxPIDs     = 4096

	DefaultResultLimitBytes = 16 << 20
	MaxResultLimitBytes     = 64 << 20

	DefaultTmpfsBytes = 64 << 20
	MinTmpfsBytes     = 1 << 20
	MaxTmpfsBytes     = 4 << 30

	MaxWarm = 100

	MaxRetries           = 10
	DefaultRetryDelay    = time.Second
	DefaultRetryMaxDelay = 5 * time.Minute
	MaxRetryDelay        = time.Hour
)

// retryable are the reasons that a spec may list in RetryOn; the others would be the same again, or are not of a run.
var retryable = []Reason{ReasonExitNonzero, ReasonImageDenied, ReasonImageNotFound, ReasonKilledBySignal, ReasonOOMKilled,
	ReasonStartFailed, ReasonTimeout, ReasonWorkerLost}

// DefaultRetryOn is the RetryOn of a spec with retries that does not say for what.
var DefaultRetryOn = []Reason{ReasonExitNonzero, ReasonKilledBySignal, ReasonStartFailed, ReasonTimeout, ReasonWorkerLost}

// grantable are the capabilities that a spec may ask for; the operator's profile decides which it gets.
var grantable = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}

// Spec is what a user says of a function. The zero value of each optional field means its default; WithDefaults
// writes the defaults out. Sizes are in bytes and times in milliseconds, as the field names say.
type Spec struct {
	Image            string            `json:"image"`                        // reference at a registry, with tag or digest
	Command          []string          `json:"command,omitempty"`            // overrides the image's ENTRYPOINT
	Args             []string          `json:"args,omitempty"`               // overrides the image's CMD
	Input            Input             `json:"input,omitempty"`              // default arg
	TimeoutMS        int64             `json:"timeout_ms,omitempty"`         // default 60,000; range 100 to 600,000
	MemoryBytes      int64             `json:"memory_bytes,omitempty"`       // default 128 MiB; range 16 MiB to 64 GiB
	CPUs             float64           `json:"cpus,omitempty"`               // default 1; range 0.05 to 64
	PIDs             int64             `json:"pids,omitempty"`               // default 128; range 1 to 4,096
	ResultLimitBytes int64             `json:"result_limit_bytes,omitempty"` // default 16 MiB; at most 64 MiB
	TmpfsBytes       int64             `json:"tmpfs_bytes,omitempty"`        // size of /tmp, /dev/shm and each VOLUME; default 64 MiB
	Env              map[string]string `json:"env,omitempty"`                // added to the image's ENV; FAENA_ is reserved
	Isolation        Isolation         `json:"isolation,omitempty"`          // default reuse
	Warm             int               `json:"warm,omitempty"`               // containers kept warm; default 0
	Group            string            `json:"group,omitempty"`              // worker hosts that may run it; default "default"
	Capabilities     []string          `json:"capabilities,omitempty"`       // given back if the operator's profile allows
	WritableRoot     bool              `json:"writable_root,omitempty"`      // the container's layer is writable, without a bound
	Labels           map[string]string `json:"labels,omitempty"`             // the user's own
	Retries          int               `json:"retries,omitempty"`            // attempts after the first; default 0: at most once
	RetryOn          []Reason          `json:"retry_on,omitempty"`           // for which reasons; default DefaultRetryOn
	RetryDelayMS     int64             `json:"retry_delay_ms,omitempty"`     // before the second attempt; doubles; default 1,000
	RetryMaxDelayMS  int64             `json:"retry_max_delay_ms,omitempty"` // the longest delay; default 300,000; at most 3,600,000
}

// Timeout is the longest run of one activation, counted from the start of its process.
func (s Spec) Timeout() time.Duration { return time.Duration(s.TimeoutMS) * time.Millisecond }

// WithDefaults returns s with every optional field set.
func (s Spec) WithDefaults() Spec {
	setDefault(&s.Input, InputArg)
	setDefault(&s.TimeoutMS, DefaultTimeout.Milliseconds())
	setDefault(&s.MemoryBytes, DefaultMemoryBytes)
	setDefault(&s.CPUs, DefaultCPUs)
	setDefault(&s.PIDs, DefaultPIDs)
	setDefault(&s.ResultLimitBytes, DefaultResultLimitBytes)
	setDefault(&s.TmpfsBytes, DefaultTmpfsBytes)
	setDefault(&s.Isolation, IsolationReuse)
	setDefault(&s.Group, DefaultGroup)
	if s.Retries > 0 {
		if len(s.RetryOn) == 0 {
			s.RetryOn = slices.Clone(DefaultRetryOn)
		}
		setDefault(&s.RetryDelayMS, DefaultRetryDelay.Milliseconds())
		setDefault(&s.RetryMaxDelayMS, max(s.RetryDelayMS, DefaultRetryMaxDelay.Milliseconds()))
	}
	return s
}

// Retry reports whether an activation whose attempt, the first is 1, has ended for reason is run again, and after how long: the
// delay doubles with each attempt up to RetryMaxDelayMS. Of it at least half is waited, the rest as jitter, from 0 up to but not 1,
// says, so that what has failed together does not come back together.
func (s Spec) Retry(reason Reason, attempt int, jitter float64) (after time.Duration, again bool) {
	if attempt > s.Retries || !slices.Contains(s.RetryOn, reason) {
		return 0, false
	}
	longest := time.Duration(s.RetryMaxDelayMS) * time.Millisecond
	delay := min(time.Duration(s.RetryDelayMS)*time.Millisecond<<min(attempt-1, MaxRetries), longest)
	return delay/2 + time.Duration(jitter*float64(delay/2)), true
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate checks s, with its defaults set, against the ranges. It returns nil or an *Error of KindInvalid that
// names every field that is wrong.
func (s Spec) Validate() error {
	var bad []FieldError
	fail := func(field, format string, args ...any) {
		bad = append(bad, FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	between := func(field string, v, lo, hi int64, unit string) {
		if v < lo || v > hi {
			fail(field, "is %d, must be from %d to %d %s", v, lo, hi, unit)
		}
	}
	if s.Image == "" {
		fail("image", "is missing: give a reference such as registry.example.org/team/image:tag")
	}
	if len(s.Image) > 512 {
		fail("image", "is longer than 512 bytes")
	}
	if !slices.Contains([]Input{InputArg, InputStdin, InputBoth}, s.Input) {
		fail("input", "is %q, must be arg, stdin or both", s.Input)
	}
	if !slices.Contains([]Isolation{IsolationReuse, IsolationFresh}, s.Isolation) {
		fail("isolation", "is %q, must be reuse or fresh", s.Isolation)
	}
	between("timeout_ms", s.TimeoutMS, MinTimeout.Milliseconds(), MaxTimeout.Milliseconds(), "milliseconds")
	between("memory_bytes", s.MemoryBytes, MinMemoryBytes, MaxMemoryBytes, "bytes")
	between("pids", s.PIDs, MinPIDs, MaxPIDs, "processes")
	between("result_limit_bytes", s.ResultLimitBytes, 1, MaxResultLimitBytes, "bytes")
	between("tmpfs_bytes", s.TmpfsBytes, MinTmpfsBytes, MaxTmpfsBytes, "bytes")
	between("warm", int64(s.Warm), 0, MaxWarm, "containers")
	between("retries", int64(s.Retries), 0, MaxRetries, "attempts")
	between("retry_delay_ms", s.RetryDelayMS, 0, MaxRetryDelay.Milliseconds(), "milliseconds")
	between("retry_max_delay_ms", s.RetryMaxDelayMS, s.RetryDelayMS, MaxRetryDelay.Milliseconds(), "milliseconds")
	for i, r := range s.RetryOn {
		if !slices.Contains(retryable, r) {
			fail(fmt.Sprintf("retry_on[%d]", i), "is %q, must be one of %s", r, joined(retryable))
		}
	}
	if s.Retries == 0 && (len(s.RetryOn) > 0 || s.RetryDelayMS > 0 || s.RetryMaxDelayMS > 0) {
		fail("retries", "is 0, so retry_on, retry_delay_ms and retry_max_delay_ms mean nothing: give the number of retries")
	}
	if math.IsNaN(s.CPUs) || s.CPUs < MinCPUs || s.CPUs > MaxCPUs {
		fail("cpus", "is %g, must be from %g to %g", s.CPUs, MinCPUs, MaxCPUs)
	}
	if !ValidName(s.Group) {
		fail("group", "is %q, must match %s", s.Group, NamePattern)
	}
	s.validateTexts(fail)
	if len(bad) > 0 {
		return Invalid(bad...)
	}
	return nil
}

// validateTexts checks what becomes arguments, environment, labels and capabilities of a container.
func (s Spec) validateTexts(fail func(field, format string, args ...any)) {
	for _, list := range []struct {
		field  string
		values []string
	}{{"command", s.Command}, {"args", s.Args}} {
		for i, v := range list.values {
			field := fmt.Sprintf("%s[%d]", list.field, i)
			if strings.ContainsRune(v, 0) {
				fail(field, "contains a NUL byte, which no argument can carry")
			}
			if len(v) > MaxArgBytes {
				fail(field, "is %d bytes, one argument holds at most %d", len(v), MaxArgBytes)
			}
		}
	}
	for _, k := range sortedKeys(s.Env) {
		v := s.Env[k]
		switch {
		case !envPattern.MatchString(k):
			fail("env."+k, "is no name of an environment variable")
		case strings.HasPrefix(k, "FAENA_"):
			fail("env."+k, "begins with FAENA_, which the platform keeps for itself")
		case strings.ContainsRune(v, 0):
			fail("env."+k, "contains a NUL byte, which no environment variable can carry")
		case len(k)+1+len(v) > MaxArgBytes:
			fail("env."+k, "is %d bytes with its name, Linux allows at most %d", len(k)+1+len(v), MaxArgBytes)
		}
	}
	for _, k := range sortedKeys(s.Labels) {
		if !labelPattern.MatchString(k) || len(s.Labels[k]) > 256 {
			fail("labels."+k, "must be a name of letters, digits, '.', '_', '/' and '-' with a value of at most 256 bytes")
		}
	}
	for i, c := range s.Capabilities {
		if !slices.Contains(grantable, c) {
			fail(fmt.Sprintf("capabilities[%d]", i), "is %q, must be one of %s", c, strings.Join(grantable, ", "))
		}
	}
}

func joined(reasons []Reason) string {
	words := make([]string, len(reasons))
	for i, r := range reasons {
		words[i] = string(r)
	}
	return strings.Join(words, ", ")
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
