//go:build drills

package drills

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rmq/client"
	"rmq/internal/vfs/powercut"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/test/robust"
)

const (
	topicOfTrial  = "Matrix"
	queuesOfTrial = 4
)

// play is a fault: what is done to a cluster under load, and what must be seen.
type play struct {
	do     func(x *trial)
	faulty bool   // the programs are those with fault injection
	scale  string // how its waits are shortened
	short  bool   // it is part of the short form
	links  bool   // each directed link between nodes goes through a proxy
	flags  []string
	nss    int // name servers; 0: one
}

// plays are the rows that can be played.
var plays = map[string]play{}

// trial is one run of a cell. As a testing.TB it remembers what failed.
type trial struct {
	testing.TB
	play   *play
	spec   *robust.Spec
	col    *column
	rnd    *rand.Rand
	run    *robust.Run
	c      *cluster
	cl     *client.Client
	rpc    *remoting.Client
	l      *load
	reader *reader
	before map[*process]usage
	lost   map[writeID]bool // what a fault was allowed to take
	links  map[string]*link
	cuts   int
	down   map[*node]bool // nodes that are not to be asked at the end

	equalTo int64 // up to which all hold the same, when they were asked
}

var (
	traceOf   = regexp.MustCompile(`(?s)\s*Error Trace:.*?Error:`)
	testNames = regexp.MustCompile(`(?m)^\s*Test:.*$`)
	tempNames = regexp.MustCompile(`/tmp/TestMatrix\w*/`)
)

// plainly is a failure without what only tells where it was noticed.
func plainly(s string) string {
	s = testNames.ReplaceAllString(traceOf.ReplaceAllString(s, ""), "")
	s = strings.Join(strings.Fields(tempNames.ReplaceAllString(s, "")), " ")
	return s[:min(len(s), 600)]
}

func (x *trial) Errorf(format string, args ...any) {
	x.run.Why = append(x.run.Why, plainly(fmt.Sprintf(format, args...)))
	x.TB.Helper()
	x.TB.Errorf(format, args...)
}

func (x *trial) Fatalf(format string, args ...any) {
	x.TB.Helper()
	x.Errorf(format, args...)
	x.TB.FailNow()
}

// note keeps a remark for the report, once.
func (x *trial) note(format string, args ...any) {
	x.Logf(format, args...)
	if text := fmt.Sprintf(format, args...); !slices.Contains(x.run.Notes, text) {
		x.run.Notes = append(x.run.Notes, text)
	}
}

// TestMatrix plays the fault matrix. By environment: RMQ_N=5 runs a cell; RMQ_CELLS=F01,F04 and
// RMQ_MODES=nA,rS, the cells, all by default; RMQ_KEY the key of the first run; RMQ_RESULTS the directory
// that results go to and are taken up from: a cell that has its runs is left out. Without it only the
// cells of the short form are played, once.
func TestMatrix(t *testing.T) {
	n, dir, short := 1, os.Getenv("RMQ_RESULTS"), false
	if text := os.Getenv("RMQ_N"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err, "RMQ_N is a number")
	}
	if dir == "" {
		dir, short = t.TempDir(), os.Getenv("RMQ_CELLS") == ""
	}
	wanted := func(variable, name string) bool {
		list := os.Getenv(variable)
		return list == "" || slices.Contains(strings.Split(list, ","), name)
	}
	for i := range robust.Matrix {
		spec := &robust.Matrix[i]
		for j := range columns {
			col := &columns[j]
			p, ok := plays[spec.Cell]
			if !ok || spec.Promise(col.name) == robust.NoCell || !wanted("RMQ_CELLS", spec.Cell) || !wanted("RMQ_MODES", col.name) || short && !p.short {
				continue
			}
			t.Run(spec.Cell+"/"+col.name, func(t *testing.T) { playCell(t, spec, col, &p, dir, n) })
		}
	}
}

