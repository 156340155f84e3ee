package main

import (
	"bytes"
	"fmt"
	"strings"

	"faena.dev/faena/internal/config"
)

// width is where the comments of a configuration file are wrapped.
const width = 100

// header begins a configuration file. Its argument is the daemon's name.
const header = `# Settings of %[1]s, which %[1]s.service has as environment variables.
#
# Every setting is here, commented out, with its default. To change one, take the # before its name
# away, write the value behind the =, and restart the service: systemctl restart %[1]s
# What is empty counts as not set. A # behind a value is part of the value. What another package
# presets on this host is overridden by this file: systemctl show -p Environment %[1]s
#
# Sizes are written as 1048576, 512KiB, 64MiB or 2GiB; durations as 500ms, 90s, 10m or 24h; lists
# with commas.
#
# All is checked before each start. Where a setting is unknown, cannot be read, or does not go with
# another one, the service does not start, and systemctl status %[1]s names it.
#
# Secrets do not belong into this file. Each is a file of root's, with mode 0600, that systemd passes
# to this service alone (LoadCredential=); the setting is left out then:
#
`

// env is the configuration file of a daemon.
func (d daemon) env(meanings map[string]string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, header, d.name)
	for _, s := range d.settings {
		if s.Secret {
			fmt.Fprintf(&out, "#   %-42s for %s\n", "/etc/credstore/"+d.credential(s), s.Name)
		}
	}
	group := ""
	for _, s := range d.settings {
		if s.Struct != group {
			group = s.Struct
			fmt.Fprintf(&out, "\n\n%s%s", rule, comment(d.title(group, meanings)))
		}
		text := strings.ReplaceAll(meanings[s.Struct+"."+s.Field], "`", "")
		if s.Secret {
			text += " Secret: leave it out where " + d.credential(s) + " is in /etc/credstore."
		}
		fmt.Fprintf(&out, "\n%s#%s=%s\n", comment(text), s.Name, s.Default)
	}
	return out.Bytes()
}

// rule stands above each group of settings.
var rule = strings.Repeat("#", width) + "\n"

// title is what a group of settings is about.
func (d daemon) title(group string, meanings map[string]string) string {
	if group == d.settings[0].Struct { // the daemon itself, whose name is above
		return "The daemon on its host."
	}
	return strings.ReplaceAll(meanings[group], "`", "")
}

// credential is the name of a secret in the host's store of credentials: FAENA_TLS_KEY_FILE of faena-api is faena-api.tls_key.
func (d daemon) credential(s config.Setting) string {
	return d.name + "." + strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(s.Name, "FAENA_"), "_FILE"))
}

// comment wraps a text into lines that each begin with "# ".
func comment(text string) string {
	var out strings.Builder
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width {
			out.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return out.String() + line + "\n"
}
