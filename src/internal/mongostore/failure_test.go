package mongostore

import (
	"context"
	"crypto/tls"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/ferrettest"
)

// What an operator can mend is said with its setting, and without the password.
func TestStore_SaysWhichSetting(t *testing.T) {
	const password = "s3cret/Pa55"
	ca, other := faenatest.NewCA(t), faenatest.NewCA(t)
	cert, expired := ca.Issue("mongodb"), ca.IssueExpired("expired")
	plain := ferrettest.Start(t, ferrettest.Options{}).URI()
	secure := ferrettest.Start(t, ferrettest.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile}).URI()
	lapsed := ferrettest.Start(t, ferrettest.Options{CertFile: expired.CertFile, KeyFile: expired.KeyFile}).URI()
	elsewhere := ca.Client()
	elsewhere.ServerName = "mongodb.example.org"
	withPassword := strings.Replace(plain, "mongodb://", "mongodb://faena:"+url.QueryEscape(password)+"@", 1)
	refused := []string{"FAENA_MONGODB_USERNAME", "FAENA_MONGODB_PASSWORD_FILE", "AuthenticationFailed"}
	for name, c := range map[string]struct {
		uri    string
		tls    *tls.Config
		user   string
		reason string
		want   []string
	}{
		"NobodyListens": {uri: "mongodb://" + nobody(t) + "/", reason: "store_unavailable",
			want: []string{"FAENA_MONGODB_URI", "connection refused"}},
		"AnUnknownHost": {uri: "mongodb://mongodb.invalid/", reason: "store_unknown_host",
			want: []string{"FAENA_MONGODB_URI", "mongodb.invalid"}},
		"AnotherAuthority": {uri: secure, tls: other.Client(), reason: "store_certificate", want: []string{"FAENA_MONGODB_CA_FILE"}},
		"AnExpired":        {uri: lapsed, tls: ca.Client(), reason: "store_certificate", want: []string{"FAENA_MONGODB_CA_FILE", "expired"}},
		"AnotherName": {uri: secure, tls: elsewhere, reason: "store_certificate",
			want: []string{"FAENA_MONGODB_URI", "mongodb.example.org"}},
		"AServerWithoutTLS":   {uri: plain, tls: ca.Client(), reason: "store_tls", want: []string{"FAENA_MONGODB_URI"}},
		"CredentialsOfTheURI": {uri: withPassword, reason: "store_unauthenticated", want: refused},
		"Credentials":         {uri: plain, user: "faena", reason: "store_unauthenticated", want: refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for a server that it will not find
			o := Options{URI: c.uri, TLS: c.tls, SelectionTimeout: 500 * time.Millisecond}
			if c.user != "" {
				o.Username, o.Password = c.user, password
			}
			err := open(t, o).Ping(t.Context())
			if e := away(t, err); e.Reason != c.reason {
				t.Errorf("the reason is %s, want %s", e.Reason, c.reason)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error has no %q: %v", want, err)
				}
			}
			for _, secret := range []string{password, url.QueryEscape(password), "\n"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error is %q", err)
				}
			}
		})
	}
	t.Run("TheRightAuthority", func(t *testing.T) {
		s := open(t, Options{URI: secure, TLS: ca.Client()})
		ok(t, s.Ping(t.Context()))
		ok(t, s.Insert(t.Context(), records("ann", 1)))
	})
}

// What can never be right is refused when the store is opened.
func TestOpen_Refuses(t *testing.T) {
	for name, uri := range map[string]string{
		"NoURI":         "",
		"AnotherScheme": "https://faena:s3cret@127.0.0.1/",
		"NoHost":        "mongodb://faena:s3cret@/",
		"NotEscaped":    "mongodb://faena:s3cret@x@127.0.0.1/",
		"ABadOption":    "mongodb://faena:s3cret@127.0.0.1/?w=-1",
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), Options{URI: uri})
			if err == nil {
				t.Fatal(errors.Join(errors.New("it opens"), s.Close()))
			}
			if text := err.Error(); !strings.Contains(text, "FAENA_MONGODB_URI") || strings.Contains(text, "s3cret") {
				t.Errorf("the error is %q", text)
			}
		})
	}
}

// A context that the caller has ended is the caller's business, one of the caller's that runs out is the store's.
func TestStore_CallersWhoGiveUp(t *testing.T) {
	s := open(t, Options{URI: "mongodb://" + nobody(t) + "/"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.User(ctx, "ann"); !faena.IsKind(err, faena.KindUnavailable) {
		t.Errorf("one that runs out returns %v", err)
	}
}
