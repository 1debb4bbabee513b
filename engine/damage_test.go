package engine

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// headField is a field of the fixed head of a stored record.
type headField struct {
	name  string
	bytes int
	// untold are the bits, the last byte's lowest first, in which damage cannot be told: nothing else knows
	// what the record should say.
	untold uint64
}

// headFields are those of a record with IPv4 addresses, in the order in which they stand.
var headFields = []headField{
	{"totalSize", 4, 0},
	{"magicCode", 4, 0},
	{"bodyCRC", 4, 0},
	{"queueId", 4, 0},
	{"flag", 4, 1<<32 - 1},
	{"queueOffset", 8, 0},
	{"physicalOffset", 8, 0},
	// Told are the bit of a transaction that is prepared or rolled back, which no queue has, and, by the lengths, those of IPv6.
	{"sysFlag", 4, (1<<32 - 1) &^ uint64(message.FlagPrepared|message.FlagBornHostV6|message.FlagStoreHostV6)},
	{"bornTimestamp", 8, 1<<64 - 1},
	{"bornHost", 8, 1<<64 - 1},
	{"storeTimestamp", 8, 1<<64 - 1},
	{"storeHost", 8, 1<<64 - 1},
	{"reconsumeTimes", 4, 1<<32 - 1},
	{"preparedTransactionOffset", 8, 1<<64 - 1},
	{"bodyLength", 4, 0},
}

// TestDamagedHead proves, for each single bit of the head of a stored record, and of its topic, that a
// record in which it is flipped is not given out when queue, position and checksum can tell, that its
// neighbours are, and that a checksum over the whole record leaves no bit out.
func TestDamagedHead(t *testing.T) {
	for _, c := range []struct {
		name, topic string
		sysFlag     message.SysFlag
		whole       bool // the record has a checksum over all of it
	}{
		{"V1", "Topic", 0, false},
		{"V2", strings.Repeat("Topic", 30), 0, false},
		{"committed transaction", "Topic", message.FlagCommit, false},
		{"checksum over all", "Topic", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			heap := vfs.NewHeap()
			o := small(heap, "/s")
			s := open(t, o)
			m := message.Message{
				Topic: c.topic, QueueID: 3, SysFlag: c.sysFlag, BornTimestamp: 1_700_000_000_000, BornHost: bornHost, StoreHost: storeHost,
				Body: []byte("what was said"), Properties: message.AppendProperty(message.Properties(nil), message.PropTags, "TagA"),
				V2: len(c.topic) > message.MaxTopicBytesV1, CRCSlot: c.whole,
			}
			rec, err := message.AppendRecord(nil, &m)
			require.NoError(t, err)
			var places []Result
			for range 3 {
				res, err := s.Append(context.Background(), rec)
				require.NoError(t, err)
				places = append(places, res)
			}
			require.NoError(t, s.Close())
			s = open(t, o) // what is read now comes from the file
			defer s.Close()
			f, err := heap.OpenFile(path.Join("/s/commitlog", format.FileName(0)), os.O_RDWR, 0)
			require.NoError(t, err)
			defer f.Close()

			at := places[1].Pos
			for _, field := range headFields {
				for bit := range 8 * field.bytes {
					untold := field.untold>>bit&1 == 1 && !c.whole
					damagedBit(t, s, f, &m, places, at+int64(field.bytes-1-bit/8), bit%8, !untold, field.name)
				}
				at += int64(field.bytes)
			}
			at += int64(len(m.Body)) + 1
			if len(m.Topic) > message.MaxTopicBytesV1 {
				at++
			}
			for bit := range 8 * len(m.Topic) {
				damagedBit(t, s, f, &m, places, at+int64(bit/8), bit%8, true, "topic")
			}
		})
	}
}

// damagedBit flips a bit of the second of three records of a queue, reads all, and flips it back.
func damagedBit(t *testing.T, s *Store, f vfs.File, m *message.Message, places []Result, at int64, bit int, told bool, field string) {
	t.Helper()
	what := fmt.Sprintf("%s, bit %d of the byte at %d", field, bit, at-places[1].Pos)
	flip := func() {
		b := make([]byte, 1)
		_, err := f.ReadAt(b, at)
		require.NoError(t, err)
		b[0] ^= 1 << bit
		_, err = f.WriteAt(b, at)
		require.NoError(t, err)
	}
	flip()
	defer flip()
	r, err := s.Get(m.Topic, m.QueueID, 0, 3, 1<<20)
	if !told {
		require.NoError(t, err, what)
		require.Equal(t, 3, r.Count(), what)
		r.Release()
		return
	}
	var damage *CorruptionError
	require.ErrorAs(t, err, &damage, what)
	require.Equal(t, places[1].Pos, damage.Offset, what)
	require.Equal(t, 1, r.Count(), what)
	require.EqualValues(t, 1, r.NextOffset, what)
	r.Release()
	r, err = s.Get(m.Topic, m.QueueID, 1, 3, 1<<20)
	require.ErrorAs(t, err, &damage, what)
	require.Zero(t, r.Count(), what)
	r.Release()
	r, err = s.Get(m.Topic, m.QueueID, 2, 3, 1<<20)
	require.NoError(t, err, what)
	require.Equal(t, 1, r.Count(), what)
	r.Release()
}
