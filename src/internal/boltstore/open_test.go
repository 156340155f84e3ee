package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/faenatest"
)

func TestOpen(t *testing.T) {
	t.Run("AFileForItsOwnerAlone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "faena.db")
		open(t, path)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("the mode is %v", mode)
		}
	})
	t.Run("WhatWasThereIsThere", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "faena.db")
		s := open(t, path)
		faenatest.FillHistory(t, s, "ann", 300)
		before, err := s.UserUsage(t.Context(), "ann")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path)
		after, err := s.UserUsage(t.Context(), "ann")
		if err != nil || after != before || after.Completed+after.Failed != 300 {
			t.Errorf("the usage was %+v and is %+v, %v", before, after, err)
		}
	})
	t.Run("WaitsForOneThatIsStopping", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "faena.db")
		first := open(t, path)
		closed := make(chan error, 1)
		time.AfterFunc(100*time.Millisecond, func() { closed <- first.Close() })
		open(t, path)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

func TestOpen_Refuses(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want []string // in the error, besides the path
	}{
		{"OneThatIsInUse", func(t *testing.T, path string) { open(t, path) }, []string{"another process uses it"}},
		{"OneThatIsNoDatabase", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a file of this store"}},
		{"ADatabaseOfAnotherProgram", func(t *testing.T, path string) {
			edit(t, path, func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		}, []string{"another program"}},
		{"OneOfANewerVersion", func(t *testing.T, path string) {
			if err := open(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, path, func(tx *bolt.Tx) error {
				return tx.Bucket(metaBucket).Put(schemaKey, []byte(strconv.Itoa(faena.SchemaVersion+1)))
			})
		}, []string{"newer version of Faena", "schema " + strconv.Itoa(faena.SchemaVersion+1)}},
		{"OneWithoutAVersion", func(t *testing.T, path string) {
			edit(t, path, func(tx *bolt.Tx) error { _, err := tx.CreateBucket(metaBucket); return err })
		}, []string{"schema", "no number"}},
		{"ADirectory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, []string{"is a directory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "faena.db")
			c.make(t, path)
			s, err := Open(path, Options{LockTimeout: 50 * time.Millisecond})
			if err == nil {
				_ = s.Close()
				t.Fatal("it opens")
			}
			for _, want := range append(c.want, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, without %q", err, want)
				}
			}
		})
	}
	t.Run("WhereThereIsNoDirectory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "absent", "faena.db")
		if _, err := Open(path, Options{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("the error is %v", err)
		}
	})
}

// A document of a newer version is not taken for one of this version with fields missing.
func TestStore_DocumentOfANewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faena.db")
	s := open(t, path)
	faenatest.FillHistory(t, s, "ann", 1)
	list, err := s.Activations(t.Context(), faena.HistoryQuery{User: "ann", Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	newer := list[0]
	newer.Schema = faena.SchemaVersion + 1
	if err := s.db.Update(func(tx *bolt.Tx) error {
		return put(tx.Bucket(activationsBucket), key("ann", newer.ID), newer)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Activation(t.Context(), "ann", newer.ID); !errors.Is(err, faena.ErrSchema) {
		t.Errorf("one gives %v", err)
	}
	if _, err := s.Activations(t.Context(), faena.HistoryQuery{User: "ann", Limit: 1}); !errors.Is(err, faena.ErrSchema) {
		t.Errorf("a list gives %v", err)
	}
}

// An erasure that was cut short leaves a tombstone at once, and is finished by the same call made again or by Open.
func TestStore_EraseUser_CutShort(t *testing.T) {
	cutShort := func(t *testing.T, s *Store) {
		t.Helper()
		s.db.NoSync = true
		if _, err := s.PutUser(t.Context(), faena.User{Name: "ann", Role: faena.RoleUser}); err != nil {
			t.Fatal(err)
		}
		faenatest.FillHistory(t, s, "ann", 2*eraseStep)
		// Each transaction looks at the context twice: the tombstone and one step are let through.
		if err := s.EraseUser(&endsAfter{Context: t.Context(), looks: 4}, "ann"); !errors.Is(err, errEnded) {
			t.Fatalf("the erasure returns %v", err)
		}
		if _, err := s.User(t.Context(), "ann"); !faena.IsKind(err, faena.KindNotFound) {
			t.Fatalf("the user is still there: %v", err)
		}
		if n := keysOf(t, s, "ann"); n == 0 || n >= 10*eraseStep {
			t.Fatalf("%d keys are left", n)
		}
	}
	t.Run("TheSameCallAgain", func(t *testing.T) {
		s := open(t, filepath.Join(t.TempDir(), "faena.db"))
		cutShort(t, s)
		if err := s.EraseUser(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		if n := keysOf(t, s, "ann"); n != 0 {
			t.Errorf("%d keys are left", n)
		}
		if err := s.EraseUser(t.Context(), "ann"); !faena.IsKind(err, faena.KindNotFound) {
			t.Errorf("a third time it returns %v", err)
		}
	})
	t.Run("Open", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "faena.db")
		s := open(t, path)
		cutShort(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := keysOf(t, open(t, path), "ann"); n != 0 {
			t.Errorf("%d keys are left", n)
		}
	})
}

// edit changes a file behind the store's back.
func edit(t *testing.T, path string, fn func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// keysOf counts what a store has of a user, the tombstone left out.
func keysOf(t *testing.T, s *Store, user string) (n int) {
	t.Helper()
	err := s.db.View(func(tx *bolt.Tx) error {
		for _, b := range owned {
			err := ascend(tx.Bucket(b), below(user), nil, func(_, _ []byte) (bool, error) { n++; return true, nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
