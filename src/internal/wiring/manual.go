package wiring

import (
	"flag"
	"io"
)

// Manual is what the manual page of a daemon is made of: what its --help says.
type Manual struct {
	Name, About string
	Commands    []ManualCommand
}

// ManualCommand is one command of a daemon.
type ManualCommand struct {
	Usage, About string
	Flags        *flag.FlagSet
}

// APIManual is the manual of faena-api.
func APIManual() Manual { return apiProgram(nil, io.Discard, io.Discard, nil).manual() }

// WorkerManual is the manual of faena-worker.
func WorkerManual() Manual { return workerProgram(nil, io.Discard, io.Discard, nil).manual() }

func (p *program) manual() Manual {
	m := Manual{Name: p.name, About: p.about}
	for _, c := range p.commands {
		flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.prepare(flags)
		m.Commands = append(m.Commands, ManualCommand{Usage: p.usage(c), About: c.about, Flags: flags})
	}
	return m
}