// playCell plays a cell until it has n runs.
func playCell(t *testing.T, spec *robust.Spec, col *column, p *play, dir string, n int) {
	res, err := robust.Load(dir, spec.Cell, col.name)
	require.NoError(t, err)
	if res == nil || res.Skipped != "" {
		res = &robust.Result{Cell: spec.Cell, Mode: col.name}
	}
	res.Scale, res.Env = p.scale, environment(t)
	for len(res.Runs) < n {
		key := rand.Uint64() >> 1
		if text := os.Getenv("RMQ_KEY"); text != "" && len(res.Runs) == 0 {
			key, err = strconv.ParseUint(text, 10, 64)
			require.NoError(t, err, "RMQ_KEY is a number")
		}
		run := robust.Run{Key: key, Started: time.Now().UTC().Truncate(time.Second)}
		skipped := false
		t.Run(fmt.Sprint("key=", key), func(t *testing.T) {
			t.Logf("again: RMQ_CELLS=%s RMQ_MODES=%s RMQ_KEY=%d make robust-cell", spec.Cell, col.name, key)
			x := &trial{
				TB: t, play: p, spec: spec, col: col, rnd: rand.New(rand.NewPCG(key, 1)), run: &run,
				lost: map[writeID]bool{}, before: map[*process]usage{}, links: map[string]*link{}, down: map[*node]bool{},
			}
			t.Cleanup(func() {
				skipped = t.Skipped()
				run.Seconds = time.Since(run.Started).Round(time.Millisecond).Seconds()
				if t.Failed() && len(run.Why) == 0 {
					run.Why = []string{"it failed; the log says why"}
				}
			})
			p.do(x)
		})
		if skipped {
			res.Skipped = cmpText(run.Notes, "it cannot be played on this machine")
			break
		}
		res.Runs = append(res.Runs, run)
		require.NoError(t, res.Save(dir))
	}
	if res.Skipped != "" {
		require.NoError(t, res.Save(dir))
	}
}

func cmpText(notes []string, otherwise string) string {
	if len(notes) > 0 {
		return strings.Join(notes, "; ")
	}
	return otherwise
}

// skip leaves a cell out, with the reason.
func (x *trial) skip(reason string) {
	x.note("%s", reason)
	x.TB.Skip("*** NOT PLAYED: " + reason + " ***")
}

func environment(t *testing.T) robust.Environment {
	t.Helper()
	var uts unix.Utsname
	require.NoError(t, unix.Uname(&uts))
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(os.TempDir(), &st))
	kind, ok := map[int64]string{0xef53: "ext4", 0x01021994: "tmpfs", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x794c7630: "overlay"}[st.Type]
	if !ok {
		kind = fmt.Sprintf("%#x", st.Type)
	}
	commit, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	return robust.Environment{
		Commit: strings.TrimSpace(string(commit)), Go: runtime.Version(), CPUs: runtime.NumCPU(), FileSystem: kind,
		Kernel: string(bytes.TrimRight(uts.Release[:], "\x00")),
	}
}

// up starts a cluster of the column and puts it under load.
func (x *trial) up(more ...string) {
	x.Helper()
	x.start(more...)
	x.load(loadOptions{})
	x.l.awaitAcks(x, 150)
}

// start starts a cluster of the column, with the topic.
func (x *trial) start(more ...string) {
	x.Helper()
	flags := append([]string{
		"--mapped-file-size-commit-log=4194304", "--mapped-file-size-consume-queue=60000", "--max-hash-slot-num=1000", "--max-index-num=4000",
		"--max-unflushed-bytes=16777216", "--flush-consumer-offset-interval=500", "--clean-file-forcibly-enable=false",
	}, x.play.flags...)
	x.c = x.col.lay(x, max(1, x.play.nss), append(flags, more...)...)
	for _, b := range x.c.brokers {
		if x.play.faulty {
			b.bin = "bin/faults"
			b.env = append(b.env, "RMQ_FAULT_POWERCUT="+filepath.Join(b.dir, "side"), "RMQ_FAULT_RULES="+filepath.Join(b.dir, "rules"), "RMQ_FAULT_BOOT=0")
		}
	}
	if x.play.links {
		x.wire()
	}
	for _, n := range x.c.namesrvs {
		n.start(x)
	}
	x.startBrokers(x.c.brokers...)
	x.cl = x.c.connect(x)
	var err error
	x.rpc, err = remoting.NewClient(context.WithoutCancel(x.Context()), remoting.ClientOptions{Name: "audit", DialTimeout: time.Second})
	require.NoError(x, err)
	x.Cleanup(func() { require.NoError(x, x.rpc.Close()) })
	leader := x.awaitLeader()
	if x.col.replicated() && !x.col.raft {
		n := 0
		eventually(x, 20*time.Second, "the slave follows", func() bool {
			n++ // one that is there already is not saved again
			return leader.hasReplica(x) && x.cl.Admin().CreateTopic(x.Context(), leader.addr(), &protocol.TopicConfig{TopicName: fmt.Sprint(topicOfTrial, "Warm", n), ReadQueueNums: 1, WriteQueueNums: 1, Perm: 6, TopicFilterType: "SINGLE_TAG"}, "") == nil
		})
	}
	eventually(x, 30*time.Second, "the topic is made", func() bool {
		leader = x.awaitLeader() // on a machine under load another may have been elected meanwhile
		return tryCreateTopic(x, x.cl, leader, topicOfTrial, queuesOfTrial) == nil
	})
}

