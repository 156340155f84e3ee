package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
)

// Codes of JetStream's errors that mean something to us.
const (
	codeWrongSequence      = 10071 // compare-and-set
	codeWrongSequenceConst = 10164 // the same, said before the leader has looked
	codeStoreFailed        = 10077 // "maximum messages per subject exceeded", or "maximum bytes exceeded"
	codeNoSpace            = 10047 // the server's own store is full
	codeTryAgain           = 10158
	codeUnavailable        = 10008
	codeNoMessage          = 10037
	codeNoStream           = 10059
	codeSequenceNotFound   = 10043
	codeDeleteFailed       = 10057 // no message of that sequence
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

// outcome gives the failure of one try of a write its meaning.
func outcome(err error) error {
	if e, ok := errors.AsType[*apiError](err); ok {
		switch {
		case e.ErrorCode == codeStoreFailed && strings.Contains(e.Description, "per subject"):
			return fmt.Errorf("%w: %w", faena.ErrSlotTaken, err)
		case e.ErrorCode == codeStoreFailed, e.ErrorCode == codeNoSpace, strings.Contains(e.Description, "maximum bytes"):
			return fmt.Errorf("%w: %w", faena.ErrFull, err)
		case e.ErrorCode == codeTryAgain, e.ErrorCode == codeUnavailable, e.Code == 503:
			return fmt.Errorf("%w: %w", faena.ErrRetry, err)
		case e.ErrorCode == codeWrongSequence, e.ErrorCode == codeWrongSequenceConst:
			return fmt.Errorf("%w: %w", faena.ErrStale, err)
		}
		return err
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return fmt.Errorf("%w: %w", faena.ErrRetry, err) // nothing has left, or nobody was there to take it
	case errors.Is(err, nats.ErrMaxPayload):
		return err
	}
	return fmt.Errorf("%w: %w", faena.ErrUnknown, err)
}

// try makes one request with the deadline of one try. The caller's own end is not told apart: what was sent was sent.
func (b *Bus) try(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
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

// ask calls JetStream's API and decodes its answer. An answer that is an error is an *apiError.
func (b *Bus) ask(ctx context.Context, subject string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := b.nc.RequestWithContext(ctx, subject, body)
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
		// What else it says (its time, for one) may be of use.
		_ = json.Unmarshal(answer.Data, out)
		return failure.Error
	}
	return json.Unmarshal(answer.Data, out)
}

// stored is a message as it stands in a stream.
type stored struct {
	Subject  string    `json:"subject"`
	Sequence uint64    `json:"seq"`
	Header   []byte    `json:"hdrs"`
	Data     []byte    `json:"data"`
	Time     time.Time `json:"time"`
}

// last reads the last message of a subject from the stream's leader; ok is false where there is none.
func (b *Bus) last(ctx context.Context, stream, subject string) (m stored, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	body := make([]byte, 0, len(subject)+20)
	body = append(body, `{"last_by_subj":"`...)
	body = append(body, subject...) // names of ours: nothing to escape
	body = append(body, `"}`...)
	answer, err := b.nc.RequestWithContext(ctx, api("STREAM.MSG.GET", stream), body)
	if err != nil {
		return stored{}, false, err
	}
	var got struct {
		Message *stored   `json:"message"`
		Error   *apiError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
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
	return *got.Message, true, nil
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
