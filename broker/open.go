package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strconv"
	"strings"
	"time"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/remoting/protocol"
	"rmq/replication"
	"rmq/replication/ha"
	"rmq/replication/raftlog"
)

// StoreKindError is a directory that holds a store of another kind than the configuration asks for.
// Nothing in it was touched.
type StoreKindError struct {
	Node string // whose directory it is: brokerName, and the number or id in its group
	Dir  string
	Has  string // what is there
	Want string // what was to be opened
	Fix  string
}

func (e *StoreKindError) Error() string {
	return fmt.Sprintf("%s: %s holds %s, and %s was to be opened: %s", e.Node, e.Dir, e.Has, e.Want, e.Fix)
}

// node names this node in messages.
func (c *Config) node() string {
	if c.DLeger {
		return c.BrokerName + " " + c.DLegerSelfID
	}
	return fmt.Sprintf("%s %d", c.BrokerName, c.BrokerID)
}

const (
	dledgerDirPrefix = "dledger-" // begins the name of the directory of an Apache DLedger node
	plainStore       = "plain"
)

// logOfGroup says whether the directory of a commit log is that of a node of a group, ours or of Apache's.
func logOfGroup(fsys vfs.FS, dir string) bool {
	of := path.Dir(path.Clean(dir))
	_, err := fsys.ReadDir(path.Join(of, "rmq", "raft"))
	return err == nil || strings.HasPrefix(path.Base(of), dledgerDirPrefix)
}

// checkStoreKind refuses a root directory that holds what the configured mode would pass over in silence.
func (c *Config) checkStoreKind(fsys vfs.FS) error {
	entries, err := fsys.ReadDir(c.StorePathRootDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	has := map[string]string{} // prefix → name
	for _, e := range entries {
		name := e.Name()
		for _, prefix := range []string{raftDirPrefix, dledgerDirPrefix} {
			if strings.HasPrefix(name, prefix) && (has[prefix] == "" || name == raftDirPrefix+c.DLegerSelfID) {
				has[prefix] = name
			}
		}
		// Its commit log may be elsewhere.
		if name == "commitlog" || has[plainStore] == "" && (name == "consumequeue" || name == "checkpoint") {
			has[plainStore] = name
		}
	}
	refuse := func(what, want, fix string) error {
		return &StoreKindError{c.node(), c.StorePathRootDir, what, want, fix}
	}
	want := "a store of its own (enableDLegerCommitLog=false)"
	if c.DLeger {
		want = "the log of a group (enableDLegerCommitLog=true)"
	}
	switch raft := has[raftDirPrefix]; {
	case has[dledgerDirPrefix] != "":
		return refuse(has[dledgerDirPrefix]+", a log of Apache's DLedger, which is not read here", want,
			"name another storePathRootDir, and let consumers finish with the old group, or its messages be sent again, before it goes")
	case !c.DLeger && raft != "":
		return refuse(raft+", the log of a node of a group", want,
			fmt.Sprintf("set enableDLegerCommitLog=true with dLegerSelfId=%s and the group's dLegerGroup and dLegerPeers, or name another storePathRootDir", strings.TrimPrefix(raft, raftDirPrefix)))
	case !c.DLeger && logOfGroup(fsys, c.StorePathCommitLog):
		return &StoreKindError{c.node(), c.StorePathCommitLog, "the log of a node of a group", want,
			"set enableDLegerCommitLog=true with the group's dLegerGroup, dLegerSelfId and dLegerPeers, or name another storePathCommitLog"}
	case c.DLeger && raft == "" && has[plainStore] != "":
		return refuse(has[plainStore]+", a store that belongs to no group", want,
			"name another storePathRootDir for the group, or set enableDLegerCommitLog=false to go on with this store")
	}
	return nil
}

// openConfigured opens the storage in the mode that the configuration asks for.
func (b *Broker) openConfigured(ctx context.Context, o engine.Options, events replication.Events) (Store, error) {
	c := b.conf()
	if err := c.checkStoreKind(o.FS); err != nil {
		return nil, err
	}
	open := b.openPair
	if c.DLeger {
		open = b.openGroup
	}
	s, err := open(ctx, c, o, events)
	if engine.IsDamage(err) {
		return nil, fmt.Errorf("%s: %w; %s", c.node(), err, c.otherCopy())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.node(), err)
	}
	return s, nil
}

// otherCopy is what to do about a damaged log of which other nodes have a copy.
func (c *Config) otherCopy() string {
	switch dir := c.StoreDir(); {
	case c.DLeger:
		return fmt.Sprintf("or, while a majority of the group runs, move %s away and start this node again: the leader lets it in again under a new identity and fills it", dir)
	case c.BrokerRole == roleSlave:
		return fmt.Sprintf("or move %s away and start this slave again: its master fills it", dir)
	default:
		return fmt.Sprintf("or, if a slave of it runs, promote that (mqadmin promote), move %s away and start this node as its slave with a brokerId of its own", dir)
	}
}

