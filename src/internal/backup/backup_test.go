package backup_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/backup"
)

// part is the size of the parts of a member.
const part = 1 << 20

var head = backup.Head{Version: "1.2.3", Schema: 4, Host: "h", At: time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)}

func noise(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(data) // it always can
	return data
}

// write writes a backup with these members, and nothing encrypts it.
func write(t *testing.T, members map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, head)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		err := w.Add(name, func(to io.Writer) (any, error) {
			for chunk := range slices.Chunk(members[name], 700_001) {
				if _, err := to.Write(chunk); err != nil {
					return nil, err
				}
			}
			return map[string]int{"of": len(name)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRead(t *testing.T) {
	t.Parallel()
	members := map[string][]byte{"documents.db": noise(3*part + 5), "files/etc/faena/api.env": []byte("x"), "files/none": {}, "streams/A": noise(part), "streams/B": noise(part - 1)}
	text := write(t, members)
	for _, whole := range []bool{true, false} { // who takes members, and who takes none of their bytes
		found := map[string][]byte{"files/none": {}}
		m, err := backup.Read(bytes.NewReader(text), func(h backup.Head, name string, r io.Reader) (err error) {
			if h.Version != "1.2.3" {
				t.Errorf("the head is %+v", h)
			}
			if whole {
				found[name], err = io.ReadAll(r)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if whole && !maps.EqualFunc(found, members, bytes.Equal) {
			t.Errorf("it has %v", slices.Collect(maps.Keys(found)))
		}
		if d, ok := m.Member("documents.db"); !ok || d.Size != 3*part+5 || string(d.Extra) != `{"of":12}` && !strings.Contains(string(d.Extra), `"of": 12`) || len(m.Members) != 5 {
			t.Errorf("the manifest has %+v", d)
		}
	}
	t.Run("refused", func(t *testing.T) {
		own := errors.New("ours")
		if _, err := backup.Read(bytes.NewReader(text), func(backup.Head, string, io.Reader) error { return own }); !errors.Is(err, own) {
			t.Errorf("it gives %v", err)
		}
	})
}

type entry struct {
	name string
	data []byte
}

// Whatever is changed of the archive itself, it is no backup any more.
func TestRead_Damaged(t *testing.T) {
	t.Parallel()
	text := write(t, map[string][]byte{"a": noise(2*part + 1), "b": noise(10), "c": noise(10)})
	var all []entry
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{h.Name, data})
	}
	for name, change := range map[string]func([]entry) []entry{
		"a part is missing":      func(e []entry) []entry { return slices.Delete(e, 2, 3) },
		"the last part is":       func(e []entry) []entry { return slices.Delete(e, 3, 4) },
		"a member is missing":    func(e []entry) []entry { return slices.Delete(e, 4, 5) },
		"two change places":      func(e []entry) []entry { e[4], e[5] = e[5], e[4]; return e },
		"parts change places":    func(e []entry) []entry { e[1], e[2] = e[2], e[1]; return e },
		"one is there twice":     func(e []entry) []entry { return slices.Insert(e, 5, e[4]) },
		"one is more":            func(e []entry) []entry { return slices.Insert(e, 5, entry{"x/000000", []byte("x")}) },
		"a byte is another":      func(e []entry) []entry { e[4].data = []byte("0123456789"); return e },
		"no manifest":            func(e []entry) []entry { return e[:len(e)-1] },
		"something comes after":  func(e []entry) []entry { return append(e, entry{"x/000000", nil}) },
		"no head":                func(e []entry) []entry { return e[1:] },
		"an entry without parts": func(e []entry) []entry { return slices.Insert(e, 1, entry{"x", nil}) },
		"the head of another": func(e []entry) []entry {
			e[0].data = []byte(`{"format":1,"version":"9","at":"2026-11-26T10:00:00Z"}`)
			return e
		},
		"a manifest that is none": func(e []entry) []entry { e[len(e)-1].data = []byte("{"); return e },
		"nothing at all":          func([]entry) []entry { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			w := tar.NewWriter(&out)
			for _, e := range change(slices.Clone(all)) {
				if err := errors.Join(w.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o600}), second(w.Write(e.data))); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := backup.Read(&out, func(backup.Head, string, io.Reader) error { return nil }); !errors.Is(err, backup.ErrDamaged) {
				t.Errorf("it gives %v", err)
			}
		})
	}
	for n := 0; n < len(text); n += len(text)/40 + 1 {
		if _, err := backup.Read(bytes.NewReader(text[:n]), func(backup.Head, string, io.Reader) error { return nil }); err == nil {
			t.Errorf("the first %d bytes are taken for all %d", n, len(text))
		}
	}
	newer := bytes.Replace(text, []byte(`"format": 1`), []byte(`"format": 2`), 1)
	if _, err := backup.Read(bytes.NewReader(newer), nil); err == nil || !strings.Contains(err.Error(), "restore it with faena 1.2.3") {
		t.Errorf("a later format gives %v", err)
	}
}

func second(_ int, err error) error { return err }

func TestWriter_Add(t *testing.T) {
	t.Parallel()
	w, err := backup.NewWriter(io.Discard, head)
	if err != nil {
		t.Fatal(err)
	}
	none := func(io.Writer) (any, error) { return nil, nil }
	own := errors.New("ours")
	if err := w.Add("a", none); err != nil {
		t.Error(err)
	}
	if err := w.Add("a", none); err == nil {
		t.Error("a member is there twice")
	}
	if err := w.Add("b", func(io.Writer) (any, error) { return nil, own }); !errors.Is(err, own) {
		t.Errorf("it gives %v", err)
	}
}

func TestLocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		recipients []string
		passphrase string
	}{
		"nothing": {}, "an empty passphrase": {passphrase: "\n"}, "no recipient": {recipients: []string{"AGE-SECRET-KEY-1"}},
		"both": {recipients: []string{"age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"}, passphrase: "x"},
	} {
		if _, err := backup.NewLocks(c.recipients, []byte(c.passphrase)); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	const secret = "not-an-identity"
	for name, c := range map[string][2]string{"nothing": {}, "no identity": {secret}, "both": {secret, "x"}} {
		if _, err := backup.NewKeys([]byte(c[0]), []byte(c[1])); err == nil || strings.Contains(fmt.Sprint(err), secret) {
			t.Errorf("%s: it gives %v", name, err)
		}
	}
}
