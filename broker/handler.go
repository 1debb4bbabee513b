package broker

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rmq/engine"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Names of the listeners of a broker.
const (
	listenerMain = "main"
	listenerFast = "fast" // listenPort - 2, which serves no pulls
)

// route says what becomes of the requests of one code. Exactly one of hot, process and refusal is set.
type route struct {
	family  family
	hot     func(cs *connState, req *protocol.Command) // on the reader, answers by itself
	process processor
	refusal *refusal
	slowly  bool // not on the fast port
	latency rpcLatency

	before []func(c *remoting.Conn, req *protocol.Command) *protocol.Command
	after  []func(c *remoting.Conn, req, resp *protocol.Command)
}

const commonCodes = 512

// routes is the table of all requests that a broker knows. It does not change once connections are
// served.
type routes struct {
	common [commonCodes]*route
	others map[int32]*route
}

func (t *routes) find(code int32) *route {
	if uint32(code) < commonCodes {
		return t.common[code]
	}
	return t.others[code]
}

func (t *routes) set(code protocol.RequestCode, r *route) {
	if t.find(int32(code)) != nil {
		panic(fmt.Sprintf("BUG: request %s has two processors", code))
	}
	if uint32(code) < commonCodes {
		t.common[code] = r
		return
	}
	if t.others == nil {
		t.others = map[int32]*route{}
	}
	t.others[int32(code)] = r
}

func (t *routes) each(f func(code protocol.RequestCode, r *route)) {
	for code, r := range t.common {
		if r != nil {
			f(protocol.RequestCode(code), r)
		}
	}
	for code, r := range t.others {
		f(protocol.RequestCode(code), r)
	}
}

// processor answers one request of a family that may block: it runs on an executor with a request of its
// own. nil is no answer, or none yet.
type processor func(c *remoting.Conn, req *protocol.Command) *protocol.Command

// register gives requests of a code to p, on the reader of the connection (familyReader, p must not
// block then) or on the executor of a family.
func (b *Broker) register(code protocol.RequestCode, f family, p processor) {
	b.routes.set(code, &route{family: f, process: p})
}

// registerHot gives requests of a code to f, on the reader.
func (b *Broker) registerHot(code protocol.RequestCode, fam family, f func(cs *connState, req *protocol.Command)) {
	b.routes.set(code, &route{family: fam, hot: f, slowly: fam == familyPull || fam == familyLitePull})
}

// refuseCode answers requests of a code that is known and not kept.
func (b *Broker) refuseCode(code protocol.RequestCode, with *refusal) {
	b.routes.set(code, &route{refusal: with})
}

// intercept puts an interceptor before the requests that it is about. The first that was given comes
// first.
func (b *Broker) intercept(i Interceptor) {
	b.routes.each(func(code protocol.RequestCode, r *route) {
		if !i.Codes(code) {
			return
		}
		if i.Before != nil {
			r.before = append(r.before, i.Before)
		}
		if i.After != nil {
			r.after = append(r.after, i.After)
		}
	})
}

// notSupported is the remark for a code that nobody serves, in the words of Apache.
func notSupported(code int32) string { return fmt.Sprintf(" request type %d not supported", code) }

// laterRequests are the requests of features that are not built: they are refused, and never taken for
// something else.
var laterRequests = []protocol.RequestCode{
	protocol.RequestEndTransaction, protocol.RequestCheckTransactionState, protocol.RequestResumeCheckHalfMessage,
	protocol.RequestSendReplyMessage, protocol.RequestSendReplyMessageV2, protocol.RequestPushReplyMessageToClient,
	protocol.RequestUpdateAndCreateACLConfig, protocol.RequestDeleteACLConfig, protocol.RequestGetBrokerClusterACLInfo,
	protocol.RequestUpdateGlobalWhiteAddrsConfig, protocol.RequestGetBrokerClusterACLConfig,
	protocol.RequestAuthCreateUser, protocol.RequestAuthUpdateUser, protocol.RequestAuthDeleteUser, protocol.RequestAuthGetUser,
	protocol.RequestAuthListUser, protocol.RequestAuthCreateACL, protocol.RequestAuthUpdateACL, protocol.RequestAuthDeleteACL,
	protocol.RequestAuthGetACL, protocol.RequestAuthListACL,
	protocol.RequestPopMessage, protocol.RequestAckMessage, protocol.RequestPeekMessage, protocol.RequestChangeMessageInvisibleTime,
	protocol.RequestNotification, protocol.RequestPollingInfo, protocol.RequestPopRollback, protocol.RequestBatchAckMessage,
}

func (b *Broker) registerOwn() {
	for _, code := range []protocol.RequestCode{protocol.RequestSendMessage, protocol.RequestSendMessageV2, protocol.RequestSendBatchMessage} {
		b.registerHot(code, familySend, b.serveSend)
	}
	b.register(protocol.RequestConsumerSendMsgBack, familySend, b.sendBack)
	b.registerHot(protocol.RequestPullMessage, familyPull, b.servePull)
	b.registerHot(protocol.RequestLitePullMessage, familyLitePull, b.servePull)
	b.refuseCode(protocol.RequestRecallMessage, refuse(protocol.ResponseNoPermission, "recall failed, the broker does not keep timer messages yet"))
	for _, code := range laterRequests {
		b.refuseCode(code, refuse(protocol.ResponseRequestCodeNotSupported, notSupported(int32(code))))
	}
}

