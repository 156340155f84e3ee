// Package backup is the file that `faena backup` writes and `faena restore` reads: an age file of a tar archive.
//
//	head.json                         what made it, and when
//	<member>/000000, <member>/000001  the parts of a member, one after the other
//	manifest.json                     size and SHA-256 of each member, what the streams need besides, and last: without it it is none
//
// A member is cut into parts since its size is not known when it begins, and nothing is written anywhere but into the file; memory is
// bounded by a part, whatever the size. `age -d FILE | tar -x` unpacks it without Faena.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	// Format is the version of the file's form.
	Format = 1

	headName     = "head.json"
	manifestName = "manifest.json"
	partBytes    = 1 << 20
	maxManifest  = 64 << 20
)

// Documents and the prefixes of the members with streams and files.
const (
	Documents = "documents.db"
	Streams   = "streams/"
	Files     = "files/"
)

// Head says what made a backup.
type Head struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of Faena
	Schema  int       `json:"schema"`  // of the documents
	Host    string    `json:"host"`
	At      time.Time `json:"at"` // of the cut
}

// Member is a file in the backup.
type Member struct {
	Name   string          `json:"name"`
	Size   int64           `json:"size"`
	SHA256 string          `json:"sha256"`
	Extra  json.RawMessage `json:"extra,omitempty"` // of a stream: what it needs besides its messages; of a file: its mode
}

// Manifest is all members, in their order.
type Manifest struct {
	Head    Head     `json:"head"`
	Members []Member `json:"members"`
}

