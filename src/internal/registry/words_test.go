package registry

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

var (
	creds = &faena.Credentials{Username: "ann", Password: "pass+word/of=a-registry"}
	wrong = &faena.Credentials{Username: "ann", Password: "another-password"}
)

// What is not there and what is denied is said in the registry's own words.
func TestResolver_RegistrysWords(t *testing.T) {
	t.Parallel()
	open := faenatest.Registry(t, faenatest.RegistryOptions{})
	basic := faenatest.Registry(t, faenatest.RegistryOptions{Username: creds.Username, Password: creds.Password})
	bearer := faenatest.Registry(t, faenatest.RegistryOptions{Username: creds.Username, Password: creds.Password, Bearer: true})
	anybody := faenatest.Registry(t, faenatest.RegistryOptions{Bearer: true})
	img := small(t, faenatest.ImageSpec{Cmd: []string{"run"}})
	for _, addr := range []string{open, basic, bearer, anybody} {
		faenatest.Push(t, addr, "app", img, creds)
	}
	const denied, absent = "image_denied", "image_not_found"
	r := NewResolver(loopback)
	for _, c := range []struct {
		name, image   string
		creds         *faena.Credentials
		reason, words string
	}{
		{"NoSuchRepository", open + "/absent", nil, absent, "is not at its registry: NAME_UNKNOWN: Unknown name"},
		{"NoSuchTag", open + "/app:2", nil, absent, "is not at its registry: MANIFEST_UNKNOWN: Unknown manifest"},
		{"NoSuchDigest", open + "/app@sha256:" + strings.Repeat("0", 64), nil, absent, "MANIFEST_UNKNOWN: Unknown manifest"},
		{"NoneWereNeeded", open + "/app", creds, "", ""},
		{"Basic", basic + "/app", creds, "", ""},
		{"BasicAbsent", basic + "/absent", creds, absent, "NAME_UNKNOWN: Unknown name"},
		{"BasicWithoutCredentials", basic + "/app", nil, denied, "is denied by its registry: UNAUTHORIZED: authentication required"},
		{"BasicWithWrongOnes", basic + "/app", wrong, denied, "is denied by its registry: UNAUTHORIZED: authentication required"},
		{"BasicWithEmptyOnes", basic + "/app", &faena.Credentials{}, denied, "UNAUTHORIZED: authentication required"},
		{"Bearer", bearer + "/app", creds, "", ""},
		{"BearerAbsent", bearer + "/absent", creds, absent, "NAME_UNKNOWN: Unknown name"},
		{"BearerWithoutCredentials", bearer + "/app", nil, denied, "is denied by its registry: UNAUTHORIZED: authentication required"},
		{"BearerWithWrongOnes", bearer + "/app", wrong, denied, "is denied by its registry: UNAUTHORIZED: authentication required"},
		{"BearerForAnybody", anybody + "/app", nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := r.Resolve(t.Context(), c.image, c.creds, arch)
			if c.reason != "" {
				refusal(t, err, faena.KindInvalid, c.reason, c.words)
			} else if err != nil || got.Digest != digestOf(t, img) {
				t.Errorf("it is %+v, %v", got, err)
			}
			secretFree(t, err)
		})
	}
}

// secretFree checks that no password of the tests is in an error, however it was written.
func secretFree(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, c := range []*faena.Credentials{creds, wrong} {
		for _, secret := range []string{c.Password, base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password)), "pass%2Bword"} {
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, secret) {
				t.Errorf("the error tells the password: %s", text)
			}
		}
	}
}

// answer is a registry that answers every question after the first alike. That first one asks which API it is.
func answer(t *testing.T, status int, header http.Header, body string) (addr string) {
	t.Helper()
	return faenatest.Registry(t, faenatest.RegistryOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				next.ServeHTTP(w, r)
				return
			}
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(strings.ReplaceAll(body, "AUTHORIZATION", r.Header.Get("Authorization")))) // the caller sees a short answer
		})
	}})
}

