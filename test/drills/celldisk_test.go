//go:build drills

package drills

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/test/robust"
)

func init() {
	plays["F20"] = play{do: noSpace, faulty: true}
	plays["F22"] = play{do: failSync, faulty: true, short: true}
	plays["F24"] = play{do: stallSyncs, faulty: true, scale: "stalls of 0.2 to 1 s, for 3 s"}
	plays["F26"] = play{do: flipBits}
	plays["F28"] = play{do: loseSegment}
}

// F20
func noSpace(x *trial) {
	x.up()
	for what, rules := range map[string][]string{
		"log":      {"allocate *commitlog* err=ENOSPC", "write *commitlog* err=ENOSPC", "create *commitlog* err=ENOSPC"},
		"queues":   {"allocate *consumequeue* err=ENOSPC", "write *consumequeue* err=ENOSPC", "create *consumequeue* err=ENOSPC"},
		"index":    {"allocate *index* err=ENOSPC", "write *index* err=ENOSPC", "create *index* err=ENOSPC"},
		"metadata": {"write *config* err=ENOSPC", "create *config* err=ENOSPC"},
	} {
		n := x.awaitLeader()
		if what == "log" {
			// Room that was taken before is not lost when the disk fills up: only taking more fails.
			rules = rules[:1]
		}
		before := x.l.trouble()
		x.rules(n, rules...)
		x.l.fault()
		x.run.Strikes++
		time.Sleep(1500 * time.Millisecond) // how long there is no room
		x.rules(n)
		x.l.fault()
		require.Less(x, x.resumes(15*time.Second), 10*time.Second, "it goes on by itself")
		for text := range x.l.trouble() {
			if before[text] == 0 {
				x.Logf("no room for the %s: %s", what, text)
				if strings.Contains(text, "no space") && (!strings.HasPrefix(text, "14 ") || !strings.Contains(text, n.dir)) {
					x.Errorf("no room for the %s: sends are answered %q, not 14 with the path", what, text)
				}
			}
		}
		require.False(x, n.hasExited(), "a broker whose disk is full goes on:\n%s", n.output(x))
	}
	x.settle()
}

// F22
func failSync(x *trial) {
	x.up()
	for range 2 {
		x.moment(400 * time.Millisecond)
		n := x.awaitLeader()
		reported := n.maxLoss(x)
		x.strike()
		// A segment keeps the name under which it was made. When the one sync that fails was of a segment
		// that is being made, another is.
		for attempt := 0; attempt < 10 && !n.hasExited(); attempt++ {
			x.rules(n, "sync *commitlog/0* nth=1 err=EIO", "sync *prepared/* nth=1 err=EIO", fmt.Sprintf("# %d", attempt))
			for end := time.Now().Add(time.Second); time.Now().Before(end) && !n.hasExited(); {
				time.Sleep(5 * time.Millisecond)
			}
		}
		require.Equal(x, 5, n.exit(x, 15*time.Second), "the exit code after a failed sync: %s", n.output(x))
		if x.col.raft {
			x.resumes(15 * time.Second)
		}
		x.l.end(x)
		x.rules(n)
		x.restart(n)
		x.reconcile(n)
		x.afterCut(reported)
		x.l.start(x)
		if !x.col.raft {
			x.resumes(15 * time.Second)
		}
		x.l.awaitAcks(x, 50)
	}
	x.settle()
}

// F24
func stallSyncs(x *trial) {
	x.up()
	n := x.awaitLeader()
	before := n.anonBytes(x)
	x.strike()
	stall := time.Duration(200+x.rnd.IntN(800)) * time.Millisecond
	x.rules(n, "sync * delay="+stall.String())
	most := before
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		most = max(most, n.anonBytes(x))
	}
	x.rules(n)
	x.resumes(15 * time.Second)
	require.Less(x, most-before, int64(128<<20), "memory while syncs stall")
	x.settle()
}

// segmentsOf are the segments of the log of a node, the oldest first.
func segmentsOf(x *trial, n *node) []string {
	x.Helper()
	root := filepath.Join(n.dir, "store")
	if n.self != "" {
		root = filepath.Join(root, "raft-"+n.self)
	}
	list, err := filepath.Glob(filepath.Join(root, "commitlog", "0*"))
	require.NoError(x, err)
	slices.Sort(list)
	return list
}

// fillSegments goes on until a node has so many segments of its log.
func (x *trial) fillSegments(n *node, many int) {
	x.Helper()
	eventually(x, 60*time.Second, "the log has rolled", func() bool { return len(segmentsOf(x, n)) >= many })
}

