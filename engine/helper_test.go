package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
	"rmq/message"
)

var (
	bornHost  = netip.MustParseAddrPort("10.0.0.1:54321")
	storeHost = netip.MustParseAddrPort("10.0.0.2:10911")
)

// record encodes one message with a unique key, a tag and a key.
func record(topic string, queueID int32, body []byte, key string) []byte {
	var p message.Properties
	p = message.AppendProperty(p, message.PropUniqKey, "U"+key)
	p = message.AppendProperty(p, message.PropKeys, key)
	p = message.AppendProperty(p, message.PropTags, "TagA")
	rec, err := message.AppendRecord(nil, &message.Message{
		Topic: topic, QueueID: queueID, BornTimestamp: 1_700_000_000_000, BornHost: bornHost, StoreHost: storeHost,
		Body: body, Properties: p,
	})
	if err != nil {
		panic(err)
	}
	return rec
}

// small are options with which files roll all the time.
func small(fs vfs.FS, dir string) Options {
	return Options{
		FS: fs, Dir: dir, SegmentBytes: 16 << 10, QueueFileBytes: 400, MaxHashSlots: 64, MaxIndexEntries: 128,
		MaxMessageBytes: 4 << 10, MaxUnflushed: 1 << 20, MaxPending: 256 << 10, TailCache: 32 << 10, CheckpointBytes: 64 << 10,
	}
}

func open(tb testing.TB, o Options) *Store {
	tb.Helper()
	s, err := Open(context.Background(), o)
	require.NoError(tb, err)
	return s
}

// sent is what the tests remember of a record.
type sent struct {
	topic string
	queue int32
	body  []byte
	key   string
	res   Result
}

// fill appends n records over a few queues, seeded, and returns them in order.
func fill(tb testing.TB, s *Store, seed uint64, n int) []sent {
	tb.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	var all []sent
	for i := range n {
		m := sent{topic: fmt.Sprintf("Topic%d", rng.IntN(3)), queue: int32(rng.IntN(2)), key: fmt.Sprintf("k%d-%d", seed, i)}
		m.body = make([]byte, rng.IntN(900))
		for j := range m.body {
			m.body[j] = byte(rng.Uint32())
		}
		res, err := s.Append(context.Background(), record(m.topic, m.queue, m.body, m.key))
		require.NoError(tb, err)
		m.res = res
		all = append(all, m)
	}
	return all
}

// check reads everything back by queue offset, position and key.
func check(tb testing.TB, s *Store, all []sent) {
	tb.Helper()
	ctx := context.Background()
	require.NoError(tb, s.WaitDispatchedPos(ctx, s.Visible()))
	for _, m := range all {
		r, err := s.Get(m.topic, m.queue, m.res.QueueOffset, 1, 1<<20)
		require.NoError(tb, err)
		require.Equal(tb, ReadFound, r.Status, "%s/%d at %d", m.topic, m.queue, m.res.QueueOffset)
		requireRecord(tb, r, m)
		r.Release()
		r, err = s.Lookup(m.res.Pos)
		require.NoError(tb, err)
		requireRecord(tb, r, m)
		r.Release()
		if s.index != nil {
			found, err := s.QueryKey(m.topic, m.key, 64, 0, 1<<62)
			require.NoError(tb, err)
			require.Contains(tb, found, m.res.Pos, "key %s", m.key)
		}
	}
	require.Zero(tb, s.Stats().OrderViolations)
}

func requireRecord(tb testing.TB, r *ReadResult, m sent) {
	tb.Helper()
	require.Equal(tb, 1, r.Count())
	r.Each(func(rec []byte) {
		var got message.Record
		require.NoError(tb, message.ParseRecord(rec, &got))
		require.NoError(tb, got.CheckCRC())
		require.Equal(tb, m.topic, string(got.Topic))
		require.Equal(tb, m.res.Pos, got.PhysicalOffset)
		require.Equal(tb, m.res.QueueOffset, got.QueueOffset)
		require.Equal(tb, m.body, append([]byte{}, got.Body...))
	})
}
