//go:build drills

package drills

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// promotion is what mqadmin promote prints.
type promotion struct {
	End     int64 `json:"end"`
	MayLose int64 `json:"mayLose"` // bytes; -1: it cannot be told
}

// promote makes a slave the master, if it takes that; what it says otherwise is the error.
func (x *trial) promote(slave *node, more ...string) (p promotion, err error) {
	x.Helper()
	out, err := mqadmin(x, append([]string{"promote", "--json", "-b", slave.addr(), "-n", x.c.nameServers()}, more...)...)
	x.Logf("promote %v: %s", more, out)
	if err != nil {
		return p, fmt.Errorf("%w: %s", err, out)
	}
	require.NoError(x, json.Unmarshal([]byte(out), &p), out)
	return p, nil
}

// logEnd is where the log in a directory ends, as mqadmin tells of one that no broker has open.
func logEnd(x *trial, n *node) int64 {
	x.Helper()
	out, err := exec.Command(top(x, "bin/mqadmin"), "store", "verify", "--json", n.root()).Output() // findings are not asked for
	var r struct{ End int64 }
	require.NoError(x, json.Unmarshal(out, &r), "%v: %s", err, out)
	return r.End
}

// promoteSlave makes the slave the master, as an operator does when the master is gone for good. What is
// lost by it is judged: a tail, and at most what the log of the dead master holds beyond that of the slave.
func (x *trial) promoteSlave(dead *node) {
	x.Helper()
	x.down[dead] = true
	slave := x.others(dead)[0]
	x.l.end(x)
	p, err := x.promote(slave)
	accepted := err != nil
	if accepted {
		p, err = x.promote(slave, "--accept-loss")
	}
	require.NoError(x, err)
	eventually(x, 15*time.Second, "the promoted slave takes messages", func() bool { return x.leader() == slave })
	most := int64(0)
	if x.spec.Promise(x.col.name) == robust.LossL {
		most = max(0, logEnd(x, dead)-p.End)
		x.run.L.Reported = max(x.run.L.Reported, most)
	}
	if p.MayLose == 0 {
		most = 0
	}
	x.run.L.Measured = max(x.run.L.Measured, x.loss(slave, most, accepted))
	x.l.fault()
	x.l.start(x)
	if x.col.sync {
		return // without a second copy nothing is acknowledged
	}
	x.resumes(15 * time.Second)
}

// asSlave is how a former master is started beside the slave that was promoted, by mqadmin promote. The
// number of the slave is taken.
var asSlave = []string{"--broker-role=SLAVE", "--broker-id=2"}

// rejoin starts a node that has led before. Where acks wait for both it is started as it was, and hears by
// itself that another leads; without that it would take messages meanwhile.
func (x *trial) rejoin(n *node) {
	x.Helper()
	var more []string
	if !x.col.sync {
		more = asSlave
	}
	n.start(x, more...)
	delete(x.down, n)
	if x.col.sync {
		x.l.fault()
		x.resumes(20 * time.Second)
	}
	x.caughtUpUnderLoad(n)
}

// F13: a slave that has lost power may have lost what was acknowledged as on both. Under asynchronous
// flush it refuses to be promoted unless the loss is accepted, and the master is started again instead.
func cutFollowerKillLeader(x *trial) {
	x.up()
	leader := x.awaitLeader()
	n := x.anyOf(x.others(leader))
	x.moment(300 * time.Millisecond)
	x.strike()
	x.powerCut(powercut.Any, n)
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
	if x.col.name == "sA" {
		_, err := x.promote(n)
		require.ErrorContains(x, err, "accept the loss", "a slave that may have lost what was acknowledged leads only if told so")
		x.note("the slave is not promoted, as it may have lost something; the master is started again")
		x.restart(leader)
		x.l.fault()
		x.resumes(20 * time.Second)
		x.caughtUpUnderLoad(n)
	} else {
		x.promoteSlave(leader)
		x.rejoin(leader)
	}
	x.settle()
}

// root is the directory of a node.
func (n *node) root() string { return filepath.Join(n.dir, "store") }

// F29
func wipeDisk(x *trial) {
	x.up()
	leader := x.awaitLeader()
	x.moment(300 * time.Millisecond)
	x.strike()
	leader.kill()
	if x.col.raft {
		x.resumes(15 * time.Second)
	} else {
		x.promoteSlave(leader)
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
		more = asSlave // who lost its disk has forgotten that it was replaced
	}
	n.start(x, more...)
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
		to := x.anyOf(x.others(x.awaitLeader()))
		x.strike()
		out, err := mqadmin(x, "transferLeader", "-b", x.awaitLeader().addr(), "--peer", to.self, "-n", x.c.nameServers())
		require.NoError(x, err, out)
		x.resumes(10 * time.Second)
		eventually(x, 10*time.Second, "the node that was named leads", func() bool { return x.leader() == to })
	}
	x.settle()
}
