package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"faena.dev/faena/internal/tools/chaos/site"
)

// The faults of what APIs and workers stand on.

// queue is the stream whose leader is looked for.
const queue = "ACTIVATIONS-" + site.Group

var serverKilled = fault{"kill -9 of the NATS server that leads the queue", func(s *suite, _ *rand.Rand) (act, string) {
	return func(ctx context.Context) error {
		busy(ctx)
		server, err := s.site.Leader(ctx, queue)
		if err != nil {
			return err
		}
		if err := server.Kill(); err != nil {
			return err
		}
		pause(ctx, while)
		return server.Run(ctx)
	}, ""
}}

var serverFrozen = fault{"SIGSTOP of a NATS server for longer than AckWait", func(s *suite, random *rand.Rand) (act, string) {
	server := one(random, s.site.Servers())
	return func(ctx context.Context) error { return frozen(ctx, server, outlasting) }, server.Name
}}

var serversKilled = fault{"kill -9 of all NATS servers", func(s *suite, _ *rand.Rand) (act, string) {
	return func(ctx context.Context) error {
		busy(ctx)
		var errs []error
		for _, server := range s.site.Servers() {
			errs = append(errs, server.Kill())
		}
		pause(ctx, 3*time.Second)
		for _, server := range s.site.Servers() {
			errs = append(errs, server.Start())
		}
		return errors.Join(errs...)
	}, ""
}}

var serverWiped = fault{"a NATS server comes back with an empty disk", func(s *suite, random *rand.Rand) (act, string) {
	server := one(random, s.site.Servers())
	return func(ctx context.Context) error {
		busy(ctx)
		return errors.Join(server.Kill(), server.Disk.Wipe(), server.Run(ctx))
	}, server.Name
}}

var serverFull = fault{"the disk of a NATS server is full", func(s *suite, random *rand.Rand) (act, string) {
	server := one(random, s.site.Servers())
	return func(ctx context.Context) error {
		if err := server.Disk.Fill(0); err != nil {
			return err
		}
		pause(ctx, while)
		// A server that could not write goes on without what it stores until it is started again.
		return errors.Join(server.Disk.Empty(), server.Stop(), server.Run(ctx))
	}, server.Name
}}

var workerFull = fault{"the disk of a worker is full", func(s *suite, random *rand.Rand) (act, string) {
	w := one(random, s.site.Workers())
	return func(ctx context.Context) error {
		if err := w.Disk.Fill(0); err != nil {
			return err
		}
		// What it was given before it noticed may run; then it says that it takes nothing more.
		err := s.eventually(ctx, 2*while, func() error {
			if err := w.Ready(ctx); err == nil {
				return errors.New("the worker says that it is ready")
			}
			return nil
		})
		pause(ctx, while)
		return errors.Join(err, w.Disk.Empty())
	}, w.Name
}}

var objectsFull = fault{"the object store is full", func(s *suite, _ *rand.Rand) (act, string) {
	return func(ctx context.Context) error {
		if err := s.site.Bus().FillObjects(ctx, 100<<10); err != nil {
			return err
		}
		pause(ctx, while)
		return s.site.Bus().EmptyObjects(context.WithoutCancel(ctx))
	}, ""
}}

var engineEnded = fault{"a Docker Engine ends and is started again", func(s *suite, random *rand.Rand) (act, string) {
	w, kill := one(random, s.site.Workers()), random.IntN(2) == 0
	return func(ctx context.Context) error {
		busy(ctx)
		end := w.Engine.Stop
		if kill {
			end = w.Engine.Kill
		}
		if err := end(); err != nil {
			return err
		}
		pause(ctx, 3*time.Second)
		return w.Engine.Run(ctx)
	}, map[bool]string{true: "killed, of ", false: "told, of "}[kill] + w.Name
}}

var engineHangs = fault{"a Docker Engine hangs", func(s *suite, random *rand.Rand) (act, string) {
	w := one(random, s.site.Workers())
	return func(ctx context.Context) error { return frozen(ctx, w.Engine, outlasting) }, w.Name
}}
