//go:build drills

package drills

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting/protocol"
)

// Proves that a broker whose tables are torn, empty, garbage or missing starts from their backup, says so
// and names the file; that what was committed is not lost by more than the save before; and that it does
// not start, with one line that names both files, when the backup is no better.
func TestRobustTornTables(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/single/broker.conf"}, "--flush-consumer-offset-interval=200")
	c.start(t)
	b := c.brokers[0]
	cl := c.connect(t)
	createTopic(t, cl, b, "Torn", 1)
	require.NoError(t, cl.Admin().CreateGroup(t.Context(), b.addr(), &protocol.SubscriptionGroupConfig{GroupName: "torn-group", ConsumeEnable: true, RetryQueueNums: 1, RetryMaxTimes: 16}))
	q := client.MessageQueue{Topic: "Torn", BrokerName: brokerA}
	tr := newTraffic(t, cl, "Torn")
	tr.produce(t)
	tr.awaitAcked(t, "", 100)
	tr.stopProducing(t)
	dir := filepath.Join(b.dir, "store", "config")
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(text)
	}
	// Two saves: the file has the second, its backup the first.
	for _, offset := range []int64{10, 20} {
		require.NoError(t, cl.CommitOffset(t.Context(), "torn-group", q, offset))
		want := `0:` + map[int64]string{10: "10", 20: "20"}[offset]
		eventually(t, 10*time.Second, "the offsets are saved", func() bool {
			text, err := os.ReadFile(filepath.Join(dir, "consumerOffset.json"))
			if errors.Is(err, os.ErrNotExist) {
				return false
			}
			require.NoError(t, err)
			return strings.Contains(strings.Join(strings.Fields(string(text)), ""), `"Torn@torn-group":{`+want) ||
				strings.Contains(strings.Join(strings.Fields(string(text)), ""), `"Torn@torn-group":{"0":`+want[2:])
		})
	}
	createTopic(t, cl, b, "Torn2", 1) // so that the topics have a backup too
	b.kill()
	require.FileExists(t, filepath.Join(dir, "consumerOffset.json.bak"))

	damage := map[string]func(whole string) string{
		"torn":    func(whole string) string { return whole[:len(whole)/2] },
		"empty":   func(string) string { return "" },
		"zeros":   func(whole string) string { return strings.Repeat("\x00", len(whole)) },
		"garbage": func(string) string { return "}{ not a table" },
	}
	files := []string{"consumerOffset.json", "topics.json", "subscriptionGroup.json"}
	whole := map[string]string{}
	for _, f := range files {
		whole[f] = read(f)
		if _, err := os.Stat(filepath.Join(dir, f+".bak")); errors.Is(err, os.ErrNotExist) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, f+".bak"), []byte(whole[f]), 0o644))
		}
		whole[f+".bak"] = read(f + ".bak")
	}
	restore := func() {
		for f, text := range whole {
			require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644))
		}
	}
	for what, spoil := range damage {
		t.Run(what, func(t *testing.T) {
			restore()
			for _, f := range files {
				require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte(spoil(whole[f])), 0o644))
			}
			b.start(t)
			defer b.kill()
			for _, f := range files {
				require.Contains(t, b.output(t), f+".bak", "the log does not say that the backup was read")
			}
			offset, err := cl.CommittedOffset(t.Context(), "torn-group", q)
			require.NoError(t, err)
			require.EqualValues(t, 10, offset, "the offset of the save before")
			end, err := cl.MaxOffset(t.Context(), q)
			require.NoError(t, err)
			require.EqualValues(t, len(tr.acked), end)
		})
	}
	for _, f := range files {
		t.Run("both files of "+f, func(t *testing.T) {
			restore()
			for _, name := range []string{f, f + ".bak"} {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("{torn"), 0o644))
			}
			line := refusal(t, "mqbroker", b.dir, b.args...)
			t.Log(line)
			require.Contains(t, line, filepath.Join(dir, f)+" ")
			require.Contains(t, line, filepath.Join(dir, f+".bak"))
			require.Equal(t, "{torn", read(f), "what cannot be read is left as it is")
		})
	}
	restore()
	b.start(t)
	offset, err := cl.CommittedOffset(t.Context(), "torn-group", q)
	require.NoError(t, err)
	require.EqualValues(t, 20, offset)
	tr.readBack(t)
}
