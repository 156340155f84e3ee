package config

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Each type below is read by its Decode method, which envconfig calls, says in expected what would be right, and
// prints as it is written in a setting.

// Size is a number of bytes, written as 1048576, 512KiB, 64MiB, 2GiB or 1TiB.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// Decode reads a size.
func (s *Size) Decode(text string) error {
	unit := int64(1)
	for _, u := range sizeUnits {
		if digits, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = strings.TrimSpace(digits), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return errors.New("is no size")
	}
	if n > math.MaxInt64/unit {
		return errors.New("is too large")
	}
	*s = Size(n * unit)
	return nil
}

func (Size) expected() string { return "a size such as 1048576, 512KiB, 64MiB or 2GiB" }

// String writes the size with the largest unit that leaves no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// hostLetters are those of a host's name, of an address and of its zone.
const hostLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:%"

// Address is host:port to listen on. Without a host it is every address of this host; port 0 is any free one.
type Address string

// Decode reads an address.
func (a *Address) Decode(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil || strings.ContainsFunc(host, func(r rune) bool { return !strings.ContainsRune(hostLetters, r) }) {
		return errors.New("is no address")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > math.MaxUint16 {
		return errors.New("has no port from 0 to 65535")
	}
	*a = Address(text)
	return nil
}

func (Address) expected() string { return "host:port, such as 127.0.0.1:8080, [::1]:8080 or :8443" }

// Loopback reports whether only this host can reach the address.
func (a Address) Loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// List is words separated by commas.
type List []string

// Decode reads a list; empty words are left out.
func (l *List) Decode(text string) error {
	*l = nil
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			*l = append(*l, word)
		}
	}
	return nil
}

func (List) expected() string { return "words separated by commas" }

// String joins the words with commas.
func (l List) String() string { return strings.Join(l, ",") }

var hostPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// Hosts is registries, each as host or host:port, separated by commas.
type Hosts []string

// Decode reads a list of registries.
func (h *Hosts) Decode(text string) error {
	var words List
	if err := words.Decode(text); err != nil {
		return err
	}
	for _, w := range words {
		if !hostPattern.MatchString(w) {
			return fmt.Errorf("has %s, which is no host or host:port", quote(w))
		}
	}
	*h = Hosts(words)
	return nil
}

func (Hosts) expected() string {
	return "hosts without a scheme, such as registry.example.org,10.0.0.5:5000"
}

// String joins the hosts with commas.
func (h Hosts) String() string { return strings.Join(h, ",") }

// Prefixes is prefixes of IP addresses, separated by commas.
type Prefixes []netip.Prefix

// Decode reads a list of prefixes; one address alone is a prefix of full length.
func (p *Prefixes) Decode(text string) error {
	var words List
	if err := words.Decode(text); err != nil {
		return err
	}
	*p = nil
	for _, w := range words {
		prefix, err := netip.ParsePrefix(w)
		if ip, ipErr := netip.ParseAddr(w); ipErr == nil && ip.Zone() == "" {
			prefix, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("has %s, which is no prefix", quote(w))
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

func (Prefixes) expected() string { return "prefixes such as 10.20.0.0/16,fd00::/8" }

// String joins the prefixes with commas.
func (p Prefixes) String() string {
	words := make([]string, len(p))
	for i, prefix := range p {
		words[i] = prefix.String()
	}
	return strings.Join(words, ",")
}

// AuthMode says who authenticates the callers.
type AuthMode string

// The ways of authentication.
const (
	AuthLocal   AuthMode = "local"
	AuthGateway AuthMode = "gateway"
)

// Decode reads a mode; an unknown one is refused, it is never a default.
func (m *AuthMode) Decode(text string) error { return oneOf(m, text, AuthLocal, AuthGateway) }

func (AuthMode) expected() string { return "local or gateway" }

// LogFormat is the form of a log line.
type LogFormat string

// The forms of a log line.
const (
	LogJSON    LogFormat = "json"
	LogText    LogFormat = "text"
	LogJournal LogFormat = "journal"
)

// Decode reads a format.
func (f *LogFormat) Decode(text string) error { return oneOf(f, text, LogJSON, LogText, LogJournal) }

func (LogFormat) expected() string { return "json, text or journal" }

// Sync says when a write of the NATS server reaches the disk.
type Sync string

// The ways to sync.
const (
	SyncInterval Sync = "interval"
	SyncAlways   Sync = "always"
)

// Decode reads a way to sync.
func (s *Sync) Decode(text string) error { return oneOf(s, text, SyncInterval, SyncAlways) }

func (Sync) expected() string { return "interval or always" }

func oneOf[T ~string](to *T, text string, words ...T) error {
	if !slices.Contains(words, T(text)) {
		return errors.New("is no such word")
	}
	*to = T(text)
	return nil
}

// File is the path of a file that could be read when the settings were loaded.
type File string

// Decode tries to read the file. The path is kept in any case, so that one problem does not look like two.
func (f *File) Decode(text string) error {
	*f = File(text)
	_, _, err := readFile(text)
	return err
}

func (File) expected() string { return "the path of a file that this daemon may read" }

// maxFile is the largest certificate or key that is taken.
const maxFile = 1 << 20

func readFile(path string) ([]byte, os.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, cannotRead(err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, 0, cannotRead(err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("is no regular file")
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, 0, cannotRead(err)
	case len(content) == 0:
		return nil, 0, errors.New("is an empty file")
	case len(content) > maxFile:
		return nil, 0, fmt.Errorf("is a file of more than %v", Size(maxFile))
	}
	return content, info.Mode(), nil
}

// cannotRead leaves out the path, which the problem names anyway.
func cannotRead(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
