package boltstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

var errEnded = errors.New("ended")

// endsAfter is a context that ends at a certain look at it.
type endsAfter struct {
	context.Context
	looks int
}

func (c *endsAfter) Err() error {
	if c.looks--; c.looks < 0 {
		return errEnded
	}
	return nil
}

// childVariable says to this test binary what it is to do instead of its tests: a mode and a path.
const childVariable = "BOLTSTORE_TEST_CHILD"

var children = map[string]func(path string) error{"write": writeUntilKilled, "full": writeUntilFull}

func TestMain(m *testing.M) {
	mode, path, child := strings.Cut(os.Getenv(childVariable), ":")
	if !child {
		os.Exit(m.Run())
	}
	if err := children[mode](path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startChild runs this test binary again in a mode, with a deadline.
func startChild(t *testing.T, mode, path string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	var words strings.Builder
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+mode+":"+path)
	cmd.Stderr = &words
	return cmd, &words
}

// A process that is killed while it writes loses nothing that was acknowledged, and its file opens again.
func TestStore_Killed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faena.db")
	next := 0
	for round := range 4 {
		cmd, words := startChild(t, "write", path)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := next
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if acknowledged, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatal(err)
			}
			if acknowledged >= next+30*(round+1) {
				_ = cmd.Process.Kill() // what it still printed is read to the end
			}
		}
		if err := cmd.Wait(); err == nil || words.Len() > 0 {
			t.Fatalf("the child was not killed: %v, %s", err, words)
		}
		next = checkWritten(t, path, acknowledged)
	}
}

// writeUntilKilled adds activations, revisions and users, and prints how many it has added after each batch.
func writeUntilKilled(path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	ctx := context.Background()
	usage, err := s.UserUsage(ctx, "ann")
	if err != nil {
		return err
	}
	for n := int(usage.Completed); ; n += 10 {
		if _, _, err := s.AddRevision(ctx, faena.Revision{User: "ann", Function: "f"}, faena.Condition{}); err != nil {
			return err
		}
		if err := s.Insert(ctx, someRecords(n, 10)); err != nil {
			return err
		}
		fmt.Println(n + 10)
	}
}

// checkWritten checks that a file has at least what was acknowledged, that its parts agree, and returns how many
// activations it has.
func checkWritten(t *testing.T, path string, acknowledged int) int {
	t.Helper()
	s := open(t, path)
	usage, err := s.UserUsage(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	n := int(usage.Completed)
	if n < acknowledged || n%10 != 0 {
		t.Fatalf("%d activations are there, %d were acknowledged", n, acknowledged)
	}
	for _, r := range someRecords(0, n) {
		if _, err := s.Activation(t.Context(), "ann", r.ID); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.Function(t.Context(), "ann", "f")
	if err != nil {
		t.Fatal(err)
	}
	if f.Latest < n/10 || f.Latest > n/10+4 { // one more than batches for each time it was killed between the two
		t.Errorf("the function has %d revisions with %d activations", f.Latest, n)
	}
	if _, err := s.Revision(t.Context(), "ann", "f", f.Latest); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// A disk that is full refuses changes with an error that says unavailable; reading goes on, and so does everything
// once there is room. Here it is the process's limit of a file's size that is met.
func TestStore_DiskFull(t *testing.T) {
	cmd, words := startChild(t, "full", filepath.Join(t.TempDir(), "faena.db"))
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, words)
	}
}

func writeUntilFull(path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: before.Max}); err != nil {
		return err
	}
	ctx := context.Background()
	n := 0
	for ; err == nil && n < 100_000; n += 100 {
		err = s.Insert(ctx, someRecords(n, 100))
	}
	n -= 100 // the last batch was refused
	for what, err := range map[string]error{"Insert": err, "Ping": s.Ping(ctx)} {
		e, ok := errors.AsType[*faena.Error](err)
		if !ok || e.Kind != faena.KindUnavailable || e.Component != faena.ComponentStore || !strings.Contains(err.Error(), "file too large") {
			return fmt.Errorf("%s of a full store returns %v", what, err)
		}
	}
	if list, err := s.Activations(ctx, faena.HistoryQuery{User: "ann", Limit: 100}); err != nil || len(list) != 100 {
		return fmt.Errorf("a full store lists %d activations: %v", len(list), err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	if err := errors.Join(s.Ping(ctx), s.Insert(ctx, someRecords(n, 100)), s.Close()); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if s, err = Open(path, Options{}); err != nil {
		return err
	}
	usage, err := s.UserUsage(ctx, "ann")
	if err != nil || int(usage.Completed) != n+100 {
		return fmt.Errorf("%d activations are counted, want %d: %v", usage.Completed, n+100, err)
	}
	return s.Close()
}

// someRecords are n records of ann, from the given one on.
func someRecords(from, n int) (records []faena.Record) {
	for i := from; i < from+n; i++ {
		records = append(records, faena.Record{Schema: faena.SchemaVersion, ID: fmt.Sprintf("%012d", i), User: "ann", Function: "f",
			State: faena.StateSucceeded, Result: faena.Blob{Size: 4, Inline: []byte("done")}, AdmittedAt: time.Unix(int64(i), 0)})
	}
	return records
}
