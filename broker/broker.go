package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rmq/engine"
	"rmq/internal/config"
	"rmq/internal/run"
	"rmq/internal/vfs"
	"rmq/message"
	"rmq/remoting"
	"rmq/replication"
)

// Options say what a [Broker] is made of.
type Options struct {
	Settings   *Settings
	ConfigFile string // the file that Settings came from, "" if none; changes at run time are written into it

	FS vfs.FS // nil: the real one
	// Dial reaches other nodes for replication; nil: TCP. BootID and Rebooted take the place of what the
	// machine says. For tests.
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	BootID   string
	Rebooted bool
	// GatesOff are guards of a group's log to switch off, see [raftlog.Options]. For tests that plant faults.
	GatesOff []string
	Meta     MetaLog
	Logger   *slog.Logger     // nil: silent
	Clock    func() time.Time // nil: time.Now
	// Open opens the storage, which tells events of its role. nil: what the configuration says.
	Open func(ctx context.Context, o engine.Options, events replication.Events) (Store, error)
	// MemoryLimit is what the process may take, in bytes, where memoryLimit does not say so; 0: no limit.
	MemoryLimit int64
	// Fatal is called once when the store cannot go on: nothing is stored any more until the process is
	// started again. Sends under way have been answered. nil: only the log says so.
	Fatal func(err error)
	// Reconfigured hears of settings that were changed at run time, when they are in force. It must not
	// block, nor change them. nil: nobody needs to know.
	Reconfigured func(c *Config)
	// Interceptors stand before the processors, the first one first.
	Interceptors []Interceptor
}

// Broker stores messages and hands them out (org.apache.rocketmq.broker.BrokerController).
//
// Goroutines: those of the store, of the two listeners, of the managers (managers.start), of the
// registrar and of the schedule service; workers of the executors while there is work; sweep, which ends
// waits; roles, which follows the store's. Safe for concurrent use once started.
type Broker struct {
	*managers
	o        Options
	settings atomic.Pointer[Settings]
	log      *slog.Logger
	clock    func() time.Time
	booted   time.Time

	store     Store
	files     MetaLog // this node's own copies of its tables
	meta      MetaLog // with those of the other nodes
	schedule  *ScheduleService
	holds     *PullRequestHold
	registrar *Registrar
	server    *remoting.Server
	group     *run.Group // executors, managers, sweep
	executors [families]*executor
	routes    routes
	admin     *processors
	serving   atomic.Bool // started, and not stopping

	transforms []sendTransform
	sendPool   sync.Pool
	pullPool   sync.Pool
	conns      sync.Map // *connState → struct{}

	storeHost       netip.AddrPort // what records and message ids say of where they are
	brokerProps     message.Properties
	region          []byte
	traceOff        bool
	uniqKeys        *uniqKeys
	maxMessageBytes int
	maxSendBytes    int64
	hostMemory      int64

	sending, sendBytes atomic.Int64 // messages that the store has and has not acked
	unknown            atomic.Int64 // requests of codes that are not served

	roles     *roles
	applied   replication.Status     // what applyRoles has applied last
	leads     atomic.Bool            // appends are taken, and all that goes with them
	haMaster  atomic.Pointer[string] // of a slave: the HA port that it was told to follow
	roleGroup *run.Group
	roleMu    sync.Mutex
	master    bool

	tablesCome atomic.Bool // of a slave: the master has told its tables when it was asked last

	started atomic.Bool
	poison  atomic.Pointer[error]
	poisonC chan struct{}
	stopped sync.Once
	stopErr error
}

// New makes a broker of o. Nothing is opened before Start.
func New(o Options) (*Broker, error) {
	if o.Settings == nil {
		return nil, errors.New("broker: Options.Settings is nil: load a configuration first")
	}
	c := o.Settings.Get()
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Meta == nil {
		o.Meta = NewFileMetaLog(o.FS, c.metaDir(), o.Logger)
	}
	if c.MemoryLimit > 0 {
		o.MemoryLimit = int64(c.MemoryLimit)
	}
	b := &Broker{
		o: o, log: o.Logger, clock: o.Clock, maxMessageBytes: int(c.MaxMessageSize), hostMemory: hostMemory(o.MemoryLimit),
		poisonC: make(chan struct{}, 1), files: o.Meta, roles: newRoles(),
	}
	if b.o.Open == nil {
		b.o.Open = b.openConfigured
	}
	b.meta = &replicatedMeta{o.Meta, b}
	b.settings.Store(o.Settings)
	ip, err := resolveIP(c.BrokerIP1)
	if err != nil {
		return nil, err
	}
	b.storeHost = netip.AddrPortFrom(ip, uint16(c.ListenPort))
	b.uniqKeys = newUniqKeys(ip, rand.Uint32())
	for _, p := range [][2]string{{propCluster, c.BrokerClusterName}, {propRegion, c.RegionID}, {propTrace, strconv.FormatBool(c.TraceOn)}} {
		b.brokerProps = message.AppendProperty(b.brokerProps, p[0], p[1])
	}
	b.region, b.traceOff = []byte(c.RegionID), !c.TraceOn
	b.sendPool, b.pullPool = b.newSendPool(), b.newPullPool()
	b.holds = newPullRequestHold(b)
	delays := parseDelayLevels(c.MessageDelayLevel)
	b.transforms = []sendTransform{noTransactions, noTimers, delayLevels(len(delays))}
	b.schedule = &ScheduleService{
		meta: b.meta, clock: o.Clock, conf: b.conf, log: o.Logger, delays: delays, version: b.stateVersion, period: b.savePeriod,
		host: func(m *message.Message) { m.StoreHost = b.storeHost }, arrived: make(chan struct{}, 1),
	}
	return b, nil
}

