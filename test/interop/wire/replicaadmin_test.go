//go:build interop

package wire

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReplicaAdmin proves that operators see a master and its slave with the stock tools and with ours, on our brokers
// as on Apache's: the same columns, and who is who.
func TestReplicaAdmin(t *testing.T) {
	for _, kind := range []line{rmq, server54} {
		if short() && kind != rmq {
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			p := newPair(t, kind, kind, client54)
			p.begin(t)
			p.write(t, "one", 5)
			sameLog(t, p.c, p.a, p.b)
			_, end := p.a.span(t, p.c)
			rows := []struct {
				args string
				rows []string // patterns of rows, one blank for many
			}{
				{"clusterList", []string{`^DefaultCluster broker-a 0 ` + p.a.addr() + ` V\S+ .* true$`, `^DefaultCluster broker-a 1 ` + p.b.addr() + ` V\S+ .* false$`}},
				{"haStatus -b " + p.a.addr(), []string{`^#MasterAddr ` + p.a.addr() + `$`, `^#MasterCommitLogMaxOffset ` + strconv.FormatInt(end, 10) + `$`,
					`^#SlaveNum 1$`, `^#InSyncSlaveNum 1$`, fmt.Sprintf(`^127\.0\.0\.1:\d+ %d 0 [\d.]+ OK %d$`, end, end)}},
				{"haStatus -b " + p.b.addr(), []string{`^#MasterAddr ` + p.a.haAddr() + `$`, `^#CommitLogMaxOffset ` + strconv.FormatInt(end, 10) + `$`}},
				{"getBrokerConfig -c DefaultCluster", []string{`^=+Master: ` + p.a.addr() + `=+$`, `^=+My Master: ` + p.a.addr() + `=+Slave: ` + p.b.addr() + `=+$`,
					`^brokerRole = ASYNC_MASTER$`, `^brokerRole = SLAVE$`, `^brokerId = 1$`}},
			}
			var commands [][]string
			for _, r := range rows {
				commands = append(commands, strings.Fields(r.args))
			}
			stock := client54.stockAdmin(t, p.ns, commands)
			for i, r := range rows {
				own, err := ourAdmin(t, p.ns, commands[i]...)
				require.NoError(t, err)
				if r.args != "haStatus -b "+p.b.addr() { // a slave of ours does not count when it has read and written last
					require.Equal(t, titles(stock[i]), titles(own), "%s\n%s", stock[i], own)
				}
				for _, out := range []string{stock[i], own} {
					for _, row := range r.rows {
						require.Regexp(t, `(?m)`+row, flat(out), "%s\n%s", r.args, out)
					}
				}
			}
			if kind == rmq { // Apache has epochs under a controller alone
				args := []string{"getBrokerEpoch", "-b", "broker-a"}
				own, err := ourAdmin(t, p.ns, args...)
				require.NoError(t, err)
				for _, out := range append(client54.stockAdmin(t, p.ns, [][]string{args}), own) {
					for id, n := range []*replica{p.a, p.b} {
						require.Contains(t, flat(out), fmt.Sprintf("\n#clusterName DefaultCluster\n#brokerName broker-a\n#brokerAddr %s\n#brokerId %d\n#Epoch: EpochEntry{epoch=1, startOffset=0, endOffset=%d}\n", n.addr(), id, end))
					}
				}
			}
			old := client49.stockAdmin(t, p.ns, [][]string{{"clusterList"}, {"getBrokerConfig", "-c", "DefaultCluster"}})
			require.Regexp(t, `broker-a +1 +`+p.b.addr(), old[0])
			require.Contains(t, old[1], "Slave: "+p.b.addr())
		})
	}
}

// flat makes each run of blanks one, and takes those at the ends of lines away.
func flat(out string) string {
	out = regexp.MustCompile(`[ \t]+`).ReplaceAllString(out, " ")
	return regexp.MustCompile(`(?m)^ | $`).ReplaceAllString(out, "")
}

