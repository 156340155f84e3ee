package natsbus

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
)

// Codes of JetStream's errors that mean something to us.
const (
	codeAccountFull        = 10002 // the account's share is used up
	codeNoPeers            = 10005 // too few servers, or none that has the room
	codeUnavailable        = 10008 // no leader
	codeConsumerFixed      = 10012 // a change of a consumer that is not possible
	codeNoConsumer         = 10014
	codeServerFull         = 10023 // max_file_store is used up
	codeNoMessage          = 10037
	codeDisabledForAccount = 10039 // JetStream is, for this account
	codeSequenceNotFound   = 10043
	codeStorageFull        = 10047 // what a stream may take is more than there is
	codeBadConfig          = 10052 // of a stream; also for a change that is not possible
	codeDeleteFailed       = 10057 // no message of that sequence
	codeNoStream           = 10059
	codeOverlap            = 10065 // another stream has the subjects
	codeUpdate             = 10069 // of a stream: another change that is not possible
	codeWrongSequence      = 10071 // compare-and-set
	codeNotClustered       = 10074 // replicas, and one server
	codeDisabled           = 10076 // JetStream is
	codeStoreFailed        = 10077 // "maximum messages per subject exceeded", "maximum bytes exceeded", or another failure
	codeInProcess          = 10158 // a message with this id is being stored
	codeWrongSequenceConst = 10164 // compare-and-set, said before the leader has looked
)

// apiError is what JetStream answers instead.
type apiError struct {
	Code        int    `json:"code"`
	ErrorCode   int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrorCode) }

func isCode(err error, codes ...int) bool {
	e, ok := errors.AsType[*apiError](err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if e.ErrorCode == c {
			return true
		}
	}
	return false
}

// missing reports whether JetStream says that there is no such message or stream.
func missing(err error) bool {
	return isCode(err, codeNoMessage, codeNoStream, codeSequenceNotFound) ||
		isCode(err, codeDeleteFailed) && strings.Contains(err.Error(), "no message")
}

// errNotSent says that a request has not left this process.
var errNotSent = errors.New("not sent")

// outcome gives the failure of one try of a write its meaning.
func outcome(err error) error {
	if e, ok := errors.AsType[*apiError](err); ok {
		if kind := e.outcome(); kind != nil {
			return fmt.Errorf("%w: %w", kind, err)
		}
		return err
	}
	switch {
	case errors.Is(err, errNotSent), errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return fmt.Errorf("%w: %w", faena.ErrRetry, err) // nothing has left, or nobody was there to take it
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject):
		return err // it never will
	}
	return fmt.Errorf("%w: %w", faena.ErrUnknown, err)
}

// outcome is nil for an error that means nothing to a caller.
func (e *apiError) outcome() error {
	switch e.ErrorCode {
	case codeStoreFailed:
		switch { // one code for all that a store can say
		case strings.Contains(e.Description, "per subject"):
			return faena.ErrSlotTaken
		case strings.Contains(e.Description, "maximum"), strings.Contains(e.Description, "no space"):
			return faena.ErrFull
		}
		return faena.ErrRetry
	case codeServerFull, codeStorageFull, codeAccountFull:
		return faena.ErrFull
	case codeInProcess, codeUnavailable:
		return faena.ErrRetry
	case codeWrongSequence, codeWrongSequenceConst:
		return faena.ErrStale
	}
	if e.Code == 503 {
		return faena.ErrRetry
	}
	return nil
}

// try makes one request with the deadline of one try.
func (b *Bus) try(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	return b.nc.RequestMsgWithContext(ctx, m)
}

// pubAck is JetStream's answer to a publication.
type pubAck struct {
	Sequence  uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
	Error     *apiError `json:"error"`
}

// store makes one try to store a message. The error is an outcome of package faena where it is one.
func (b *Bus) store(ctx context.Context, m *nats.Msg) (pubAck, error) {
	answer, err := b.try(ctx, m)
	if err != nil {
		return pubAck{}, outcome(err)
	}
	var ack pubAck
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return pubAck{}, fmt.Errorf("%w: read the server's acknowledgement: %w", faena.ErrUnknown, err)
	}
	if ack.Error != nil {
		return pubAck{}, outcome(ack.Error)
	}
	return ack, nil
}

