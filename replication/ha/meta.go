package ha

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"rmq/internal/watermark"
	"rmq/replication"
)

// document is the newest text of a name, and its number.
type document struct {
	name string
	doc  []byte
	seq  int64
}

// docs are the documents that were saved while this node led. Those of before are in the caller's
// files, here and on the slaves.
type docs struct {
	mark watermark.Mark // number of the newest

	mu     sync.Mutex
	newest map[string]document
}

func (d *docs) put(name string, doc []byte) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	seq := d.mark.Load() + 1
	d.newest[name] = document{name, slices.Clone(doc), seq}
	d.mark.Advance(seq)
	return seq
}

// since are the documents with numbers above seq, by number.
func (d *docs) since(seq int64) (all []document) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.newest {
		if x.seq > seq {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b document) int { return cmp.Compare(a.seq, b.seq) })
	return all
}

// SaveMeta implements [replication.Log]. The document travels to the slaves beside the messages; under
// Sync it returns when as many have it as an ack of a message needs.
//
// A master that was started again knows no documents: whoever owns them saves them when it hears that
// this node leads.
func (s *Service) SaveMeta(ctx context.Context, name string, doc []byte) error {
	if len(name) == 0 || len(name) > 255 || len(doc) > MaxMetaBytes {
		return fmt.Errorf("document %q of %d bytes: names have 1 to 255, documents at most %d", name, len(doc), MaxMetaBytes)
	}
	if err := s.enter(); err != nil {
		return err
	}
	seq := s.docs.put(name, doc)
	g := s.transfer
	wait := g.sync.Load()
	if wait {
		g.mu.Lock()
		g.release()
		g.mu.Unlock()
	}
	s.submit.RUnlock()
	if !wait {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.SlaveTimeout, errSlaveTimeout)
	defer cancel()
	if err := g.meta.mark.Wait(ctx, seq); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("save %s: %w", name, replication.ErrReplicaTimeout)
		}
		return err
	}
	if g.meta.replicated.Load() < seq {
		return fmt.Errorf("save %s: %w", name, replication.ErrNoReplica)
	}
	return nil
}

var errSlaveTimeout = errors.New("slaveTimeout has passed")
