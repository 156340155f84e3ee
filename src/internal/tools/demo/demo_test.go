package main

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
)

func TestDemoFunctions(t *testing.T) {
	names := map[string]bool{}
	private := 0
	for _, f := range demoFunctions() {
		if !faena.ValidName(f.name) || names[f.name] {
			t.Errorf("function %q has a name that cannot be registered, or twice", f.name)
		}
		names[f.name] = true
		if f.private {
			private++
		}
	}
	if len(names) < 4 || private != 1 {
		t.Errorf("there are %d functions, %d of them in the registry that asks for a password", len(names), private)
	}
	if s, err := jsonText(debianPackages); err != nil || !strings.Contains(s, `"package":"jq"`) {
		t.Errorf("the list of packages is not what jq is asked about: %v", err)
	}
}

func TestFactor(t *testing.T) {
	program := filepath.Join(t.TempDir(), "factor")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/factor").CombinedOutput(); err != nil {
		t.Fatalf("build it: %v: %s", err, out)
	}
	for number, want := range map[string]string{
		"2": "2 = 2\n", "12": "12 = 2 × 2 × 3\n", "49": "49 = 7 × 7\n", "97": "97 = 97\n",
		"1000036000099": "1000036000099 = 1000003 × 1000033\n",
	} {
		if got, err := exec.CommandContext(t.Context(), program, number).Output(); err != nil || string(got) != want {
			t.Errorf("factor %s writes %q, %v, want %q", number, got, err, want)
		}
	}
}

func TestPicture(t *testing.T) {
	encoded := func(w, h int) []byte {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if got, err := picture(encoded(120, 160)); err != nil || !strings.HasPrefix(got, "PNG 120 × 160, ") {
		t.Errorf("a thumbnail gives %q, %v", got, err)
	}
	for name, bad := range map[string][]byte{"too large": encoded(320, 160), "too small": encoded(16, 16), "no picture": []byte("GIF"), "empty": nil} {
		if got, err := picture(bad); err == nil {
			t.Errorf("%s: it is taken as %q", name, got)
		}
	}
}

func TestReadProfile(t *testing.T) {
	t.Run("found", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "config", "faena", "profiles.json"), `{"profiles":{"default":{"url":"http://x","user":"admin","password":"secret"}}}`)
		if user, password, err := readProfile(dir); user != "admin" || password != "secret" || err != nil {
			t.Errorf("it reads %q, %q, %v", user, password, err)
		}
	})
	t.Run("none", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "data", "other.json"), `{"user":"admin"}`)
		write(t, filepath.Join(dir, "data", "broken.json"), `{`)
		if user, _, err := readProfile(dir); err == nil {
			t.Errorf("it finds %q", user)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAskPassword(t *testing.T) {
	h := askPassword(http.NotFoundHandler(), &client.Credentials{Username: "puller", Password: "right"})
	for _, c := range []struct {
		user, password string
		want           int
	}{{"puller", "right", http.StatusNotFound}, {"puller", "wrong", http.StatusUnauthorized}, {"other", "right", http.StatusUnauthorized}, {"", "", http.StatusUnauthorized}} {
		req := httptest.NewRequest(http.MethodGet, "/v2/", nil)
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		res := httptest.NewRecorder()
		if h.ServeHTTP(res, req); res.Code != c.want {
			t.Errorf("%q with %q is answered %d, want %d", c.user, c.password, res.Code, c.want)
		}
	}
}

func TestProgress_Step(t *testing.T) {
	var out bytes.Buffer
	p := &progress{out: &out, every: time.Hour}
	if err := p.step("good", func(say func(string)) error { say("42 of 42\nmore"); return nil }); err != nil {
		t.Error(err)
	}
	cause := errors.New("disk full")
	if err := p.step("bad", func(func(string)) error { return cause }); !errors.Is(err, cause) {
		t.Errorf("the error is %v, want its cause in it", err)
	}
	if got, want := out.String(), "✓ good (0.0 s) 42 of 42\n✗ bad (0.0 s)\n"; got != want {
		t.Errorf("it prints %q, want %q", got, want)
	}
}

func TestLineWriter(t *testing.T) {
	var said string
	w := &lineWriter{say: func(s string) { said = s }}
	for range 1000 {
		_, _ = w.Write([]byte("I: Unpacking\nI: Configuring libc6...\n")) // never fails
	}
	if said != "I: Configuring libc6..." || len(w.tail) > keepTail {
		t.Errorf("it says %q and keeps %d bytes", said, len(w.tail))
	}
}

func TestRow_Median(t *testing.T) {
	r := row{}
	if got := r.median(total); got != 0 {
		t.Errorf("the median of nothing is %s", got)
	}
	for _, us := range []int64{900, 100, 300, 200} {
		r.warm = append(r.warm, call{timings: client.Timings{TotalUs: us}})
	}
	if got, want := r.median(total), 200*time.Microsecond; got != want {
		t.Errorf("the median is %s, want %s", got, want)
	}
}

func TestWriteTable(t *testing.T) {
	f := &function{name: "jq", took: 250 * time.Millisecond}
	var out bytes.Buffer
	if err := writeTable(&out, []row{{f: f, summary: "a\nb", first: call{timings: client.Timings{PullUs: 2_345_000}}, warm: []call{{http: 3 * time.Millisecond}}}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"jq", "2.3 s", "3.00 ms", "250 ms"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the table:\n%s", want, out.String())
		}
	}
}

func TestProblem(t *testing.T) {
	document := `{"reason":"exit_nonzero","detail":"The function exited with status 3.","request_id":"R","log_tail":"jq: error"}`
	if got := problem("502 Bad Gateway", []byte(document)).Error(); !strings.Contains(got, "exit_nonzero") || !strings.Contains(got, "jq: error") {
		t.Errorf("it says %q", got)
	}
	if got := problem("502 Bad Gateway", []byte("<html>")).Error(); got != "502 Bad Gateway: <html>" {
		t.Errorf("of what is no problem document it says %q", got)
	}
}

func TestForeign(t *testing.T) {
	got := foreign([]string{"PATH=/bin", "FAENA_LISTEN=:1", "HOME=/root", "XDG_CONFIG_HOME=/c", "DOCKER_HOST=unix:///d", "FAENAX=1"})
	if want := []string{"PATH=/bin", "DOCKER_HOST=unix:///d", "FAENAX=1"}; !slices.Equal(got, want) {
		t.Errorf("it keeps %q, want %q", got, want)
	}
}