// Member finds one by its name.
func (m *Manifest) Member(name string) (Member, bool) {
	i := slices.IndexFunc(m.Members, func(each Member) bool { return each.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return m.Members[i], true
}

// Writer writes a backup. It is not safe for concurrent use.
type Writer struct {
	tar      *tar.Writer
	manifest Manifest
}

// NewWriter begins a backup.
func NewWriter(w io.Writer, h Head) (*Writer, error) {
	h.Format = Format
	out := &Writer{tar: tar.NewWriter(w), manifest: Manifest{Head: h}}
	return out, out.json(headName, h)
}

func (w *Writer) json(name string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return w.file(name, text)
}

func (w *Writer) file(name string, data []byte) error {
	h := tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: w.manifest.Head.At, Format: tar.FormatPAX}
	if err := w.tar.WriteHeader(&h); err != nil {
		return err
	}
	_, err := w.tar.Write(data)
	return err
}

// Add writes a member: what fill writes. Extra goes into the manifest.
func (w *Writer) Add(name string, fill func(io.Writer) (extra any, err error)) error {
	if _, twice := w.manifest.Member(name); twice {
		return fmt.Errorf("write member %s: it is there already", name)
	}
	p := &parts{w: w, name: name, sum: sha256.New()}
	extra, err := fill(p)
	if err == nil {
		err = p.flush()
	}
	if err != nil {
		return fmt.Errorf("write member %s: %w", name, err)
	}
	m := Member{Name: name, Size: p.size, SHA256: hex.EncodeToString(p.sum.Sum(nil))}
	if extra != nil {
		if m.Extra, err = json.Marshal(extra); err != nil {
			return err
		}
	}
	w.manifest.Members = append(w.manifest.Members, m)
	return nil
}

// Describe takes over what another manifest has of the members besides their bytes.
func (w *Writer) Describe(given *Manifest) {
	for i := range w.manifest.Members {
		if m, ok := given.Member(w.manifest.Members[i].Name); ok {
			w.manifest.Members[i].Extra = m.Extra
		}
	}
}

// Manifest is what was written.
func (w *Writer) Manifest() *Manifest { return &w.manifest }

// Close writes the manifest. Without it a backup is none.
func (w *Writer) Close() error {
	if err := w.json(manifestName, w.manifest); err != nil {
		return err
	}
	return w.tar.Close()
}

// parts gathers what is written into parts.
type parts struct {
	w    *Writer
	name string
	n    int
	buf  []byte
	size int64
	sum  hash.Hash
}

// Write implements io.Writer.
func (p *parts) Write(data []byte) (n int, err error) {
	n = len(data)
	p.sum.Write(data)
	p.size += int64(n)
	for len(data) > 0 {
		some := data[:min(len(data), partBytes-len(p.buf))]
		p.buf, data = append(p.buf, some...), data[len(some):]
		if len(p.buf) == partBytes {
			if err := p.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (p *parts) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	err := p.w.file(fmt.Sprintf("%s/%06d", p.name, p.n), p.buf)
	p.n, p.buf = p.n+1, p.buf[:0]
	return err
}

// ErrDamaged says that a file is no whole backup.
var ErrDamaged = errors.New("it is no whole backup")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// Read reads a backup to its end, checks all of it, and returns its manifest. take is given each member, and need not read it to its
// end. What it is given is not checked before Read returns: with an error all of it is void.
func Read(from io.Reader, take func(h Head, name string, r io.Reader) error) (*Manifest, error) {
	in := &reader{tar: tar.NewReader(from)}
	var head Head
	if err := in.next(); err != nil {
		return nil, err
	}
	if in.at == nil || in.at.Name != headName {
		return nil, damaged("it does not begin with %s", headName)
	}
	if err := in.json(&head); err != nil {
		return nil, err
	}
	if head.Format != Format {
		return nil, fmt.Errorf("it has format %d, which this version does not read: restore it with faena %s", head.Format, head.Version)
	}
	var seen []Member
	for {
		if in.at == nil {
			return nil, damaged("its end is missing")
		}
		if in.at.Name == manifestName {
			break
		}
		m, err := in.member(func(name string, r io.Reader) error { return take(head, name, r) })
		if err != nil {
			return nil, err
		}
		seen = append(seen, m)
	}
	var m Manifest
	if err := in.json(&m); err != nil {
		return nil, err
	}
	if in.at != nil {
		return nil, damaged("%s comes after its end", in.at.Name)
	}
	if _, err := io.Copy(io.Discard, from); err != nil { // what encrypts it says at its end whether it is whole
		return nil, err
	}
	return &m, m.agrees(head, seen)
}

// agrees compares what was read with what is listed. A member of no bytes has no parts.
func (m *Manifest) agrees(head Head, seen []Member) error {
	if !head.At.Equal(m.Head.At) || head.Version != m.Head.Version {
		return damaged("its end is another's")
	}
	for _, listed := range m.Members {
		if listed.Size == 0 {
			continue
		}
		if len(seen) == 0 || seen[0].Name != listed.Name || seen[0].Size != listed.Size || seen[0].SHA256 != listed.SHA256 {
			return damaged("%s is not what it was", listed.Name)
		}
		seen = seen[1:]
	}
	if len(seen) > 0 {
		return damaged("%s is not listed", seen[0].Name)
	}
	return nil
}

// reader reads the entries of the archive. at is nil at its end.
type reader struct {
	tar *tar.Reader
	at  *tar.Header
}

func (r *reader) next() (err error) {
	if r.at, err = r.tar.Next(); errors.Is(err, io.EOF) {
		r.at = nil
		return nil
	}
	if err != nil {
		return damaged("%w", err)
	}
	return nil
}

// json reads the entry that the reader is at, and goes to the next one.
func (r *reader) json(v any) error {
	text, err := io.ReadAll(io.LimitReader(r.tar, maxManifest))
	if err != nil {
		return damaged("%w", err)
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(v); err != nil {
		return damaged("%s: %w", r.at.Name, err)
	}
	return r.next()
}

// member reads the parts of the member that the reader is at, and goes behind them.
func (r *reader) member(take func(string, io.Reader) error) (m Member, err error) {
	i := strings.LastIndexByte(r.at.Name, '/')
	if i <= 0 {
		return m, damaged("%q is no part of a member", r.at.Name)
	}
	m.Name = r.at.Name[:i]
	p := &joined{r: r, name: m.Name, sum: sha256.New()}
	if p.err = p.check(); p.err != nil {
		return m, p.err
	}
	if err := take(m.Name, p); err != nil {
		return m, err
	}
	if _, err := io.Copy(io.Discard, p); err != nil {
		return m, err
	}
	m.Size, m.SHA256 = p.size, hex.EncodeToString(p.sum.Sum(nil))
	return m, nil
}

// joined is the parts of a member, one after the other.
type joined struct {
	r    *reader
	name string
	n    int
	size int64
	sum  hash.Hash
	err  error
}

// check looks whether the reader is at the next part of the member.
func (p *joined) check() error {
	if p.r.at == nil || !strings.HasPrefix(p.r.at.Name, p.name+"/") {
		return io.EOF
	}
	if want := fmt.Sprintf("%s/%06d", p.name, p.n); p.r.at.Name != want {
		return damaged("after %d parts of %s comes %q", p.n, p.name, p.r.at.Name)
	}
	return nil
}

// Read implements io.Reader.
func (p *joined) Read(buf []byte) (n int, err error) {
	for p.err == nil {
		n, err := p.r.tar.Read(buf)
		if n > 0 {
			p.sum.Write(buf[:n])
			p.size += int64(n)
			return n, nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			p.err = damaged("%w", err)
			break
		}
		p.n++
		if p.err = p.r.next(); p.err == nil {
			p.err = p.check()
		}
	}
	return 0, p.err
}
