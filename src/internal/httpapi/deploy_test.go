package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

// put is the body of a function's spec: the image, and what else is given.
func (p *platform) put(members string) option {
	if members != "" {
		members = "," + members
	}
	return body(fmt.Sprintf(`{"image":%q%s}`, p.image, members))
}

// nothingDeployed checks that a user has no function.
func (s *site) nothingDeployed(user string) {
	s.t.Helper()
	if list := decoded[FunctionPage](s.call(http.MethodGet, "/v1/functions", as(user)).is(http.StatusOK)); len(list.Items) > 0 || list.Next != "" {
		s.t.Errorf("%s has the functions %+v, want none", user, list.Items)
	}
}

// What is no JSON object is a 400, before anything in it is looked at.
func TestPutFunction_Malformed(t *testing.T) {
	s := start(t).serve(t)
	for name, text := range map[string]string{
		"nothing":             "",
		"white space":         " \r\n\t",
		"no JSON":             "image: tool",
		"cut off":             `{"image":"a`,
		"a comma too many":    `{"image":"a",}`,
		"goes on":             `{"image":"a"}{}`,
		"not UTF-8":           "{\"image\":\"a\xff\"}",
		"a control character": "{\"image\":\"a\x01\"}",
		"a NUL":               "{\"image\":\"a\"}\x00",
		"a byte order mark":   "\ufeff{\"image\":\"a\"}",
		"twice":               `{"image":"a","image":"b"}`,
		"twice inside":        `{"image":"a","env":{"A":"1","A":"2"}}`,
		"too deep":            `{"image":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), body(text)).problem(http.StatusBadRequest, "malformed")
			if p.Retryable || p.Component != ComponentCaller {
				t.Errorf("retryable is %v, component %s", p.Retryable, p.Component)
			}
		})
	}
	s.nothingDeployed("ann")
}

// A field that is unknown, of the wrong type or out of its range is a 422 that names it and says what would be right.
func TestPutFunction_Invalid(t *testing.T) {
	s := start(t).serve(t)
	for _, c := range []struct{ name, members, field, says string }{
		{"unknown", `"timeout":5`, "timeout", "no field"},
		{"another case", `"Memory_Bytes":67108864`, "Memory_Bytes", "no field"},
		{"unknown inside", `"registry":{"username":"u","password":"p","token":"t"}`, "registry.token", "no field"},
		{"null", `"args":null`, "args", "null"},
		{"wrong type", `"timeout_ms":"5s"`, "timeout_ms", "an integer"},
		{"a fraction", `"timeout_ms":100.5`, "timeout_ms", "an integer"},
		{"over 64 bits", `"memory_bytes":1e30`, "memory_bytes", "an integer"},
		{"no number of a list's kind", `"args":["a",1]`, "args[1]", "is a number, must be a text"},
		{"no text in a map", `"env":{"A":true}`, "env.A", "is a boolean, must be a text"},
		{"an object in an object", `"registry":{"username":{"a":1},"password":"p"}`, "registry.username", "is an object, must be a text"},
		{"a list for an object", `"registry":[]`, "registry", "is a list, must be an object"},
		{"a number for a boolean", `"writable_root":1`, "writable_root", "true or false"},
		{"over what a float holds", `"cpus":1e999`, "cpus", "a number"},
		{"not a list", `"args":"a b"`, "args", "a list"},
		{"timeout too short", `"timeout_ms":99`, "timeout_ms", "from 100 to 600000 milliseconds"},
		{"timeout too long", `"timeout_ms":600001`, "timeout_ms", "from 100 to 600000 milliseconds"},
		{"timeout below 0", `"timeout_ms":-1`, "timeout_ms", "from 100 to 600000 milliseconds"},
		{"memory too small", `"memory_bytes":16777215`, "memory_bytes", "from 16777216 to 68719476736 bytes"},
		{"memory too large", `"memory_bytes":68719476737`, "memory_bytes", "from 16777216 to 68719476736 bytes"},
		{"cpus too few", `"cpus":0.04`, "cpus", "from 0.05 to 64"},
		{"cpus too many", `"cpus":64.5`, "cpus", "from 0.05 to 64"},
		{"pids", `"pids":4097`, "pids", "from 1 to 4096 processes"},
		{"result limit", `"result_limit_bytes":67108865`, "result_limit_bytes", "from 1 to 67108864 bytes"},
		{"tmpfs", `"tmpfs_bytes":1048575`, "tmpfs_bytes", "from 1048576 to 4294967296 bytes"},
		{"warm", `"warm":101`, "warm", "from 0 to 100 containers"},
		{"input", `"input":"file"`, "input", "arg, stdin or both"},
		{"isolation", `"isolation":"vm"`, "isolation", "reuse or fresh"},
		{"group", `"group":"gpu"`, "group", "not granted"},
		{"capability", `"capabilities":["SYS_ADMIN"]`, "capabilities[0]", "must be one of"},
		{"a NUL in an argument", `"args":["a","b\u0000"]`, "args[1]", "NUL"},
		{"a name that is ours", `"env":{"FAENA_ATTEMPT":"7"}`, "env.FAENA_ATTEMPT", "FAENA_"},
		{"no registry password", `"registry":{"username":"u"}`, "registry", "password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), s.put(c.members)).problem(http.StatusUnprocessableEntity, "invalid")
			p.names(t, c.field)
			if len(p.Errors) > 0 && !strings.Contains(p.Errors[0].Message, c.says) || !strings.Contains(p.Detail, c.field) {
				t.Errorf("it does not say %q of %s: %q, %+v", c.says, c.field, p.Detail, p.Errors)
			}
		})
	}
	for name, text := range map[string]string{"a list": `[]`, "a text": `"image"`, "a number": `1`, "null": `null`} {
		t.Run("the body is "+name, func(t *testing.T) {
			s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), body(text)).problem(http.StatusUnprocessableEntity, "invalid").names(t, "body")
		})
	}
	t.Run("all types at once", func(t *testing.T) {
		s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), s.put(`"warm":"1","cpus":[],"labels":{"a":1},"new":{"a":null}`)).
			problem(http.StatusUnprocessableEntity, "invalid").names(t, "warm", "cpus", "labels.a", "new")
	})
	t.Run("all at once", func(t *testing.T) {
		s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), s.put(`"timeout_ms":1,"memory_bytes":1,"cpus":100,"pids":-1`)).
			problem(http.StatusUnprocessableEntity, "invalid").names(t, "timeout_ms", "memory_bytes", "pids", "cpus")
	})
	t.Run("no image", func(t *testing.T) {
		s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), body("{}")).problem(http.StatusUnprocessableEntity, "invalid").names(t, "image")
	})
	s.nothingDeployed("ann")
}

// What is at the edge of a range is within it.
func TestPutFunction_RangesIncludeTheirEnds(t *testing.T) {
	s := start(t).serve(t)
	for _, members := range []string{
		`"timeout_ms":100,"memory_bytes":16777216,"cpus":0.05,"pids":1,"result_limit_bytes":1,"tmpfs_bytes":1048576`,
		`"timeout_ms":600000,"memory_bytes":68719476736,"cpus":64,"pids":4096,"result_limit_bytes":67108864,"warm":100`,
	} {
		s.call(http.MethodPut, "/v1/functions/edge-"+fmt.Sprint(len(members)), as("ann"), s.put(members)).is(http.StatusCreated)
	}
}

func TestPutFunction_Name(t *testing.T) {
	s := start(t).serve(t)
	for name, escaped := range map[string]string{
		"upper case": "Tool", "begins with a dash": "-tool", "ends with a dash": "tool-", "a dot": "to.ol", "an underscore": "to_ol",
		"64 characters": strings.Repeat("a", 64), "not ASCII": "caf%C3%A9", "a space": "to%20ol", "a line end": "tool%0A", "a NUL": "tool%00",
		"a wildcard": "*", "a subject": "%3E", "not UTF-8": "tool%FF",
	} {
		t.Run(name, func(t *testing.T) {
			s.in(t).call(http.MethodPut, "/v1/functions/"+escaped, as("ann"), s.put("")).problem(http.StatusUnprocessableEntity, "invalid").names(t, "name")
		})
	}
	s.nothingDeployed("ann")
	for _, name := range []string{"a", "0", strings.Repeat("a", 63), "a-1"} {
		s.call(http.MethodPut, "/v1/functions/"+name, as("ann"), s.put("")).is(http.StatusCreated).has("Location", "/v1/functions/"+name)
	}
}

func TestPutFunction_TooLarge(t *testing.T) {
	s := start(t).serve(t)
	large := fmt.Sprintf(`{"image":%q,"args":[%q]}`, s.image, strings.Repeat("a", faena.MaxRevisionBytes))
	for name, sent := range map[string]option{"length said": body(large), "length not said": chunked(large)} {
		t.Run(name, func(t *testing.T) {
			p := s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), sent).problem(http.StatusRequestEntityTooLarge, "body_too_large")
			if !strings.Contains(p.Detail, "262144 bytes") {
				t.Errorf("it does not name the limit: %s", p.Detail)
			}
		})
	}
	s.nothingDeployed("ann")
}

// An image that cannot run is refused in the registry's words, and the revision before goes on serving.
func TestPutFunction_Image(t *testing.T) {
	s := start(t).serve(t)
	s.deploy("ann", "tool")
	closed := faenatest.Registry(t, faenatest.RegistryOptions{Username: "puller", Password: "secret-of-the-registry"})
	creds := &faena.Credentials{Username: "puller", Password: "secret-of-the-registry"}
	private := faenatest.Push(t, closed, "team/private", faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: []string{"/tool"}}), creds)
	open, _, _ := strings.Cut(s.image, "/")
	elsewhere := faenatest.Push(t, open, "team/elsewhere", faenatest.Image(t, faenatest.ImageSpec{Bare: true, Entrypoint: []string{"/tool"}, Arch: "s390x"}), nil)
	silent := faenatest.Push(t, open, "team/silent", faenatest.Image(t, faenatest.ImageSpec{Bare: true}), nil)
	for _, c := range []struct{ name, image, members, reason, field, says string }{
		{"no reference", "UPPER CASE", "", "invalid", "image", ""},
		{"missing", open + "/team/missing:1", "", "image_not_found", "image", "NAME_UNKNOWN"},
		{"denied", private, "", "image_denied", "image", "UNAUTHORIZED"},
		{"wrong password", private, `,"registry":{"username":"puller","password":"secret-of-another"}`, "image_denied", "image", "UNAUTHORIZED"},
		{"another architecture", elsewhere, "", "image_platform", "image", "s390x"},
		{"nothing to run", silent, "", "no_command", "command", "image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.in(t).call(http.MethodPut, "/v1/functions/tool", as("ann"), body(fmt.Sprintf(`{"image":%q%s}`, c.image, c.members)))
			p := a.problem(http.StatusUnprocessableEntity, c.reason)
			p.names(t, c.field)
			if len(p.Errors) > 0 && !strings.Contains(p.Errors[0].Message, c.says) || strings.Contains(string(a.body), "secret") {
				t.Errorf("it does not say %q, or tells a password: %s", c.says, a.body)
			}
		})
	}
	if f := decoded[Function](s.call(http.MethodGet, "/v1/functions/tool", as("ann")).is(http.StatusOK)); f.Current != 1 || f.Latest != 1 {
		t.Errorf("the function is now %+v, want the first revision", f)
	}
	a := s.call(http.MethodPut, "/v1/functions/tool", as("ann"), body(fmt.Sprintf(`{"image":%q,"registry":{"username":"puller","password":"secret-of-the-registry"}}`, private)))
	if f := decoded[Function](a.is(http.StatusOK)); f.Current != 2 || !f.Revision.RegistryCredentials || strings.Contains(string(a.body), "puller") {
		t.Errorf("with credentials it is %s", a.body)
	}
	if strings.Contains(s.log.String(), "secret-of") {
		t.Error("a password is in the log")
	}
}
