//go:build interop

package wire

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
)

// leaderKills is how often TestLedgerKills kills a leader.
const leaderKills = 5

// TestLedgerKills proves that an unmodified producer and an unmodified consumer live through one kill of a leader after
// the other: nothing acked is lost, and the consumer, which is never restarted, gets all of it. It tells how long each
// of them, and a producer of ours beside them, was silent each time.
func TestLedgerKills(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: clients wait for their next look at the routes")
	}
	for _, l := range []line{client49, client54} {
		t.Run(string(l), func(t *testing.T) { ledgerKills(t, l) })
	}
}

func ledgerKills(t *testing.T, l line) {
	g := newLedgerGroup(t, rmq)
	makeTopic(t, g.c, g.nodes[g.leader(t)], "Kills", 4, "KillReaders")
	reader := startReader(t, l, g.ns, "Kills", "KillReaders")
	writer := startWriter(t, l, g.ns, "Kills", "java")
	own := startOwnWriter(t, g.c, "Kills", "own")
	// past waits until all three have gone on for a while since a moment, and returns when that is.
	past := func(since time.Time) time.Time {
		more := func(f *flow, word string) (n int) {
			f.each(word, func(s said) bool {
				if s.at.After(since) {
					n++
				}
				return true
			})
			return n
		}
		eventually(t, "producers and consumer go on", func() bool {
			return more(writer, "ACK") > 100 && more(reader, "GOT") > 200 && own.since(since) > 100
		})
		return time.Now()
	}
	past(time.Now())
	for range leaderKills {
		lead := g.leader(t)
		at := time.Now()
		g.nodes[lead].kill()
		until := past(at)
		t.Logf("n%d killed: the Java producer had no ack for %v, the Java consumer no message for %v, our producer no ack for %v",
			lead, writer.silence("ACK", at, until), reader.silence("GOT", at, until), own.silence(at, until))
		g.start(t, lead)
		eventually(t, "the killed one is in sync again", func() bool {
			info, err := g.c.Admin().HAStatus(t.Context(), g.nodes[g.leader(t)].addr())
			return err == nil && info.InSyncSlaveNums == 2
		})
	}
	acked, failed := writer.end(t)
	keys, refused := own.end()
	t.Logf("acked %d of the Java producer and %d of ours; %d and %d sends failed", len(acked), len(keys), failed, refused)
	for k, status := range acked {
		if status != "SEND_OK" {
			require.Equal(t, "FLUSH_DISK_TIMEOUT", status, "its outcome is unknown: it was in flight when its leader stepped down")
			continue
		}
		keys = append(keys, k)
	}
	var got map[string]int
	missing := func() (n int, one string) {
		got = reader.keys()
		for _, k := range keys {
			if got[k] == 0 {
				n, one = n+1, k
			}
		}
		return n, one
	}
	eventually(t, "the consumer has all that was acked", func() bool { n, _ := missing(); return n == 0 })
	total := 0
	for _, n := range got {
		total += n
	}
	t.Logf("the consumer got %d messages, %d of them again", len(got), total-len(got))
}

// ownWriter is a producer of ours that sends one message after the other.
type ownWriter struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	keys   []string // acked
	at     []time.Time
	failed int
}

func startOwnWriter(t *testing.T, c *client.Client, topic, prefix string) *ownWriter {
	t.Helper()
	p, err := c.NewProducer(client.ProducerOptions{Group: "OwnWriters"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	w := &ownWriter{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			key := fmt.Sprintf("%s-%d", prefix, i)
			res, err := p.Send(ctx, &client.Message{Topic: topic, Body: []byte(prefix), Keys: []string{key}})
			w.mu.Lock()
			if err == nil && res.Status == client.SendOK {
				w.keys, w.at = append(w.keys, key), append(w.at, time.Now())
			} else {
				w.failed++
			}
			w.mu.Unlock()
			<-tick.C
		}
	}()
	t.Cleanup(func() { w.end() })
	return w
}

// since is how many were acked after a moment.
func (w *ownWriter) since(from time.Time) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.at {
		if at.After(from) {
			n++
		}
	}
	return n
}

// silence is the longest time without an ack in a span.
func (w *ownWriter) silence(from, to time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest, last := time.Duration(0), from
	for _, at := range w.at {
		if at.After(from) && at.Before(to) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return max(longest, to.Sub(last))
}

// end lets it end and returns the keys that were acked and how many sends failed.
func (w *ownWriter) end() (acked []string, failed int) {
	w.cancel()
	<-w.done
	return w.keys, w.failed
}
