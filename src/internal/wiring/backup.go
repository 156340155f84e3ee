package wiring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"faena.dev/faena/internal/backup"
	"faena.dev/faena/internal/boltstore"
	"faena.dev/faena/internal/buildinfo"
	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/control"
	"faena.dev/faena/internal/faena"
	"faena.dev/faena/internal/natsbus"
)

const (
	// backupPath gives a backup's documents and streams, as package backup writes them, not encrypted: for root on this host, who has them
	// anyway.
	backupPath = "/backup"
	// backupFailed is the trailer with what went wrong after the first byte.
	backupFailed = "Faena-Error"
	// cutFor bounds how long nothing is admitted: who reads too slowly gets no backup.
	cutFor = time.Minute
	// takeFor is how long who reads may take over a piece.
	takeFor = 30 * time.Second
)

// backups makes backups of an API that keeps its documents in a file.
type backups struct {
	control   *control.Control
	bus       *natsbus.Bus
	documents *boltstore.Store
	not       string // why this installation makes none; "" where it does
	log       *slog.Logger
}

// Why an installation makes no backups.
const (
	notOfMongoDB = "the documents of this installation are in MongoDB: faena backup is for the appliance on one host; docs/operations.md says how " +
		"an installation of several is backed up"
	notOfUp = "faena up keeps everything in its directory: stop it, and copy that with owners and modes"
)

// write writes everything as of one cut: for that long nothing is admitted, and nothing released from the backlog. Streams come before
// the documents, so that each activation is in one of them; objects after, since documents refer to them.
func (b *backups) write(ctx context.Context, out *patient) (err error) {
	groups, err := b.groups(ctx)
	if err != nil {
		return err
	}
	defer b.control.KeepObjects()(context.WithoutCancel(ctx))
	within, cancel := context.WithTimeout(ctx, cutFor)
	defer cancel()
	resume, err := b.control.Pause(within)
	if err != nil {
		return err
	}
	defer resume()
	at := clock.Now()
	out.until, _ = within.Deadline()
	host, _ := os.Hostname() // for people
	w, err := backup.NewWriter(out, backup.Head{Version: buildinfo.Read().Version, Schema: faena.SchemaVersion, Host: host, At: at})
	if err != nil {
		return err
	}
	for _, stream := range natsbus.StreamsOfCut(groups) {
		if err := b.stream(within, w, stream, 0); err != nil {
			return err
		}
	}
	snapshot, err := b.documents.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	later := natsbus.StreamsBesides(groups)
	last := make([]uint64, len(later))
	for i, stream := range later {
		if last[i], _, err = b.bus.LastSequence(within, stream); err != nil {
			return err
		}
	}
	resume()
	b.log.Info("a backup is being made; activations are admitted again", "stopped_for", clock.Now().Sub(at).Round(time.Millisecond))
	out.until = time.Time{}
	if err := w.Add(backup.Documents, func(to io.Writer) (any, error) { _, err := snapshot.WriteTo(to); return nil, err }); err != nil {
		return err
	}
	for i, stream := range later {
		if last[i] == 0 {
			continue
		}
		if err := b.stream(ctx, w, stream, last[i]); err != nil {
			return err
		}
	}
	return w.Close()
}

// groups are all that may have streams.
func (b *backups) groups(ctx context.Context) ([]string, error) {
	list, err := b.documents.Groups(ctx)
	if err != nil {
		return nil, err
	}
	names := []string{faena.DefaultGroup}
	for _, g := range list {
		if g.Name != faena.DefaultGroup {
			names = append(names, g.Name)
		}
	}
	return names, nil
}

// stream adds a stream; one that is not there is none of a group that was made or removed just now.
func (b *backups) stream(ctx context.Context, w *backup.Writer, stream string, upTo uint64) error {
	if _, there, err := b.bus.LastSequence(ctx, stream); err != nil || !there {
		return err
	}
	return w.Add(backup.Streams+stream, func(to io.Writer) (any, error) {
		c, there, err := b.bus.CopyStream(ctx, stream, upTo, to)
		if err == nil && !there {
			err = fmt.Errorf("stream %s was removed", stream)
		}
		return c, err
	})
}

// patient gives a client's connection a deadline for each piece.
type patient struct {
	w       http.ResponseWriter
	control *http.ResponseController
	until   time.Time // all must be written by then; zero: whenever
	began   bool
}

// Write implements io.Writer.
func (p *patient) Write(data []byte) (int, error) {
	by := time.Now().Add(takeFor)
	if !p.until.IsZero() && p.until.Before(by) {
		by = p.until
	}
	if err := p.control.SetWriteDeadline(by); err != nil {
		return 0, err
	}
	p.began = true
	n, err := p.w.Write(data)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("who asked for the backup reads it too slowly: nothing is admitted meanwhile, for %v at most: %w", cutFor, err)
	}
	return n, err
}

// backup answers with everything.
func (a *admin) backup(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	b := a.backups
	a.mu.Unlock()
	switch {
	case b == nil:
		missing, _ := a.missing(r.Context())
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("faena-api is not ready: %v", missing))
		return
	case b.not != "":
		refuse(w, http.StatusUnprocessableEntity, b.not)
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	out := &patient{w: w, control: http.NewResponseController(w)}
	err := out.control.SetReadDeadline(time.Time{}) // the server's own would end the request
	if err == nil {
		err = b.write(r.Context(), out)
	}
	if err == nil {
		return
	}
	a.log.Warn("a backup has failed", "error", err)
	if !out.began {
		refuseFor(w, err)
		return
	}
	w.Header().Set(http.TrailerPrefix+backupFailed, strconv.QuoteToASCII(err.Error()))
}
