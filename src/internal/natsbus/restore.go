package natsbus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/archive"
)

// RestoreStream makes a stream of a copy: its messages have the sequences and times that they had, and the next one the sequence that
// it would have had. The stream must not exist. Its consumers are made by Declare. The server must be Shared.
func (s *Server) RestoreStream(c StreamCopy, messages io.Reader) error {
	if s.account == nil {
		return errors.New("restore a stream: the server has no account for it")
	}
	var config natsd.StreamConfig
	if err := json.Unmarshal(c.Config, &config); err != nil {
		return fmt.Errorf("restore stream %s: read its configuration: %w", c.Name, err)
	}
	if config.Name != c.Name {
		return fmt.Errorf("restore stream %s: it is the configuration of %q", c.Name, config.Name)
	}
	config.Replicas = 1
	out, in := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = in.CloseWithError(writeSnapshot(in, c, messages)) // the server is told of what fails; it returns nil
	}()
	stream, err := s.account.RestoreStreamV2(&config, out)
	_ = out.Close() // it has read the mark of the end, or has failed; it returns nil
	<-written
	if err != nil {
		return fmt.Errorf("restore stream %s: %w", c.Name, err)
	}
	if n := stream.Store().State(); n.LastSeq != c.Last {
		return fmt.Errorf("restore stream %s: it ends at sequence %d, not %d", c.Name, n.LastSeq, c.Last)
	}
	return nil
}

// writeSnapshot writes what the server takes for a snapshot of its own.
func writeSnapshot(to io.Writer, c StreamCopy, messages io.Reader) error {
	out := s2.NewWriter(to)
	w := archive.NewWriter(out)
	put := func(h archive.Header, parts ...[]byte) error {
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		return nil
	}
	state, err := json.Marshal(natsd.StreamState{Msgs: c.Messages, Bytes: c.Bytes, FirstSeq: c.First, LastSeq: c.Last})
	if err != nil {
		return err
	}
	if err := put(archive.Header{Name: "state.json", Timestamp: time.Now().UnixNano(), PayloadSize: int64(len(state))}, state); err != nil {
		return err
	}
	err = CopiedMessages(messages, func(m *Message) error {
		return put(archive.Header{Name: m.Subject, Sequence: m.Sequence, Timestamp: m.Time.UnixNano(), HeaderSize: int64(len(m.Header)),
			PayloadSize: int64(len(m.Data))}, m.Header, m.Data)
	})
	if err != nil {
		return err
	}
	if err := put(archive.Header{}); err != nil {
		return err
	}
	return out.Close()
}
