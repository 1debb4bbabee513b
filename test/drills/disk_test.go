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
	"golang.org/x/sys/unix"

	"rmq/client"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// smallDisk mounts a file system of so many bytes for a test.
func smallDisk(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("none", dir, "tmpfs", 0, "size="+size)
	if errors.Is(err, unix.EPERM) {
		t.Skip("*** NOT TESTED: a full disk. Mounting a small file system takes root, or CAP_SYS_ADMIN. ***")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

// fill takes what is free of a file system, but for about leave bytes.
func fill(t testing.TB, dir string, leave int64) string {
	t.Helper()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	require.NoError(t, err)
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-leave))
	require.NoError(t, f.Close())
	return name
}

func dial(t testing.TB, l *load, n *node) *remoting.Conn {
	t.Helper()
	conn, err := l.client.Dial(t.Context(), n.addr())
	require.NoError(t, err)
	return conn
}

// reads proves that what was stored before the disk was full can be read.
func reads(t testing.TB, cl *client.Client) {
	t.Helper()
	for queue := range int32(2) {
		n := readQueue(t, cl, client.MessageQueue{Topic: "Full", BrokerName: brokerA, QueueID: queue}, 0, 1, func(*client.MessageExt) {})
		require.Greater(t, n, int64(400))
	}
}

// Proves that a broker on a full disk refuses sends with 14, the path, what it needs and what there is,
// serves what it has, is not ready and says why, and takes messages again by itself when there is room;
// that kill -9 on the full disk costs nothing; and that nothing acknowledged is lost. Once by the ratio of
// the configuration, once without a free byte: then a killed broker starts only when there is room, and
// says so.
func TestRobustDiskFull(t *testing.T) {
	for name, leave := range map[string]int64{"above the warning level": 8 << 20, "no byte left": 0} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t, "192m")
			c := newCluster(t, 1, []string{"conf/single/broker.conf"},
				"--mapped-file-size-commit-log=4194304", "--mapped-file-size-consume-queue=60000", "--max-hash-slot-num=1000", "--max-index-num=4000",
				"--store-path-root-dir="+disk+"/store", "--clean-resource-interval=200", "--clean-file-forcibly-enable=false", "--flush-consumer-offset-interval=200")
			c.start(t)
			b := c.brokers[0]
			cl := c.connect(t)
			createTopic(t, cl, b, "Full", 2)
			createTopic(t, cl, b, "Probe", 1)
			l := newLoad(t, loadOptions{topic: "Full", addr: b.addr(), queues: 2, workers: 2, window: 8, bodyBytes: 1000})
			a := newAudit(l, brokerA)
			l.start(t)
			l.awaitAcks(t, 500)
			l.end(t)
			a.round(t, cl)

			conn := dial(t, l, b)
			body := make([]byte, 1000)
			filler := fill(t, disk, leave)
			l.start(t)
			eventually(t, 20*time.Second, "sends are refused", func() bool { return len(l.trouble()) > 0 })
			from := l.total()
			eventually(t, 20*time.Second, "nothing more is taken", func() bool {
				was := from
				from = l.total()
				return from == was && send(t, conn, "Probe", 0, "", body).code == protocol.ResponseServiceNotAvailable
			})
			l.end(t)
			for what, n := range l.trouble() {
				t.Logf("%d times %s", n, what)
				require.True(t, strings.HasPrefix(what, "14 "), what)
				for _, want := range []string{disk + "/store", "need", "have"} {
					require.Contains(t, what, want)
				}
			}
			reads(t, cl) // what was acked last may wait for room in the queues
			code, why := b.page(t, "/readyz")
			require.Equal(t, 503, code)
			t.Log(strings.TrimSpace(why))
			require.Contains(t, why, disk)
			code, _ = b.page(t, "/healthz")
			require.Equal(t, 200, code, "nobody should replace a broker because its disk is full")

			if leave == 0 {
				require.NoError(t, os.Remove(filler))
				l.start(t)
				l.awaitAcks(t, 100)
				l.end(t)
				a.round(t, cl)
				filler = fill(t, disk, 0)
			}
			b.kill()
			if leave == 0 {
				line := refusal(t, "mqbroker", b.dir, b.args...)
				t.Log(line)
				for _, want := range []string{disk + "/store", "no space left", "free space"} {
					require.Contains(t, line, want)
				}
				require.NoError(t, os.Remove(filler))
				b.start(t)
			} else {
				b.start(t)
				reads(t, cl)
				conn := dial(t, l, b)
				eventually(t, 10*time.Second, "sends are refused again", func() bool { return send(t, conn, "Probe", 0, "", body).code == protocol.ResponseServiceNotAvailable })
				require.NoError(t, os.Remove(filler))
			}
			l.start(t)
			l.awaitAcks(t, 500)
			l.end(t)
			a.round(t, cl)
			a.again(t, cl)
			eventually(t, 10*time.Second, "it is ready", func() bool { code, _ := b.page(t, "/readyz"); return code == 200 })
			t.Logf("%+v", a.found)
			require.Zero(t, a.found.UnknownStored)
		})
	}
}
