package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"faena.dev/faena/internal/faena"
)

// maxRaw is how much of a message that cannot be read is kept: in base64, with the rest, it must fit into a message.
const maxRaw = maxPayload / 4 * 3 / 8 * 7

// PutDeadLetter writes down what nobody will run; a second one of the same activation replaces the first, and the oldest of the
// group make room for it. A message that cannot be read is cut where it would not fit.
func (b *Bus) PutDeadLetter(ctx context.Context, d *faena.DeadLetter) error {
	if !faena.ValidActivationID(d.ID) {
		return fmt.Errorf("write a dead letter: %q is no id of an activation", d.ID)
	}
	if len(d.Raw) > maxRaw {
		cut := *d
		cut.Raw = d.Raw[:maxRaw]
		cut.Message += fmt.Sprintf(" Of the message, of %d bytes, the first %d are kept.", len(d.Raw), maxRaw)
		d = &cut
	}
	data, err := json.Marshal(d)
	if err == nil {
		_, err = b.store(ctx, &nats.Msg{Subject: deadLetterSubject(d.Group, d.User, d.ID), Data: data})
	}
	if err != nil {
		return fmt.Errorf("write the dead letter of activation %s: %w", d.ID, err)
	}
	return nil
}

// ReplaceDeadLetter is PutDeadLetter for one that stands at seq, and returns where it stands then; faena.ErrStale where it was removed or
// written again since.
func (b *Bus) ReplaceDeadLetter(ctx context.Context, d *faena.DeadLetter, seq uint64) (next uint64, err error) {
	data, err := json.Marshal(d)
	if err == nil {
		next, err = b.storeIf(ctx, deadLetterSubject(d.Group, d.User, d.ID), data, seq)
	}
	if err != nil {
		return 0, fmt.Errorf("change the dead letter of activation %s: %w", d.ID, err)
	}
	return next, nil
}

// DeadLetter reads one; KindNotFound where there is none, faena.ErrUnreadable or faena.ErrSchema where it means nothing. seq, which
// DeleteDeadLetter takes, is set then too.
func (b *Bus) DeadLetter(ctx context.Context, group, user, id string) (d *faena.DeadLetter, seq uint64, err error) {
	m, ok, err := b.last(ctx, deadLettersStream(group), deadLetterSubject(group, user, id))
	if err == nil && !ok {
		return nil, 0, faena.NotFound("dead letter", id)
	}
	if err == nil {
		d, err = b.deadLetterAt(m.Subject, m.Data)
	}
	if err != nil {
		return nil, m.Sequence, fmt.Errorf("read the dead letter of activation %s: %w", id, unknownSchema(id, err))
	}
	return d, m.Sequence, nil
}

// deadLetterAt decodes what stands under a subject. The workers of a group may write anything there, as into its bucket of records:
// see recordAt.
func (b *Bus) deadLetterAt(subject string, p []byte) (*faena.DeadLetter, error) {
	d := new(faena.DeadLetter)
	err := json.Unmarshal(p, d)
	if err != nil {
		err = misread(p, err)
	} else {
		err = checkSchema(d.Schema)
	}
	switch {
	case errors.Is(err, faena.ErrSchema):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", faena.ErrUnreadable, err)
	case deadLetterSubject(d.Group, d.User, d.ID) != subject:
		return nil, fmt.Errorf("%w: it is another activation's than its subject says", faena.ErrUnreadable)
	case !b.made(d.User, d.Group, d.ID):
		return nil, errForged
	}
	return d, nil
}

// DeadLetterIDs lists the activations of a group that have one, by user; of all users where user is "". Those that no API has made
// are left out.
func (b *Bus) DeadLetterIDs(ctx context.Context, group, user string) (map[string][]string, error) {
	filter := deadLetterSubjects(group)
	if user != "" {
		filter = deadLettersOf(group, user)
	}
	subjects, err := b.subjects(ctx, deadLettersStream(group), filter)
	if err != nil {
		return nil, err
	}
	ids := make(map[string][]string)
	for s := range subjects {
		if user, id, ok := waitingOf(s); ok && b.made(user, group, id) {
			ids[user] = append(ids[user], id)
		}
	}
	return ids, nil
}

// DeleteDeadLetter removes one by its sequence; one that is gone, or was written again since, is no error.
func (b *Bus) DeleteDeadLetter(ctx context.Context, group string, seq uint64) error {
	return b.deleteMessage(ctx, deadLettersStream(group), seq)
}

// TrimDeadLetters removes the oldest of a user's in a group, as they were written, but for the newest keep, and returns how many.
func (b *Bus) TrimDeadLetters(ctx context.Context, group, user string, keep int) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	in := struct {
		Filter string `json:"filter"`
		Keep   int    `json:"keep"`
	}{deadLettersOf(group, user), keep}
	var out struct {
		Purged int `json:"purged"`
	}
	if err := b.ask(ctx, api("STREAM.PURGE", deadLettersStream(group)), in, &out); err != nil {
		return 0, fmt.Errorf("remove the oldest dead letters of user %s in group %s: %w", user, group, outcome(err))
	}
	return out.Purged, nil
}

// SlotParameter reads the parameter of the activation id from its message in a slot; KindNotFound where another's stands there, or
// none, faena.ErrUnreadable where it cannot be read.
func (b *Bus) SlotParameter(ctx context.Context, group, user string, slot int, id string) (p faena.Blob, err error) {
	m, ok, err := b.last(ctx, queueStream(group), slotSubject(group, user, slot))
	if err != nil {
		return p, fmt.Errorf("read the parameter of activation %s: %w", id, err)
	}
	if there, _ := activationOf(m.header(headerMsgID)); !ok || there != id {
		return p, faena.NotFound("message", slotSubject(group, user, slot))
	}
	message, err := b.code.decode(m.Data)
	if err != nil {
		return p, fmt.Errorf("read the parameter of activation %s: %w: %w", id, faena.ErrUnreadable, err)
	}
	return message.Parameter, nil
}