// storeIf stores data under a subject whose last message has the sequence expected; 0 is none.
func (b *Bus) storeIf(ctx context.Context, subject string, data []byte, expected uint64) (uint64, error) {
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{headerExpected: {strconv.FormatUint(expected, 10)}}}
	ack, err := b.store(ctx, m)
	return ack.Sequence, err
}

// asked is the subject by which this connection asks JetStream for what is known as subject.
func (b *Bus) asked(subject string) string {
	if b.o.confined() {
		return confined(subject)
	}
	return subject
}

// ask calls JetStream's API and decodes its answer. An answer that is an error is an *apiError.
func (b *Bus) ask(ctx context.Context, subject string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := b.nc.RequestWithContext(ctx, b.asked(subject), body)
	if err != nil {
		return err
	}
	var failure struct {
		Error *apiError `json:"error"`
	}
	if out == nil {
		out = &struct{}{}
	}
	if err := json.Unmarshal(answer.Data, &failure); err != nil {
		return fmt.Errorf("read JetStream's answer: %w", err)
	}
	if failure.Error != nil {
		return failure.Error
	}
	return json.Unmarshal(answer.Data, out)
}

// stored is a message as it stands in a stream.
type stored struct {
	Subject  string    `json:"subject"`
	Sequence uint64    `json:"seq"`
	Header   []byte    `json:"hdrs"`
	Time     time.Time `json:"time"`
	Data     []byte    `json:"-"`
}

// last reads the last message of a subject from the stream's leader; ok is false where there is none.
func (b *Bus) last(ctx context.Context, stream, subject string) (m stored, ok bool, err error) {
	return b.get(ctx, stream, `{"last_by_subj":"`+subject+`"}`) // names of ours: nothing to escape
}

// after reads the first message of a subject whose sequence is at least seq, likewise.
func (b *Bus) after(ctx context.Context, stream, subject string, seq uint64) (m stored, ok bool, err error) {
	return b.get(ctx, stream, `{"next_by_subj":"`+subject+`","seq":`+strconv.FormatUint(seq, 10)+`}`)
}

func (b *Bus) get(ctx context.Context, stream, query string) (m stored, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	answer, err := b.nc.RequestWithContext(ctx, b.asked(api("STREAM.MSG.GET", stream)), []byte(query))
	if err != nil {
		return stored{}, false, err
	}
	return readStored(answer.Data)
}

// readStored reads an answer to a get. The data, which is most of it, is decoded where it stands; the rest is JSON.
func readStored(answer []byte) (m stored, ok bool, err error) {
	var encoded []byte
	const field = `"data":"`
	if from := bytes.Index(answer, []byte(field)); from >= 0 {
		from += len(field)
		if n := bytes.IndexByte(answer[from:], '"'); n >= 0 {
			encoded = answer[from : from+n]
			answer = slices.Concat(answer[:from], answer[from+n:])
		}
	}
	var got struct {
		Message *stored   `json:"message"`
		Error   *apiError `json:"error"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return stored{}, false, fmt.Errorf("read JetStream's answer: %w", err)
	}
	switch {
	case got.Error != nil && got.Error.ErrorCode == codeNoMessage:
		return stored{}, false, nil
	case got.Error != nil:
		return stored{}, false, got.Error
	case got.Message == nil:
		return stored{}, false, errors.New("JetStream answered without a message")
	}
	m = *got.Message
	m.Data = make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
	n, err := base64.StdEncoding.Decode(m.Data, encoded)
	if err != nil {
		return stored{}, false, fmt.Errorf("read JetStream's answer: %w", err)
	}
	m.Data = m.Data[:n]
	return m, true, nil
}

// header returns the first value of a header in a stored message's raw header block.
func (m *stored) header(name string) string {
	for line := range strings.SplitSeq(string(m.Header), "\r\n") {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// subjects lists the subjects of a stream that match a filter, with how many messages each has.
func (b *Bus) subjects(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	all := make(map[string]uint64)
	for {
		var page struct {
			Total int `json:"total"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		in := struct {
			Filter string `json:"subjects_filter"`
			Offset int    `json:"offset"`
		}{filter, len(all)}
		if err := b.ask(ctx, api("STREAM.INFO", stream), in, &page); err != nil {
			return nil, fmt.Errorf("list subjects of %s: %w", stream, err)
		}
		for s, n := range page.State.Subjects {
			all[s] = n
		}
		if len(page.State.Subjects) == 0 || len(all) >= page.Total {
			return all, nil
		}
	}
}
