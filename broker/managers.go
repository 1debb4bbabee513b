package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"rmq/internal/run"
)

// managerOptions are what the managers get from the broker.
type managerOptions struct {
	Settings     *atomic.Pointer[Settings] // as they are now
	Meta         MetaLog
	Clock        func() time.Time // nil: time.Now
	StateVersion func() int64     // the epoch that data versions carry; nil: 0
	Leads        func() bool      // whether tables change here, or on another node; nil: here
	Logger       *slog.Logger     // nil: silent
}

func (o *managerOptions) ensureDefaults() {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.StateVersion == nil {
		o.StateVersion = func() int64 { return 0 }
	}
	if o.Leads == nil {
		o.Leads = func() bool { return true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func (o *managerOptions) conf() *Config { return o.Settings.Load().Get() }

// managers are the tables of a broker: what it knows beside its messages. Its goroutines are those of start.
type managers struct {
	Topics    *TopicConfigManager
	Groups    *SubscriptionGroupManager
	Offsets   *ConsumerOffsetManager
	Consumers *ConsumerManager
	Producers *ProducerManager
	Locks     *RebalanceLockManager
	Stats     *BrokerStats

	conf func() *Config
	log  *slog.Logger
}

// newManagers reads the tables and completes them with the topics and groups that a broker always has.
func newManagers(o managerOptions) (*managers, error) {
	o.ensureDefaults()
	m := &managers{
		Topics: newTopicConfigManager(&o), Groups: newSubscriptionGroupManager(&o), Offsets: newConsumerOffsetManager(&o),
		Producers: newProducerManager(&o), Locks: newRebalanceLockManager(o.Clock), Stats: newBrokerStats(o.Clock),
		conf: o.conf, log: o.Logger,
	}
	m.Consumers = newConsumerManager(&o, m.Groups)
	if err := errors.Join(m.Topics.load(), m.Groups.load(), m.Offsets.load()); err != nil {
		return nil, err
	}
	return m, nil
}

// Closed takes the client of a connection out of everything, as soon as the connection has closed.
func (m *managers) Closed(conn clientConn) {
	m.Producers.Closed(conn)
	m.Consumers.Closed(conn)
}

// Periods of what happens on its own.
const (
	expirePeriod = 10 * time.Second
	noticePeriod = 15 * time.Second
)

// start runs what happens on its own: offsets and whatever else is not saved yet go to the disk once in a
// flush, silent clients leave, members that were not told at once are told, statistics take samples.
func (m *managers) start(g *run.Group, flush time.Duration) {
	for _, t := range []struct {
		name   string
		period time.Duration
		f      func()
	}{
		{"meta-flush", flush, func() { _ = m.flush() }}, // it says so in the log, and is tried again
		{"client-expiry", expirePeriod, m.expire},
		{"consumer-notices", noticePeriod, m.Consumers.flushNotices},
		{"stats", statsPeriod, m.Stats.sample},
	} {
		g.Go(t.name, func(ctx context.Context) error {
			every(ctx, t.period, t.f)
			return nil
		})
	}
}

// every calls f once a period until ctx ends.
func every(ctx context.Context, period time.Duration, f func()) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f()
		}
	}
}

// expire drops what has had no sign of life.
func (m *managers) expire() {
	m.Producers.expire()
	m.Consumers.expire()
	m.Locks.expire()
}

// flush saves what is not saved yet. It is the last thing to do with the managers.
func (m *managers) flush() error {
	err := errors.Join(m.Topics.saver.save(), m.Groups.saver.save(), m.Offsets.Save())
	if err != nil {
		m.log.Log(context.Background(), savingLevel(err), "not everything is saved; it will be tried again", "err", err)
	}
	return err
}
