package wiring

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"time"

	"faena.dev/faena/internal/faena"
)

// groupsPath is where a group gets its keys on the admin socket.
const groupsPath = "/groups/"

// connectedWithin is how long a request waits for a group's first worker: less than a request may take.
const connectedWithin = adminFor - 5*time.Second

// groupMade is the answer.
type groupMade struct {
	Created   bool `json:"created"`
	Connected bool `json:"connected"` // a worker of it was there; functions may name it
}

// putGroup gives a group the keys of its workers, where nobody is an admin yet who could do so over REST.
func (a *admin) putGroup(w http.ResponseWriter, r *http.Request) {
	var keys PublicKeys
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
	answer(w, http.StatusOK, groupMade{created, r.URL.Query().Has("wait") && a.connected(r.Context(), g.Name)})
}

// connected waits until a worker of a group has connected, and reports whether one has.
func (a *admin) connected(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, connectedWithin)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := a.groups(ctx)
		if err == nil && slices.ContainsFunc(list, func(g faena.Group) bool { return g.Name == name && !g.Pending() }) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

func (p *program) groupsPut(socket string) command {
	return command{"groups put", "NAME --keys FILE [--wait]", "Make a group of workers, or give one that is there other keys. Root only.\n" +
		"It asks the daemon, which must run on this host and be ready. With other keys nothing opens that was sealed for the old ones: deploy\n" +
		"functions with registry credentials again. The NATS servers must know the key, too: nats-config.",
		func(flags *flag.FlagSet) func(context.Context, []string) error {
			at := flags.String("socket", socket, socketUsage)
			file := flags.String("keys", "", "The `FILE` with what faena-worker keygen has printed, or - for standard input.")
			wait := flags.Bool("wait", false, "Wait until a worker of the group has connected, for 25 seconds at most: functions may name it then.")
			return func(ctx context.Context, words []string) error {
				if len(words) != 1 || *file == "" {
					return usagef("give one name, and --keys")
				}
				keys, err := ReadKeys(*file, p.in)
				if err != nil {
					return err
				}
				path := groupsPath + words[0]
				if *wait {
					path += "?wait"
				}
				var made groupMade
				if err := askAdminFor(ctx, *at, http.MethodPut, path, keys, &made); err != nil {
					return err
				}
				if made.Created {
					fmt.Fprintf(p.err, "Group %s is new.\n", words[0])
				} else {
					fmt.Fprintf(p.err, "Group %s has these keys.\n", words[0])
				}
				if *wait && !made.Connected {
					fmt.Fprintf(p.err, "No worker of it has connected yet.\n")
				}
				return nil
			}
		}}
}
