//go:build drills

package drills

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs/powercut"
	"rmq/test/robust"
)

func init() {
	plays["F13"] = play{do: cutFollowerKillLeader, faulty: true}
	plays["F29"] = play{do: wipeDisk}
	plays["F30"] = play{do: oldDirectory}
	plays["F60"] = play{do: rollingRestart}
}

// mqadmin runs a command as an operator does, and gives what it printed.
func mqadmin(t interface{ Helper() }, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("../../bin/mqadmin", args...).CombinedOutput()
	return string(out), err
}

// hasCommand says whether mqadmin knows a command.
func hasCommand(t interface{ Helper() }, name string) bool {
	out, _ := mqadmin(t, "--help") // what it prints tells
	return strings.Contains(out, "\n  "+name+" ")
}

var mayLose = regexp.MustCompile(`(?i)may lose:?\s+([\d,]+)`)

// promoteSlave makes the slave the master, as an operator does when the master is gone for good. written
// is what the dead master held; what is lost of it is judged.
func (x *trial) promoteSlave(dead *node, written int64) {
	x.Helper()
	x.down[dead] = true
	slave := x.others(dead)[0]
	lag := max(0, written-slave.positions(x)["written"])
	x.l.end(x)
	if !hasCommand(x, "promote") {
		x.skip("mqadmin has no command yet that promotes a slave")
	}
	out, err := mqadmin(x, "promote", "-b", slave.addr(), "-n", x.c.nameServers())
	if err != nil {
		x.Logf("promote: %s", out)
		out, err = mqadmin(x, "promote", "-b", slave.addr(), "--accept-loss", "-n", x.c.nameServers())
	}
	require.NoError(x, err, out)
	x.Logf("promote --accept-loss: %s", out)
	eventually(x, 15*time.Second, "the promoted slave takes messages", func() bool { return x.leader() == slave })
	most := int64(0)
	if p := x.spec.Promise(x.col.name); p == robust.LossL {
		most = max(lag, 64<<20) // what is on its way when a process dies cannot be read off it
	}
	lost := x.loss(slave, most)
	x.run.L.Measured = max(x.run.L.Measured, lost)
	if m := mayLose.FindStringSubmatch(out); m != nil {
		n, err := strconv.ParseInt(regexp.MustCompile(`,`).ReplaceAllString(m[1], ""), 10, 64)
		require.NoError(x, err)
		x.run.L.Reported = max(x.run.L.Reported, n)
	}
	x.l.fault()
	x.l.start(x)
	if x.col.sync {
		return // without a second copy nothing is acknowledged
	}
	x.resumes(15 * time.Second)
}

// rejoin starts a node that has led before; it follows whoever leads now.
func (x *trial) rejoin(n *node) {
	x.Helper()
	x.restart(n)
	delete(x.down, n)
	if x.col.sync {
		x.l.fault()
		x.resumes(20 * time.Second)
	}
	x.caughtUpUnderLoad(n)
}

// F13
func cutFollowerKillLeader(x *trial) {
	x.up()
	leader := x.awaitLeader()
	n := x.anyOf(x.others(leader))
	x.moment(300 * time.Millisecond)
	x.strike()
	x.powerCut(powercut.Any, n)
	written := leader.positions(x)["written"]
	x.run.Strikes++
	leader.kill()
	x.restart(n)
	if x.col.raft {
		if x.spec.Promise(x.col.name) == robust.Unavailable {
			time.Sleep(2 * time.Second) // how long the leader stays away: nobody who may have lost something leads
			x.restart(leader)
			x.resumes(30 * time.Second)
		} else {
			x.resumes(20 * time.Second)
			x.restart(leader)
		}
		x.l.awaitAcks(x, 50)
		x.settle()
		return
	}
	x.promoteSlave(leader, written)
	x.rejoin(leader)
	x.settle()
}

// root is the directory of a node.
func (n *node) root() string { return filepath.Join(n.dir, "store") }

// F29
func wipeDisk(x *trial) {
	x.up()
	leader := x.awaitLeader()
	written := leader.positions(x)["written"]
	x.moment(300 * time.Millisecond)
	x.strike()
	leader.kill()
	if x.col.raft {
		x.resumes(15 * time.Second)
	} else {
		x.promoteSlave(leader, written)
	}
	require.NoError(x, os.RemoveAll(leader.root()))
	x.rejoinEmpty(leader)
	x.l.awaitAcks(x, 50)
	x.settle()
}

// rejoinEmpty starts a node without a directory beside one that leads.
func (x *trial) rejoinEmpty(n *node) {
	x.Helper()
	var more []string
	if !x.col.raft {
		// Who lost its disk has forgotten that it was replaced: the operator starts it as what it is to be.
		more = []string{"--broker-role=SLAVE", "--broker-id=1"}
	}
	n.process = n.launch(x, more...)
	n.awaitBoot(x)
	delete(x.down, n)
	x.l.fault()
	x.resumes(20 * time.Second)
	x.caughtUpUnderLoad(n)
}

// F30
func oldDirectory(x *trial) {
	x.up()
	n := x.anyOf(x.others(x.awaitLeader()))
	n.terminate(x)
	backup := filepath.Join(x.TempDir(), "backup")
	require.NoError(x, os.CopyFS(backup, os.DirFS(n.root())))
	x.restart(n)
	x.l.fault()
	x.resumes(20 * time.Second)
	x.l.awaitAcks(x, 100)
	x.caughtUpUnderLoad(n)
	n.terminate(x)
	require.NoError(x, os.RemoveAll(n.root()))
	require.NoError(x, os.CopyFS(n.root(), os.DirFS(backup)))
	x.strike()
	n.process = n.launch(x)
	if !n.boots(x) {
		x.Logf("refused: %s", n.output(x))
		require.Equal(x, 2, n.cmd.ProcessState.ExitCode())
		x.note("the old directory is refused")
		x.down[n] = true
		if x.col.sync && !x.col.raft {
			x.finish()
			return
		}
	} else {
		x.note("the old directory is of the same epoch and history: it catches up")
	}
	x.l.fault()
	x.resumes(20 * time.Second)
	x.settle()
}

// F60
func rollingRestart(x *trial) {
	x.up()
	leader := x.awaitLeader()
	for _, n := range append(x.others(leader), leader) {
		x.strike()
		n.terminate(x)
		require.Equal(x, 0, n.cmd.ProcessState.ExitCode(), n.output(x))
		if x.col.raft {
			x.resumes(15 * time.Second)
		}
		x.restart(n)
		x.l.fault()
		x.resumes(20 * time.Second)
		x.l.awaitAcks(x, 30)
		x.caughtUpUnderLoad(n)
	}
	if x.col.raft {
		if !hasCommand(x, "transferLeader") {
			x.note("not played: mqadmin has no command yet that hands leadership over; stopping the leader does")
			x.settle()
			return
		}
		to := x.anyOf(x.others(x.awaitLeader()))
		x.strike()
		out, err := mqadmin(x, "transferLeader", "-b", x.awaitLeader().addr(), "--to", to.self, "-n", x.c.nameServers())
		require.NoError(x, err, out)
		x.resumes(10 * time.Second)
		eventually(x, 10*time.Second, "the node that was named leads", func() bool { return x.leader() == to })
	}
	x.settle()
}
