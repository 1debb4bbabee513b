package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/message"
	"rmq/remoting/protocol"
)

func newProducer(t *testing.T, c *Client, change ...func(*ProducerOptions)) *Producer {
	t.Helper()
	o := ProducerOptions{Group: "producers"}
	for _, f := range change {
		f(&o)
	}
	p, err := c.NewProducer(o)
	require.NoError(t, err)
	return p
}

func text(topic, body string) *Message { return &Message{Topic: topic, Body: []byte(body)} }

// Proves that a message arrives with everything it bears, that the first send creates the topic, and that the result says
// where it is.
func TestSend(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	p := newProducer(t, c.client())
	m := &Message{Topic: "T", Body: []byte("hello"), Tags: "tag", Keys: []string{"k1", "k2"}, Flag: 3, ShardingKey: "s", Properties: map[string]string{"a": "1"}}
	res, err := p.Send(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, SendOK, res.Status)
	require.Equal(t, "SEND_OK", res.Status.String())
	require.Equal(t, "T", res.Queue.Topic)
	require.Equal(t, "broker-a", res.Queue.BrokerName)
	require.Equal(t, "DefaultRegion", res.Region)
	stored := c.broker("broker-a").all("T")
	require.Len(t, stored, 1)
	got := stored[0]
	require.Equal(t, "hello", string(got.Body))
	require.Equal(t, res.ID, got.ID())
	require.Equal(t, res.OffsetID, got.OffsetID())
	require.Equal(t, res.Queue, got.Queue)
	require.EqualValues(t, 3, got.Flag)
	require.Equal(t, map[string]string{"UNIQ_KEY": res.ID, "TAGS": "tag", "KEYS": "k1 k2", "WAIT": "true", "__SHARDINGKEY": "s", "a": "1"}, got.PropertyMap())
	queues, err := p.Queues(t.Context(), "T")
	require.NoError(t, err)
	require.Len(t, queues, 4, "what a client asks for when it makes a topic")
}

// Proves that long bodies travel compressed, each way of it, and come back whole; short ones and random ones do not.
func TestSendCompressed(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	long := bytes.Repeat([]byte("abcd"), 1024)
	for i, how := range []protocol.Compression{protocol.CompressionZlib, protocol.CompressionLZ4, protocol.CompressionZstd} {
		topic := fmt.Sprintf("T%d", i)
		p := newProducer(t, c.client(), func(o *ProducerOptions) { o.Compression = how })
		for _, body := range [][]byte{long, long[:4095]} {
			_, err := p.Send(t.Context(), &Message{Topic: topic, Body: body})
			require.NoError(t, err)
		}
		for _, m := range c.broker("broker-a").all(topic) {
			require.Equal(t, long[:len(m.Body)], m.Body)
			require.Equal(t, len(m.Body) == 4096, m.SysFlag.Has(message.FlagCompressed))
		}
	}
}

// Proves that a batch is one request, and each of its messages is stored, in order, under a key of its own.
func TestSendBatch(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	p := newProducer(t, c.client())
	var batch []*Message
	for i := range 10 {
		batch = append(batch, &Message{Topic: "T", Body: fmt.Appendf(nil, "m%d", i), Tags: "t", Keys: []string{fmt.Sprint(i)}})
	}
	res, err := p.SendBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Len(t, strings.Split(res.ID, ","), 10)
	require.Len(t, strings.Split(res.OffsetID, ","), 10)
	require.Equal(t, 1, c.broker("broker-a").count(protocol.RequestSendBatchMessage))
	stored := c.broker("broker-a").all("T")
	require.Len(t, stored, 10)
	for i, m := range stored {
		require.Equal(t, fmt.Sprintf("m%d", i), string(m.Body))
		require.Equal(t, res.Queue, m.Queue)
		require.Equal(t, strings.Split(res.ID, ",")[i], m.UniqueKey())
	}
	for want, bad := range map[string][]*Message{
		"batch is empty":      {},
		"batch has topics":    {text("T", "a"), text("U", "b")},
		"delayed message":     {{Topic: "T", Body: []byte("a"), DelayLevel: 1}},
		"retry topic":         {text("%RETRY%g", "a")},
		"waits for slaves":    {text("T", "a"), {Topic: "T", Body: []byte("b"), NoWait: true}},
		"message 1: message ": {text("T", "a"), text("T", "")},
	} {
		_, err := p.SendBatch(t.Context(), bad)
		require.ErrorContains(t, err, want)
	}
}

