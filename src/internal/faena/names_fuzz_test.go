package faena_test

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"faena.dev/faena/internal/faena"
)

// What others say that a name may be: NATS of a key of a bucket (jetstream, kv.go), the Docker Engine of the name of a container
// (daemon/names), DNS of a label, RFC 4122 of an id.
var (
	keyOfBucket   = regexp.MustCompile(`\A[-/_=.a-zA-Z0-9]+\z`)
	containerName = regexp.MustCompile(`\A[a-zA-Z0-9][a-zA-Z0-9_.-]+\z`)
	dnsLabel      = regexp.MustCompile(`\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z`)
	uuid          = regexp.MustCompile(`\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z`)
)

// token checks that a name stays one token wherever it is put: of a subject, a key, a container's name, a path.
func token(t *testing.T, what, name string) {
	t.Helper()
	if len(name) == 0 || len(name) > 63 {
		t.Errorf("%s %q has %d bytes", what, name, len(name))
	}
	subject := "Activations." + name + ".x"
	if !server.IsValidLiteralSubject(subject) || strings.Count(subject, ".") != 2 {
		t.Errorf("%s %q is no token of a subject", what, name)
	}
	if !server.IsValidSubject("$KV.bucket." + name + ".>") {
		t.Errorf("%s %q is no token of what is subscribed to", what, name)
	}
	if !keyOfBucket.MatchString(name) || !keyOfBucket.MatchString(name+".x") {
		t.Errorf("%s %q is no key of a bucket", what, name)
	}
	if !containerName.MatchString("faena-" + name) {
		t.Errorf("%s %q is not for the name of a container", what, name)
	}
	if url.PathEscape(name) != name || path.Clean("/"+name) != "/"+name || path.Base("/x/"+name) != name {
		t.Errorf("%s %q is not itself in a path", what, name)
	}
	for _, r := range name {
		if r < '!' || r > '~' || strings.ContainsRune(`"'\/.*>$=,;&|`, r) { // logs, labels, shells, ranges of keys (<user>/<name>)
			t.Errorf("%s %q has the character %q", what, name, r)
		}
	}
}

func FuzzValidName(f *testing.F) {
	for _, s := range []string{"a", "resize", "a-b", "0", "-a", "a-", "A", "a_b", "a.b", "a*", ">", "a b", "a/b", "..", "a\n", "ä", "", "\x00",
		"jorgeSD", "anchor", "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f", "0198C5A1-7F0E-7CC3-98C4-DC0C0C07398F", "0198c5a1-7f0e-7cc3-98c4-dc0c0c07398f\n",
		strings.Repeat("a", 63), strings.Repeat("a", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if faena.ValidName(s) {
			token(t, "name", s)
			if !dnsLabel.MatchString(s) || !faena.ValidUser(s) {
				t.Errorf("name %q is no label, or no name of a user", s)
			}
		}
		if faena.ValidUser(s) {
			token(t, "user", s)
		}
		if faena.ValidActivationID(s) {
			token(t, "activation", s)
			if !uuid.MatchString(s) || s[14] != '7' {
				t.Errorf("activation %q is no UUIDv7", s)
			}
		}
	})
}

// FuzzGroup: public halves of keys are put into the settings of NATS servers and of age: they must be what they say.
func FuzzGroup(f *testing.F) {
	for _, nkey := range []string{"", "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4", "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF5",
		"AAAA", "U", "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4\n", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"} {
		for _, recipient := range []string{"", "age1", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "AGE-SECRET-KEY-1"} {
			f.Add("gpu", nkey, recipient)
		}
	}
	f.Fuzz(func(t *testing.T, name, nkey, recipient string) {
		g := faena.Group{Name: name, Nkey: nkey, Recipient: recipient}
		err := g.Validate()
		if again := g.Validate(); (err == nil) != (again == nil) {
			t.Errorf("%+v is judged as %v and then as %v", g, err, again)
		}
		if err != nil {
			if !faena.IsKind(err, faena.KindInvalid) {
				t.Errorf("%+v is refused as %v", g, err)
			}
			return
		}
		token(t, "group", name)
		if nkey != "" && (len(nkey) != 56 || nkey[0] != 'U' || strings.Trim(nkey, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "") {
			t.Errorf("nkey %q is taken", nkey)
		}
	})
}
