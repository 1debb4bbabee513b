package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"rmq/internal/bakfile"
	"rmq/internal/vfs"
	"rmq/remoting/protocol"
)

// offsetStore keeps how far a group has come. Safe for concurrent use.
type offsetStore interface {
	// read asks where to go on; [ErrNotFound] if nothing was ever stored.
	read(ctx context.Context, q MessageQueue) (int64, error)
	// update notes progress in memory. onlyUp ignores a lower offset than the one noted.
	update(q MessageQueue, offset int64, onlyUp bool)
	// noted is the offset in memory.
	noted(q MessageQueue) (int64, bool)
	// persist stores what update noted. surely waits for answers and stores all of it, not only what
	// is new.
	persist(ctx context.Context, surely bool, queues ...MessageQueue) error
	// forget drops a queue from memory.
	forget(q MessageQueue)
}

// offsetTable is what both kinds of store remember.
type offsetTable struct {
	mu      sync.Mutex
	offsets map[MessageQueue]int64
	fresh   map[MessageQueue]bool // noted since the last persist
}

func newOffsetTable() offsetTable {
	return offsetTable{offsets: map[MessageQueue]int64{}, fresh: map[MessageQueue]bool{}}
}

func (t *offsetTable) update(q MessageQueue, offset int64, onlyUp bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, ok := t.offsets[q]
	if ok && (old == offset || onlyUp && offset < old) {
		return
	}
	t.offsets[q] = offset
	t.fresh[q] = true
}

func (t *offsetTable) noted(q MessageQueue) (int64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok := t.offsets[q]
	return o, ok
}

func (t *offsetTable) forget(q MessageQueue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.offsets, q)
	delete(t.fresh, q)
}

// pick returns what is to be stored of queues and, unless all is wanted, is new.
func (t *offsetTable) pick(all bool, queues []MessageQueue) map[MessageQueue]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[MessageQueue]int64{}
	for _, q := range queues {
		if o, ok := t.offsets[q]; ok && (all || t.fresh[q]) {
			out[q] = o
			delete(t.fresh, q)
		}
	}
	return out
}

// again marks an offset that could not be stored.
func (t *offsetTable) again(q MessageQueue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.offsets[q]; ok {
		t.fresh[q] = true
	}
}

// brokerOffsets stores at the brokers (RemoteBrokerOffsetStore).
type brokerOffsets struct {
	offsetTable
	c       *Client
	group   string
	sending sync.Mutex              // what was picked earlier is sent earlier
	told    map[MessageQueue]string // the master that was told last; guarded by sending
}

func newBrokerOffsets(c *Client, group string) *brokerOffsets {
	return &brokerOffsets{offsetTable: newOffsetTable(), c: c, group: group, told: map[MessageQueue]string{}}
}

func (s *brokerOffsets) read(ctx context.Context, q MessageQueue) (int64, error) {
	return s.c.CommittedOffset(ctx, s.group, q)
}

func (s *brokerOffsets) persist(ctx context.Context, surely bool, queues ...MessageQueue) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.tellSuccessors(queues)
	var errs []error
	for q, o := range s.pick(surely, queues) {
		var err error
		if surely {
			err = s.c.CommitOffset(ctx, s.group, q, o)
		} else {
			err = s.tell(ctx, q, o)
		}
		if err != nil {
			s.again(q)
			errs = append(errs, fmt.Errorf("commit of %s at %d: %w", q, o, err))
		}
	}
	return errors.Join(errs...)
}

// tellSuccessors marks what another master was told than the one there is: nobody has answered, and a leader that has
// died may have taken the newest offsets with it. Called with sending held.
func (s *brokerOffsets) tellSuccessors(queues []MessageQueue) {
	for _, q := range queues {
		last, now := s.told[q], s.c.routes.master(q.BrokerName)
		if last != "" && now != "" && now != last {
			delete(s.told, q)
			s.again(q)
		}
	}
}

// tell commits without an answer, as Java does every 5 s: to a slave while there is no master.
func (s *brokerOffsets) tell(ctx context.Context, q MessageQueue, offset int64) error {
	addr, err := s.c.masterOf(ctx, q.BrokerName)
	if err != nil {
		if addr, _ = s.c.routes.replica(q.BrokerName, masterID); addr == "" {
			return err
		}
	}
	if err := s.c.oneway(ctx, addr, protocol.RequestUpdateConsumerOffset, commitHeader(s.group, q, offset), nil); err != nil {
		return err
	}
	s.told[q] = addr
	return nil
}

// fileOffsets stores in a file of this machine, for broadcast consumers (LocalFileOffsetStore): Java's
// JSON, replaced as a whole.
type fileOffsets struct {
	offsetTable
	path   string
	saving sync.Mutex
}

type offsetFile struct {
	OffsetTable map[MessageQueue]int64 `json:"offsetTable"`
}

func openFileOffsets(path string) (*fileOffsets, error) {
	s := &fileOffsets{offsetTable: newOffsetTable(), path: path}
	var f offsetFile
	_, err := bakfile.Load(vfs.OS, path, func(text []byte) error {
		f = offsetFile{}
		return protocol.DecodeBody(text, &f)
	})
	if err != nil {
		return nil, fmt.Errorf("broadcast offsets: %w", err)
	}
	maps.Copy(s.offsets, f.OffsetTable)
	return s, nil
}

func (s *fileOffsets) read(_ context.Context, q MessageQueue) (int64, error) {
	if o, ok := s.noted(q); ok {
		return o, nil
	}
	return 0, fmt.Errorf("offset of %s in %s: %w", q, s.path, ErrNotFound)
}

// forget keeps the offset: the file has all queues that were ever read here.
func (s *fileOffsets) forget(MessageQueue) {}

// persist writes the whole table, whatever queues are named.
func (s *fileOffsets) persist(_ context.Context, surely bool, _ ...MessageQueue) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	if len(s.fresh) == 0 && !surely || len(s.offsets) == 0 {
		s.mu.Unlock()
		return nil
	}
	body := protocol.EncodeBody(offsetFile{maps.Clone(s.offsets)})
	clear(s.fresh)
	s.mu.Unlock()
	if err := bakfile.Save(vfs.OS, s.path, body); err != nil {
		return fmt.Errorf("broadcast offsets: %w", err)
	}
	return nil
}

// commitEvery stores the offsets of the queues that are assigned, every d until ctx ends.
func (c *Client) commitEvery(ctx context.Context, d time.Duration, group string, store offsetStore, assigned func() []MessageQueue) error {
	return periodically(ctx, d, nil, func() {
		if err := store.persist(ctx, false, assigned()...); err != nil && ctx.Err() == nil {
			c.opt.Logger.Warn("offsets not stored", "group", group, "err", err)
		}
	})
}
