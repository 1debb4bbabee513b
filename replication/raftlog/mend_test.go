package raftlog

import (
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

const mendSegment = 64 << 10

// rot spoils n bytes of the log of a node, at pos.
func (c *cluster) rot(id string, pos int64, n int) {
	c.tb.Helper()
	f, err := c.disks[id].OpenFile(path.Join("store", "raft-"+id, "commitlog", format.FileName(pos-pos%mendSegment)), os.O_RDWR, 0)
	require.NoError(c.tb, err)
	b := make([]byte, n)
	_, err = f.ReadAt(b, pos%mendSegment)
	require.NoError(c.tb, err)
	for i := range b {
		b[i] ^= 0x55
	}
	_, err = f.WriteAt(b, pos%mendSegment)
	require.NoError(c.tb, err)
	require.NoError(c.tb, f.Close())
}

// everything reads all of a queue from n and requires it to be what was sent; what was sent again because nobody
// knew what had become of it may stand there twice.
func (c *cluster) everything(n *Node, sent []string) {
	c.tb.Helper()
	high := c.high(n, "t", 0)
	var got []string
	for at := int64(0); at < high; {
		r, err := n.Get("t", 0, at, 32, 1<<20)
		require.NoError(c.tb, err)
		require.Positive(c.tb, r.Count(), "%v at %d", r.Status, at)
		at += int64(r.Count())
		r.Each(func(b []byte) {
			var rec message.Record
			require.NoError(c.tb, message.ParseRecord(b, &rec))
			if k := len(got); k == 0 || got[k-1] != string(rec.Body) {
				got = append(got, string(rec.Body))
			}
		})
		r.Release()
	}
	require.Equal(c.tb, sent, got)
}

// Proves that records which were damaged on the disk of a member, follower or leader, are given out all the same,
// as the others have them; that what stood there is kept, and the log is on disk as it was; that a damaged header
// is no difference between nodes; and that while nobody else is there damage is an error, and nothing wrong is
// given out.
func TestMend(t *testing.T) {
	t.Parallel()
	c := newCluster(t, engine.SyncFlush, 3)
	c.adapt = func(_ string, o *Options) {
		o.Engine.SegmentBytes, o.Engine.TailCache, o.HeartbeatTimeout = mendSegment, 1, calm
	}
	c.startAll()
	var sent []string
	var at []engine.Result
	for i := range 300 {
		sent = append(sent, fmt.Sprint(i, " ", strings.Repeat("x", 900)))
		at = append(at, c.send("t", 0, sent[i]))
	}
	c.caughtUp()
	two := 60 // and the next one stand in one segment, with room behind
	for at[two].Pos%mendSegment > mendSegment-4000 || at[two].Pos%mendSegment < 1000 {
		two++
	}
	for _, n := range []*Node{c.followers()[0], c.leader()} {
		id := n.o.SelfID
		end := n.committed.Load() // what an election adds meanwhile lies behind it
		before := c.log(id, end)
		require.Greater(t, end, int64(4*mendSegment))
		c.rot(id, at[20].Pos+200, 1)    // in a body
		c.rot(id, at[40].Pos, 8)        // where a record says how long it is
		c.rot(id, at[two].Pos-30, 1500) // the end of a frame, the header of the next one, and the front of its record
		other := c.other(n)
		require.Eventually(t, func() bool { return other.committed.Load() >= end }, patience, time.Millisecond)
		high := min(n.logs.Committed(), other.logs.Committed())
		sum, err := n.logs.Hash(1, high)
		require.NoError(t, err, "a damaged header")
		same, err := other.logs.Hash(1, high)
		require.NoError(t, err)
		require.Equal(t, same, sum)
		r, err := n.Lookup(at[40].Pos)
		require.NoError(t, err)
		require.Equal(t, 1, r.Count())
		r.Release()
		r, err = n.Lookup(at[40].Pos + 1)
		require.ErrorIs(t, err, engine.ErrNotFound, "no record")
		r.Release()
		c.everything(n, sent)
		require.Equal(t, before, c.log(id, end))
		kept, err := c.disks[id].ReadDir(path.Join("store", "raft-"+id, "rmq/broken"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(kept), 3)
	}

	// Nobody else is there.
	n := c.followers()[0]
	for _, id := range c.ids {
		if id != n.o.SelfID {
			c.stop(id)
		}
	}
	c.rot(n.o.SelfID, at[80].Pos+200, 1)
	r, err := n.Get("t", 0, at[80].QueueOffset, 1, 1<<20)
	var damage *engine.CorruptionError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, at[80].Pos, damage.Offset)
	require.Zero(t, r.Count())
	r.Release()
	for _, id := range c.ids {
		if c.node(id) == nil {
			c.start(id)
		}
	}
	require.Eventually(t, func() bool {
		r, err := n.Get("t", 0, at[80].QueueOffset, 1, 1<<20)
		r.Release()
		return err == nil
	}, patience, 10*time.Millisecond)
	c.everything(n, sent)
}

// other is a node that is not n.
func (c *cluster) other(n *Node) *Node {
	c.tb.Helper()
	for _, id := range c.ids {
		if o := c.node(id); o != nil && o != n {
			return o
		}
	}
	c.tb.Fatal("there is one node only")
	return nil
}

// log is the sum of each file of the log of a node, up to a position.
func (c *cluster) log(id string, end int64) map[string]uint32 {
	c.tb.Helper()
	dir := path.Join("store", "raft-"+id, "commitlog")
	all := map[string]uint32{}
	for pos := int64(0); pos < end; pos += mendSegment {
		b, err := vfs.ReadFile(c.disks[id], path.Join(dir, format.FileName(pos)))
		require.NoError(c.tb, err)
		all[format.FileName(pos)] = crc32.ChecksumIEEE(b[:min(int64(len(b)), end-pos)])
	}
	return all
}
