package faena

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "7": true, "resize-2": true, "a--b": true, strings.Repeat("x", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a_b": false, "a.b": false, "a/b": false, "a b": false, "a*": false, ">": false,
		"ä": false, "a\n": false, "a\x00": false, strings.Repeat("x", 64): false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) is %v", name, got)
		}
	}
}

func TestValidUser(t *testing.T) {
	for name, want := range map[string]bool{
		"jorgeSD": true, "a": true, "A_b-9": true, strings.Repeat("X", 63): true,
		"": false, "_a": false, "a_": false, "-a": false, "a.b": false, "a/b": false, "a:b": false, "a b": false, "a\n": false, "ü": false,
		strings.Repeat("X", 64): false,
	} {
		if got := ValidUser(name); got != want {
			t.Errorf("ValidUser(%q) is %v", name, got)
		}
	}
}

func TestValidActivationID(t *testing.T) {
	for id, want := range map[string]bool{
		"01956a3e-0f5b-7cc1-8a2b-0123456789ab":   true,
		"01956a3e-0f5b-7cc1-ba2b-0123456789ab":   true,
		"01956A3E-0f5b-7cc1-8a2b-0123456789ab":   false, // not canonical
		"01956a3e-0f5b-4cc1-8a2b-0123456789ab":   false, // another version
		"01956a3e-0f5b-7cc1-ca2b-0123456789ab":   false, // another variant
		"01956a3e0f5b7cc18a2b0123456789ab":       false,
		"{01956a3e-0f5b-7cc1-8a2b-0123456789ab}": false,
		"01956a3e-0f5b-7cc1-8a2b-0123456789ab\n": false,
		"":                                       false,
	} {
		if got := ValidActivationID(id); got != want {
			t.Errorf("ValidActivationID(%q) is %v", id, got)
		}
	}
}

func TestRevision_Argv(t *testing.T) {
	image := ImageConfig{Entrypoint: []string{"/entry", "-e"}, Cmd: []string{"cmd"}}
	for _, c := range []struct {
		name          string
		image         ImageConfig
		command, args []string
		input         Input
		want          []string
	}{
		{"Entrypoint and cmd", image, nil, nil, InputArg, []string{"/entry", "-e", "cmd", "P"}},
		{"Entrypoint alone", ImageConfig{Entrypoint: []string{"/entry"}}, nil, nil, InputArg, []string{"/entry", "P"}},
		{"Cmd alone", ImageConfig{Cmd: []string{"/cmd", "-c"}}, nil, nil, InputArg, []string{"/cmd", "-c", "P"}},
		{"Args replace cmd", image, nil, []string{"own"}, InputArg, []string{"/entry", "-e", "own", "P"}},
		{"Command drops cmd", image, []string{"/own"}, nil, InputArg, []string{"/own", "P"}},
		{"Command with args", image, []string{"/own"}, []string{"x", ""}, InputArg, []string{"/own", "x", "", "P"}},
		{"Stdin appends nothing", image, nil, nil, InputStdin, []string{"/entry", "-e", "cmd"}},
		{"Both appends", image, nil, nil, InputBoth, []string{"/entry", "-e", "cmd", "P"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Revision{Config: c.image, Spec: Spec{Command: c.command, Args: c.args, Input: c.input}}
			if got := r.Argv("P"); !slices.Equal(got, c.want) {
				t.Errorf("argv is %q, want %q", got, c.want)
			}
			if !r.HasCommand() {
				t.Error("it has no command")
			}
		})
	}
	t.Run("An empty parameter is an argument", func(t *testing.T) {
		r := Revision{Config: image, Spec: Spec{Input: InputArg}}
		if got := r.Argv(""); len(got) != 4 || got[3] != "" {
			t.Errorf("argv is %q", got)
		}
	})
	t.Run("The revision is left as it is", func(t *testing.T) {
		entry := make([]string, 1, 8) // with room that an append would write to
		entry[0] = "/entry"
		r := Revision{Config: ImageConfig{Entrypoint: entry}}
		r.Argv("one")
		if left := entry[:2]; left[1] != "" {
			t.Errorf("the entrypoint has become %q", left)
		}
	})
	t.Run("Without a command", func(t *testing.T) {
		if r := new(Revision); r.HasCommand() {
			t.Error("it has a command")
		}
	})
}