// startBrokers starts brokers together: those of a group wait for each other.
func (x *trial) startBrokers(nodes ...*node) {
	x.Helper()
	for _, b := range nodes {
		b.process = b.launch(x)
	}
	for _, b := range nodes {
		b.awaitBoot(x)
	}
}

// awaitLeader waits until somebody takes messages, as the name server says.
func (x *trial) awaitLeader() *node {
	x.Helper()
	var found *node
	eventually(x, 30*time.Second, "the name server lists who takes messages", func() bool {
		found = x.leader()
		return found != nil
	})
	return found
}

// leader is who takes messages, as the name server says; nil if nobody does.
func (x *trial) leader() *node {
	ctx, cancel := context.WithTimeout(x.Context(), time.Second)
	defer cancel()
	info, err := x.cl.Admin().Cluster(ctx)
	if err != nil {
		return nil
	}
	for _, d := range info.BrokerAddrTable {
		for _, b := range x.c.brokers {
			if d.BrokerAddrs[0] == b.addr() {
				return b
			}
		}
	}
	return nil
}

// others are all brokers but one.
func (x *trial) others(than *node) []*node {
	return slices.DeleteFunc(slices.Clone(x.c.brokers), func(n *node) bool { return n == than })
}

// anyOf draws one.
func (x *trial) anyOf(nodes []*node) *node { return nodes[x.rnd.IntN(len(nodes))] }

func addrsOf(nodes []*node) []string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.addr())
	}
	return list
}

// load puts the cluster under load, and lets somebody read.
func (x *trial) load(o loadOptions) {
	x.Helper()
	o.topic, o.queues, o.workers, o.retry = topicOfTrial, queuesOfTrial, 4, true
	o.window, o.bodyBytes, o.pace = max(o.window, 8), max(o.bodyBytes, 600), 2*time.Millisecond
	if o.patience == 0 {
		o.patience = 3 * time.Second
	}
	if o.addrs == nil {
		o.addrs = addrsOf(x.c.brokers)
	}
	x.l = newLoad(x, o)
	x.l.start(x)
	x.reader = newReader(x.rpc, topicOfTrial, queuesOfTrial, addrsOf(x.c.brokers))
	x.reader.start(x)
	x.Cleanup(func() { // also when the trial failed half way
		x.l.stop()
		x.reader.stop()
		_, _ = x.l.group.Wait(), x.reader.group.Wait()
	})
}

// moment lets the load go on for a time drawn by the key: when the fault falls.
func (x *trial) moment(most time.Duration) {
	time.Sleep(time.Duration(x.rnd.Int64N(int64(most)))) // not a wait for anything
}

// strike says that the fault falls now.
func (x *trial) strike() {
	x.run.Strikes++
	x.l.fault()
}

// resumes waits for the next ack and keeps how long it took.
func (x *trial) resumes(patience time.Duration) time.Duration {
	x.Helper()
	var took time.Duration
	eventually(x, patience, "messages are acknowledged again", func() (ok bool) {
		took, ok = x.l.resumed()
		return ok
	})
	x.run.RTO = append(x.run.RTO, float64(took.Microseconds())/1000)
	return took
}

// powerCut takes the power of nodes together, before the next write that is under way ends.
func (x *trial) powerCut(way powercut.Way, nodes ...*node) {
	x.Helper()
	for _, n := range nodes {
		_ = n.cmd.Process.Kill() // together, as far as can be
	}
	for _, n := range nodes {
		<-n.done
		x.cuts++
		r, err := powercut.Cut(filepath.Join(n.dir, "side"), x.run.Key+uint64(x.cuts), way)
		require.NoError(x, err)
		x.Logf("power cut at %s: %+v", n.addr(), r)
		n.rebooted = true
		n.env = append(n.env, fmt.Sprintf("RMQ_FAULT_BOOT=%d", x.cuts)) // the last one counts
	}
}

