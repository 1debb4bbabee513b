package raftlog

import (
	"errors"
	"fmt"
	"sort"

	"github.com/hashicorp/raft"

	"rmq/replication"
)

// Reigns implements [replication.Chronicle]: the terms of the entries that this node holds, with those that are not
// committed yet. Each term costs a binary search in the index. An error, now and then, if the log was cut meanwhile.
func (n *Node) Reigns() ([]replication.Reign, error) {
	rs, err := n.logs.reigns()
	if errors.Is(err, raft.ErrLogNotFound) {
		err = fmt.Errorf("the log was cut while its terms were read: ask again: %w", err)
	}
	return rs, err
}

func (s *LogStore) reigns() ([]replication.Reign, error) {
	next, err := s.FirstIndex()
	if err != nil || next == 0 {
		return nil, err
	}
	last, err := s.LastIndex()
	var rs []replication.Reign
	for err == nil && next <= last {
		var e entry
		if e, err = s.entry(next); err != nil {
			break
		}
		rs = append(rs, replication.Reign{Epoch: int64(e.term), Start: e.pos})
		next += uint64(sort.Search(int(last+1-next), func(i int) bool {
			other, failed := s.entry(next + uint64(i))
			err = errors.Join(err, failed)
			return failed != nil || other.term > e.term
		}))
	}
	return rs, err
}
