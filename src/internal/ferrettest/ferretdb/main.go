// Command ferretdb is the server that package ferrettest starts: FerretDB, which speaks MongoDB's protocol and keeps its documents
// in SQLite files. Its arguments are a directory, which is there, and the path of the Unix socket that it listens on. It prints
// one line when it listens, and ends when its standard input does, so that it never outlives a test. For each line that it reads
// there it gives every collection the index that FerretDB would use, and answers with a line.
//
// It is a module of its own: nothing of what FerretDB needs changes what the programs are made of.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
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
	failed := make(chan error, 1)
	go func() {
		defer stop()
		_, err := fmt.Fprintln(stdout, "ready")
		// Until whoever has started this closes it, or is gone.
		for lines := bufio.NewScanner(stdin); err == nil && lines.Scan(); {
			if err = indexAll(ctx, args[0]); err == nil {
				_, err = fmt.Fprintln(stdout, "indexed")
			}
		}
		failed <- err
	}()
	if err := server.Run(ctx); err != nil {
		return err
	}
	return <-failed
}

// indexAll makes an index of ids in each collection. FerretDB's own is of _ferretdb_sjson->'_id', while it looks for
// _ferretdb_sjson->'$._id', which is another expression to SQLite: without this it reads a collection for each id.
func indexAll(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.sqlite"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := index(ctx, file); err != nil {
			return fmt.Errorf("index %s: %w", file, err)
		}
	}
	return nil
}

func index(ctx context.Context, file string) (err error) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=rw&_pragma=busy_timeout(10000)") // FerretDB brings the driver
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(ctx, `SELECT name FROM sqlite_master
		WHERE type = 'table' AND substr(name, 1, 9) != '_ferretdb' AND substr(name, 1, 6) != 'sqlite'`)
	if err != nil {
		return err
	}
	var tables []string
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			return err
		}
		tables = append(tables, table)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, table := range tables {
		create := fmt.Sprintf(`CREATE INDEX IF NOT EXISTS "%s by id" ON %q (_ferretdb_sjson->'$._id')`, table, table)
		if _, err := db.ExecContext(ctx, create); err != nil {
			return err
		}
	}
	return nil
}