func TestRevision_Env(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, c := range []struct {
		name  string
		image []string
		own   map[string]string
		want  []string
	}{
		{"Nothing but a path", nil, nil, []string{path}},
		{"The image's path", []string{"PATH=/bin", "A=1"}, nil, []string{"PATH=/bin", "A=1"}},
		{"The function's own are added in order", []string{"A=1"}, map[string]string{"C": "3", "B": "2=2"}, []string{"A=1", "B=2=2", "C=3", path}},
		{"The function's own win", []string{"A=1", "PATH=/bin", "B=1"}, map[string]string{"A": "", "PATH": "/own"}, []string{"B=1", "A=", "PATH=/own"}},
		{"A variable that only begins like another", []string{"AB=1"}, map[string]string{"A": "2"}, []string{"AB=1", "A=2", path}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Revision{Config: ImageConfig{Env: c.image}, Spec: Spec{Env: c.own}}
			for range 5 { // the order does not change
				if got := r.Env(); !slices.Equal(got, c.want) {
					t.Fatalf("the environment is %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestRevision_Warnings(t *testing.T) {
	shell := ImageConfig{Entrypoint: []string{"/bin/sh", "-c", "echo hello"}}
	for _, c := range []struct {
		name string
		rev  Revision
		want []string // a part of each warning
	}{
		{"Shell form", Revision{Config: shell, Spec: Spec{Input: InputArg}}, []string{"$0 of that shell"}},
		{"Shell form of bash", Revision{Spec: Spec{Input: InputBoth, Command: []string{"bash", "-c", "x"}}}, []string{"bash -c"}},
		{"Shell form with stdin", Revision{Config: shell, Spec: Spec{Input: InputStdin}}, nil},
		{"Shell form that is overridden", Revision{Config: shell, Spec: Spec{Command: []string{"/bin/echo"}}}, nil},
		{"Exec form", Revision{Config: ImageConfig{Entrypoint: []string{"/bin/echo", "-c", "x"}}}, nil},
		{"Writable root", Revision{Spec: Spec{WritableRoot: true}}, []string{"writable_root"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.rev.Warnings()
			if len(got) != len(c.want) {
				t.Fatalf("the warnings are %q, want %q", got, c.want)
			}
			for i, part := range c.want {
				if !strings.Contains(got[i], part) {
					t.Errorf("the warning is %q, without %q", got[i], part)
				}
			}
		})
	}
}

func TestFunction_ETag(t *testing.T) {
	f := Function{Version: 7, CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 5_000_000, time.UTC)}
	tag := f.ETag()
	if len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' || strings.ContainsAny(tag[1:len(tag)-1], "\", \\") {
		t.Errorf("%s is no strong entity tag", tag)
	}
	changed, again, elsewhere := f, f, f
	changed.Version++
	again.CreatedAt = again.CreatedAt.Add(time.Millisecond)
	elsewhere.CreatedAt = elsewhere.CreatedAt.In(time.FixedZone("", 3600))
	elsewhere.UpdatedAt, elsewhere.Current = time.Now(), 3
	if changed.ETag() == tag || again.ETag() == tag {
		t.Error("a change and a function made again have the same tag")
	}
	if elsewhere.ETag() != tag {
		t.Error("the tag depends on more than the version and the moment of creation")
	}
}

func TestUser_Validate(t *testing.T) {
	for _, c := range []struct {
		name string
		user User
		bad  string
	}{
		{"Lowest limit", User{Name: "ann", Role: RoleUser, Groups: map[string]int{"default": 1}}, ""},
		{"Highest limit", User{Name: "ann", Role: RoleAdmin, Groups: map[string]int{"default": 1000, "gpu": 20}}, ""},
		{"No groups", User{Name: "ann", Role: RoleUser}, ""},
		{"Limit of none", User{Name: "ann", Role: RoleUser, Groups: map[string]int{"default": 0}}, "groups.default"},
		{"Limit too high", User{Name: "ann", Role: RoleUser, Groups: map[string]int{"default": 1001}}, "groups.default"},
		{"Group's name", User{Name: "ann", Role: RoleUser, Groups: map[string]int{"A": 1}}, "groups.A"},
		{"No role", User{Name: "ann"}, "role"},
		{"Other role", User{Name: "ann", Role: "root"}, "role"},
		{"Name", User{Name: "ann:b", Role: RoleUser}, "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.user.Validate()
			if c.bad == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Kind != KindInvalid || len(e.Fields) != 1 || e.Fields[0].Field != c.bad {
				t.Errorf("the error is %+v", err)
			}
		})
	}
}

func TestUser_Limit(t *testing.T) {
	u := User{Groups: map[string]int{"gpu": 3}}
	if n, ok := u.Limit("gpu"); n != 3 || !ok {
		t.Errorf("the limit is %d, %v", n, ok)
	}
	if _, ok := u.Limit("default"); ok {
		t.Error("a group that is not granted has a limit")
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("the cause")
	err := fmt.Errorf("read it: %w", Unavailable(ComponentStore, "store_unavailable", "Away.", cause))
	if KindOf(err) != KindUnavailable || !IsKind(err, KindUnavailable) || IsKind(err, KindInternal) {
		t.Errorf("the kind is %s", KindOf(err))
	}
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "Away: the cause") {
		t.Errorf("the error is %v", err)
	}
	if KindOf(cause) != KindInternal || IsKind(cause, KindInternal) || IsKind(nil, KindInternal) {
		t.Error("a foreign error has a kind of its own")
	}
	if e := NotFound("function", "x"); e.Reason != "function_not_found" || e.Retryable || e.Error() != `There is no function "x".` {
		t.Errorf("not found is %+v", e)
	}
	if e := Unavailable(ComponentQueue, "r", "m", nil); !e.Retryable || e.RetryAfter <= 0 {
		t.Errorf("unavailable is %+v", e)
	}
	if e := (&Error{Reason: "word"}); e.Error() != "word" {
		t.Errorf("an error without a message says %q", e.Error())
	}
}
