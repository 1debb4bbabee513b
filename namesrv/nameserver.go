package namesrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"rmq/internal/run"
	"rmq/internal/vfs"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// maxBatch bounds how many changes wait for one write of the disk.
const maxBatch = 1024

// Options say how a [NameServer] runs.
type Options struct {
	Settings *Settings
	// ConfigFile is where changes at run time are written; "": Config.ConfigStorePath.
	ConfigFile string
	// Changed hears of the configuration after a change at run time. It may be nil and must not block.
	Changed func(c *Config)
	FS      vfs.FS       // nil: the real one
	Logger  *slog.Logger // nil: none
}

// NameServer answers the requests of brokers, clients and tools (org.apache.rocketmq.namesrv.NamesrvController).
//
// Requests are answered on the goroutine that reads their connection, but for those that change a
// file. Goroutines: namesrv/scan, which forgets silent brokers, namesrv/writer, which changes files,
// and those of the [remoting.Server].
type NameServer struct {
	log        *slog.Logger
	fs         vfs.FS
	configFile string
	changed    func(*Config)

	settings atomic.Pointer[Settings]
	routes   *RouteInfoManager
	kv       *KVConfigManager
	metrics  *metrics

	group   *run.Group
	server  *remoting.Server
	addr    netip.AddrPort
	jobs    chan job
	ready   time.Time // routes are told from here on
	stopped atomic.Bool
}

// job is a request that waits for the disk.
type job struct {
	conn *remoting.Conn
	req  *protocol.Command
}

// Start makes a name server that listens. It runs until [NameServer.Shutdown]. Errors: the address is
// in use, the file of key-value pairs is damaged beyond its .bak.
func Start(ctx context.Context, o Options) (*NameServer, error) {
	n, err := build(ctx, o)
	if err != nil {
		return nil, err
	}
	c := o.Settings.Get()
	n.addr, err = n.server.Listen("namesrv", net.JoinHostPort(c.BindAddress, strconv.Itoa(c.ListenPort)))
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w: stop the process that has it (mqshutdown namesrv), or set listenPort to another one", err)
		}
		return nil, errors.Join(err, n.Shutdown(ctx))
	}
	n.log.Info("listening", "addr", n.addr)
	return n, nil
}

// build makes a name server that does not listen yet.
func build(ctx context.Context, o Options) (*NameServer, error) {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := o.Settings.Get()
	kv, err := LoadKVConfig(o.FS, c.KVConfigPath, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("load kvConfigPath: %w", err)
	}
	n := &NameServer{
		log: o.Logger, fs: o.FS, configFile: o.ConfigFile, changed: o.Changed,
		routes: NewRouteInfoManager(o.Logger, time.Now), kv: kv, metrics: newMetrics(),
		group: run.New(context.WithoutCancel(ctx), "namesrv"), jobs: make(chan job, c.DefaultQueue), ready: time.Now(),
	}
	if n.configFile == "" {
		n.configFile = c.ConfigStorePath
	}
	if c.NeedWait {
		n.ready = n.ready.Add(c.WaitFor)
	}
	n.settings.Store(o.Settings)
	n.server, err = remoting.NewServer(n.group.Context(), remoting.ServerOptions{
		Name: "namesrv", Handler: (*handler)(n), IdleTimeout: c.ConnectionMaxIdle, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	n.group.Go("scan", n.scan)
	n.group.Go("writer", n.write)
	return n, nil
}

// Addr is where it listens.
func (n *NameServer) Addr() netip.AddrPort { return n.addr }

// Ready gives the reasons why no route should be asked for now, none when all is well.
func (n *NameServer) Ready() []string {
	if n.stopped.Load() {
		return []string{"the name server is stopping"}
	}
	if left := time.Until(n.ready); left > 0 {
		return []string{fmt.Sprintf("waiting for brokers for another %s (needWaitForService)", left.Round(time.Second))}
	}
	return nil
}

// Shutdown takes no more requests, answers those it has and closes all connections; what waits for
// the disk is given up when ctx ends.
func (n *NameServer) Shutdown(ctx context.Context) error {
	if n.stopped.Swap(true) {
		return n.group.Wait()
	}
	n.server.Stop()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	var late error
	for late == nil && n.metrics.waiting.Load() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			late = fmt.Errorf("%d requests not answered: %w", n.metrics.waiting.Load(), ctx.Err())
		}
	}
	err := n.server.Shutdown(ctx)
	n.group.Cancel()
	return errors.Join(late, err, n.group.Wait())
}

