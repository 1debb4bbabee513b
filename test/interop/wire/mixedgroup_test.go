//go:build interop

package wire

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/client"
)

// Proves that a Java consumer and one of ours in one group agree on who has which queue: each has its own, nothing is
// consumed twice, and the one that stays takes over when the other leaves.
func TestMixedGroup(t *testing.T) {
	for _, l := range []line{client49, client54} {
		t.Run(string(l), func(t *testing.T) { mixedGroup(t, l) })
	}
}

func mixedGroup(t *testing.T, l line) {
	ns := ourNamesrv(t)
	g := &goClient{t: t, ns: ns.addr, broker: ourBroker(t, ns.addr, t.TempDir()).addr}
	g.awaitRoute("TBW102")
	g.topic(t, "Mixed", 5)
	cmd := l.java(t, "192m", []string{"-Drocketmq.client.logUseSlf4j=true"}, "mixed.Main", ns.addr, "mixed", "Mixed")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	java := &collector{}
	queues := map[string]bool{} // that Java got messages of
	ended := make(chan struct{})
	var mu sync.Mutex
	go func() {
		defer close(ended)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if f := strings.Fields(sc.Text()); len(f) == 3 && f[0] == "GOT" {
				java.mu.Lock()
				java.got = append(java.got, f[2])
				java.mu.Unlock()
				mu.Lock()
				queues[f[1]] = true
				mu.Unlock()
			}
		}
	}()
	var stop sync.Once
	stopJava := func() {
		stop.Do(func() {
			_ = in.Close() // it ends with its input
			<-ended
			require.NoError(t, cmd.Wait())
		})
	}
	t.Cleanup(stopJava)

	ours := &collector{}
	p, _ := g.consumer(t, "mixed", "Mixed", ours.handle)
	mine := func() (out []client.MessageQueue) {
		return slices.DeleteFunc(p.Assigned(), func(q client.MessageQueue) bool { return q.Topic != "Mixed" })
	}
	producer := g.producer(t)
	sent := 0
	send := func(n int) (bodies []string) {
		for range n {
			body := fmt.Sprintf("m%04d", sent)
			sent++
			_, err := producer.Send(t.Context(), &client.Message{Topic: "Mixed", Body: []byte(body)})
			require.NoError(t, err)
			bodies = append(bodies, body)
		}
		return bodies
	}
	all := func() []string { return slices.Sorted(slices.Values(append(ours.bodies(), java.bodies()...))) }
	eventually(t, "a share of two or three queues", func() bool { n := len(mine()); return n == 2 || n == 3 })
	// Java takes its share at its own pace: from a first round on that ended in both hands, nothing is consumed twice.
	want := send(20)
	eventually(t, "both have had messages", func() bool {
		return len(java.bodies()) > 0 && slices.Equal(want, slices.Compact(all()))
	})
	before := len(all())
	mu.Lock()
	clear(queues)
	mu.Unlock()
	want = append(want, send(100)...)
	eventually(t, "messages", func() bool { return slices.Equal(want, slices.Compact(all())) })
	require.Len(t, all(), before+100, "nothing twice")
	mu.Lock()
	for _, q := range mine() {
		require.False(t, queues[fmt.Sprint(q.QueueID)], "%v is consumed by both", q)
	}
	require.Len(t, queues, 5-len(mine()))
	mu.Unlock()
	stopJava()
	eventually(t, "all queues", func() bool { return len(mine()) == 5 })
	want = append(want, send(20)...)
	eventually(t, "messages", func() bool { return slices.Equal(want, slices.Compact(all())) })
}
