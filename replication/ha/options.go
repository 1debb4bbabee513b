package ha

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"rmq/engine"
	"rmq/replication"
)

// Options configure a [Service]. Names in the tags are the Java property names.
type Options struct {
	// Engine is the store that is opened. AckMarks, Verdict, Hidden and SyncAside are set here.
	Engine engine.Options
	// Mode is Async or Sync: what an append waits for while this node leads. A slave that was promoted
	// goes on in the mode of the master it has followed.
	Mode replication.Mode
	// Slave is the role by configuration. What became of the node later, by a promotion of its own or
	// of another, is in the epoch file and outranks it.
	Slave bool

	ID        string // of this node among those that hold the log, such as "broker-a:0"
	Cluster   string // which log: nodes of another one are refused
	Listen    string // host:port of the replication port; "" with Listener
	Listener  net.Listener
	Advertise string // where other nodes reach the port; "": the listener's address
	Client    string // where clients reach this node

	Master       string `prop:"haMasterAddress"` // of a slave: the replication port of the master; "": told by Follow
	MasterClient string // where clients reach the master

	InSyncReplicas    int  `prop:"inSyncReplicas"`    // copies before an ack of Sync, the master's included; at least 2
	MinInSyncReplicas int  `prop:"minInSyncReplicas"` // fewer copies in sync: appends are refused; 0: 1
	Strict            bool `prop:"haStrict"`          // Sync: too few slaves are a refusal, not ErrNoReplica

	SlaveTimeout time.Duration `prop:"slaveTimeout"`      // 0: 2.8 s; what SaveMeta waits for slaves
	MaxLag       int64         `prop:"haMaxGapNotInSync"` // 0: 256 MiB; a slave further behind is not in sync
	InSyncTime   time.Duration // 0: 15 s; a slave that had all it was sent so long ago is in sync
	Heartbeat    time.Duration // 0: 1 s; of our own stream
	HoldOff      time.Duration // 0: 300 ms; how long a master that has had slaves waits at its start for one that was promoted
	StockBeat    time.Duration `prop:"haSendHeartbeatInterval"` // 0: 5 s; of the stock wire
	Housekeeping time.Duration `prop:"haHousekeepingInterval"`  // 0: 20 s; a silent connection is closed

	StockPeers []string `prop:"haStockPeers"`              // addresses or prefixes from which Apache slaves are admitted
	StockBatch int      `prop:"haTransferBatchSize"`       // 0: 32 KiB; of a frame to them
	RateLimit  int64    `prop:"maxHaTransferByteInSecond"` // to all slaves together; 0: none
	HoldBytes  int64    // 0: 16 GiB; retention waits for a connected slave so far behind at most

	// Rebooted makes an unclean start count as one after a power cut, whatever the boot id says. For tests.
	Rebooted bool

	Events replication.Events
	Logger *slog.Logger // nil: silent
	// Dial reaches other nodes; nil: TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	o.Engine.EnsureDefaults()
	setDefault(&o.Mode, replication.Async)
	o.InSyncReplicas = max(2, o.InSyncReplicas)
	setDefault(&o.MinInSyncReplicas, 1)
	setDefault(&o.SlaveTimeout, 2800*time.Millisecond)
	setDefault(&o.MaxLag, 256<<20)
	setDefault(&o.InSyncTime, 15*time.Second)
	setDefault(&o.Heartbeat, time.Second)
	setDefault(&o.HoldOff, 3*announcePeriod)
	setDefault(&o.StockBeat, 5*time.Second)
	setDefault(&o.Housekeeping, 20*time.Second)
	setDefault(&o.StockBatch, 32<<10)
	setDefault(&o.HoldBytes, 16<<30)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		d := &net.Dialer{Timeout: 3 * time.Second}
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
}

// Validate returns every complaint at once. Call it after EnsureDefaults.
func (o *Options) Validate() error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Mode != replication.Async && o.Mode != replication.Sync {
		complain("replication mode %v is not one of master and slave: use async or sync", o.Mode)
	}
	if o.ID == "" {
		complain("the node has no id: give it one of its own among the nodes of its name")
	}
	if o.Listen == "" && o.Listener == nil {
		complain("haListenPort is not set: name a port")
	}
	if o.SlaveTimeout < 0 || o.InSyncTime < 0 || o.Heartbeat <= 0 || o.StockBeat <= 0 || o.Housekeeping <= o.Heartbeat {
		complain("haHousekeepingInterval is %v and the heartbeat %v: a connection must live longer than that", o.Housekeeping, o.Heartbeat)
	}
	if o.MaxLag < 0 || o.RateLimit < 0 || o.HoldBytes < 0 || o.StockBatch < 1 || o.StockBatch > stockMaxBody {
		complain("haTransferBatchSize is %d: use 1 to %d; sizes must not be negative", o.StockBatch, stockMaxBody)
	}
	if _, err := parsePeers(o.StockPeers); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// parsePeers reads addresses and prefixes.
func parsePeers(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if addr, err := netip.ParseAddr(text); err == nil {
			all = append(all, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("haStockPeers has %q: use an address such as 10.0.0.7, or a prefix such as 10.0.0.0/24", text)
		}
		all = append(all, p)
	}
	return all, nil
}

func newGroup() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return max(1, binary.BigEndian.Uint64(b[:]))
}

func newIncarnation() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
