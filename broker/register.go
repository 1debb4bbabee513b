package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"rmq/internal/run"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Times of the registrar.
const (
	registerRetry   = 250 * time.Millisecond // after a name server could not be reached
	resolvePeriod   = 120 * time.Second
	resolveRetry    = time.Second
	registerWait    = time.Second // for a new topic to be known before its first message is answered
	unregisterLimit = 3 * time.Second
	rivalPeriod     = time.Second // a master whose name is taken looks again
	rivalLimit      = time.Second // for the other one to answer
)

// Registrar keeps all name servers informed (org.apache.rocketmq.broker.out.BrokerOuterAPI): each has a
// goroutine of its own that registers the broker when its connection is made, every registerPeriod, and
// whenever a topic changes. A connection that breaks is made again at once, so that a name server which
// comes back empty knows the broker within a second. Names of hosts are resolved again every two
// minutes and whenever a name server is lost; one with several addresses stands for as many name servers.
type Registrar struct {
	conf     func() *Config
	identity func() (id, epoch int64) // as it is now: the broker id, and the epoch that data versions carry
	addrs    []string                 // host:port
	topics   *TopicConfigManager
	orders   func(ctx context.Context, table map[string]string) // hears the order configuration
	answered func(resp *protocol.Command)                       // hears what a name server has answered; may be nil
	log      *slog.Logger
	lookup   func(ctx context.Context, host string) ([]string, error)

	client *remoting.Client
	group  *run.Group
	lost   chan struct{} // a name server does not answer: resolve again

	mu      sync.Mutex
	targets map[string]*nameServer // by ip:port
	change  int64                  // number of the last change
	told    chan struct{}          // closed and renewed when a target has learned something
}

// nameServer is one name server.
type nameServer struct {
	addr   string
	cancel context.CancelFunc
	kick   chan struct{}

	// Under Registrar.mu.
	asked      bool                             // to register, by its present connection
	registered bool                             // so it is
	told       int64                            // the last change that it knows
	changed    map[string]*protocol.TopicConfig // what it does not know
	all        bool                             // it has to be told everything
}

// start registers with all name servers in parallel and goes on doing so until ctx of the group ends.
func (r *Registrar) start(ctx context.Context) error {
	client, err := remoting.NewClient(context.WithoutCancel(ctx), remoting.ClientOptions{Name: "broker-outer", Logger: r.log})
	if err != nil {
		return err
	}
	r.client = client
	r.mu.Lock() // changes of topics may come already
	r.targets, r.told, r.lost = map[string]*nameServer{}, make(chan struct{}), make(chan struct{}, 1)
	r.mu.Unlock()
	if r.lookup == nil {
		r.lookup = net.DefaultResolver.LookupHost
	}
	r.group = run.New(context.WithoutCancel(ctx), "register")
	r.group.Go("resolve", r.resolveAlways)
	return nil
}

// stop tells all name servers that the broker goes, in parallel and for a few seconds at most.
func (r *Registrar) stop(ctx context.Context) error {
	r.group.Cancel()
	err := r.group.Wait()
	ctx, cancel := context.WithTimeout(ctx, unregisterLimit)
	defer cancel()
	g := run.New(ctx, "unregister")
	r.mu.Lock()
	for _, t := range r.targets {
		if t.asked {
			g.Go(t.addr, func(ctx context.Context) error {
				return r.unregister(ctx, t.addr)
			})
		}
	}
	r.mu.Unlock()
	return errors.Join(err, g.Wait(), r.client.Close())
}

func (r *Registrar) resolveAlways(ctx context.Context) error {
	for {
		next := resolvePeriod
		if !r.resolve(ctx) {
			next = resolveRetry
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		case <-r.lost:
			t.Stop()
		}
	}
}

