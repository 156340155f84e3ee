// Command ferretdb is the server that package ferrettest starts: FerretDB, which speaks MongoDB's protocol and keeps its documents
// in SQLite files. Its arguments are a directory, which is there, and the path of the Unix socket that it listens on. It prints
// one line when it listens, and ends when its standard input does, so that it never outlives a test.
//
// It is a module of its own: nothing of what FerretDB needs changes what the programs are made of.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("the arguments are %q, must be a directory and a socket", args)
	}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{Unix: args[1]},
		Handler:  "sqlite",
		// A test's documents need not survive the machine.
		SQLiteURL: "file:" + args[0] + "/?_pragma=synchronous(off)",
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until whoever has started this closes it, or is gone
		stop()
	}()
	fmt.Println("ready")
	return server.Run(ctx)
}