// Proves that queues are used in turn, chosen by a selector, or fixed.
func TestSendOptions(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a", "broker-b")
	c.createTopic("T", 2)
	p := newProducer(t, c.client())
	seen := map[MessageQueue]int{}
	for range 8 {
		res, err := p.Send(t.Context(), text("T", "x"))
		require.NoError(t, err)
		seen[res.Queue]++
	}
	require.Len(t, seen, 4)
	want := MessageQueue{Topic: "T", BrokerName: "broker-b", QueueID: 1}
	res, err := p.Send(t.Context(), text("T", "x"), ToQueue(want))
	require.NoError(t, err)
	require.Equal(t, want, res.Queue)
	keyed := map[MessageQueue]bool{}
	for range 5 {
		res, err := p.Send(t.Context(), &Message{Topic: "T", Body: []byte("x"), ShardingKey: "user-7"}, ByShardingKey())
		require.NoError(t, err)
		keyed[res.Queue] = true
	}
	require.Len(t, keyed, 1)
	boom := errors.New("boom")
	_, err = p.Send(t.Context(), text("T", "x"), BySelector(func([]MessageQueue, *Message) (MessageQueue, error) { return MessageQueue{}, boom }))
	require.ErrorIs(t, err, boom)
}

// Proves that a one-way message arrives without an answer being waited for.
func TestSendOneway(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	p := newProducer(t, c.client())
	require.NoError(t, p.SendOneway(t.Context(), text("T", "x")))
	require.Eventually(t, func() bool { return len(c.broker("broker-a").all("T")) == 1 }, 5*time.Second, time.Millisecond)
}

// Proves that every asynchronous send calls back once, in the goroutine of callbacks, and that no more than MaxInFlight are
// under way.
func TestSendAsync(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	p := newProducer(t, c.client(), func(o *ProducerOptions) { o.MaxInFlight = 4 })
	var flying, most atomic.Int32
	var inside atomic.Int32
	c.broker("broker-a").setIntercept(func(*protocol.Command) *protocol.Command { return nil })
	var wg sync.WaitGroup
	ids := sync.Map{}
	for i := range 200 {
		wg.Add(1)
		most.Store(max(most.Load(), flying.Add(1)))
		require.NoError(t, p.SendAsync(t.Context(), text("T", fmt.Sprint(i)), func(res *SendResult, err error) {
			defer wg.Done()
			flying.Add(-1)
			if inside.Add(1) != 1 || err != nil {
				t.Error("callbacks overlap, or ", err)
			}
			ids.Store(res.ID, true)
			inside.Add(-1)
		}))
	}
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int32(6))
	require.Len(t, c.broker("broker-a").all("T"), 200)
	n := 0
	ids.Range(func(any, any) bool { n++; return true })
	require.Equal(t, 200, n)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.broker("broker-a").setIntercept(func(req *protocol.Command) *protocol.Command { return silence(req, protocol.RequestSendMessageV2) })
	quick := newProducer(t, p.c, func(o *ProducerOptions) { o.Group, o.MaxInFlight, o.Timeout = "quick", 4, 200*time.Millisecond })
	for range 4 {
		require.NoError(t, quick.SendAsync(t.Context(), text("T", "x"), func(*SendResult, error) {}))
	}
	require.ErrorIs(t, quick.SendAsync(ctx, text("T", "x"), nil), context.Canceled)
	require.Error(t, p.SendAsync(t.Context(), text("", "x"), nil))
}

// silence never answers requests of a code.
func silence(req *protocol.Command, code protocol.RequestCode) *protocol.Command {
	if protocol.RequestCode(req.Code) != code {
		return nil
	}
	return &protocol.Command{Code: never}
}

// answer refuses sends with a code and a remark.
func answer(code protocol.ResponseCode, remark string) func(*protocol.Command) *protocol.Command {
	return func(req *protocol.Command) *protocol.Command {
		if protocol.RequestCode(req.Code) != protocol.RequestSendMessageV2 {
			return nil
		}
		resp := protocol.NewResponse(req, code, remark)
		if code.Stored() {
			resp.Add("msgId", "7F00000100002A9F0000000000000000")
			resp.AddInt("queueId", 0)
			resp.AddInt("queueOffset", 9)
		}
		return resp
	}
}

