package wiring

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"

	"faena.dev/faena/internal/faena"
)

// groupsPath is where a group gets its keys on the admin socket.
const groupsPath = "/groups/"

// groupMade is the answer.
type groupMade struct {
	Created bool `json:"created"`
}

// putGroup gives a group the keys of its workers, where nobody is an admin yet who could do so over REST.
func (a *admin) putGroup(w http.ResponseWriter, r *http.Request) {
	var keys publicKeys
	use, ok := a.read(w, r, &keys)
	if !ok {
		return
	}
	g := faena.Group{Name: r.PathValue("name"), Nkey: keys.Nkey, Recipient: keys.Recipient}
	created, err := use.PutGroup(r.Context(), g)
	if err != nil {
		refuseFor(w, err)
		return
	}
	a.log.Info("a group was given keys over the admin socket", "group", g.Name, "created", created)
	answer(w, http.StatusOK, groupMade{created})
}

func (p *program) groupsPut(socket string) command {
	return command{"groups put", "NAME --keys FILE", "Make a group of workers, or give one that is there other keys. Root only.\n" +
		"It asks the daemon, which must run on this host and be ready. With other keys nothing opens that was sealed for the old ones: deploy\n" +
		"functions with registry credentials again. The NATS servers must know the key, too: nats-config.",
		func(flags *flag.FlagSet) func(context.Context, []string) error {
			at := flags.String("socket", socket, socketUsage)
			file := flags.String("keys", "", "The `FILE` with what faena-worker keygen has printed, or - for standard input.")
			return func(ctx context.Context, words []string) error {
				if len(words) != 1 || *file == "" {
					return usagef("give one name, and --keys")
				}
				keys, err := p.readKeys(*file)
				if err != nil {
					return err
				}
				text, err := askAdmin(ctx, *at, http.MethodPut, groupsPath+words[0], keys)
				if err != nil {
					return err
				}
				var made groupMade
				if err := json.Unmarshal(text, &made); err != nil {
					return fmt.Errorf("read the answer of faena-api: %w", err)
				}
				if made.Created {
					fmt.Fprintf(p.err, "Group %s is new.\n", words[0])
				} else {
					fmt.Fprintf(p.err, "Group %s has these keys.\n", words[0])
				}
				return nil
			}
		}}
}

// readKeys reads what keygen has printed.
func (p *program) readKeys(path string) (keys publicKeys, err error) {
	in := p.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return keys, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	decoder := json.NewDecoder(io.LimitReader(in, maxAdminBody))
	decoder.DisallowUnknownFields()
	if err = decoder.Decode(&keys); err == nil && (keys.Nkey == "" || keys.Recipient == "") {
		err = errors.New("one of the two is missing")
	}
	if err != nil {
		return keys, fmt.Errorf("read the keys in %s, which must be what faena-worker keygen has printed: %w", path, err)
	}
	return keys, nil
}
