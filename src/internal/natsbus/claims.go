package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"faena.dev/faena/internal/faena"
)

// ClaimKey makes an Idempotency-Key, of which hash is the hash, stand for an activation of its user, and returns what stands there
// then: mine reports whether it is claim. rev is what DropKey takes; age is by the server's clock. faena.ErrFull, where there is no
// room, and faena.ErrRetry mean that nothing was stored, faena.ErrUnknown that it may have been; the same call may be repeated after
// each of them.
func (b *Bus) ClaimKey(ctx context.Context, user, hash string, claim *faena.IdempotencyClaim) (there faena.IdempotencyClaim, mine bool, rev uint64, age time.Duration, err error) {
	there, m, err := b.claim(ctx, claimSubject(user, hash), claim)
	if err != nil {
		return faena.IdempotencyClaim{}, false, 0, 0, fmt.Errorf("claim an Idempotency-Key: %w", err)
	}
	return there, there.ID == claim.ID, m.Sequence, max(0, b.ServerNow().Sub(m.Time)), nil
}

func (b *Bus) claim(ctx context.Context, subject string, claim *faena.IdempotencyClaim) (there faena.IdempotencyClaim, m stored, err error) {
	data, err := json.Marshal(claim)
	if err != nil {
		return there, m, err
	}
	rev, storeErr := b.storeIf(ctx, subject, data, 0)
	if storeErr == nil {
		return *claim, stored{Sequence: rev, Time: b.ServerNow()}, nil
	}
	m, ok, err := b.last(ctx, bucketStream(claimsBucket), subject)
	stale := errors.Is(storeErr, faena.ErrStale)
	switch {
	case err == nil && ok:
		there, err = decodeClaim(m.Data)
		return there, m, err
	case err != nil && stale:
		return there, m, fmt.Errorf("%w: somebody has it, and it cannot be read who: %w", faena.ErrRetry, err)
	case err == nil && stale:
		return there, m, fmt.Errorf("%w: who had it has dropped it: %s", faena.ErrRetry, storeErr.Error())
	}
	return there, m, storeErr
}

func decodeClaim(p []byte) (c faena.IdempotencyClaim, err error) {
	err = json.Unmarshal(p, &c)
	if err != nil {
		err = misread(p, err)
	} else {
		err = checkSchema(c.Schema)
	}
	if err != nil {
		return faena.IdempotencyClaim{}, fmt.Errorf("read who has it: %w", unknownSchema(c.ID, err))
	}
	return c, nil
}

// RenewKey makes an Idempotency-Key that stands at revision rev stand there anew, for the same activation: its age begins again, and who
// knew rev cannot drop it any more. faena.ErrStale where it stands for something newer, or for nothing.
func (b *Bus) RenewKey(ctx context.Context, user, hash string, claim *faena.IdempotencyClaim, rev uint64) (next uint64, err error) {
	data, err := json.Marshal(claim)
	if err == nil {
		next, err = b.storeIf(ctx, claimSubject(user, hash), data, rev)
	}
	if err != nil {
		return 0, fmt.Errorf("renew an Idempotency-Key: %w", err)
	}
	return next, nil
}

// DropKey frees an Idempotency-Key that stands at revision rev; one that is gone, or stands for something newer, is left.
func (b *Bus) DropKey(ctx context.Context, user, hash string, rev uint64) error {
	return b.purgeAt(ctx, bucketStream(claimsBucket), claimSubject(user, hash), rev)
}

// DropKeys frees all Idempotency-Keys of a user; it may be repeated, also after an error.
func (b *Bus) DropKeys(ctx context.Context, user string) error {
	return b.purge(ctx, bucketStream(claimsBucket), claimSubject(user, "*"))
}