// rules makes calls of a node to its files fail from now on.
func (x *trial) rules(n *node, lines ...string) {
	x.Helper()
	name := filepath.Join(n.dir, "rules")
	require.NoError(x, os.WriteFile(name+".new", []byte(strings.Join(lines, "\n")), 0o644))
	require.NoError(x, os.Rename(name+".new", name))
}

// exited waits for a node to end and restarts nothing.
func (n *node) hasExited() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

var positionLine = regexp.MustCompile(`(?m)^rmq_log_position_bytes\{[^}]*mark="(\w+)"[^}]*\} (\S+)$`)

// positions are how far the log of a node is.
func (n *node) positions(t testing.TB) map[string]int64 {
	t.Helper()
	_, text := n.page(t, "/metrics")
	at := map[string]int64{}
	for _, m := range positionLine.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		require.NoError(t, err)
		at[m[1]] = int64(v)
	}
	require.NotEmpty(t, at, "%.500s", text)
	return at
}

// hasReplica says whether a slave is attached to a master.
func (n *node) hasReplica(t testing.TB) bool {
	t.Helper()
	_, text := n.page(t, "/metrics")
	return strings.Contains(text, "rmq_replication_lag_bytes{")
}

var lossLine = regexp.MustCompile(`(?m)^rmq_log_max_unflushed_bytes(?:\{[^}]*\})? (\S+)$`)

// maxLoss is W as the node reports it.
func (n *node) maxLoss(t testing.TB) int64 {
	t.Helper()
	_, text := n.page(t, "/metrics")
	m := lossLine.FindStringSubmatch(text)
	require.NotNil(t, m)
	v, err := strconv.ParseFloat(m[1], 64)
	require.NoError(t, err)
	return int64(v)
}

// alive are the brokers that run and are not left out.
func (x *trial) alive() (list []*node) {
	for _, b := range x.c.brokers {
		if !x.down[b] && !b.hasExited() {
			list = append(list, b)
		}
	}
	return list
}

// caughtUp waits until all that run hold and show the same.
func (x *trial) caughtUp(patience time.Duration) {
	x.Helper()
	nodes := x.alive()
	if len(nodes) < 2 {
		return
	}
	var all []map[string]int64
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		all = nil
		equal := true
		for _, n := range nodes {
			p := n.positions(x)
			all = append(all, p)
			equal = equal && p["written"] == all[0]["written"] && p["visible"] == p["written"] && p["dispatched"] == p["written"]
		}
		if equal {
			x.equalTo = all[0]["visible"]
			return
		}
		if time.Now().After(end) {
			x.Fatalf("after %v the replicas %v are not equal: %v", patience, addrsOf(nodes), all)
		}
	}
}

// loss judges what is there after a fault that may take something: at most bytes, and a tail. The load
// must have ended. Where an operator has accepted a loss, what was read and never acknowledged may go with it.
func (x *trial) loss(n *node, most int64, accepted bool) int64 {
	x.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if p := n.positions(x); p["visible"] == p["written"] && p["dispatched"] == p["written"] {
			break // what is stored is in the queues; whatever is not by the end of this time counts as lost
		}
	}
	var scratch robust.Run
	h := readNode(x, x.rpc, n.addr(), topicOfTrial, queuesOfTrial, nil)
	j := judge(x.l, h, &scratch, x.lost)
	if j.hole {
		x.Errorf("what is lost is not a tail: something newer is there")
	}
	if j.lostBytes > most {
		x.Errorf("%d acknowledged messages of %d bytes are lost, at most %d bytes may be", len(j.lost), j.lostBytes, most)
	}
	for _, w := range j.lost {
		x.lost[w] = true
	}
	x.run.Lost += int64(len(j.lost))
	if gone := x.reader.unseen(h); most == 0 && !accepted && gone > 0 {
		x.run.Unseen += gone
		x.Errorf("%d messages were read before the fault and are gone", gone)
	}
	x.reader.forget(h)
	return j.lostBytes
}

// settle ends the load, waits for all replicas, and judges all of them.
func (x *trial) settle() {
	x.Helper()
	x.l.awaitAcks(x, 30)
	x.finish()
}

