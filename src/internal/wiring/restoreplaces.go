package wiring

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Files of settings that say where the daemons keep what.
const (
	apiSettings  = "/etc/faena/api.env"
	natsSettings = "/etc/faena/nats.conf"
)

// places are the directories that the daemons of a restored host read. The parts are put together beside their places, on the same file
// system.
type places struct{ api, nats string }

func (p places) documents() string       { return p.api + "/documents.db" }
func (p places) stagedDocuments() string { return p.api + "/restore-documents.db" }
func (p places) streams() string         { return p.nats + "/jetstream" }
func (p places) stagedStreams() string   { return p.nats + "/restore" }

var (
	dataDir  = regexp.MustCompile(`(?m)^[ \t]*FAENA_DATA_DIR=(.*)$`)
	storeDir = regexp.MustCompile(`(?mi)^(?:[^#\n]*[\s{,;])?store_?dir[ \t]*[:=]?[ \t]*("[^"\n]*"|'[^'\n]*'|[^\s,;}#]+)`)
)

// find finds out where the daemons will look: by the settings in the backup, which take the place of this host's, and by its units.
func (r *restoring) find(ctx context.Context) error {
	r.at = places{apiState, natsState}
	own, err := r.Host.environment(ctx)
	if err != nil {
		return err
	}
	for _, each := range []struct {
		dir           *string
		setting, file string
		in            *regexp.Regexp
		unit, owner   string
	}{
		{&r.at.api, "FAENA_DATA_DIR", apiSettings, dataDir, strings.Join(own, "\n"), apiUser},
		{&r.at.nats, "store_dir", natsSettings, storeDir, "", natsUser},
	} {
		text, source := r.files[each.file], each.file+" of the backup"
		if text == nil { // this host's stays
			source = each.file
			if text, err = os.ReadFile(r.Host.path(each.file)); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		value := lastOf(each.in, string(text))
		if value == "" {
			value, source = lastOf(each.in, each.unit), "unit "+each.owner+".service"
		}
		if value == "" {
			continue
		}
		if *each.dir = filepath.Clean(value); !filepath.IsAbs(value) {
			return fmt.Errorf("%s in %s is %q, which is no absolute path: what is restored would not be found", each.setting, source, value)
		}
		if info, err := os.Stat(r.Host.path(*each.dir)); err != nil || !info.IsDir() {
			return fmt.Errorf("there is no directory %[1]s, which %[2]s in %[3]s names: install -d -m 0700 -o %[4]s -g %[4]s %[1]s, "+
				"let the unit write there (systemctl edit %[4]s: [Service] ReadWritePaths=%[1]s), and repeat this", *each.dir, each.setting, source, each.owner)
		}
	}
	return nil
}

// lastOf is what a setting is set to; the last one counts.
func lastOf(setting *regexp.Regexp, text string) string {
	all := setting.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		return ""
	}
	return strings.Trim(strings.TrimSpace(all[len(all)-1][1]), `"'`)
}

// all are the directories that must be empty: those of the packages too, since a host in use has something there.
func (p places) all() []places {
	return slices.Compact([]places{p, {apiState, natsState}})
}

// environment is what the unit of faena-api, with what the administrator has added to it, sets itself.
func (h Host) environment(ctx context.Context) ([]string, error) {
	if h.Environment != nil {
		return h.Environment(ctx), nil
	}
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=Environment", "--value", "faena-api.service").Output()
	if err != nil {
		return nil, fmt.Errorf("ask systemd for the settings of faena-api.service: %w", err)
	}
	return strings.Fields(string(out)), nil
}