// resolve starts and stops targets so that they are what the names stand for now. False: a name could
// not be resolved.
func (r *Registrar) resolve(ctx context.Context) bool {
	want, all := map[string]bool{}, true
	for _, addr := range r.addrs {
		addrs, ok := r.resolveOne(ctx, addr)
		all = all && ok
		for _, a := range addrs {
			want[a] = true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return true
	}
	for addr, t := range r.targets {
		if !want[addr] {
			r.log.Info("name server no longer in use", "addr", addr)
			t.cancel()
			delete(r.targets, addr)
		}
	}
	for addr := range want {
		if r.targets[addr] == nil {
			ctx, cancel := context.WithCancel(ctx)
			t := &nameServer{addr: addr, cancel: cancel, kick: make(chan struct{}, 1), changed: map[string]*protocol.TopicConfig{}}
			r.targets[addr] = t
			r.group.Go(addr, func(context.Context) error { return r.keep(ctx, t) })
		}
	}
	return all
}

// resolveOne is what one host:port stands for; what it stood for, when that cannot be found out now.
func (r *Registrar) resolveOne(ctx context.Context, addr string) (addrs []string, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && net.ParseIP(host) != nil {
		return []string{addr}, true
	}
	if err == nil {
		var ips []string
		if ips, err = r.lookup(ctx, host); err == nil {
			for _, ip := range ips {
				addrs = append(addrs, net.JoinHostPort(ip, port))
			}
			return addrs, true
		}
	}
	if ctx.Err() == nil {
		r.log.Warn("the name of a name server cannot be resolved", "addr", addr, "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.targets)), false
}

// keep keeps one name server informed.
func (r *Registrar) keep(ctx context.Context, t *nameServer) error {
	reported := false
	for {
		err := r.session(ctx, t, func() { reported = false })
		select {
		case <-ctx.Done():
			return nil
		default:
		}
		r.mu.Lock()
		t.asked, t.registered = false, false
		clear(t.changed)
		r.announce()
		r.mu.Unlock()
		if !reported {
			r.log.Warn("name server lost, trying again", "addr", t.addr, "err", err)
			reported = true
		}
		select {
		case r.lost <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(registerRetry):
		}
	}
}

// session registers over one connection until that breaks.
func (r *Registrar) session(ctx context.Context, t *nameServer, ok func()) error {
	conn, err := r.client.Conn(ctx, t.addr)
	if err != nil {
		return err
	}
	if err := r.awaitName(ctx, conn, t.addr); err != nil {
		return err
	}
	if err := r.registerAll(ctx, t, conn); err != nil {
		return err
	}
	ok()
	r.log.Info("registered", "nameServer", t.addr)
	tick := time.NewTicker(r.conf().RegisterPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return remoting.ErrClosed
		case <-tick.C:
			if r.conf().ForceRegister || r.outdated(ctx, conn) {
				err = r.registerAll(ctx, t, conn)
			}
		case <-t.kick:
			err = r.registerChanged(ctx, t, conn)
		}
		var refused *protocol.RemoteError
		if errors.As(err, &refused) {
			r.log.Error("name server refuses the registration", "addr", t.addr, "err", err)
		} else if err != nil {
			return err
		}
	}
}

// awaitName returns once no other master has this one's name, by this name server. To register all the same
// would take the other's place, for clients and slaves, and neither would know.
func (r *Registrar) awaitName(ctx context.Context, conn *remoting.Conn, nameServer string) error {
	told := ""
	for {
		other, err := r.rival(ctx, conn)
		if err != nil || other == "" {
			return err
		}
		if other != told {
			c := r.conf()
			r.log.Error("another master has this one's name: this one is not registered, clients do not find it; give it a brokerName of its own, "+
				"or start it as its slave (brokerRole=SLAVE, brokerId from 1 on), or stop the other one",
				"brokerName", c.BrokerName, "this", c.clientAddr(), "other", other, "nameServer", nameServer)
			told = other
		}
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return remoting.ErrClosed
		case <-time.After(rivalPeriod):
		}
	}
}

// rival is where another master of this one's name answers, "" if none does. Who leads a group or was promoted
// has its epoch to prove that it is in the right, and no rival.
func (r *Registrar) rival(ctx context.Context, conn *remoting.Conn) (string, error) {
	c := r.conf()
	if id, _ := r.identity(); id != 0 || c.DLeger || c.BrokerRole == roleSlave {
		return "", nil
	}
	limited, cancel := context.WithTimeout(ctx, c.RegisterTimeout)
	defer cancel()
	resp, err := conn.Call(limited, protocol.NewRequest(protocol.RequestGetBrokerClusterInfo))
	if err != nil {
		return "", err
	}
	var info protocol.ClusterInfo
	if resp.Err() != nil || len(resp.Body) == 0 || protocol.DecodeBody(resp.Body, &info) != nil {
		return "", nil // it does not say
	}
	other := info.BrokerAddrTable[c.BrokerName].BrokerAddrs[0]
	if other == "" || other == c.address(c.BrokerIP1, c.ListenPort) {
		return "", nil
	}
	asked, cancel := context.WithTimeout(ctx, rivalLimit)
	defer cancel()
	if _, err := r.client.Call(asked, other, protocol.NewRequest(protocol.RequestGetBrokerRuntimeInfo)); err != nil {
		return "", nil // it is gone, and the name server does not know yet
	}
	return other, nil
}

// outdated asks a name server whether it knows the newest version of the topics, which also tells it
// that the broker lives.
func (r *Registrar) outdated(ctx context.Context, conn *remoting.Conn) bool {
	c := r.conf()
	id, epoch := r.identity()
	req := protocol.NewRequest(protocol.RequestQueryDataVersion)
	protocol.EncodeExt(req, &protocol.QueryDataVersionHeader{
		BrokerName: c.BrokerName, BrokerAddr: c.address(c.BrokerIP1, c.ListenPort), ClusterName: c.BrokerClusterName, BrokerID: id,
	})
	version := r.topics.DataVersion()
	version.StateVersion = epoch
	req.Body = protocol.EncodeBody(version)
	ctx, cancel := context.WithTimeout(ctx, c.RegisterTimeout)
	defer cancel()
	resp, err := conn.Call(ctx, req)
	return err != nil || resp.Err() != nil || resp.GetString("changed") != "false"
}

// registerAll sends all topics.
func (r *Registrar) registerAll(ctx context.Context, t *nameServer, conn *remoting.Conn) error {
	r.mu.Lock()
	upTo := r.change
	clear(t.changed)
	t.all, t.asked = false, true
	r.mu.Unlock()
	topics, version := r.topics.Snapshot()
	return r.register(ctx, t, conn, topics, version, upTo)
}

// registerChanged sends the topics that the name server does not know yet. A name server adds them to
// what it has.
func (r *Registrar) registerChanged(ctx context.Context, t *nameServer, conn *remoting.Conn) error {
	r.mu.Lock()
	upTo, all := r.change, t.all
	topics := slices.Collect(maps.Values(t.changed))
	clear(t.changed)
	r.mu.Unlock()
	if !all {
		err := r.register(ctx, t, conn, topics, r.topics.DataVersion(), upTo)
		var refused *protocol.RemoteError
		if !errors.As(err, &refused) {
			return err
		}
	}
	return r.registerAll(ctx, t, conn)
}

func (r *Registrar) register(ctx context.Context, t *nameServer, conn *remoting.Conn, topics []*protocol.TopicConfig, version protocol.DataVersion, upTo int64) error {
	c := r.conf()
	id, epoch := r.identity()
	var body protocol.RegisterBrokerBody
	body.FilterServerList = []string{}
	w := &body.TopicConfigSerializeWrapper
	w.DataVersion = version
	w.DataVersion.StateVersion = epoch
	w.TopicConfigTable = make(map[string]*protocol.TopicConfig, len(topics))
	for _, topic := range topics {
		if c.BrokerPermission != int(protocol.PermRead|protocol.PermWrite) {
			masked := *topic
			masked.Perm &= int32(c.BrokerPermission)
			topic = &masked
		}
		w.TopicConfigTable[topic.TopicName] = topic
	}
	req := protocol.NewRequest(protocol.RequestRegisterBroker)
	var err error
	if req.Body, err = protocol.EncodeRegisterBroker(&body, false); err != nil {
		return err
	}
	protocol.EncodeExt(req, &protocol.RegisterBrokerHeader{
		BrokerName: c.BrokerName, BrokerAddr: c.address(c.BrokerIP1, c.ListenPort), ClusterName: c.BrokerClusterName,
		HAServerAddr: c.address(c.BrokerIP2, c.HAListenPort), BrokerID: id, BodyCRC32: protocol.BodyCRC(req.Body),
	})
	ctx, cancel := context.WithTimeout(ctx, c.RegisterTimeout)
	defer cancel()
	resp, err := conn.Call(ctx, req)
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return fmt.Errorf("register with %s: %w", t.addr, err)
	}
	r.mu.Lock()
	t.registered, t.told = true, max(t.told, upTo)
	r.announce()
	r.mu.Unlock()
	if r.answered != nil {
		r.answered(resp)
	}
	if len(resp.Body) > 0 && r.orders != nil {
		var kv protocol.KVTable
		if err := protocol.DecodeBody(resp.Body, &kv); err != nil {
			r.log.Warn("the order configuration of a name server cannot be read", "addr", t.addr, "err", err)
		} else {
			r.orders(ctx, kv.Table)
		}
	}
	return nil
}