// scan forgets brokers that are silent, and closes the connections that they were heard on.
func (n *NameServer) scan(ctx context.Context) error {
	t := time.NewTicker(n.settings.Load().Get().ScanInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			for _, g := range n.routes.Expire() {
				if c, ok := g.Owner.(*remoting.Conn); ok {
					_ = c.Close() // it may be closed already
				}
			}
		}
	}
}

// write does what waits for the disk, in order; changes of key-value pairs that follow each other cost
// one write.
func (n *NameServer) write(ctx context.Context) error {
	var batch []job
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-n.jobs:
			batch = append(batch[:0], j)
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case j := <-n.jobs:
				batch = append(batch, j)
			default:
				more = false
			}
		}
		n.writeBatch(batch)
		clear(batch)
	}
}

func (n *NameServer) writeBatch(batch []job) {
	var pairs []job
	var changes []KVChange
	flush := func() {
		err := n.kv.Apply(changes)
		for i, j := range pairs {
			if c := changes[i]; err == nil {
				n.log.Info("key-value pair changed", "namespace", c.Namespace, "key", c.Key, "value", c.Value, "deleted", c.Delete, "by", j.conn.RemoteAddr())
			}
			n.answerLate(j, n.done(j.req, err))
		}
		pairs, changes = pairs[:0], changes[:0]
	}
	for _, j := range batch {
		if protocol.RequestCode(j.req.Code) == protocol.RequestUpdateNameServerConfig {
			flush()
			n.answerLate(j, n.updateConfig(j))
			continue
		}
		change, err := kvChange(j.req)
		if err != nil {
			n.answerLate(j, refuse(j.req, err))
			continue
		}
		pairs, changes = append(pairs, j), append(changes, change)
	}
	flush()
}

// done answers a request that ended with err.
func (n *NameServer) done(req *protocol.Command, err error) *protocol.Command {
	if err != nil {
		n.log.Error("request not done", "request", protocol.RequestCode(req.Code), "err", err)
		return refuse(req, err)
	}
	return protocol.NewResponse(req, protocol.ResponseSuccess, "")
}

func (n *NameServer) answerLate(j job, resp *protocol.Command) {
	n.metrics.served(j.req, resp)
	j.conn.Reply(j.req, resp)
	j.conn.Flush()
	n.metrics.waiting.Add(-1)
}

// later has a request done by the writer, or refuses it when too many wait.
func (n *NameServer) later(c *remoting.Conn, req *protocol.Command) *protocol.Command {
	n.metrics.waiting.Add(1)
	select {
	case n.jobs <- job{c, req.Clone()}:
		return nil
	default:
		n.metrics.waiting.Add(-1)
		return protocol.NewResponse(req, protocol.ResponseSystemBusy, fmt.Sprintf(
			"[REJECTREQUEST]%d changes wait for the disk, the most is defaultThreadPoolQueueCapacity: try again", cap(n.jobs)))
	}
}

// handler is the NameServer as connections see it.
type handler NameServer

// Opened implements [remoting.Handler].
func (h *handler) Opened(*remoting.Conn) {}

// Serve implements [remoting.Handler].
func (h *handler) Serve(c *remoting.Conn, req *protocol.Command) {
	n := (*NameServer)(h)
	process, ok := processors[protocol.RequestCode(req.Code)]
	if !ok {
		process = (*NameServer).unsupported
	}
	if resp := process(n, c, req); resp != nil {
		n.metrics.served(req, resp)
		c.Reply(req, resp)
	}
}

// Drained implements [remoting.Handler].
func (h *handler) Drained(*remoting.Conn) {}

// Closed implements [remoting.Handler]. The brokers that were heard on the connection are gone.
func (h *handler) Closed(c *remoting.Conn, _ error) {
	n := (*NameServer)(h)
	if c.State() != nil && !n.stopped.Load() {
		n.routes.OwnerClosed(c)
	}
}
