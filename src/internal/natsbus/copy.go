package natsbus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server/archive"
	"golang.org/x/sync/errgroup"

	"faena.dev/faena/internal/faena"
)

const (
	// copyAtOnce is how many messages are read at a time; each may have 1 MiB.
	copyAtOnce = 16
	// copyTries is how often a read that the server did not answer is tried.
	copyTries = 5
	// copyRounds is how often it is looked for what was written again while it was to be read. A record changes a few times in its life.
	copyRounds = 3
)

// StreamCopy is what a copy of a stream needs besides its messages to become the stream again.
type StreamCopy struct {
	Name   string          `json:"name"`
	Config json.RawMessage `json:"config"` // as the server tells it
	// First and Last are the sequences that the stream has come to, Messages and Bytes what was copied.
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

// StreamsOfCut are the streams that a backup must copy while no activation is admitted or released, in the order in which that must
// be done. Where everything an activation consists of only goes forward meanwhile (it is claimed, ends, is recorded and then removed),
// each activation is then in the copy of the records, or in the documents, where these are looked at after it; and what a worker may
// be given, in the copies before.
func StreamsOfCut(groups []string) (streams []string) {
	for _, name := range []func(string) string{backlogStream, queueStream, recordsStream, deadLettersStream} {
		for _, group := range groups {
			streams = append(streams, name(group))
		}
	}
	return streams
}

// StreamsBesides are those whose messages are never changed, so that they may be copied later, up to the sequence that they had at the
// cut, and after the documents that refer to them. Leases and heartbeats are of a moment: they are not copied.
func StreamsBesides(groups []string) (streams []string) {
	for _, group := range groups {
		streams = append(streams, objectsStream(group))
	}
	return append(streams, bucketStream(claimsBucket), bucketStream(usersBucket))
}

// toldOfStream is what a stream's server tells of it.
type toldOfStream struct {
	Config json.RawMessage `json:"config"`
	State  struct {
		First uint64 `json:"first_seq"`
		Last  uint64 `json:"last_seq"`
	} `json:"state"`
}

// LastSequence is the last sequence of a stream; there is false where there is no such stream.
func (b *Bus) LastSequence(ctx context.Context, stream string) (last uint64, there bool, err error) {
	told, there, err := b.streamAsTold(ctx, stream)
	return told.State.Last, there, err
}

func (b *Bus) streamAsTold(ctx context.Context, stream string) (told toldOfStream, there bool, err error) {
	err = again(ctx, func(ctx context.Context) error { return b.ask(ctx, api("STREAM.INFO", stream), nil, &told) })
	if isCode(err, codeNoStream) {
		return told, false, nil
	}
	if err != nil {
		return told, false, fmt.Errorf("look at stream %s: %w", stream, err)
	}
	return told, true, nil
}

// again makes a request that changes nothing, as often as it takes within reason.
func again(ctx context.Context, ask func(context.Context) error) (err error) {
	for range copyTries {
		within, cancel := context.WithTimeout(ctx, listFor)
		err = ask(within)
		cancel()
		if _, answered := errors.AsType[*apiError](err); err == nil || answered || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// CopyStream writes the messages of a stream with their sequences and times: up to the sequence upTo or, with 0, all that stand there
// now. Of a subject that is written again meanwhile the copy has the version that stood there, or a later one, or both; it has none only
// where it was removed. there is false where there is no such stream.
func (b *Bus) CopyStream(ctx context.Context, stream string, upTo uint64, to io.Writer) (_ StreamCopy, there bool, err error) {
	told, there, err := b.streamAsTold(ctx, stream)
	if err != nil || !there {
		return StreamCopy{}, there, err
	}
	c := copying{b: b, w: archive.NewWriter(to), missed: make(map[string]uint64), next: max(1, told.State.First),
		StreamCopy: StreamCopy{Name: stream, Config: told.Config, First: max(1, told.State.First)}}
	if upTo == 0 {
		if c.missed, err = b.subjects(ctx, stream, ">"); err != nil {
			return StreamCopy{}, true, err
		}
	}
	last, _, err := b.LastSequence(ctx, stream)
	if err != nil {
		return StreamCopy{}, true, err
	}
	if upTo == 0 {
		upTo = last
	}
	err = c.until(ctx, min(upTo, last))
	for range copyRounds {
		if err != nil || len(c.missed) == 0 {
			break
		}
		if last, _, err = b.LastSequence(ctx, stream); err == nil {
			err = c.until(ctx, last)
		}
	}
	if err == nil {
		err = c.rest(ctx)
	}
	if err == nil {
		last, _, err = b.LastSequence(ctx, stream)
		c.Last = max(c.Last, last, c.First-1)
	}
	if err == nil {
		err = c.w.WriteHeader(&archive.Header{}) // the end
	}
	if err != nil {
		return StreamCopy{}, true, fmt.Errorf("copy stream %s: %w", stream, err)
	}
	return c.StreamCopy, true, nil
}

// copying is a copy on its way.
type copying struct {
	StreamCopy
	b      *Bus
	w      *archive.Writer
	next   uint64            // the first sequence that was not read
	missed map[string]uint64 // subjects that had a message, and of which none was met
}

// until copies what there is up to a sequence. What is written again meanwhile goes behind it: a sequence that is read later than
// another must not be one that was given out since.
func (c *copying) until(ctx context.Context, last uint64) error {
	for c.next <= last {
		end := min(last, c.next+copyAtOnce-1)
		found, err := c.b.between(ctx, c.Name, c.next, end)
		if err != nil {
			return err
		}
		for i := range found {
			if err := c.take(&found[i]); err != nil {
				return err
			}
		}
		if c.next = end + 1; len(found) > 0 {
			continue
		}
		m, ok, err := c.b.readCopy(ctx, c.Name, fmt.Sprintf(`{"next_by_subj":">","seq":%d}`, c.next))
		if err != nil {
			return err
		}
		if !ok {
			m.Sequence = last + 1
		}
		c.next = min(m.Sequence, last+1)
	}
	return nil
}

// rest copies what is written again so often that it was never met.
func (c *copying) rest(ctx context.Context) error {
	var found []stored
	for subject := range c.missed {
		name, err := json.Marshal(subject) // whoever has a worker's key may have chosen it
		if err != nil {
			return err
		}
		m, ok, err := c.b.readCopy(ctx, c.Name, fmt.Sprintf(`{"last_by_subj":%s}`, name))
		if err != nil {
			return err
		}
		if ok { // else it was removed
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b stored) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for i := range found {
		if err := c.take(&found[i]); err != nil {
			return err
		}
	}
	return nil
}

// take writes a message.
func (c *copying) take(m *stored) error {
	delete(c.missed, m.Subject)
	if err := c.w.WriteHeader(&archive.Header{Name: m.Subject, Sequence: m.Sequence, Timestamp: m.Time.UnixNano(), HeaderSize: int64(len(m.Header)),
		PayloadSize: int64(len(m.Data))}); err != nil {
		return err
	}
	c.Messages++
	c.Bytes += uint64(len(m.Subject) + len(m.Header) + len(m.Data))
	c.Last = m.Sequence
	if _, err := c.w.Write(m.Header); err != nil {
		return err
	}
	_, err := c.w.Write(m.Data)
	return err
}

// between reads what there is from one sequence to another, in their order.
func (b *Bus) between(ctx context.Context, stream string, from, to uint64) ([]stored, error) {
	if to < from {
		return nil, nil
	}
	all := make([]stored, to-from+1)
	var reads errgroup.Group
	for i := range all {
		reads.Go(func() (err error) {
			all[i], _, err = b.readCopy(ctx, stream, fmt.Sprintf(`{"seq":%d}`, from+uint64(i)))
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, err
	}
	found := all[:0]
	for _, m := range all {
		if m.Sequence != 0 {
			found = append(found, m)
		}
	}
	return found, nil
}

// readCopy reads one message; ok is false where there is none.
func (b *Bus) readCopy(ctx context.Context, stream, query string) (m stored, ok bool, err error) {
	err = again(ctx, func(ctx context.Context) (err error) {
		m, ok, err = b.get(ctx, stream, query)
		return err
	})
	if isCode(err, codeSequenceNotFound) {
		return stored{}, false, nil
	}
	return m, ok, err
}

// Message is a message of a copy, as CopiedMessages reads it.
type Message struct {
	Subject  string
	Sequence uint64
	Time     time.Time
	Header   []byte
	Data     []byte
}

var errCopyEnds = errors.New("it ends before its end")

// CopiedMessages reads what CopyStream has written, to its end.
func CopiedMessages(from io.Reader, take func(*Message) error) error {
	r := archive.NewReader(from)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return errCopyEnds
		}
		if err != nil {
			return err
		}
		if h.Sequence == 0 {
			return nil
		}
		if h.HeaderSize < 0 || h.PayloadSize < 0 || h.HeaderSize+h.PayloadSize > 2*maxPayload {
			return errors.New("it has a message of a size that there is not")
		}
		all := make([]byte, h.HeaderSize+h.PayloadSize)
		if _, err := io.ReadFull(r, all); err != nil {
			return err
		}
		m := &Message{Subject: h.Name, Sequence: h.Sequence, Time: time.Unix(0, h.Timestamp), Header: all[:h.HeaderSize], Data: all[h.HeaderSize:]}
		if err := take(m); err != nil {
			return err
		}
	}
}

// GroupOfRecords is the group whose live records a stream holds; "" for any other stream.
func GroupOfRecords(stream string) string {
	group, ok := strings.CutPrefix(stream, recordsStream(""))
	if !ok || !faena.ValidName(group) {
		return ""
	}
	return group
}

// Holds counts what is stored, by stream, besides anchors, leases, heartbeats and counters: for who must not overwrite anything.
func (b *Bus) Holds(ctx context.Context) (map[string]int, error) {
	held := make(map[string]int)
	names := b.js.StreamNames(ctx)
	for stream := range names.Name() {
		if stream == bucketStream(usersBucket) || stream == bucketStream(leasesBucket) || strings.HasPrefix(stream, workersStream("")) {
			continue
		}
		subjects, err := b.subjects(ctx, stream, ">")
		if err != nil {
			return nil, err
		}
		for subject := range subjects {
			if lastToken(subject) != anchor {
				held[stream]++
			}
		}
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("list the streams: %w", err)
	}
	return held, nil
}