// problem is the registry API's form of an error.
func problem(code, message string) string {
	return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

func TestResolver_Statuses(t *testing.T) {
	t.Parallel()
	const denied, absent, away = "image_denied", "image_not_found", "registry_unavailable"
	r := NewResolver(loopback)
	for _, c := range []struct {
		name          string
		status        int
		body          string
		reason, words string
	}{
		{"Forbidden", 403, problem("DENIED", "requested access to the resource is denied"), denied, "is denied by its registry: DENIED: requested access to the resource is denied"},
		{"ForbiddenInHTML", 403, "<html>no</html>", denied, "is denied by its registry: status 403"},
		{"NotFoundWithoutWords", 404, "", absent, "is not at its registry: status 404"},
		{"TwoErrors", 404, `{"errors":[{"code":"A","message":"one"},{"code":"B","message":"two"}]}`, absent, "A: one; B: two"},
		{"Payment", 402, problem("UNKNOWN", "pay first"), absent, "is not given by its registry: UNKNOWN: pay first"},
		{"Gone", 410, "", absent, "is not given by its registry: status 410"},
		{"TooMany", 429, problem("TOOMANYREQUESTS", "You have reached your pull rate limit."), away, "did not answer as it should: TOOMANYREQUESTS: You have reached your pull rate limit."},
		{"ServerError", 500, "", away, "did not answer as it should: status 500"},
		{"BadGateway", 502, "<html>", away, "did not answer as it should: status 502"},
		{"Unavailable", 503, problem("UNAVAILABLE", "in maintenance"), away, "did not answer as it should: UNAVAILABLE: in maintenance"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := answer(t, c.status, nil, c.body)
			_, err := r.Resolve(t.Context(), addr+"/app", creds, arch)
			kind := faena.KindInvalid
			if c.reason == away {
				kind, c.words = faena.KindUnavailable, "The registry "+addr+" "+c.words
			}
			refusal(t, err, kind, c.reason, c.words)
			secretFree(t, err)
		})
	}
}

// A registry's words are foreign text: one short line without anything that was secret, whatever it says.
func TestResolver_HostileWords(t *testing.T) {
	t.Parallel()
	r := NewResolver(loopback)
	manifest := http.Header{"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}}
	for name, addr := range map[string]string{
		"ControlCharacters": answer(t, 404, nil, problem("A\x1b[31m", "red\r\nSet-Cookie: x\x00\x07\u2028\u0085y")),
		"NoUTF8":            answer(t, 404, nil, `{"errors":[{"code":"A","message":"`+"\xff\xfe"+`"}]}`),
		"Long":              answer(t, 404, nil, problem("A", strings.Repeat("é", 20_000))),
		"ManyErrors":        answer(t, 404, nil, `{"errors":[`+strings.Repeat(`{"code":"A","message":"x"},`, 2000)+`{"code":"A"}]}`),
		"ThePasswordBack":   answer(t, 403, nil, problem("DENIED", creds.Password+" is not "+creds.Password)),
		"TheHeaderBack":     answer(t, 403, nil, problem("DENIED", "AUTHORIZATION")),
		"TheHeaderAsBody":   answer(t, 200, manifest, "AUTHORIZATION"),
		"InADetail":         answer(t, 403, nil, `{"errors":[{"code":"DENIED","message":"no","detail":"AUTHORIZATION"}]}`),
		"InAMediaType":      answer(t, 200, http.Header{"Content-Type": {creds.Password}}, "{}"),
		"InALocation":       answer(t, 307, http.Header{"Location": {"http://" + creds.Password + "\x7f/"}}, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := r.Resolve(t.Context(), addr+"/app", creds, arch)
			if err == nil {
				t.Fatal("it is an image")
			}
			secretFree(t, err)
			text := err.Error()
			bad := func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == utf8.RuneError }
			if len(text) > maxWords+50 || strings.ContainsFunc(text, bad) || !utf8.ValidString(text) {
				t.Errorf("the error has %d bytes: %q", len(text), text)
			}
		})
	}
}
