package wiring_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"faena.dev/faena/internal/client"
)

// pattern is what the fixture's mode "size" writes.
func pattern(n int) []byte {
	p := make([]byte, n)
	for k := range p {
		p[k] = byte(k*7 + k/251)
	}
	return p
}

// Bytes out are bytes in: in the answer, and whenever the result is read later.
func testBytes(t *testing.T, i *installation) {
	c := i.user(t, "bytes", 20)
	i.deploy(t, c, "cat", func(s *client.Spec) { s.Input = client.InputStdin }, "cat")
	i.deploy(t, c, "size", func(s *client.Spec) { s.MemoryBytes = 64 << 20 }, "size")
	all := pattern(16 << 20)
	for _, in := range []struct {
		name, function string
		parameter      []byte
		want           []byte
	}{
		{"nothing", "cat", nil, nil},
		{"one byte", "cat", []byte("x"), []byte("x")},
		{"one NUL", "cat", []byte{0}, []byte{0}},
		{"no UTF-8", "cat", []byte{0xff, 0xfe, 0, '\r', 'x'}, []byte{0xff, 0xfe, 0, '\r', 'x'}},
		{"lone CRs, no final newline", "cat", []byte("10 %\r20 %\r"), []byte("10 %\r20 %\r")},
		{"as large as a record holds", "cat", all[:256<<10], all[:256<<10]},
		{"one byte more", "cat", all[:256<<10+1], all[:256<<10+1]},
		{"1 MiB less 1", "cat", all[:1<<20-1], all[:1<<20-1]},
		{"1 MiB", "cat", all[:1<<20], all[:1<<20]},
		{"1 MiB and 1", "cat", all[:1<<20+1], all[:1<<20+1]},
		{"the largest parameter", "cat", all[:6<<20], all[:6<<20]},
		{"the largest result", "size", []byte(strconv.Itoa(16 << 20)), all},
	} {
		t.Run(in.name, func(t *testing.T) {
			out, h, err := call(t.Context(), c, in.function, in.parameter, nil)
			if err != nil || sha256.Sum256(out) != sha256.Sum256(in.want) {
				t.Errorf("the answer has %d bytes, want %d with another sum; %v", len(out), len(in.want), err)
			}
			later, _, err := result(t.Context(), c, h.Get("Faena-Activation-Id"))
			if err != nil || sha256.Sum256(later) != sha256.Sum256(in.want) {
				t.Errorf("the result, read later, has %d bytes, want %d with another sum; %v", len(later), len(in.want), err)
			}
		})
	}
	t.Run("one byte more than a result may have", func(t *testing.T) {
		i.deploy(t, c, "limited", func(s *client.Spec) { s.ResultLimitBytes = 300 << 10 }, "size")
		if out := must(t, c, "limited", strconv.Itoa(300<<10)); out != string(all[:300<<10]) {
			t.Errorf("at the limit there are %d bytes", len(out))
		}
		o := outcomeOf(t, c, "limited", strconv.Itoa(300<<10+1))
		fails("result_too_large", -1, 0, "")(t, o)
		kept, h, err := result(t.Context(), c, o.record.ActivationID)
		if err != nil || !bytes.Equal(kept, all[:300<<10]) || h.Get("Faena-Truncated") != "true" {
			t.Errorf("%d bytes are kept, %v, %v", len(kept), h, err)
		}
	})
}

// A result without end takes bounded memory and disk.
func testEndless(t *testing.T, i *installation) {
	c := i.user(t, "endless", 20)
	i.deploy(t, c, "yes", nil, "yes")
	runtime.GC()
	heap, disk := heapBytes(), diskBytes(t, i.dir)
	done := make(chan error, 1)
	go func() {
		_, err := activate(t.Context(), c, "yes", nil)
		done <- err
	}()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	mostHeap, mostDisk := heap, disk
	for {
		select {
		case <-look.C:
			mostHeap, mostDisk = max(mostHeap, heapBytes()), max(mostDisk, diskBytes(t, i.dir))
			continue
		case err := <-done:
			if f := failure(t, err); f.Reason != "result_too_large" {
				t.Errorf("it ended with %s: %s", f.Reason, f.Detail)
			}
		}
		break
	}
	// It would write some GiB in its minute. 16 MiB are kept, in a few copies on their way to the store.
	if grown := mostHeap - heap; grown > 128<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if grown := mostDisk - disk; grown > 64<<20 {
		t.Errorf("the disk's use grew by %d MiB", grown>>20)
	}
}

// result reads an activation's result as a client would that did not wait.
func result(ctx context.Context, c *client.Client, id string) ([]byte, http.Header, error) {
	res, err := client.Stream(c.GetResult(ctx, id))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	return out, res.Header, err
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func diskBytes(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