// ends are the offsets behind the last acknowledged messages, by queue, without those that a fault took.
func (x *trial) ends() []int64 {
	ends := make([]int64, queuesOfTrial)
	for _, w := range x.l.workers {
		for i := range w.writes {
			if wr := &w.writes[i]; wr.outcome == acked && !x.lost[writeID{w.id, i}] {
				ends[wr.queue] = max(ends[wr.queue], wr.offset+1)
			}
		}
	}
	return ends
}

// finish is settle without waiting for more acks.
func (x *trial) finish() {
	x.Helper()
	x.l.end(x)
	tally(x.l, x.run)
	x.caughtUp(30 * time.Second)
	x.reader.end(x)
	ends := x.ends()
	for i, n := range x.alive() {
		h := readNode(x, x.rpc, n.addr(), topicOfTrial, queuesOfTrial, ends)
		var run robust.Run
		j := judge(x.l, h, &run, x.lost)
		run.Lost, run.Unseen = int64(len(j.lost)), x.reader.unseen(h)
		for _, g := range h.gaps[:min(3, len(h.gaps))] {
			x.Errorf("%s does not give out queue %d at %d: %s", n.addr(), g.queue, g.offset, g.why)
		}
		if what := faults(&run); what != "" {
			x.Errorf("%s: %s", n.addr(), what)
		}
		if i == 0 || run.Lost+run.Phantom+run.Duplicate+run.Reordered+run.Corrupt+run.Unseen > 0 {
			x.run.Lost += run.Lost
			x.run.Phantom += run.Phantom
			x.run.Duplicate += run.Duplicate
			x.run.Reordered += run.Reordered
			x.run.Corrupt += run.Corrupt
			x.run.Unseen += run.Unseen
		}
	}
	x.closeBooks()
}

// faults says what is wrong, "" if nothing is.
func faults(r *robust.Run) string {
	var all []string
	for what, n := range map[string]int64{
		"acknowledged and lost": r.Lost, "never sent or refused, but there": r.Phantom, "there more often than sent": r.Duplicate,
		"out of order or not where the answer said": r.Reordered, "corrupt": r.Corrupt, "read, and not there any more": r.Unseen,
	} {
		if n > 0 {
			all = append(all, fmt.Sprintf("%d messages %s", n, what))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// closeBooks stops all brokers and looks into their directories.
func (x *trial) closeBooks() {
	x.Helper()
	for what, n := range x.l.trouble() {
		x.Logf("%d times %s", n, what)
	}
	nodes := x.alive()
	for _, n := range slices.Backward(nodes) {
		n.terminate(x)
		// Who is left alone cannot save what needs another copy, and says so.
		if code := n.cmd.ProcessState.ExitCode(); code != 0 && (code != 1 || !x.col.sync) {
			x.Errorf("%s ended with %d", n.addr(), code)
		}
	}
	var roots []string
	for _, n := range nodes {
		root := filepath.Join(n.dir, "store")
		if n.self != "" {
			root = filepath.Join(root, "raft-"+n.self)
		}
		roots = append(roots, root)
		out, err := exec.Command(top(x, "bin/mqadmin"), "store", "verify", root).CombinedOutput()
		if err != nil {
			x.Errorf("store verify %s: %v: %s", n.addr(), err, out)
		}
	}
	if len(roots) > 1 {
		x.run.Replicas += sameLogs(x, roots, x.equalTo)
	}
}

// sameLogs compares the commit logs of stopped nodes byte by byte up to a position: what comes behind it
// was written while they stopped. It returns how many were compared.
func sameLogs(t testing.TB, roots []string, upTo int64) int {
	t.Helper()
	first := map[string][]byte{}
	for i, root := range roots {
		list, err := filepath.Glob(filepath.Join(root, "commitlog", "0*"))
		require.NoError(t, err)
		require.NotEmpty(t, list, root)
		for _, name := range list {
			start, err := strconv.ParseInt(filepath.Base(name), 10, 64)
			require.NoError(t, err)
			if start >= upTo {
				continue
			}
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			b = b[:min(int64(len(b)), upTo-start)]
			other, ok := first[filepath.Base(name)]
			if !ok {
				first[filepath.Base(name)] = b
				if i > 0 {
					t.Errorf("segment %s is at %s, and not at %s", filepath.Base(name), root, roots[0])
				}
			} else if at := differ(other, b); at >= 0 {
				t.Errorf("segment %s of %s differs from that of another replica at byte %d", filepath.Base(name), root, at)
			}
		}
	}
	return len(roots)
}

// differ is where two begin to differ, -1 if they do not.
func differ(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
