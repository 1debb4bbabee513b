package broker

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rmq/internal/config"
)

// raftDirPrefix begins the name of the directory of a node of a group, in storePathRootDir.
const raftDirPrefix = "raft-"

// The roles of brokerRole.
const (
	roleAsyncMaster = "ASYNC_MASTER"
	roleSyncMaster  = "SYNC_MASTER"
	roleSlave       = "SLAVE"
)

// lossLongestLog is the value of afterTotalPowerLoss by which the longest log leads; else nobody does.
const lossLongestLog = "longest-log"

// reviewReplication completes and checks what other nodes have to do with.
func (c *Config) reviewReplication(r *config.Review) {
	if c.DLeger {
		c.reviewDLeger(r)
		return
	}
	if c.HAMasterAddress != "" && !isHostPort(c.HAMasterAddress) {
		r.Refuse("haMasterAddress", "use host:port of the master, the port being its haListenPort")
	}
	if slices.ContainsFunc(c.HAStockPeers, func(a string) bool { return !isAddress(a) }) {
		r.Refuse("haStockPeers", "use addresses without a port or prefixes such as 10.0.0.0/24, several separated by ;")
	}
	if c.HAHousekeeping <= c.HAHeartbeat {
		r.Refuse("haHousekeepingInterval", fmt.Sprintf("use more than haSendHeartbeatInterval=%d, or every connection counts as dead", c.HAHeartbeat.Milliseconds()))
	}
	switch c.BrokerRole {
	case roleSyncMaster:
		if c.InSyncReplicas < 2 {
			if r.Set("inSyncReplicas") {
				r.Note("inSyncReplicas", "1 counts as 2: SYNC_MASTER promises a copy on a slave")
			}
			c.InSyncReplicas = 2
		}
	case roleAsyncMaster:
		if c.InSyncReplicas > 1 {
			r.Note("inSyncReplicas", "ASYNC_MASTER waits for no slave: use SYNC_MASTER")
		}
		if c.HAStrict {
			r.Note("haStrict", "ASYNC_MASTER waits for no slave: use SYNC_MASTER")
		}
	}
	if c.MinInSync > c.InSyncReplicas {
		r.Refuse("minInSyncReplicas", fmt.Sprintf("use inSyncReplicas=%d or less", c.InSyncReplicas))
	}
}

// isAddress says whether a is an address or a prefix of addresses.
func isAddress(a string) bool {
	_, err := netip.ParseAddr(a)
	_, perr := netip.ParsePrefix(a)
	return err == nil || perr == nil
}

var (
	peerID    = regexp.MustCompile(`^n[0-9]{1,4}$`)
	groupName = regexp.MustCompile(`^[^\s;,@%/\\]{1,127}$`)
)

// Peer is a member of a group as dLegerPeers names it.
type Peer struct{ ID, Addr string }

// Peers are those of dLegerPeers, in their order.
func (c *Config) Peers() []Peer {
	var all []Peer
	for _, p := range c.DLegerPeers {
		id, addr, _ := strings.Cut(p, "-")
		all = append(all, Peer{id, addr})
	}
	return all
}

// peerAddr is the address of a member, "" if there is no such.
func (c *Config) peerAddr(id string) string {
	for _, p := range c.Peers() {
		if p.ID == id {
			return p.Addr
		}
	}
	return ""
}

func (c *Config) reviewDLeger(r *config.Review) {
	var ids, addrs []string
	for _, p := range c.Peers() {
		if !peerID.MatchString(p.ID) || !isHostPort(p.Addr) || slices.Contains(ids, p.ID) || slices.Contains(addrs, p.Addr) {
			r.Refuse("dLegerPeers", "use n0-host:port;n1-host:port;… with different numbers and addresses")
			return
		}
		ids, addrs = append(ids, p.ID), append(addrs, p.Addr)
	}
	if !groupName.MatchString(c.DLegerGroup) {
		r.Refuse("dLegerGroup", "name the group, as brokerName does")
	} else if c.DLegerGroup != c.BrokerName {
		r.Note("dLegerGroup", fmt.Sprintf("clients know the group as brokerName=%s: all its members need the same", c.BrokerName))
	}
	if !slices.Contains(ids, c.DLegerSelfID) {
		r.Refuse("dLegerSelfId", "use one of dLegerPeers: "+strings.Join(ids, ", "))
	}
	if c.PreferredLeaderID != "" && !slices.Contains(ids, c.PreferredLeaderID) {
		r.Refuse("preferredLeaderId", "use one of dLegerPeers: "+strings.Join(ids, ", "))
	}
	if _, port, err := net.SplitHostPort(c.peerAddr(c.DLegerSelfID)); err == nil {
		if n, _ := strconv.Atoi(port); n == c.ListenPort || n == c.FastPort() {
			r.Refuse("dLegerPeers", fmt.Sprintf("listenPort=%d takes this port and %d: give %s another one", c.ListenPort, c.FastPort(), c.DLegerSelfID))
		}
	}
	if n := len(ids); n > 0 && n%2 == 0 {
		r.Note("dLegerPeers", fmt.Sprintf("a group of %d stands the loss of %d, no more than one of %d does: add a member, or leave one out", n, (n-1)/2, n-1))
	}
	if r.Set("brokerRole") && c.BrokerRole != roleAsyncMaster {
		r.Note("brokerRole", "the group elects who leads: it changes nothing")
	}
}