// resolveIP is the address that records carry of a host.
func resolveIP(host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil || len(ips) == 0 {
		return netip.Addr{}, fmt.Errorf("brokerIP1 is %s, which cannot be resolved: use an address: %w", host, err)
	}
	return ips[0].Unmap(), nil
}

// hostMemory is the memory of this machine, or the limit if that is lower.
func hostMemory(limit int64) int64 {
	var info unix.Sysinfo_t
	total := int64(4 << 30)
	if unix.Sysinfo(&info) == nil {
		total = int64(info.Totalram * uint64(info.Unit))
	}
	if limit > 0 {
		total = min(total, limit)
	}
	return total
}

// conf is the configuration as it is now. What Start has used stays as it was.
func (b *Broker) conf() *Config { return b.settings.Load().Get() }

// Config is the configuration as it is now; it must not be changed.
func (b *Broker) Config() *Config { return b.conf() }

// sendLimits are how long an answer to a send may take.
func (b *Broker) sendLimits() sendLimits {
	c := b.conf()
	return sendLimits{disk: c.SyncFlushTimeout, replica: c.SlaveTimeout}
}

// Start opens the store, listens on both ports and tells the name servers. On an error nothing is left
// open. Start and Shutdown are called once each.
func (b *Broker) Start(ctx context.Context) error {
	b.booted = b.clock()
	if err := b.start(ctx); err != nil {
		return errors.Join(err, b.Shutdown(context.WithoutCancel(ctx)))
	}
	return nil
}

func (b *Broker) start(ctx context.Context) (err error) {
	b.group = run.New(context.WithoutCancel(ctx), "broker")
	if err := b.portsFree(ctx); err != nil {
		return err
	}
	// The store first: its lock says that nobody else works in the directory.
	if err := b.openStore(ctx); err != nil {
		return err
	}
	if b.managers, err = newManagers(managerOptions{Settings: &b.settings, Meta: b.meta, Clock: b.clock, StateVersion: b.stateVersion, Leads: b.leads.Load, Logger: b.log}); err != nil {
		return err
	}
	if err := b.schedule.load(); err != nil {
		return err
	}
	b.schedule.store = b.store
	b.makeExecutors()
	b.registerOwn()
	b.admin = newProcessors(b)
	b.admin.registerAll(b.register)
	b.intercept(auditLog(b.log))
	for _, i := range b.o.Interceptors {
		b.intercept(i)
	}
	c := b.conf()
	b.registrar = &Registrar{conf: b.conf, identity: b.identity, addrs: c.NamesrvAddr, topics: b.Topics, orders: b.applyOrder, answered: b.hearMaster, log: b.log}
	b.Topics.OnChange(b.registrar.Changed)
	b.managers.start(b.group, b.savePeriod(c.FlushConsumerOffsets))
	b.group.Go("sweep", b.runSweep)
	b.started.Store(true)
	b.applyRoles()
	if err := b.listen(ctx, c); err != nil {
		return err
	}
	if err := b.registrar.start(ctx); err != nil {
		return err
	}
	b.roleGroup = run.New(context.WithoutCancel(ctx), "roles")
	b.roleGroup.Go("apply", b.runRoles)
	b.roleGroup.Go("look for the master", b.lookForMaster)
	b.roleGroup.Go("follow tables", b.followTables)
	b.serving.Store(true)
	if len(c.NamesrvAddr) == 0 {
		b.log.Info("no name server is configured: clients find this broker by its address only")
	}
	b.log.Info("broker started", "name", c.BrokerName, "cluster", c.BrokerClusterName, "addr", c.address(c.BrokerIP1, c.ListenPort),
		"store", c.StoreDir(), "replication", b.roles.newest().Mode, "powerCutMayTakeBytes", b.store.Stats().MaxUnflushed, "took", b.clock().Sub(b.booted))
	return nil
}