// TestGroupAdmin proves that operators see a group of ours with the stock tools as they see a master and its slaves, that
// what needs a controller is refused by name, and that ours tells who leads.
func TestGroupAdmin(t *testing.T) {
	g := newLedgerGroup(t, rmq, "raftHeartbeatTimeout=10000") // who leads stays, on a machine that stops for seconds too
	leader := g.leader(t)
	lead, follows := g.nodes[leader], g.nodes[(leader+1)%3]
	makeTopic(t, g.c, lead, "Ledger", 4, "LedgerReaders")
	javaWrite(t, client54, g.ns, "Ledger", "m", 20, 100)
	for i, n := range g.nodes {
		if i != leader {
			sameLog(t, g.c, lead, n)
		}
	}
	const at = `[1-9]\d+` // a group saves documents in its log at any time
	rows := []struct {
		args  string
		since line
		rows  []string
	}{
		{"clusterList", client49, []string{`^DefaultCluster broker-a 0 ` + lead.addr() + ` V\S+ .* 0 0\.0\d \d\.\d+`, `^DefaultCluster broker-a [1-3] ` + follows.addr() + ` V\S+ .* 0 0\.0\d \d\.\d+`}},
		{"brokerStatus -b " + lead.addr(), client49, []string{`^brokerActive : true$`, `^commitLogMaxOffset : ` + at + `$`, `^replicationRole : leader$`}},
		{"brokerStatus -b " + follows.addr(), client49, []string{`^brokerActive : false$`, `^commitLogMaxOffset : ` + at + `$`, `^replicationLeaderAddr : ` + lead.addr() + `$`}},
		{"brokerStatus -c DefaultCluster", client49, []string{`^` + lead.addr() + ` replicationRole : leader$`}},
		{"getBrokerConfig -b " + follows.addr(), client49, []string{`^enableDLegerCommitLog = true$`, `^dLegerGroup = broker-a$`}},
		{"topicRoute -t Ledger -l", client49, []string{`^DefaultCluster broker-a \{0=` + lead.addr() + `, [1-3]=\S+, [1-3]=\S+\} 4 4 6$`}},
		{"haStatus -b " + lead.addr(), client54, []string{`^#MasterAddr ` + lead.addr() + `$`, `^#SlaveNum 2$`, `^#InSyncSlaveNum 2$`, `^\S+ ` + at + ` 0 [\d.]+ OK ` + at + `$`}},
		{"haStatus -b " + follows.addr(), client54, []string{`^#MasterAddr ` + lead.addr() + `$`, `^#CommitLogMaxOffset ` + at + `$`}},
		{"getBrokerEpoch -b broker-a", client54, []string{
			`^#brokerAddr ` + lead.addr() + `\n#brokerId 0\n#Epoch: EpochEntry\{epoch=\d+, startOffset=0, endOffset=` + at + `\}$`,
			`^#brokerAddr ` + follows.addr() + `\n#brokerId [1-3]\n#Epoch: EpochEntry\{epoch=\d+, startOffset=0, endOffset=` + at + `\}$`,
		}},
		{"haStatus -c DefaultCluster", client54, []string{`^#MasterAddr ` + lead.addr() + `$`, `^#SlaveNum 2$`}},
	}
	for _, l := range []line{client54, client49} {
		var commands [][]string
		for _, r := range rows {
			commands = append(commands, strings.Fields(r.args))
		}
		for i, out := range l.stockAdmin(t, g.ns, commands) {
			if l == client49 && rows[i].since == client54 {
				require.Contains(t, out, "not exist", "%s", rows[i].args)
				continue
			}
			for _, row := range rows[i].rows {
				require.Regexp(t, `(?m)`+row, flat(out), "%s %s\n%s", l, rows[i].args, out)
			}
		}
	}
	for _, r := range rows {
		if r.args == "haStatus -c DefaultCluster" {
			continue // ours tells of the slaves too
		}
		out, err := ourAdmin(t, g.ns, strings.Fields(r.args)...)
		require.NoError(t, err)
		for _, row := range r.rows {
			require.Regexp(t, `(?m)`+row, flat(out), "%s\n%s", r.args, out)
		}
	}
	controller := [][]string{{"getSyncStateSet", "-a", g.ns, "-b", "broker-a"}, {"getControllerMetaData", "-a", g.ns}}
	for i, out := range client54.stockAdmin(t, g.ns, controller) {
		require.Regexp(t, `CODE: 3 +DESC: +request type \d+ not supported`, out)
		_, err := ourAdmin(t, g.ns, controller[i]...)
		require.ErrorContains(t, err, "is for a controller, which this version does not have")
	}
	out, err := ourAdmin(t, g.ns, "clusterList", "-r")
	require.NoError(t, err)
	require.Regexp(t, `(?m)^DefaultCluster broker-a 0 `+lead.addr()+` leader \d+ raft$`, flat(out))
	require.Regexp(t, `(?m)^DefaultCluster broker-a [1-3] `+follows.addr()+` follower \d+ raft `+lead.addr()+`$`, flat(out))
}

// TestOldPairAdmin proves what our tool tells of a master of 4.9 and its slave, which do not tell how their replication
// goes.
func TestOldPairAdmin(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: a pair of Apache alone")
	}
	p := newPair(t, server49, server49, client54)
	p.begin(t)
	eventually(t, "4.9 answers once it has taken its first sample", func() bool {
		_, err := ourAdmin(t, p.ns, "clusterList")
		return err == nil
	})
	out, err := ourAdmin(t, p.ns, "clusterList", "-r")
	require.NoError(t, err)
	require.Regexp(t, `(?m)^DefaultCluster broker-a 0 `+p.a.addr()+` master 0$`, flat(out))
	require.Regexp(t, `(?m)^DefaultCluster broker-a 1 `+p.b.addr()+` slave 0$`, flat(out))
	for _, n := range []*replica{p.a, p.b} {
		_, err = ourAdmin(t, p.ns, "haStatus", "-b", n.addr())
		require.ErrorContains(t, err, "broker "+n.addr()+": it is older than RocketMQ 5 and does not tell how its replication goes: compare commitLogMaxOffset in mqadmin brokerStatus")
	}
	for _, out := range client54.stockAdmin(t, p.ns, [][]string{{"haStatus", "-b", p.a.addr()}}) {
		require.Contains(t, out, "request type 907 not supported")
	}
}
