package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// prefix begins the name of every setting.
const prefix = "FAENA_"

// Problem is what is wrong with one setting, in words for the operator.
type Problem struct {
	Setting string // FAENA_…
	Text    string
}

// Problems is everything that is wrong with the settings, in the order of their names.
type Problems []Problem

// Error lists the problems, one a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Setting + " " + problem.Text
	}
	if len(p) == 1 {
		return "a setting is wrong: " + lines[0]
	}
	return fmt.Sprintf("%d settings are wrong:\n  %s", len(p), strings.Join(lines, "\n  "))
}

// LoadUp reads the settings of `faena up` from environ, which is as os.Environ returns it. known are FAENA_ variables
// that belong to other commands of the same program and are left alone. An error is Problems.
func LoadUp(environ []string, known ...string) (Up, error) {
	u := DefaultUp()
	err := load(&u, environ, known)
	return u, err
}

// LoadAPI reads the settings of faena-api from environ, which is as os.Environ returns it. An error is Problems.
func LoadAPI(environ []string) (API, error) {
	a := DefaultAPI()
	err := load(&a, environ, nil)
	return a, err
}

// LoadWorker reads the settings of faena-worker from environ, which is as os.Environ returns it. An error is Problems.
func LoadWorker(environ []string) (Worker, error) {
	w := DefaultWorker()
	err := load(&w, environ, nil)
	return w, err
}

// APIPaths are where the commands of faena-api find its files: they read no other setting, since only the daemon needs those.
func APIPaths(environ []string) (dataDir, adminSocket string) {
	env := parse(environ)
	a := API{DataDir: env[prefix+"DATA_DIR"], AdminSocket: env[prefix+"ADMIN_SOCKET"]}
	a.complete(env)
	return a.DataDir, a.AdminSocket
}

// WorkerDataDir is where the commands of faena-worker find its files.
func WorkerDataDir(environ []string) string {
	env := parse(environ)
	w := Worker{DataDir: env[prefix+"DATA_DIR"]}
	w.complete(env)
	return w.DataDir
}

// StartedBySystemd reports whether systemd itself has started the process with this id and environ, and not a shell below such a process.
func StartedBySystemd(environ []string, pid int) bool {
	return parse(environ)["SYSTEMD_EXEC_PID"] == strconv.Itoa(pid)
}

// Credential is the name under which systemd passes the secret that a setting names: FAENA_TLS_KEY_FILE is faena.tls_key.
func (s Setting) Credential() string { return credentialOf(s.Name) }

func credentialOf(setting string) string {
	return "faena." + strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(setting, prefix), "_FILE"))
}

// daemon is the settings of one daemon.
type daemon interface {
	complete(env environment)
	check(c *checks)
	listed() string // where an operator finds all settings
}

func load(d daemon, environ, known []string) error {
	env := parse(environ)
	var problems Problems
	settings := Settings(d)
	for _, s := range settings {
		if err := s.set(env); err != nil {
			problems = append(problems, Problem{s.Name, err.Error()})
		}
	}
	problems = append(problems, unknown(env, settings, known, d.listed())...)
	d.complete(env)

	c := &checks{}
	d.check(c)
	for _, p := range c.problems {
		// A value that could not be read is one problem; that the default in its place does not fit is none.
		if !slices.ContainsFunc(problems, func(q Problem) bool { return q.Setting == p.Setting }) {
			problems = append(problems, p)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Setting, b.Setting) })
	return problems
}

// environment is the variables that have a value.
type environment map[string]string

func parse(environ []string) environment {
	env := make(environment, len(environ))
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok && value != "" {
			env[name] = value
		}
	}
	return env
}

// Setting is one setting of a daemon.
type Setting struct {
	Name    string // FAENA_…
	Struct  string // the type that declares it, for example Serve
	Field   string // its field there
	Default string // as it would be written; empty where there is none, or where it depends on the host
	Secret  bool   // its file holds a secret
	value   reflect.Value
}

// Settings lists the settings of a daemon, which is a pointer to Up, API or Worker, in the order of declaration.
func Settings(daemon any) []Setting { return gather(reflect.ValueOf(daemon).Elem()) }

func gather(group reflect.Value) (settings []Setting) {
	for i := range group.NumField() {
		field, value := group.Type().Field(i), group.Field(i)
		name, ok := field.Tag.Lookup("envconfig")
		if !ok {
			settings = append(settings, gather(value)...)
			continue
		}
		s := Setting{Name: prefix + name, Struct: group.Type().Name(), Field: field.Name, value: value,
			Secret: value.Type() == reflect.TypeFor[SecretFile]()}
		if !value.IsZero() || value.Type() == reflect.TypeFor[slog.Level]() || value.Kind() == reflect.Bool {
			s.Default = write(value.Interface())
		}
		settings = append(settings, s)
	}
	return settings
}

// write formats a value as it is written in a setting.
func write(v any) string {
	switch v := v.(type) {
	case time.Duration:
		text := strings.TrimSuffix(v.String(), "m0s")
		if text != v.String() {
			text += "m"
		}
		return strings.Replace(text, "h0m", "h", 1)
	case slog.Level:
		return strings.ToLower(v.String())
	}
	return fmt.Sprint(v)
}

// set reads the setting from the environment, or where it is a secret from the credentials. Its error says what is
// wrong and what would be right.
func (s *Setting) set(env environment) error {
	text, ok := env[s.Name]
	if !ok && s.Secret {
		text, ok = credential(env, s.Name)
	}
	if !ok {
		return nil
	}
	if err := convert(text, s.value); err != nil {
		if s.Secret && !strings.HasPrefix(text, "/") {
			text = redacted // more likely the secret itself than its path
		}
		return fmt.Errorf("is %s: it %w; right would be %s", quote(text), err, expected(s.value.Interface()))
	}
	return nil
}

// credential looks for the secret of a setting among those that systemd passed.
func credential(env environment, setting string) (path string, ok bool) {
	dir := env["CREDENTIALS_DIRECTORY"]
	if dir == "" {
		return "", false
	}
	path = filepath.Join(dir, credentialOf(setting))
	_, err := os.Stat(path)
	return path, !errors.Is(err, os.ErrNotExist)
}

// convert has envconfig read text into a field. envconfig itself looks at the environment of the process, and stops
// at the first mistake. Given one field at a time, with the text as its default and a name that no variable can have,
// it does neither.
func convert(text string, field reflect.Value) error {
	spec := reflect.New(reflect.StructOf([]reflect.StructField{{
		Name: "Value", Type: field.Type(), Tag: reflect.StructTag(`envconfig:"=" default:` + strconv.Quote(text)),
	}}))
	err := envconfig.Process("", spec.Interface())
	if value := spec.Elem().Field(0); err == nil || !value.IsZero() {
		field.Set(value)
	}
	if err == nil {
		return nil
	}
	parseErr, ok := errors.AsType[*envconfig.ParseError](err)
	if !ok {
		return err
	}
	if _, ours := field.Interface().(interface{ expected() string }); ours {
		return parseErr.Err
	}
	return errors.New("cannot be read") // the standard library's words name its functions
}

// expected says what a value of a setting looks like.
func expected(v any) string {
	switch v := v.(type) {
	case interface{ expected() string }:
		return v.expected()
	case time.Duration:
		return "a duration such as 500ms, 90s, 10m or 24h"
	case slog.Level:
		return "debug, info, warn or error"
	case bool:
		return "true or false"
	case int:
		return "a whole number"
	case float64:
		return "a number such as 0.75"
	}
	return "some text"
}

// quote keeps a value from filling, or breaking, the line that reports it.
func quote(text string) string {
	const most = 100
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