// openGroup opens the log of a group that elects who leads.
func (b *Broker) openGroup(ctx context.Context, c *Config, o engine.Options, events replication.Events) (Store, error) {
	ro := c.groupOptions(o)
	ro.Events, ro.Logger, ro.BootID, ro.GatesOff = events, b.log, b.o.BootID, b.o.GatesOff
	ro.Gated = func(name string) bool { return name == offsetsName || name == delayOffsetName }
	ro.Fatal = func(err error) {
		if b.poison.CompareAndSwap(nil, &err) {
			b.poisonC <- struct{}{}
		}
	}
	if b.o.Dial != nil {
		ro.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) { return b.o.Dial(ctx, addr) }
	}
	return raftlog.Open(ctx, ro)
}

// groupOptions are those of the log of a member of a group, over the options of its store.
func (c *Config) groupOptions(o engine.Options) raftlog.Options {
	peers := map[string]string{}
	for _, p := range c.Peers() {
		peers[p.ID] = p.Addr
	}
	o.Dir, o.CommitLogDir = c.StorePathRootDir, ""
	ro := raftlog.Options{
		Engine: o, Group: c.DLegerGroup, SelfID: c.DLegerSelfID, Peers: peers, Client: c.clientAddr(), Preferred: c.PreferredLeaderID,
		HeartbeatTimeout: c.RaftHeartbeatTimeout,
	}
	if c.AfterTotalPowerLoss == lossLongestLog {
		ro.AfterTotalPowerLoss = raftlog.LongestLog
	}
	return ro
}

// openPair opens a log that slaves follow, or that follows a master.
func (b *Broker) openPair(ctx context.Context, c *Config, o engine.Options, events replication.Events) (Store, error) {
	po := c.pairOptions(o)
	po.Events, po.Logger, po.Rebooted, po.Dial = events, b.log, b.o.Rebooted, b.o.Dial
	return ha.Open(ctx, po)
}

// pairOptions are those of a log that is no group's, over the options of its store.
func (c *Config) pairOptions(o engine.Options) ha.Options {
	mode := replication.Async
	if c.BrokerRole == roleSyncMaster {
		mode = replication.Sync
	}
	po := ha.Options{
		Engine: o, Mode: mode, Slave: c.BrokerRole == roleSlave, ID: fmt.Sprintf("%s:%d", c.BrokerName, c.BrokerID), Cluster: c.BrokerClusterName + "/" + c.BrokerName,
		Listen: net.JoinHostPort(c.BindAddress, strconv.Itoa(c.HAListenPort)), Advertise: net.JoinHostPort(c.BrokerIP1, strconv.Itoa(c.HAListenPort)), Client: c.clientAddr(),
		Master: c.HAMasterAddress, InSyncReplicas: c.InSyncReplicas, MinInSyncReplicas: c.MinInSync, Strict: c.HAStrict, SlaveTimeout: c.SlaveTimeout,
		MaxLag: int64(c.HAMaxGap), StockBeat: c.HAHeartbeat, Housekeeping: c.HAHousekeeping, StockPeers: c.HAStockPeers, StockBatch: int(c.HATransferBatch),
	}
	if c.HAFlowControl {
		po.RateLimit = int64(c.HAMaxBytesPerSec)
	}
	return po
}

// followPeriod is how often a slave without a master asks the name servers for one.
const followPeriod = 500 * time.Millisecond

// lookForMaster asks the name servers again while this node is a slave that does not know where clients reach its master,
// or has neither been greeted by one nor had tables of it.
func (b *Broker) lookForMaster(ctx context.Context) error {
	if _, ok := b.store.(replication.Promoter); !ok {
		return nil
	}
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			st := b.roles.newest()
			unknown := st.Client == "" || st.Leader == "" && !b.tablesCome.Load()
			if st.Role == replication.Follower && unknown && b.registrar != nil {
				b.registrar.Reregister()
			}
		}
	}
}

// hearMaster tells a slave which master a name server has named. With haMasterAddress the log comes from there, whatever
// they say; where clients reach a master that does not tell it, as one of Apache, is what they said last: such a master
// may come back at another address. They are asked every registerPeriod, and while the tables are not to be had.
func (b *Broker) hearMaster(resp *protocol.Command) {
	p, ok := b.store.(replication.Promoter)
	if !ok || b.leads.Load() {
		return
	}
	var h protocol.RegisterBrokerResponse
	if err := protocol.DecodeExt(resp, &h); err != nil || h.HAServerAddr == "" || h.MasterAddr == b.conf().clientAddr() {
		return
	}
	if fixed := b.conf().HAMasterAddress; fixed != "" {
		b.haMaster.Store(&fixed)
		p.Follow("", h.MasterAddr)
		return
	}
	b.haMaster.Store(&h.HAServerAddr)
	p.Follow(h.HAServerAddr, h.MasterAddr)
}

// clientAddr is where clients reach this node.
func (c *Config) clientAddr() string {
	return net.JoinHostPort(c.BrokerIP1, strconv.Itoa(c.ListenPort))
}

// metaDir is where this node's own copies of its tables lie.
func (c *Config) metaDir() string { return path.Join(c.StoreDir(), "config") }
