//go:build drills

package drills

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
)

// oldMaster is a pair whose master comes back with a directory that has less than its slave.
type oldMaster struct {
	c             *cluster
	master, slave *node
	cl            *client.Client
	tr            *traffic
}

// layOldMaster runs a pair, and makes a copy of the master's directory half way. Both are stopped at the end.
func layOldMaster(t *testing.T, conf string, reigns int) (o oldMaster, backup string) {
	t.Helper()
	o.c = newCluster(t, 1, []string{"conf/" + conf + "/broker-a.properties", "conf/" + conf + "/broker-a-s.properties"}, "--mapped-file-size-commit-log=1048576")
	o.c.start(t)
	o.master, o.slave = o.c.brokers[0], o.c.brokers[1]
	o.cl = o.c.connect(t)
	eventually(t, 20*time.Second, "the topic is made", func() bool {
		return o.master.hasReplica(t) && tryCreateTopic(t, o.cl, o.master, "Old", 4) == nil
	})
	awaitRoutes(t, o.c.namesrvs[0], "Old", 1, time.Now())
	o.tr = newTraffic(t, o.cl, "Old")
	round := func() {
		o.tr.cl = o.c.connect(t)
		o.tr.produce(t)
		o.tr.awaitAcked(t, "", 100)
		o.tr.stopProducing(t)
		caughtUp(t, o.master, o.slave)
	}
	round()
	o.master.terminate(t)
	backup = filepath.Join(t.TempDir(), "backup")
	require.NoError(t, os.CopyFS(backup, os.DirFS(o.master.root())))
	for range reigns {
		o.master.start(t)
		eventually(t, 20*time.Second, "the slave follows again", func() bool { return o.master.hasReplica(t) })
		eventually(t, 20*time.Second, "the name server lists the master", func() bool { return subset([]string{o.master.addr()}, listed(t, o.cl)) })
		round()
		o.master.terminate(t)
	}
	o.slave.terminate(t)
	return o, backup
}

// replace puts a copy, or nothing, where the master's directory was.
func (o *oldMaster) replace(t *testing.T, backup string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(o.master.root()))
	if backup != "" {
		require.NoError(t, os.CopyFS(o.master.root(), os.DirFS(backup)))
	}
}

// TestRobustOldMasters proves that a master which comes back with a directory that is empty, or older than that of its
// slave, takes nothing from the slave, however often it is started; that both say which node has what and what to
// do; and that what they say brings every acknowledged message back.
func TestRobustOldMasters(t *testing.T) {
	for name, k := range map[string]struct {
		conf   string
		wiped  bool
		starts int // of the master, before its slave is there
		reigns int // since the copy was made
		line   []string
	}{
		"wiped":                    {"2m-2s-async", true, 1, 1, []string{"broker-a:1 holds the log of group", "which is another one", "promote broker-a:1"}},
		"an old copy":              {"2m-2s-sync", false, 1, 1, []string{"broker-a:1 holds the log up to", "an older copy of its directory was put back, and it takes no messages", "promote broker-a:1"}},
		"an old copy, many starts": {"2m-2s-sync", false, 3, 1, []string{"broker-a:1 holds the log up to", "an older copy of the directory of broker-a:0 was put back", "promote broker-a:1"}},
		"an older copy":            {"2m-2s-async", false, 1, 2, []string{"broker-a:1 holds the log up to", "an older copy of its directory was put back, and it takes no messages", "promote broker-a:1"}},
	} {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
			o, backup := layOldMaster(t, k.conf, k.reigns)
			if k.wiped {
				backup = ""
			}
			o.replace(t, backup)
			for range k.starts - 1 {
				o.master.start(t)
				says(t, o.master, "role=leader") // once it has waited for its slave
				o.master.terminate(t)
			}
			before := fingerprint(t, o.slave.root()+"/commitlog")
			o.master.start(t)
			o.slave.start(t)
			says(t, o.master, append(k.line, "mqadmin promote -b "+o.slave.addr(), "node=broker-a:0")...)
			require.Equal(t, before, fingerprint(t, o.slave.root()+"/commitlog"), "nothing is cut from the slave")

			// As the line says.
			o.master.terminate(t)
			out, err := mqadmin(t, "promote", "-b", o.slave.addr(), "-n", o.c.nameServers(), "--accept-loss")
			require.NoError(t, err, out)
			t.Log(out)
			var more []string
			if k.wiped {
				require.NoError(t, os.RemoveAll(o.master.root()))
				more = asSlave
			}
			o.master.start(t, more...)
			caughtUp(t, o.slave, o.master)
			o.tr.cl = o.c.connect(t)
			eventually(t, 20*time.Second, "the name server knows who leads", func() bool {
				return leads(t, o.tr.cl, o.c.brokers) == o.slave
			})
			o.tr.readBack(t)
		})
	}
}