// Proves that a refusal which another broker may not share is tried there, and one that it would share is not.
func TestSendRetries(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a", "broker-b")
	c.createTopic("T", 2)
	p := newProducer(t, c.client())
	a := c.broker("broker-a")
	for _, code := range []protocol.ResponseCode{protocol.ResponseSystemBusy, protocol.ResponseSystemError, protocol.ResponseServiceNotAvailable, protocol.ResponseNoPermission} {
		a.setIntercept(answer(code, "no"))
		for range 4 {
			res, err := p.Send(t.Context(), text("T", "x"))
			require.NoError(t, err)
			require.Equal(t, "broker-b", res.Queue.BrokerName)
		}
	}
	c.broker("broker-b").setIntercept(answer(protocol.ResponseSystemBusy, "also no"))
	before := a.count(protocol.RequestSendMessageV2) + c.broker("broker-b").count(protocol.RequestSendMessageV2)
	_, err := p.Send(t.Context(), text("T", "x"))
	code, _ := CodeOf(err)
	require.Contains(t, []protocol.ResponseCode{protocol.ResponseSystemBusy, protocol.ResponseNoPermission}, code)
	require.Equal(t, 3, a.count(protocol.RequestSendMessageV2)+c.broker("broker-b").count(protocol.RequestSendMessageV2)-before)

	c.broker("broker-b").setIntercept(answer(protocol.ResponseMessageIllegal, "bad"))
	a.setIntercept(answer(protocol.ResponseMessageIllegal, "bad"))
	before = a.count(protocol.RequestSendMessageV2) + c.broker("broker-b").count(protocol.RequestSendMessageV2)
	_, err = p.Send(t.Context(), text("T", "x"))
	code, _ = CodeOf(err)
	require.Equal(t, protocol.ResponseMessageIllegal, code)
	require.Equal(t, 1, a.count(protocol.RequestSendMessageV2)+c.broker("broker-b").count(protocol.RequestSendMessageV2)-before)

	a.setIntercept(answer(protocol.ResponseSystemBusy, "no"))
	before = a.count(protocol.RequestSendMessageV2)
	_, err = p.Send(t.Context(), text("T", "x"), ToQueue(MessageQueue{Topic: "T", BrokerName: "broker-a"}))
	require.Error(t, err)
	require.Equal(t, 1, a.count(protocol.RequestSendMessageV2)-before, "a chosen queue is not left")
}

// Proves which errors mean that the message may be stored all the same.
func TestSendUnknownOutcome(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	p := newProducer(t, c.client(), func(o *ProducerOptions) { o.Retries = -1; o.Timeout = time.Second })
	b := c.broker("broker-a")
	unknown := func(err error) bool {
		var u *UnknownOutcomeError
		return errors.As(err, &u)
	}
	for code, status := range map[protocol.ResponseCode]SendStatus{
		protocol.ResponseFlushDiskTimeout: SendFlushDiskTimeout, protocol.ResponseFlushSlaveTimeout: SendFlushSlaveTimeout, protocol.ResponseSlaveNotAvailable: SendSlaveNotAvailable,
	} {
		b.setIntercept(answer(code, "[UNKNOWN_OUTCOME] slow"))
		res, err := p.Send(t.Context(), text("T", "x"))
		require.True(t, unknown(err), "%v", err)
		require.Equal(t, status, res.Status)
		require.EqualValues(t, 9, res.QueueOffset)
	}
	b.setIntercept(answer(protocol.ResponseSystemError, "[UNKNOWN_OUTCOME] after the append"))
	_, err := p.Send(t.Context(), text("T", "x"))
	require.True(t, unknown(err), "%v", err)
	require.ErrorContains(t, err, "outcome unknown, it may be stored")
	b.setIntercept(answer(protocol.ResponseSystemError, "before the append"))
	_, err = p.Send(t.Context(), text("T", "x"))
	require.False(t, unknown(err), "%v", err)
	b.setIntercept(func(req *protocol.Command) *protocol.Command { return silence(req, protocol.RequestSendMessageV2) })
	_, err = p.Send(t.Context(), text("T", "x"))
	require.True(t, unknown(err), "no answer: %v", err)
	done := make(chan error, 1)
	require.NoError(t, p.SendAsync(t.Context(), text("T", "x"), func(_ *SendResult, err error) { done <- err }))
	err = <-done
	require.True(t, unknown(err), "no answer: %v", err)
	b.stop()
	require.Eventually(t, func() bool { // once the client has seen the connection close
		_, err = p.Send(t.Context(), text("T", "x"), ToQueue(MessageQueue{Topic: "T", BrokerName: "broker-a"}))
		return err != nil && !unknown(err)
	}, 5*time.Second, time.Millisecond, "nobody listens: %v", err)
}

// Proves that a refusal after an attempt without an answer does not hide that the first may be stored.
func TestSendKeepsTheUnknownOutcome(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a", "broker-b")
	c.createTopic("T", 1)
	p := newProducer(t, c.client(), func(o *ProducerOptions) { o.Retries = 1; o.AttemptTimeout = 200 * time.Millisecond })
	var sends atomic.Int32
	hook := func(req *protocol.Command) *protocol.Command {
		if protocol.RequestCode(req.Code) != protocol.RequestSendMessageV2 {
			return nil
		}
		if sends.Add(1) == 1 {
			return &protocol.Command{Code: never}
		}
		return protocol.NewResponse(req, protocol.ResponseMessageIllegal, "no")
	}
	c.broker("broker-a").setIntercept(hook)
	c.broker("broker-b").setIntercept(hook)
	_, err := p.Send(t.Context(), text("T", "x"))
	var u *UnknownOutcomeError
	require.ErrorAs(t, err, &u)
	code, _ := CodeOf(err)
	require.Equal(t, protocol.ResponseMessageIllegal, code)
}

