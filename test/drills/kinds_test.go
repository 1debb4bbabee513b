//go:build drills

package drills

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fingerprint is what a directory holds: of each file the hash of its bytes, by its name.
func fingerprint(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		sum := sha256.Sum256(b)
		all[strings.TrimPrefix(name, dir)] = hex.EncodeToString(sum[:])
		return err
	}))
	return all
}

// TestRobustForeignStores proves that a broker which is pointed at a store that is not of its kind, group, number or
// layout refuses to start with one line that names the node, the difference and what to do, and that not a byte
// in it is changed; and that the store opens as before when it is opened as what it is.
func TestRobustForeignStores(t *testing.T) {
	c := newCluster(t, 1, nil)
	for _, n := range c.namesrvs {
		n.start(t)
	}
	small := []string{"--mapped-file-size-commit-log=1048576", "--mapped-file-size-consume-queue=60000", "--max-hash-slot-num=1000", "--max-index-num=4000"}
	plain := c.add(t, hostA, 0, "conf/2m-noslave/broker-a.properties", small...)
	apartLog := filepath.Join(t.TempDir(), "elsewhere")
	apart := c.add(t, hostB, 0, "conf/2m-noslave/broker-b.properties", append(small, "--store-path-commit-log="+apartLog)...)
	member := c.add(t, hostC, 0, "conf/dledger/broker-n0.conf", small...)
	member.self = "n0"
	member.args = append(member.args, "--dLegerPeers=n0-"+at(hostC, c.ports.raft))
	cl := c.connect(t)
	for _, n := range []*node{plain, apart, member} {
		n.start(t)
		eventually(t, 20*time.Second, "a topic is made", func() bool { return tryCreateTopic(t, cl, n, "Kinds", 2) == nil })
	}
	for _, ns := range c.namesrvs {
		awaitRoutes(t, ns, "Kinds", 3, time.Now())
	}
	tr := newTraffic(t, cl, "Kinds")
	tr.produce(t)
	for _, name := range []string{brokerA, brokerB, "RaftNode00"} {
		tr.awaitAcked(t, name, 50)
	}
	tr.stopProducing(t)
	for _, n := range []*node{plain, apart, member} {
		n.terminate(t)
	}
	asGroup := func(root string, more ...string) []string {
		return append([]string{"-c", top(t, "conf/dledger/broker-n0.conf"), "--bind-address=" + hostC, "--brokerIP1=" + hostC, "--store-path-root-dir=" + root,
			"--dLegerPeers=n0-" + at(hostC, c.ports.raft)}, append(small, more...)...)
	}
	asPlain := func(root string, more ...string) []string {
		return append([]string{"-c", top(t, "conf/2m-noslave/broker-a.properties"), "--bind-address=" + hostA, "--brokerIP1=" + hostA, "--store-path-root-dir=" + root}, append(small, more...)...)
	}
	apache := apacheLedger(t)
	for name, k := range map[string]struct {
		dir  string
		args []string
		want []string
	}{
		"a plain store as a group's":                        {plain.root(), asGroup(plain.root()), []string{"RaftNode00 n0", "commitlog", "belongs to no group", "enableDLegerCommitLog=false", "storePathRootDir"}},
		"a plain store with its log elsewhere as a group's": {apart.root(), asGroup(apart.root()), []string{"RaftNode00 n0", "belongs to no group", "enableDLegerCommitLog=false", "storePathRootDir"}},
		"a group's as a plain store":                        {member.root(), asPlain(member.root()), []string{"broker-a 0", "raft-n0", "enableDLegerCommitLog=true", "dLegerSelfId=n0"}},
		"the inside of a group's as a plain store":          {member.root(), asPlain(member.root() + "/raft-n0"), []string{"broker-a 0", "raft-n0", "enableDLegerCommitLog=true"}},
		"the log of a group's as that of a plain store":     {member.root(), asPlain(t.TempDir()+"/new", "--store-path-commit-log="+member.root()+"/raft-n0/commitlog"), []string{"broker-a 0", "raft-n0"}},
		"Apache's DLedger as a group's":                     {apache, asGroup(apache), []string{"RaftNode00 n0", "dledger-n0", "Apache's DLedger", "storePathRootDir"}},
		"Apache's DLedger as a plain store":                 {apache, asPlain(apache), []string{"broker-a 0", "dledger-n0", "Apache's DLedger", "storePathRootDir"}},
		"a member's under another group":                    {member.root(), asGroup(member.root(), "--dLegerGroup=other"), []string{"RaftNode00", "other", "dLegerGroup"}},
		"a member's with another segment size":              {member.root(), asGroup(member.root(), "--mapped-file-size-commit-log=2097152"), []string{"mappedFileSizeCommitLog", "1048576", "2097152"}},
		"a plain store with another segment size":           {plain.root(), asPlain(plain.root(), "--mapped-file-size-commit-log=2097152"), []string{"mappedFileSizeCommitLog", "1048576", "2097152"}},
		"a member that is not in dLegerPeers":               {member.root(), asGroup(member.root(), "--dLegerSelfId=n4"), []string{"dLegerSelfId", "n4", "use one of dLegerPeers: n0"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := fingerprint(t, k.dir)
			line := refusal(t, "mqbroker", t.TempDir(), k.args...)
			t.Log(line)
			require.Equal(t, before, fingerprint(t, k.dir), "nothing is changed")
			for _, want := range k.want {
				require.Contains(t, line, want)
			}
		})
	}
	for _, n := range []*node{plain, apart, member} {
		n.start(t)
	}
	for _, ns := range c.namesrvs {
		awaitRoutes(t, ns, "Kinds", 3, time.Now())
	}
	tr.readBack(t)
}

// apacheLedger is the directory of a member of a DLedger group of Apache's, with the names that it gives.
func apacheLedger(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"dledger-n0/data/00000000000000000000", "dledger-n0/index/00000000000000000000", "dledger-n0/checkpoint", "consumequeue/Kinds/0/00000000000000000000", "index/20240101000000000", "config/topics.json"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat(name, 100)), 0o644))
	}
	return dir
}
