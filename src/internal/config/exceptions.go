package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Exception is a network, or one port of it.
type Exception struct {
	Prefix netip.Prefix
	Port   uint16 // 0 is all of it, whatever the protocol
}

// String writes the exception as it is written in a setting.
func (e Exception) String() string {
	switch {
	case e.Port == 0:
		return e.Prefix.String()
	case e.Prefix.Addr().Is6():
		return fmt.Sprintf("[%s]:%d", e.Prefix, e.Port)
	}
	return fmt.Sprintf("%s:%d", e.Prefix, e.Port)
}

// maxExceptions is how many there may be: the packet rules, which have up to four for each, are written to the kernel at once.
const maxExceptions = 100

// Exceptions is networks, each with or without a port, separated by commas.
type Exceptions []Exception

// Decode reads a list of at most 100 exceptions; one address alone is a prefix of full length.
func (e *Exceptions) Decode(text string) error {
	var words List
	if err := words.Decode(text); err != nil {
		return err
	}
	if len(words) > maxExceptions {
		return fmt.Errorf("has %d networks, and %d is the most", len(words), maxExceptions)
	}
	*e = nil
	for _, w := range words {
		x, err := exception(w)
		if err != nil {
			return fmt.Errorf("has %s, which %w", quote(w), err)
		}
		*e = append(*e, x)
	}
	return nil
}

func exception(word string) (e Exception, err error) {
	network, port := word, ""
	if rest, ok := strings.CutPrefix(word, "["); ok { // of IPv6, whose addresses have colons themselves
		inside, after, closed := strings.Cut(rest, "]")
		if !closed {
			return e, errors.New("has no ]")
		}
		if after != "" {
			if port = strings.TrimPrefix(after, ":"); port == after || port == "" {
				return e, errors.New("has no port after the ]")
			}
		}
		network = inside
	} else if strings.Count(word, ":") == 1 {
		if network, port, _ = strings.Cut(word, ":"); port == "" {
			return e, errors.New("has no port after the colon")
		}
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return e, errors.New("has no port from 1 to 65535")
		}
		e.Port = uint16(n)
	}
	var list Prefixes
	if err := list.Decode(network); err != nil || len(list) != 1 {
		return e, errors.New("is no network")
	}
	e.Prefix = list[0]
	return e, nil
}

func (Exceptions) expected() string {
	return "networks or addresses, each with or without a port, such as 10.0.0.5:5432,10.20.0.0/16,[fd00::5]:443"
}

// String joins the exceptions with commas.
func (e Exceptions) String() string {
	words := make([]string, len(e))
	for i, x := range e {
		words[i] = x.String()
	}
	return strings.Join(words, ",")
}