// address is where others find a port of this broker.
func (c *Config) address(host string, port int) string {
	if strings.Contains(host, ":") {
		return fmt.Sprintf("[%s]:%d", host, port)
	}
	return fmt.Sprintf("%s:%d", host, port)
}

func (r *Registrar) unregister(ctx context.Context, addr string) error {
	c := r.conf()
	id, _ := r.identity()
	req := protocol.NewRequest(protocol.RequestUnregisterBroker)
	protocol.EncodeExt(req, &protocol.UnregisterBrokerHeader{
		BrokerName: c.BrokerName, BrokerAddr: c.address(c.BrokerIP1, c.ListenPort), ClusterName: c.BrokerClusterName, BrokerID: id,
	})
	resp, err := r.client.Call(ctx, addr, req)
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return fmt.Errorf("unregister at %s, which will notice by itself: %w", addr, err)
	}
	return nil
}

// announce wakes those who wait for changes to be known. Called with mu held.
func (r *Registrar) announce() {
	close(r.told)
	r.told = make(chan struct{})
}

// Reregister tells all name servers everything anew, and waits for none: the number or the epoch of the
// broker has changed.
func (r *Registrar) Reregister() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change++
	for _, t := range r.targets {
		t.all = true
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

// Changed tells the name servers of topics that were added or changed, none when one was removed or all
// are concerned, and waits until those that can be reached know of it, or a second at most.
func (r *Registrar) Changed(ctx context.Context, topics []*protocol.TopicConfig) {
	if len(r.addrs) == 0 {
		return
	}
	r.mu.Lock()
	r.change++
	change := r.change
	for _, t := range r.targets {
		for _, topic := range topics {
			t.changed[topic.TopicName] = topic
		}
		t.all = t.all || len(topics) == 0
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, registerWait)
	defer cancel()
	for {
		r.mu.Lock()
		known, told := true, r.told
		for _, t := range r.targets {
			known = known && (!t.registered || t.told >= change)
		}
		r.mu.Unlock()
		if known {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-told:
		}
	}
}

// Registered says how many name servers there are and how many of them know the broker.
func (r *Registrar) Registered() (known, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.targets {
		if t.registered {
			known++
		}
	}
	return known, len(r.targets)
}
