package broker

import (
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/internal/watermark"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// fifth is a replicated log for tests: a mode that no package has. Acks wait for acked; it leads when
// the hub says so; what the leader saves the hub gives to the others.
type fifth struct {
	*engine.Store
	hub    *hub
	id     string
	events replication.Events
	acked  *watermark.Mark

	mu sync.Mutex
	st replication.Status
}

// hub is what fifths share.
type hub struct {
	mu    sync.Mutex
	nodes []*fifth
	docs  map[string][]byte
	saves map[string]int
	fail  error // of saves
	hold  bool  // acks wait for fifth.acked
}

func newHub() *hub { return &hub{docs: map[string][]byte{}, saves: map[string]int{}} }

// open is for Options.Open.
func (h *hub) open(id string) func(context.Context, engine.Options, replication.Events) (Store, error) {
	return func(ctx context.Context, o engine.Options, events replication.Events) (Store, error) {
		f := &fifth{hub: h, id: id, events: events, acked: &watermark.Mark{}}
		o.AckMarks = append(o.AckMarks, f.acked)
		s, err := engine.Open(ctx, o)
		if err != nil {
			return nil, err
		}
		f.Store = s
		if !h.hold {
			f.acked.Advance(1 << 60)
		}
		f.st = replication.Status{Mode: replication.Raft, Role: replication.ReadOnly, ID: id, Why: "an election runs"}
		h.mu.Lock()
		h.nodes = append(h.nodes, f)
		for name, doc := range h.docs {
			events.Meta(name, doc)
		}
		h.mu.Unlock()
		events.Role(f.Status())
		return f, nil
	}
}

// elect makes one node lead, in a new epoch. "" makes none.
func (h *hub) elect(id, client string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.nodes {
		f.mu.Lock()
		f.st.Epoch++
		f.st.Leader, f.st.Client, f.st.Why = id, client, ""
		switch {
		case id == "":
			f.st.Role, f.st.Why = replication.ReadOnly, "an election runs"
		case f.id == id:
			f.st.Role = replication.Leader
		default:
			f.st.Role = replication.Follower
		}
		f.mu.Unlock()
		f.events.Role(f.Status())
	}
}

func (f *fifth) Status() replication.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.st
}

func (f *fifth) refusal() error {
	st := f.Status()
	if st.Role == replication.Leader {
		return nil
	}
	return &replication.NotLeaderError{Leader: st.Client, Epoch: st.Epoch, Why: st.Why}
}

func (f *fifth) SubmitFront(ctx context.Context, as []*engine.Append) (int, error) {
	if err := f.refusal(); err != nil {
		return 0, err
	}
	return f.Store.SubmitFront(ctx, as)
}

func (f *fifth) Append(ctx context.Context, rec []byte) (engine.Result, error) {
	if err := f.refusal(); err != nil {
		return engine.Result{}, err
	}
	return f.Store.Append(ctx, rec)
}

func (f *fifth) SaveMeta(_ context.Context, name string, doc []byte) error {
	if err := f.refusal(); err != nil {
		return err
	}
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if f.hub.fail != nil {
		return f.hub.fail
	}
	f.hub.docs[name] = doc
	f.hub.saves[name]++
	for _, other := range f.hub.nodes {
		if other != f {
			other.events.Meta(name, doc)
		}
	}
	return nil
}

func (*fifth) Late(int64) error { return replication.ErrReplicaTimeout }

func (f *fifth) Handover(context.Context) error {
	f.hub.mu.Lock()
	i := slices.IndexFunc(f.hub.nodes, func(o *fifth) bool { return o != f })
	f.hub.mu.Unlock()
	if i < 0 {
		return errors.New("nobody else is there")
	}
	f.hub.elect(f.hub.nodes[i].id, "127.0.0.1:1")
	return nil
}

// startFifth runs a broker of a group over a fifth log.
func startFifth(t *testing.T, h *hub, id string, more ...string) (*Broker, *fifth) {
	t.Helper()
	b := startBroker(t, Options{Settings: settings(t, path.Join(t.TempDir(), id), more...), Open: h.open(id)})
	return b, b.store.(*fifth)
}

func awaitRole(t *testing.T, b *Broker, leads bool) {
	t.Helper()
	require.Eventually(t, func() bool { return b.leads.Load() == leads }, 10*time.Second, time.Millisecond)
}

// Proves that a broker answers a send when the log says so and not before, and tells why it is late.
func TestFifthModeAcksLate(t *testing.T) {
	h := newHub()
	h.hold = true
	b, f := startFifth(t, h, "1", "slaveTimeout=200", "syncFlushTimeout=100")
	h.elect("1", "127.0.0.1:1")
	awaitRole(t, b, true)
	p := connect(t, b)
	resp := p.call(sendRequest("T", 0, "late"))
	remark := p.require(resp, protocol.ResponseFlushSlaveTimeout)
	require.True(t, strings.HasPrefix(remark, unknownOutcome), remark)
	require.Contains(t, remark, replication.ErrReplicaTimeout.Error())
	var sent protocol.SendResponse
	require.NoError(t, protocol.ParseSendResponse(resp, &sent))
	require.NotEmpty(t, sent.MsgID)

	f.acked.Advance(1 << 60)
	p.send("T", 0, "in time")
}

