package natsbus_test

import (
	"context"
	"net"
	"testing"
	"time"

	"faena.dev/faena/internal/faenatest"
	"faena.dev/faena/internal/natsbus"
	"faena.dev/faena/internal/natstest"
)

// Each server is told by itself, in the order of the setting, and those with one trouble together.
func TestRefused(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	plain, secure, gone := natstest.Start(t, natstest.Options{}), natstest.Start(t, natstest.Options{TLS: true}), natstest.StartCluster(t, 2, natstest.Options{})
	gone.StopAll()
	url := func(s *natstest.Servers) string { return s.URLs()[0] }
	const away = "takes no connection: start the server, or correct FAENA_NATS_URLS"
	seed, _, err := natsbus.NewNkey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    natsbus.Options
		want string
	}{
		"nothing is wrong":    {natsbus.Options{URLs: plain.URLs()}, ""},
		"stopped":             {natsbus.Options{URLs: gone.URLs()}, "each of " + gone.URLs()[0] + ", " + gone.URLs()[1] + " " + away},
		"stopped, one of two": {natsbus.Options{URLs: []string{url(plain), url(gone)}}, url(gone) + " " + away},
		"different troubles": {natsbus.Options{URLs: []string{url(gone), "nats://" + silent.Addr().String(), gone.URLs()[1]}},
			"each of " + url(gone) + ", " + gone.URLs()[1] + " " + away + "; nats://" + silent.Addr().String() +
				" does not answer: start the server, open the way to it, or correct FAENA_NATS_URLS"},
		"another CA": {natsbus.Options{URLs: secure.URLs(), TLS: faenatest.NewCA(t).Client()},
			url(secure) + " has a certificate of another CA than FAENA_NATS_CA_FILE has: give it the CA that issued the server's certificate"},
		"no TLS": {natsbus.Options{URLs: plain.URLs(), TLS: secure.TLS()},
			url(plain) + " speaks no TLS: give it a certificate, or leave out FAENA_NATS_CA_FILE and FAENA_NATS_CERT_FILE and write nats:// in FAENA_NATS_URLS"},
		"no nkeys": {natsbus.Options{URLs: plain.URLs(), NkeySeed: seed},
			url(plain) + " asks nobody for an nkey: give it the authorization that faena-api nats-config prints, or leave out FAENA_NATS_NKEY_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c.o.Name = "test"
			got := ""
			if err := natsbus.Refused(ctx, c.o); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("it is\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