// openStore opens the storage under the memory limit.
func (b *Broker) openStore(ctx context.Context) error {
	limited := *b.conf()
	if limited.MemoryLimit == 0 {
		limited.MemoryLimit = config.Size(b.o.MemoryLimit)
	}
	o := limited.EngineOptions()
	o.FS, o.Logger, o.Clock = b.o.FS, b.log, b.clock
	o.Events.Arrive = b.arrive
	o.Events.Poison = func(err error) {
		if b.poison.CompareAndSwap(nil, &err) {
			b.poisonC <- struct{}{}
		}
	}
	b.maxSendBytes = o.MaxPending
	store, err := b.o.Open(ctx, o, b.roles.events())
	var held *vfs.LockedError
	if errors.As(err, &held) {
		return fmt.Errorf("open the store: %w: end it, or set another storePathRootDir", err)
	}
	if engine.IsFull(err) {
		return fmt.Errorf("open the store: %w: it has to write its queues before it starts: free space, then start it again", err)
	}
	if err != nil {
		return err // store may be a nil that is none
	}
	b.store = store
	b.roles.begin(store.Status())
	return nil
}

// arrive hears of new records in watched queues, on the dispatcher of the store.
func (b *Broker) arrive(a *engine.Arrival) {
	if string(a.Topic) == message.TopicSchedule {
		b.schedule.arrive()
	}
	b.holds.arrive(a)
}

func (b *Broker) makeExecutors() {
	c := b.conf()
	live := func(of func(c *Config) time.Duration) func() time.Duration {
		return func() time.Duration {
			if c := b.conf(); c.FastFailure {
				return of(c)
			}
			return 0
		}
	}
	const many = 32
	for f, e := range map[family]struct {
		workers, capacity int
		limit             func() time.Duration
	}{
		familySend:      {max(c.SendThreads, many), c.SendQueue, live(func(c *Config) time.Duration { return max(c.SendQueueWait, registerWait+c.SendQueueWait) })},
		familyPull:      {c.PullThreads, c.PullQueue, live(func(c *Config) time.Duration { return c.PullQueueWait })},
		familyLitePull:  {c.PullThreads, c.LitePullQueue, live(func(c *Config) time.Duration { return c.LitePullQueueWait })},
		familyQuery:     {many / 4, c.QueryQueue, nil},
		familyClient:    {many, c.ClientQueue, nil},
		familyConsumer:  {many, c.ConsumerQueue, nil},
		familyHeartbeat: {many, c.HeartbeatQueue, live(func(c *Config) time.Duration { return c.HeartbeatQueueWait })},
		familyAdmin:     {many / 2, c.AdminQueue, live(func(c *Config) time.Duration { return c.AdminQueueWait })},
	} {
		b.executors[f] = newExecutor(b.group, f.String(), e.workers, e.capacity, e.limit)
	}
}

// QueueState is how many requests of a family wait, how many may, and for how long the first has.
type QueueState struct {
	Size, Capacity int
	HeadWait       time.Duration
}

// queueState is that of a family. The reader has no queue.
func (b *Broker) queueState(f family) QueueState {
	e := b.executors[f]
	if e == nil {
		return QueueState{}
	}
	size, head := e.state(time.Now())
	return QueueState{size, e.capacity, head}
}

// portsFree tries both ports, so that a store is not opened in vain.
func (b *Broker) portsFree(ctx context.Context) error {
	c := b.conf()
	for _, port := range []int{c.ListenPort, c.FastPort()} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(c.BindAddress, strconv.Itoa(port)))
		if err != nil {
			return c.portError(err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) portError(err error) error {
	return fmt.Errorf("%w: listenPort=%d takes this port and %d, end whoever has it or set another listenPort", err, c.ListenPort, c.FastPort())
}

func (b *Broker) listen(ctx context.Context, c *Config) (err error) {
	b.server, err = remoting.NewServer(context.WithoutCancel(ctx), remoting.ServerOptions{
		Name: "remoting", Handler: b, IdleTimeout: c.ConnectionMaxIdle, Logger: b.log, MaxUnsentAll: b.maxUnsent(),
	})
	if err != nil {
		return err
	}
	for _, l := range []struct {
		name string
		port int
	}{{listenerMain, c.ListenPort}, {listenerFast, c.FastPort()}} {
		if _, err := b.server.Listen(l.name, net.JoinHostPort(c.BindAddress, strconv.Itoa(l.port))); err != nil {
			return c.portError(err)
		}
	}
	return nil
}

// maxUnsent bounds the answers that wait for clients to read them, of all connections: 64 MiB, or a
// sixteenth of the memory limit: what they hold of the store may be a few times that.
func (b *Broker) maxUnsent() int64 {
	const most = 64 << 20
	if limit := b.o.MemoryLimit; limit > 0 {
		return min(most, limit/16)
	}
	return most
}

// SetRole makes this node the master of its name, or not: what only a master does starts or stops.
func (b *Broker) SetRole(master bool) {
	b.roleMu.Lock()
	defer b.roleMu.Unlock()
	if b.master == master {
		return
	}
	b.master = master
	b.schedule.SetMaster(master)
}

// IsMaster says which role this node has.
func (b *Broker) IsMaster() bool {
	b.roleMu.Lock()
	defer b.roleMu.Unlock()
	return b.master
}

// runSweep ends waits, and reports a store that cannot go on.
func (b *Broker) runSweep(ctx context.Context) error {
	t := time.NewTicker(sweepPeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			b.sweep(now)
		case <-b.poisonC:
			b.dying(ctx, *b.poison.Load())
		}
	}
}

