package config

import (
	"reflect"
	"strings"
	"testing"
	"unicode"
)

// loaders load each daemon's settings.
var loaders = []func(environ []string) (daemon, error){
	func(environ []string) (daemon, error) { u, err := LoadUp(environ); return &u, err },
	func(environ []string) (daemon, error) { a, err := LoadAPI(environ); return &a, err },
	func(environ []string) (daemon, error) { w, err := LoadWorker(environ); return &w, err },
}

// FuzzLoad: whatever stands in two of the settings, it is taken or it is reported, a line for each setting; and what was taken, written
// as docs/settings.md writes it, is taken as the same again.
func FuzzLoad(f *testing.F) {
	for i, s := range Settings(&API{}) {
		f.Add(uint8(1), uint8(i), uint8(0), s.Default, "/var/lib/x")
	}
	for i := range Settings(&Up{}) {
		for _, v := range []string{"1", "-1", "1h", "1h0m0s", "9223372036854775807TiB", "8KiB", "0.5", "NaN", "true", "debug", "gateway", "a,b", ",", " ", "\n", "\"", "[::1]:80", ":0", "\x05:0", "a\x05b:0", "[fe80::1%eth0]:1",
			"10.0.0.0/8,::1", "registry.example:5000", "/etc/hostname", "/dev/null", "unix:///x", "CHOWN", "nats://a:4222"} {
			f.Add(uint8(2*(i%2)), uint8(i), uint8(i+1), v, "2")
		}
	}
	for i, s := range Settings(&Up{}) {
		f.Add(uint8(0), uint8(i), uint8(i), strings.Repeat("\xff\n", 2000), s.Default)
	}
	f.Fuzz(func(t *testing.T, which, first, second uint8, a, b string) {
		load := loaders[int(which)%len(loaders)]
		fresh, _ := load(nil)
		names := Settings(fresh)
		environ := []string{names[int(first)%len(names)].Name + "=" + a, names[int(second)%len(names)].Name + "=" + b}
		d, err := load(environ)
		if _, again := load(environ); (err == nil) != (again == nil) || err != nil && err.Error() != again.Error() {
			t.Errorf("%q is judged as %v and then as %v", environ, err, again)
		}
		if err != nil {
			reported(t, environ, err)
			return
		}
		var written []string
		for _, s := range Settings(d) {
			if s.Secret || s.value.Type() == reflect.TypeFor[File]() {
				continue
			}
			written = append(written, s.Name+"="+write(s.value.Interface()))
		}
		back, err := load(written)
		if err != nil {
			t.Fatalf("%q was taken; written again as %q it is refused: %v", environ, written, err)
		}
		want := Settings(d)
		for i, s := range Settings(back) {
			if !s.Secret && s.value.Type() != reflect.TypeFor[File]() && !reflect.DeepEqual(s.value.Interface(), want[i].value.Interface()) {
				t.Errorf("%q was taken as %v, and written again as %v", environ, want[i].value, s.value)
			}
		}
	})
}

// reported checks that an error is one line for each setting that is wrong.
func reported(t *testing.T, environ []string, err error) {
	t.Helper()
	problems, ok := err.(Problems)
	if !ok || len(problems) == 0 {
		t.Fatalf("%q: the error is %v", environ, err)
	}
	for _, p := range problems {
		bad := func(r rune) bool { return unicode.IsControl(r) }
		if !strings.HasPrefix(p.Setting, prefix) || p.Text == "" || len(p.Text) > 1000 || strings.ContainsFunc(p.Text, bad) {
			t.Errorf("%q is reported as %q %q", environ, p.Setting, p.Text)
		}
	}
}

// FuzzLoad_Secrets: a secret that was written where an address belongs is not repeated by what complains of it.
func FuzzLoad_Secrets(f *testing.F) {
	for _, around := range []string{"", "user:", "@", "@host", "user:%@host:4222", ":/", "/", "#", "?", "%zz", "[", "]@", "\n", "\x00", "nats://", "user:1/"} {
		f.Add(around, "", uint8(0))
		f.Add("", around, uint8(1))
		f.Add(around, around, uint8(2))
	}
	f.Add("@", "#", uint8(1)) // what follows the first @ is taken for the host
	f.Fuzz(func(t *testing.T, before, after string, kind uint8) {
		const secret = "kz9-Secret-q7" // of a form that is neither a host nor a port
		rest := "user:" + before + secret + after + "@host"
		environ := [][]string{{"FAENA_MONGODB_URI=mongodb://" + rest}, {"FAENA_NATS_URLS=nats://" + rest}, {"FAENA_NATS_URLS=nats://a," + rest}}[kind%3]
		for _, load := range loaders[1:] {
			_, err := load(environ)
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", environ, err)
			}
		}
	})
}