// Proves that a node that does not lead refuses what only a leader does, says who leads, and serves the rest.
func TestFifthModeLosesLeadership(t *testing.T) {
	h := newHub()
	b, f := startFifth(t, h, "1")
	p := connect(t, b)
	resp := p.call(sendRequest("T", 0, "early"))
	require.Equal(t, "service not available now: an election runs", p.require(resp, protocol.ResponseServiceNotAvailable))

	h.elect("1", "127.0.0.1:1")
	awaitRole(t, b, true)
	require.True(t, b.IsMaster())
	p.send("T", 0, "one")
	p.dispatched()

	h.elect("2", "127.0.0.1:4711")
	awaitRole(t, b, false)
	require.False(t, b.IsMaster())
	epoch := strconv.FormatInt(f.Status().Epoch, 10)
	for _, req := range []*protocol.Command{
		sendRequest("T", 0, "two"), sendRequest("unknown", 0, "two"), topicRequest("U"), request(protocol.RequestDeleteTopicInBroker, "topic", "T"),
		sendBackRequest(&message.Record{}, "g", 0),
	} {
		resp := p.call(req)
		remark := p.require(resp, protocol.ResponseServiceNotAvailable)
		require.NotContains(t, remark, unknownOutcome)
		require.Contains(t, remark, "127.0.0.1:4711")
		require.Equal(t, "127.0.0.1:4711", resp.GetString("leaderAddr"))
		require.Equal(t, epoch, resp.GetString("leaderTerm"))
	}
	require.Nil(t, b.Topics.Get("unknown"))
	got := p.pull("g", "T", 0, 0, "*", 0)
	require.Equal(t, []string{"one"}, got.bodies())
	// There is nothing more here: the client goes back to the leader at once.
	require.Equal(t, protocol.ResponsePullRetryImmediately, p.pull("g", "T", 0, 1, "*", time.Minute).code)
	require.EqualValues(t, 1, p.offset(protocol.RequestGetMaxOffset, "topic", "T", "queueId", "0"))
	b.Offsets.Commit([]byte("g"), []byte("T"), 0, 1)
	require.Equal(t, []localOffset{{"g", "T", 0, 1, b.Offsets.locals()[0].At}}, b.Offsets.locals())
}

// Proves that what waits for its ack when a node stops to lead is answered so that clients try again, though the broker has
// not heard of it yet.
func TestFifthModeGivesUpAppends(t *testing.T) {
	h := newHub()
	h.hold = true
	b, f := startFifth(t, h, "1")
	h.elect("1", "127.0.0.1:1")
	awaitRole(t, b, true)
	p := connect(t, b)
	answers := make(chan *protocol.Command, 1)
	begin := f.Appended()
	require.NoError(t, p.conn.Start(&remoting.Call{Request: sendRequest("T", 0, "given up"), Timeout: time.Minute, Done: func(c *remoting.Call) {
		if c.Err == nil {
			answers <- c.Response.Clone()
		}
	}}))
	require.Eventually(t, func() bool { return f.Appended() > begin }, 10*time.Second, time.Millisecond)
	f.mu.Lock()
	f.st.Role, f.st.Leader, f.st.Client = replication.Follower, "2", "127.0.0.1:2"
	f.mu.Unlock()
	f.Abandon(engine.ErrIndeterminate)
	resp := <-answers
	remark := p.require(resp, protocol.ResponseServiceNotAvailable)
	require.True(t, strings.HasPrefix(remark, unknownOutcome), remark)
	require.Equal(t, "127.0.0.1:2", resp.GetString("leaderAddr"))
}