// dying lets the answers to what the store has failed leave, and says that this is the end.
func (b *Broker) dying(ctx context.Context, err error) {
	b.log.Error("the store cannot go on: start the broker again, it recovers what is on the disk", "err", err)
	const patience = time.Second
	for end := time.Now().Add(patience); b.sending.Load() > 0 && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	b.conns.Range(func(k, _ any) bool {
		k.(*connState).conn.Flush()
		return true
	})
	if b.o.Fatal != nil {
		b.o.Fatal(err)
	}
}

// Shutdown ends the broker: it leaves the name servers, ends holds and timers, serves what has been
// read, saves what is not saved, and closes the store last. ctx bounds how long clients may take to read
// their answers. A second call does nothing and returns the same.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.stopped.Do(func() { b.stopErr = b.shutdown(ctx) })
	return b.stopErr
}

func (b *Broker) shutdown(ctx context.Context) error {
	if b.group == nil {
		return nil
	}
	b.handover(ctx)
	b.serving.Store(false)
	var errs []error
	if b.roleGroup != nil {
		b.roleGroup.Cancel()
		errs = append(errs, b.roleGroup.Wait())
	}
	if b.registrar != nil && b.registrar.group != nil {
		if err := b.registrar.stop(ctx); err != nil {
			b.log.Warn("unregister", "err", err)
		}
	}
	if b.started.Load() {
		b.SetRole(false)
	}
	if b.store != nil {
		b.holds.close()
	}
	b.drain(ctx)
	if b.server != nil {
		if err := b.server.Shutdown(ctx); err != nil {
			b.log.Warn("connections closed before their answers were read", "err", err)
		}
		errs = append(errs, b.server.Close())
	}
	b.group.Cancel()
	errs = append(errs, b.group.Wait())
	if b.managers != nil && b.store != nil {
		errs = append(errs, b.flush(), b.schedule.Save())
	}
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	b.log.Info("broker stopped", "err", errors.Join(errs...))
	return errors.Join(errs...)
}

// handoverWait bounds what a stop waits for another node to lead.
const handoverWait = 2 * time.Second

// handover makes another node lead before this one stops answering, where the log can do that: clients
// are told who leads.
func (b *Broker) handover(ctx context.Context) {
	if !b.serving.Load() || !b.leads.Load() || b.poison.Load() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handoverWait)
	defer cancel()
	if err := b.store.Handover(ctx); err != nil {
		b.log.Warn("no other node leads now", "err", err)
	}
}

// drain ends the serving of requests: what was read is answered, or refused where nothing has begun.
func (b *Broker) drain(ctx context.Context) {
	if b.server != nil {
		b.server.Stop()
		b.await(ctx, b.server.Quiet)
	}
	executors := slices.DeleteFunc(slices.Clone(b.executors[:]), func(e *executor) bool { return e == nil })
	for _, e := range executors {
		e.close()
	}
	b.await(ctx, func() bool {
		return b.sending.Load() == 0 && !slices.ContainsFunc(executors, (*executor).busy)
	})
}

// await waits until done, or until ctx ends.
func (b *Broker) await(ctx context.Context, done func() bool) {
	const often = time.Millisecond
	for !done() {
		select {
		case <-ctx.Done():
			b.log.Warn("requests under way are given up", "err", ctx.Err())
			return
		case <-time.After(often):
		}
	}
}

// NameServers says how many name servers know the broker, of how many.
func (b *Broker) NameServers() (known, all int) { return b.registrar.Registered() }

var _ remoting.Handler = (*Broker)(nil)
