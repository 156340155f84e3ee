package natsbus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"faena.dev/faena/internal/faena"
)

// lease is what stands in the bucket while somebody holds one. The server removes it faena.LeaseTTL after it was renewed last.
type lease struct {
	Holder string `json:"holder"`
	Nonce  string `json:"nonce"` // so that no two writes are alike
}

// HoldLease takes a lease that nobody holds (rev 0), or renews one that was stored at revision rev. held is false, for certain,
// where somebody else holds it, or it has run out; after an error it may have been stored. Who holds a lease must stop what it
// does under it faena.LeaseTTL after it began the last call that succeeded.
func (b *Bus) HoldLease(ctx context.Context, name, holder string, rev uint64) (next uint64, held bool, err error) {
	data, err := json.Marshal(lease{holder, rand.Text()})
	if err != nil {
		return 0, false, err
	}
	next, err = b.swap(ctx, bucketStream(leasesBucket), leaseSubject(name), data, rev)
	switch {
	case errors.Is(err, faena.ErrStale):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("hold the lease %s: %w", name, err)
	}
	return next, true, nil
}

// DropLease gives a lease up at once, where it still stands at revision rev.
func (b *Bus) DropLease(ctx context.Context, name string, rev uint64) error {
	return b.purgeAt(ctx, bucketStream(leasesBucket), leaseSubject(name), rev)
}

// LeaseHolder tells who holds a lease; "" where nobody does.
func (b *Bus) LeaseHolder(ctx context.Context, name string) (string, error) {
	m, ok, err := b.last(ctx, bucketStream(leasesBucket), leaseSubject(name))
	if err != nil || !ok {
		return "", err
	}
	var l lease
	if err := json.Unmarshal(m.Data, &l); err != nil {
		return "", fmt.Errorf("read the lease %s: %w", name, err)
	}
	return l.Holder, nil
}
