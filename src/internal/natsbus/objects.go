package natsbus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"faena.dev/faena/internal/faena"
)

// PutObject stores what is too large for a message or record; a second one of the name replaces the first.
// faena.ErrFull where the store has reached its bytes: nothing is kept then.
func (b *Bus) PutObject(ctx context.Context, group, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	store, err := b.objectStore(ctx, group)
	if err != nil {
		return err
	}
	if _, err := store.PutBytes(ctx, name, data); err != nil {
		if e, ok := errors.AsType[jetstream.JetStreamError](err); ok && e.APIError() != nil {
			api := e.APIError()
			err = outcome(&apiError{Code: api.Code, ErrorCode: int(api.ErrorCode), Description: api.Description})
		}
		return fmt.Errorf("store object %s: %w", name, err)
	}
	return nil
}

// Object reads one; KindNotFound where it is absent.
func (b *Bus) Object(ctx context.Context, group, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	store, err := b.objectStore(ctx, group)
	if err != nil {
		return nil, err
	}
	data, err := store.GetBytes(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, faena.NotFound("object", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", name, err)
	}
	return data, nil
}

// DeleteObject removes one; one that is absent is no error.
func (b *Bus) DeleteObject(ctx context.Context, group, name string) error {
	ctx, cancel := context.WithTimeout(ctx, listFor)
	defer cancel()
	store, err := b.objectStore(ctx, group)
	if err != nil {
		return err
	}
	if err := store.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}

// objectStore looks a group's store up once.
func (b *Bus) objectStore(ctx context.Context, group string) (jetstream.ObjectStore, error) {
	b.mu.Lock()
	store := b.objects[group]
	b.mu.Unlock()
	if store != nil {
		return store, nil
	}
	store, err := b.js.ObjectStore(ctx, objectsBucket(group))
	if err != nil {
		return nil, fmt.Errorf("open the object store of group %s: %w", group, err)
	}
	b.mu.Lock()
	b.objects[group] = store
	b.mu.Unlock()
	return store, nil
}