// Proves that what a leader saves is in force on the other nodes, that a save nobody takes is an error to
// whoever asked and in force nowhere once another node leads, and that a node which begins to lead has it all and does not
// send it again.
func TestFifthModeReplicatesTables(t *testing.T) {
	h := newHub()
	a, _ := startFifth(t, h, "1")
	b, _ := startFifth(t, h, "2")
	h.elect("1", "127.0.0.1:1")
	awaitRole(t, a, true)
	p := connect(t, a)
	p.require(p.call(topicRequest("T")), protocol.ResponseSuccess)
	require.NoError(t, a.Groups.Put(protocol.NewSubscriptionGroupConfig("g")))
	a.Offsets.Commit([]byte("g"), []byte("T"), 1, 42)
	require.NoError(t, a.Offsets.Save())
	require.Eventually(t, func() bool {
		offset, _ := b.Offsets.Query([]byte("g"), []byte("T"), 1)
		return b.Topics.Get("T") != nil && b.Groups.Get("g") != nil && offset == 42
	}, 10*time.Second, time.Millisecond)

	h.mu.Lock()
	h.fail = &replication.NotLeaderError{Leader: "127.0.0.1:2", Epoch: 7}
	h.mu.Unlock()
	resp := p.call(topicRequest("U"))
	p.require(resp, protocol.ResponseServiceNotAvailable)
	require.Equal(t, "127.0.0.1:2", resp.GetString("leaderAddr"))
	p.require(p.call(topicRequest("U")), protocol.ResponseServiceNotAvailable) // it is here by now, and nowhere else
	for range 2 {                                                              // it is not here any more the second time
		p.require(p.call(request(protocol.RequestDeleteTopicInBroker, "topic", "U")), protocol.ResponseServiceNotAvailable)
		p.require(p.call(request(protocol.RequestDeleteSubscriptionGroup, "groupName", "nobody")), protocol.ResponseServiceNotAvailable)
	}
	h.mu.Lock()
	h.fail = nil
	topics, groups := h.saves[topicsName], h.saves[groupsName]
	h.mu.Unlock()

	h.elect("2", "127.0.0.1:2")
	awaitRole(t, a, false)
	awaitRole(t, b, true)
	require.Equal(t, b.roles.newest().Epoch, b.Topics.DataVersion().StateVersion)
	require.Eventually(t, func() bool { return a.Topics.Get("U") == nil }, 10*time.Second, time.Millisecond, "it was refused")
	require.NoError(t, b.flush())
	h.mu.Lock()
	require.Equal(t, []int{topics, groups}, []int{h.saves[topicsName], h.saves[groupsName]}, "what the others have is not sent again")
	h.mu.Unlock()
	p = connect(t, b)
	p.require(p.call(request(protocol.RequestDeleteTopicInBroker, "topic", "T")), protocol.ResponseSuccess)
	require.Eventually(t, func() bool {
		return a.Topics.Get("T") == nil && a.Topics.Get("U") == nil && len(a.Offsets.Offsets("g", "T")) == 0
	}, 10*time.Second, time.Millisecond)
}

// Proves that name servers hear of a role as soon as it changes, with the epoch.
func TestFifthModeRegisters(t *testing.T) {
	n := startNamesrv(t, "")
	h := newHub()
	b, _ := startFifth(t, h, "1", "namesrvAddr="+n.addr, "dLegerSelfId=n3")
	registered := func() (int64, int64) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.header.BrokerID, n.version.StateVersion
	}
	is := func(id int64) func() bool {
		return func() bool {
			got, epoch := registered()
			return got == id && epoch == b.roles.newest().Epoch
		}
	}
	require.Eventually(t, is(4), 10*time.Second, time.Millisecond)
	h.elect("1", "127.0.0.1:1")
	require.Eventually(t, is(0), 10*time.Second, time.Millisecond)
	h.elect("2", "127.0.0.1:2")
	require.Eventually(t, is(4), 10*time.Second, time.Millisecond)
}

// Proves that a broker which stops makes another one lead first.
func TestFifthModeHandsOver(t *testing.T) {
	h := newHub()
	a, fa := startFifth(t, h, "1")
	b, _ := startFifth(t, h, "2")
	h.elect("1", "127.0.0.1:1")
	awaitRole(t, a, true)
	require.NoError(t, stopBroker(a))
	require.Equal(t, "2", fa.Status().Leader)
	awaitRole(t, b, true)
}

// Proves what becomes of offsets that groups commit while the leader is away: the furthest counts, unless
// somebody has set it since.
func TestOffsetsMerge(t *testing.T) {
	leader, clock := testManagers(t, vfs.NewHeap(), "")
	o := leader.Offsets
	for id, committed := range []int64{10, 10, 10, 10} {
		o.Commit([]byte("g"), []byte("T"), int32(id), committed)
	}
	then := clock.Now().UnixMilli()
	clock.Advance(time.Second)
	o.Reset("g", "T", 2, 3)
	o.TakeReset([]byte("g"), []byte("T"), 2)
	o.Clone("g", "h", "T")
	require.Equal(t, 2, o.merge([]localOffset{
		{"g", "T", 0, 20, then}, {"g", "T", 1, 5, then}, {"g", "T", 2, 20, then}, {"h", "T", 3, 20, then}, {"k", "T", 0, 7, then},
	}))
	require.Equal(t, map[int32]int64{0: 20, 1: 10, 2: 3, 3: 10}, o.Offsets("g", "T"))
	require.EqualValues(t, 10, o.Offsets("h", "T")[3])
	require.EqualValues(t, 7, o.Offsets("k", "T")[0])
}
