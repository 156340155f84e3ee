package boltstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"faena.dev/faena/internal/faena"
)

// hourLayout makes keys of hours that are in their order.
const hourLayout = "2006-01-02T15"

// counts are what a batch adds to usage. The port asks for usage that is set from the records, never incremented,
// so that recording twice counts once. In one file that is the same as this: a record is counted in the transaction
// that stores it, and only where it was not there before, so a batch that is repeated, or cut short, adds nothing.
// And unlike a sum over the records, it neither reads an hour again for each batch nor shrinks when history is pruned.
type counts map[countKey]*faena.Usage

type countKey struct{ bucket, key string }

func newCounts() counts { return make(counts) }

// add counts a record that was just stored, in the hour of its admission and in the sum of all hours.
func (c counts) add(r *faena.Record) {
	hour := r.AdmittedAt.UTC().Truncate(time.Hour)
	c.count(usageBucket, key(r.User, hour.Format(hourLayout)), faena.Usage{User: r.User, Hour: hour}, r)
	c.count(usageTotalsBucket, below(r.User), faena.Usage{User: r.User}, r)
}

func (c counts) count(bucket, k []byte, first faena.Usage, r *faena.Record) {
	at := countKey{string(bucket), string(k)}
	u := c[at]
	if u == nil {
		u = &first
		c[at] = u
	}
	if r.State == faena.StateSucceeded {
		u.Completed++
	} else {
		u.Failed++
	}
	u.RunUS += r.Timings.RunUS
}

// store adds the counts to what the transaction finds.
func (c counts) store(tx *bolt.Tx) error {
	for at, u := range c {
		b, k := tx.Bucket([]byte(at.bucket)), []byte(at.key)
		stored, err := usage(b, k)
		if err != nil {
			return err
		}
		u.Completed += stored.Completed
		u.Failed += stored.Failed
		u.RunUS += stored.RunUS
		if err := put(b, k, u); err != nil {
			return err
		}
	}
	return nil
}

func usage(b *bolt.Bucket, k []byte) (u faena.Usage, err error) {
	value := b.Get(k)
	if value == nil {
		return u, nil
	}
	if err := json.Unmarshal(value, &u); err != nil {
		return u, fmt.Errorf("decode usage %s: %w", k, err)
	}
	return u, nil
}

// UserUsage implements faena.Documents. The sum is kept beside the hours: it is asked for twice a second of each user
// who has something running.
func (s *Store) UserUsage(ctx context.Context, user string) (u faena.Usage, err error) {
	err = s.view(ctx, "read the usage of user "+user, func(tx *bolt.Tx) error {
		u, err = usage(tx.Bucket(usageTotalsBucket), below(user))
		return err
	})
	u.User = user
	return u, err
}

// UsageByHour implements faena.Documents.
func (s *Store) UsageByHour(ctx context.Context, user string, from time.Time, limit int) (list []faena.Usage, err error) {
	before := from.UTC().Truncate(time.Hour).Add(-time.Hour).Format(hourLayout)
	err = s.view(ctx, "read the usage of user "+user+" by hour", func(tx *bolt.Tx) error {
		if limit <= 0 {
			return nil
		}
		hours := tx.Bucket(usageBucket)
		return ascend(hours, below(user), []byte(before), func(k, _ []byte) (bool, error) {
			u, err := usage(hours, k)
			list = append(list, u)
			return len(list) < limit, err
		})
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