// F26
func flipBits(x *trial) {
	x.up("--mapped-file-size-commit-log=1048576")
	n := x.awaitLeader()
	x.fillSegments(n, 4)
	x.l.end(x)
	x.caughtUp(20 * time.Second)
	n.terminate(x)
	name := segmentsOf(x, n)[1]
	info, err := os.Stat(name)
	require.NoError(x, err)
	at := info.Size()/4 + x.rnd.Int64N(info.Size()/2)
	spoil(x, name, at, x.rnd.IntN(2) == 0)
	x.run.Strikes++
	x.damaged(n, name)
}

// spoil flips a bit or zeroes a page of a file.
func spoil(x *trial, name string, at int64, page bool) {
	x.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(x, err)
	defer f.Close()
	if page {
		_, err = f.WriteAt(make([]byte, 4096), at&^4095)
		require.NoError(x, err)
		x.Logf("zeroed the page at %d of %s", at&^4095, name)
		return
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(x, err)
	b[0] ^= 1 << x.rnd.IntN(8)
	_, err = f.WriteAt(b, at)
	require.NoError(x, err)
	x.Logf("flipped a bit at %d of %s", at, name)
}

// damaged starts a node whose log is damaged below what was synced. Either it refuses and names the file,
// or it serves everything else and nothing wrong. Where other nodes hold the log, nothing is lost.
func (x *trial) damaged(n *node, name string) {
	x.Helper()
	n.process = n.launch(x)
	up := n.boots(x)
	x.l.fault()
	if x.col.raft {
		x.l.start(x)
		x.resumes(20 * time.Second)
		x.l.end(x)
	}
	promise := x.spec.Promise(x.col.name)
	if !up {
		text := n.output(x)
		x.Logf("refused: %s", text)
		require.Contains(x, text, filepath.Dir(name), "the refusal names what is damaged")
		require.Equal(x, 2, n.cmd.ProcessState.ExitCode(), text)
		x.note("the damaged node does not start, and names file and place")
		x.down[n] = true
		if promise == robust.Refused {
			x.refused()
			return
		}
		x.fromOthers(n)
		return
	}
	var run robust.Run
	h := readNode(x, x.rpc, n.addr(), topicOfTrial, queuesOfTrial, x.ends())
	j := judge(x.l, h, &run, x.lost)
	x.Logf("%d places are refused, the first: %v", len(h.gaps), h.gaps[:min(1, len(h.gaps))])
	if len(j.lost) > 0 || run.Corrupt > 0 || run.Phantom > 0 {
		x.run.Lost, x.run.Corrupt, x.run.Phantom = int64(len(j.lost)), run.Corrupt, run.Phantom
		x.Errorf("a damaged record changes what is served: %d lost without a word, %d corrupt, %d phantom", len(j.lost), run.Corrupt, run.Phantom)
	}
	require.LessOrEqual(x, len(h.gaps), 64, "only damaged records are affected")
	if len(h.gaps) > 0 {
		x.note("damaged records are refused, others served")
		if promise == robust.NoLoss {
			x.Errorf("%s does not give out %d records that other nodes have", n.addr(), len(h.gaps))
		}
	}
	x.refused()
}

// refused ends a trial in which nothing more is promised than that damage is told.
func (x *trial) refused() {
	x.Helper()
	tally(x.l, x.run)
	x.reader.end(x)
	for _, b := range x.alive() {
		_ = b.cmd.Process.Signal(syscall.SIGTERM) // it ends with the test in any case
	}
}

// fromOthers proves that the nodes that are left have everything, and that they fill the damaged one again.
func (x *trial) fromOthers(n *node) {
	x.Helper()
	if x.col.raft {
		x.l.fault()
		x.l.start(x)
		x.resumes(15 * time.Second)
		x.settle()
		return
	}
	x.promoteSlave(n)
	require.NoError(x, os.Rename(n.root(), n.root()+".damaged"))
	x.rejoinEmpty(n)
	x.settle()
}

// F28
func loseSegment(x *trial) {
	x.up("--mapped-file-size-commit-log=1048576")
	n := x.awaitLeader()
	x.fillSegments(n, 4)
	x.l.end(x)
	x.caughtUp(20 * time.Second)
	n.terminate(x)
	name := segmentsOf(x, n)[1]
	if x.rnd.IntN(2) == 0 {
		require.NoError(x, os.Remove(name))
		x.Logf("removed %s", name)
	} else {
		require.NoError(x, os.Truncate(name, 300_000))
		x.Logf("cut %s short", name)
	}
	x.run.Strikes++
	x.damaged(n, name)
}
