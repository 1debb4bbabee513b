//go:build interop

package interop

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/message"
	"rmq/test/compat"
)

// workload appends a seeded mix of messages with our engine, of the same kinds as the Java one.
type workload struct {
	random *rand.Rand
	newer  bool // records end with a checksum property, and some topics are long
	n      int
	buf    []byte
	acked  []compat.Record
}

func newWorkload(seed int64, newer bool) *workload {
	return &workload{random: rand.New(rand.NewPCG(uint64(seed), 1)), newer: newer}
}

var (
	tags = []string{"", "TagA", "TagB", "订单", "😀", "polygenelubricants"}

	store4 = netip.MustParseAddrPort("10.0.0.2:10911")
	born4  = netip.MustParseAddrPort("10.0.0.1:54321")
	store6 = netip.MustParseAddrPort("[2001:db8::2]:10911")
	born6  = netip.MustParseAddrPort("[2001:db8::1]:54321")
)

// append puts one message or one batch and remembers what was acked.
func (w *workload) append(t testing.TB, s *engine.Store) {
	t.Helper()
	require.NoError(t, w.appendTo(t.Context(), s))
}

func (w *workload) appendTo(ctx context.Context, s *engine.Store) error {
	w.n++
	if w.n%50 == 0 {
		time.Sleep(3 * time.Millisecond) // store times must differ here and there
	}
	m := &message.Message{
		Topic: fmt.Sprintf("Topic%c", 'A'+w.random.IntN(5)), QueueID: w.random.Int32N(4), Flag: int32(w.random.Uint32()),
		BornTimestamp: 1700000000000 + int64(w.n), BornHost: born4, StoreHost: store4, ReconsumeTimes: w.random.Int32N(3),
		CRCSlot: w.newer, V2: w.newer,
	}
	if w.random.IntN(8) == 0 {
		m.BornHost = born6
	}
	if w.random.IntN(8) == 0 {
		m.StoreHost = store6
	}
	dice := w.random.IntN(100)
	count, noEntry := 1, 0
	var err error
	switch {
	case dice < 6:
		count = 2 + w.random.IntN(5)
		w.buf = w.buf[:0]
		for i := 0; i < count && err == nil; i++ {
			m.Body = w.bytes(1 + w.random.IntN(300))
			m.Properties = w.properties(nil, tags[1+w.random.IntN(len(tags)-1)])
			w.buf, err = message.AppendRecord(w.buf, m)
		}
	default:
		size := 1 + w.random.IntN(600)
		if dice == 50 {
			size = 6000
		}
		m.Body = w.bytes(size)
		m.Properties = w.properties(m.Properties, tags[w.random.IntN(len(tags))])
		switch {
		case dice >= 90 && dice < 94:
			level := int32(14 + w.random.IntN(5))
			m.Properties = message.AppendProperty(m.Properties, "DELAY", fmt.Sprint(level))
			m.Properties = message.AppendProperty(m.Properties, "REAL_TOPIC", m.Topic)
			m.Properties = message.AppendProperty(m.Properties, "REAL_QID", fmt.Sprint(m.QueueID))
			m.Topic, m.QueueID = "SCHEDULE_TOPIC_XXXX", level-1
		case dice == 97 && w.newer:
			m.Topic = "%RETRY%" + strings.Repeat("long", 49)
		case dice == 94:
			m.SysFlag |= 0x4
			noEntry = 1
		case dice == 95:
			m.SysFlag |= 0x8
			m.PreparedTransactionOffset = w.random.Int64N(1 << 20)
		case dice == 96:
			m.SysFlag |= 0xc
			m.PreparedTransactionOffset = w.random.Int64N(1 << 20)
			noEntry = 1
		}
		w.buf, err = message.AppendRecord(w.buf[:0], m)
	}
	if err != nil {
		return err
	}
	r, err := s.Append(ctx, w.buf)
	if err != nil {
		return err
	}
	pos := r.Pos
	for i, rest := 0, w.buf; i < count; i++ {
		size := int64(binary.BigEndian.Uint32(rest))
		rest = rest[size:]
		w.acked = append(w.acked, compat.Record{
			Topic: m.Topic, Queue: m.QueueID, Offset: r.QueueOffset + int64(i), Pos: pos,
			StoreTime: r.StoreTime, NoEntry: noEntry, ID: offsetID(m.StoreHost, pos),
		})
		pos += size
	}
	return nil
}

func offsetID(host netip.AddrPort, pos int64) string {
	return fmt.Sprintf("%X%08X%016X", host.Addr().AsSlice(), host.Port(), pos)
}

func (w *workload) properties(p message.Properties, tag string) message.Properties {
	if tag != "" {
		p = message.AppendProperty(p, message.PropTags, tag)
	}
	var keys []string
	for range w.random.IntN(4) {
		switch k := w.random.IntN(10); {
		case k < 2:
			keys = append(keys, "Key0")
		case k < 5:
			keys = append(keys, []string{"Aa", "BB", "键😀"}[k-2])
		default:
			keys = append(keys, fmt.Sprintf("k%d", w.random.IntN(100000)))
		}
	}
	if len(keys) > 0 {
		p = message.AppendProperty(p, message.PropKeys, strings.Join(keys, " "))
	}
	if w.random.IntN(2) == 0 {
		p = message.AppendProperty(p, message.PropUniqKey, fmt.Sprintf("%08X%016X", w.n, w.random.Uint64()))
	}
	if w.random.IntN(10) == 0 {
		p = message.AppendProperty(p, "a", "é中😀 = value")
	}
	return p
}

func (w *workload) bytes(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = 'a' + byte(w.random.IntN(26))
	}
	return b
}

// childEnv carries what the child must do; its presence makes this test binary a child.
const childEnv = "RMQ_INTEROP_CHILD"

// childTask says what the child does. Newer: records that only 5.x reads, and synchronous flush. An
// odd seed means the mapped write path.
type childTask struct {
	Dir   string
	Sizes sizes
	Seed  int64
	Newer bool
}

// options are those of a writer of ours. Its clock runs a hundred times too fast through the last
// hour, so that store times spread over many seconds: recovery then does not begin at the first
// file, and index entries are seconds apart.
func (c childTask) options() engine.Options {
	o := c.Sizes.Options(c.Dir)
	o.CheckpointPeriod = 50 * time.Millisecond // so that kills hit checkpoints
	began := time.Now()
	o.Clock = func() time.Time { return began.Add(-time.Hour + 100*time.Since(began)) }
	if c.Newer {
		o.Flush = engine.SyncFlush
	}
	if c.Seed%2 == 1 {
		o.Write = engine.WriteMmap
	}
	return o
}

// child prepares a process of ours that writes to dir until it is killed, and prints each ack as
// the Java harness does.
func child(t *testing.T, c childTask) *exec.Cmd {
	t.Helper()
	task, err := json.Marshal(c)
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(task))
	return cmd
}

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		fmt.Fprintln(os.Stderr, runChild(task))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runChild(text string) error {
	var task childTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		return err
	}
	s, err := engine.Open(context.Background(), task.options())
	if err != nil {
		return err
	}
	w := newWorkload(task.Seed, task.Newer)
	out := bufio.NewWriter(os.Stdout)
	enc := json.NewEncoder(out)
	for {
		if err := w.appendTo(context.Background(), s); err != nil {
			return err
		}
		for _, r := range w.acked {
			if err := enc.Encode(struct {
				Op string `json:"op"`
				compat.Record
			}{"put", r}); err != nil {
				return err
			}
		}
		w.acked = w.acked[:0]
		if err := out.Flush(); err != nil {
			return err
		}
	}
}