// SupportedCodes lists the requests that a broker answers, and those that it knows and refuses, in no
// order.
func SupportedCodes() (answered, refused []protocol.RequestCode) {
	b := new(Broker)
	b.registerOwn()
	new(processors).registerAll(b.register)
	b.routes.each(func(code protocol.RequestCode, r *route) {
		if r.refusal != nil {
			refused = append(refused, code)
		} else {
			answered = append(answered, code)
		}
	})
	return answered, refused
}

// connState is what a broker keeps with a connection.
type connState struct {
	b    *Broker
	conn *remoting.Conn
	peer netip.AddrPort
	fast bool

	// The reader's.
	send protocol.SendHeader
	pull protocol.PullHeader
	ops  []*sendOp // gathered, to be submitted when the input runs dry
	vec  []*engine.Append

	parking atomic.Bool // sends wait in parked, further ones must not overtake them

	mu       sync.Mutex
	inflight sendList
	parked   []*protocol.Command

	// Under the lock of PullRequestHold.
	held *heldPull // the newest
	gone bool
}

// Opened implements remoting.Handler.
func (b *Broker) Opened(c *remoting.Conn) {
	peer := c.RemoteAddr()
	cs := &connState{b: b, conn: c, peer: netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), fast: c.Listener() == listenerFast}
	c.SetState(cs)
	b.conns.Store(cs, struct{}{})
}

// Serve implements remoting.Handler.
func (b *Broker) Serve(c *remoting.Conn, req *protocol.Command) {
	cs := c.State().(*connState)
	r := b.routes.find(req.Code)
	switch {
	case r == nil || cs.fast && r.slowly:
		b.unknown.Add(1)
		reply(c, req, refuse(protocol.ResponseRequestCodeNotSupported, notSupported(req.Code)))
		return
	case r.refusal != nil:
		b.unknown.Add(1)
		reply(c, req, r.refusal)
		return
	}
	for _, before := range r.before {
		if resp := before(c, req); resp != nil {
			c.Reply(req, resp)
			return
		}
	}
	switch {
	case r.hot != nil:
		r.hot(cs, req)
	case r.family == familyReader:
		r.run(c, req, time.Now())
	default:
		e := b.executors[r.family]
		if !e.submit(&requestJob{r, c, req.Clone(), time.Now()}) {
			reply(c, req, refuse(protocol.ResponseSystemBusy, e.full()))
		}
	}
}

// full is the remark for a request that finds no place in the queue.
func (e *executor) full() string {
	return fmt.Sprintf("[OVERLOAD]system busy, start flow control for a while: %d requests wait in the %s queue", e.capacity, e.name)
}

// reply answers with a code and a remark.
func reply(c *remoting.Conn, req *protocol.Command, r *refusal) {
	c.Reply(req, r.answer(req))
}

// run serves one request that came in at began.
func (r *route) run(c *remoting.Conn, req *protocol.Command, began time.Time) {
	resp := r.process(c, req)
	if resp != nil {
		r.latency.add(protocol.ResponseCode(resp.Code), time.Since(began))
	}
	for _, after := range r.after {
		after(c, req, resp)
	}
	if resp != nil {
		c.Reply(req, resp)
	}
}

// requestJob is a request in the queue of its family.
type requestJob struct {
	route *route
	conn  *remoting.Conn
	req   *protocol.Command
	began time.Time
}

func (j *requestJob) run() { j.route.run(j.conn, j.req, j.began) }

func (j *requestJob) refuse(cause string) {
	reply(j.conn, j.req, refuse(protocol.ResponseSystemBusy, cause))
}

// Drained implements remoting.Handler: what was gathered goes to the store.
func (b *Broker) Drained(c *remoting.Conn) { c.State().(*connState).submitGathered() }

func (cs *connState) submitGathered() {
	if len(cs.ops) == 0 {
		return
	}
	cs.submit(cs.ops, cs.vec)
	clear(cs.ops)
	clear(cs.vec)
	cs.ops, cs.vec = cs.ops[:0], cs.vec[:0]
	if cap(cs.ops) > keepGathered {
		cs.ops, cs.vec = nil, nil
	}
}

// keepGathered is how much room for gathered sends a connection keeps.
const keepGathered = 128

// Closed implements remoting.Handler: held pulls are dropped, and the client leaves its groups. What was
// handed to the store is stored.
func (b *Broker) Closed(c *remoting.Conn, err error) {
	cs := c.State().(*connState)
	cs.submitGathered()
	b.conns.Delete(cs)
	b.holds.drop(cs)
	b.managers.Closed(c)
	b.log.Debug("connection closed", "peer", cs.peer, "cause", err)
}

// sweepPeriod is how often deadlines are looked at.
const sweepPeriod = 100 * time.Millisecond

// sweep ends what has waited too long: sends in the store, pulls that are held, requests in queues.
func (b *Broker) sweep(now time.Time) {
	if b.sending.Load() > 0 {
		limit := b.sendLimits()
		b.conns.Range(func(k, _ any) bool {
			k.(*connState).expire(now, limit)
			return true
		})
	}
	b.holds.sweep(now)
	if b.conf().FastFailure {
		for _, e := range b.executors {
			if e != nil {
				e.sweep(now)
			}
		}
	}
}
