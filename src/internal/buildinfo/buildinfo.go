package buildinfo

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -X faena.dev/faena/internal/buildinfo.version=v1.2.3.
var version string

// Info is what this program was built from.
type Info struct {
	Version   string // of a release, or what git describes; (devel) where neither is known
	Revision  string // the commit, with -dirty where files had been changed; empty where not known
	Time      string // of the commit, RFC 3339; empty where not known
	GoVersion string // that it was built with
}

// Read returns what this program was built from.
func Read() Info {
	module, ok := debug.ReadBuildInfo()
	if !ok {
		module = &debug.BuildInfo{}
	}
	return describe(version, module)
}

func describe(linked string, module *debug.BuildInfo) Info {
	info := Info{Version: cmp.Or(linked, module.Main.Version, "(devel)"), GoVersion: cmp.Or(module.GoVersion, runtime.Version())}
	dirty := false
	for _, s := range module.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.time":
			info.Time = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && info.Revision != "" {
		info.Revision += "-dirty"
	}
	return info
}

// Text is the line that `program --version` prints.
func (i Info) Text(program string) string {
	text := fmt.Sprintf("%s %s", program, i.Version)
	if i.Revision != "" {
		text += " (" + i.Revision
		if i.Time != "" {
			text += ", " + i.Time
		}
		text += ")"
	}
	return fmt.Sprintf("%s %s %s/%s", text, i.GoVersion, runtime.GOOS, runtime.GOARCH)
}