// Proves that a client follows a broker which says who leads its group, at once and from then on.
func TestSendFollowsLeaderHint(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	c.createTopic("T", 1)
	cl := c.client(func(o *Options) { o.RouteInterval = time.Hour })
	p := newProducer(t, cl, func(o *ProducerOptions) { o.Retries = -1 })
	old := c.broker("broker-a")
	leader := newFakeCluster(t, 1, "broker-a")
	leader.createTopic("T", 1)
	addr := leader.broker("broker-a").addr.String()
	_, err := p.Send(t.Context(), text("T", "before"))
	require.NoError(t, err)
	old.setIntercept(func(req *protocol.Command) *protocol.Command {
		if protocol.RequestCode(req.Code) == protocol.RequestHeartBeat {
			return nil
		}
		resp := protocol.NewResponse(req, protocol.ResponseServiceNotAvailable, "not the leader")
		resp.Add("leaderAddr", addr)
		return resp
	})
	_, err = p.Send(t.Context(), text("T", "1"))
	require.NoError(t, err)
	sends := old.count(protocol.RequestSendMessageV2)
	_, err = p.Send(t.Context(), text("T", "2"))
	require.NoError(t, err)
	require.Equal(t, sends, old.count(protocol.RequestSendMessageV2))
	require.Len(t, leader.broker("broker-a").all("T"), 2)
	o, err := cl.MaxOffset(t.Context(), MessageQueue{Topic: "T", BrokerName: "broker-a"})
	require.NoError(t, err)
	require.EqualValues(t, 2, o)

	// Asynchronously, from a client that has not heard of it.
	p2 := newProducer(t, c.client(), func(o *ProducerOptions) { o.Retries = -1 })
	done := make(chan error, 2)
	for range 2 {
		require.NoError(t, p2.SendAsync(t.Context(), text("T", "3"), func(_ *SendResult, err error) { done <- err }))
		require.NoError(t, <-done)
	}
}

// Proves that a dead name server costs nothing but its connection attempt, and that the next is asked from then on.
func TestNameServerFailOver(t *testing.T) {
	c := newFakeCluster(t, 2, "broker-a")
	require.NoError(t, c.servers[0].Close())
	p := newProducer(t, c.client())
	_, err := p.Send(t.Context(), text("T", "x"))
	require.NoError(t, err)
	require.EqualValues(t, 1, p.c.servers.current.Load())
}

// Proves that a topic without a broker is named, with what to do.
func TestSendWithoutRoute(t *testing.T) {
	c := newFakeCluster(t, 1)
	p := newProducer(t, c.client())
	_, err := p.Send(t.Context(), text("Nowhere", "x"))
	require.ErrorIs(t, err, ErrNoRoute)
	require.ErrorContains(t, err, "topic Nowhere: no route for the topic")
	require.ErrorContains(t, err, "create it with mqadmin updateTopic")
	done := make(chan error, 1)
	require.NoError(t, p.SendAsync(t.Context(), text("Nowhere", "x"), func(_ *SendResult, err error) { done <- err }))
	require.ErrorIs(t, <-done, ErrNoRoute)
}

// Proves that Close waits for asynchronous sends, that the brokers forget the producer, and what is refused after it.
func TestProducerClose(t *testing.T) {
	c := newFakeCluster(t, 1, "broker-a")
	cl := c.client()
	p := newProducer(t, cl)
	_, err := cl.NewProducer(ProducerOptions{Group: "producers"})
	require.ErrorIs(t, err, ErrGroupInUse)
	b := c.broker("broker-a")
	registered := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.makers["producers"])
	}
	var ended atomic.Int32
	for range 50 {
		require.NoError(t, p.SendAsync(t.Context(), text("T", "x"), func(_ *SendResult, err error) {
			if err == nil {
				ended.Add(1)
			}
		}))
	}
	require.Eventually(t, func() bool { return registered() == 1 }, 5*time.Second, time.Millisecond)
	require.NoError(t, p.Close(t.Context()))
	require.EqualValues(t, 50, ended.Load())
	require.Eventually(t, func() bool { return registered() == 0 }, 5*time.Second, time.Millisecond)
	_, err = p.Send(t.Context(), text("T", "x"))
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, p.SendAsync(t.Context(), text("T", "x"), nil), ErrClosed)
	require.NoError(t, p.Close(t.Context()))
	newProducer(t, cl)
	require.NoError(t, cl.Close(t.Context()))
	_, err = cl.NewProducer(ProducerOptions{Group: "more"})
	require.ErrorIs(t, err, ErrClosed)
}
