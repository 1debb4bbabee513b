//go:build drills

package drills

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// answer is what a broker says to a send.
type answer struct {
	code   protocol.ResponseCode
	remark string
	resp   protocol.SendResponse
}

// send sends one message as it is, whatever package client would say to it.
func send(t testing.TB, conn *remoting.Conn, topic string, queue int32, props string, body []byte) answer {
	t.Helper()
	got := make(chan answer, 1)
	call := &remoting.Call{
		Build: func(dst []byte, opaque int32) []byte {
			h := protocol.SendHeader{
				ProducerGroup: []byte("limits"), Topic: []byte(topic), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: 4, QueueID: queue,
				BornMillis: time.Now().UnixMilli(), Properties: []byte(props),
			}
			return append(protocol.AppendSendRequest(dst, protocol.RequestSendMessageV2, opaque, 0, protocol.JSON, &h, len(body)), body...)
		},
		Timeout: 10 * time.Second,
		Done: func(c *remoting.Call) {
			if c.Err != nil {
				got <- answer{-1, c.Err.Error(), protocol.SendResponse{}}
				return
			}
			a := answer{protocol.ResponseCode(c.Response.Code), string(c.Response.Remark), protocol.SendResponse{}}
			if a.code == protocol.ResponseSuccess {
				if err := protocol.ParseSendResponse(c.Response, &a.resp); err != nil {
					a.code, a.remark = -1, err.Error()
				}
			}
			got <- a
		},
	}
	require.NoError(t, conn.Start(call))
	return <-got
}

// Proves where the limits of names, properties and bodies are: what is at a limit is stored and read back
// as it was sent, what is past it is refused with the name of the thing and the limit, stores nothing and
// leaves the connection as it is.
func TestRobustLimits(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	c.start(t)
	b := c.brokers[0]
	cl := c.connect(t)
	createTopic(t, cl, b, "Limits", 1)
	rpc, err := remoting.NewClient(context.WithoutCancel(t.Context()), remoting.ClientOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rpc.Close()) })
	conn, err := rpc.Dial(t.Context(), b.addr())
	require.NoError(t, err)

	prop := func(bytes int) string { return "K\x01" + strings.Repeat("v", bytes-3) + "\x02" }
	// What a broker adds: read it off a message.
	require.Equal(t, protocol.ResponseSuccess, send(t, conn, "Limits", 0, "", []byte("x")).code)
	var own int
	end := readQueue(t, cl, client.MessageQueue{Topic: "Limits", BrokerName: brokerA}, 0, 1, func(m *client.MessageExt) { own = len(m.Properties) })
	const maxProps = 32767
	body := func(n int) []byte { return []byte(strings.Repeat("b", n)) }
	const maxBody = 4 << 20

	for name, s := range map[string]struct {
		topic string
		queue int32
		props string
		body  []byte
		want  []string // in the remark of the refusal; none: stored
	}{
		"a topic of 127":                    {topic: strings.Repeat("t", 127), body: body(1)},
		"a topic of 128":                    {topic: strings.Repeat("t", 128), body: body(1), want: []string{"topic", "128", "127"}},
		"a topic of 10000":                  {topic: strings.Repeat("t", 10_000), body: body(1), want: []string{"topic", "127"}},
		"a blank topic":                     {topic: " ", body: body(1), want: []string{"topic"}},
		"no topic":                          {topic: "", body: body(1), want: []string{"topic"}},
		"a topic with a slash":              {topic: "a/../b", body: body(1), want: []string{"topic", "letters"}},
		"a topic of another alphabet":       {topic: "тема", body: body(1), want: []string{"topic", "letters"}},
		"a topic of the broker's own":       {topic: "SCHEDULE_TOPIC_XXXX", body: body(1), want: []string{"SCHEDULE_TOPIC_XXXX"}},
		"the first queue past the last":     {topic: "Limits", queue: 1, body: body(1), want: []string{"queueId", "1"}},
		"a queue far away":                  {topic: "Limits", queue: 1<<31 - 1, body: body(1), want: []string{"queueId", "2147483647"}},
		"the greatest body":                 {topic: "Limits", body: body(maxBody)},
		"a body one byte greater":           {topic: "Limits", body: body(maxBody + 1), want: []string{fmt.Sprint(maxBody + 1), fmt.Sprint(maxBody), "maxMessageSize"}},
		"a body of 15 MiB":                  {topic: "Limits", body: body(15 << 20), want: []string{"maxMessageSize"}},
		"the longest properties":            {topic: "Limits", props: prop(maxProps - own), body: body(1)},
		"properties one byte longer":        {topic: "Limits", props: prop(maxProps - own + 1), body: body(1), want: []string{"properties", fmt.Sprint(maxProps)}},
		"properties of 1 MiB":               {topic: "Limits", props: prop(1 << 20), body: body(1), want: []string{"properties", fmt.Sprint(maxProps)}},
		"a property without a value":        {topic: "Limits", props: "K", body: body(1)},
		"properties of separators":          {topic: "Limits", props: "\x01\x02\x02\x01\x01\x02", body: body(1)},
		"properties of all alphabets":       {topic: "Limits", props: "ключ\x01値🙂\x02", body: body(1)},
		"a thousand properties":             {topic: "Limits", props: strings.Repeat("abc\x01def\x02", 1000), body: body(1)},
		"a delay level past the last":       {topic: "Limits", props: "DELAY\x0199\x02", body: body(1)},
		"a delay level that is no number":   {topic: "Limits", props: "DELAY\x01soon\x02", body: body(1)},
		"a hundred thousand keys, too long": {topic: "Limits", props: "KEYS\x01" + strings.Repeat("k ", 100_000) + "\x02", body: body(1), want: []string{"properties"}},
		"eight thousand keys":               {topic: "Limits", props: "KEYS\x01" + strings.Repeat("k ", 8_000) + "\x02", body: body(1)},
	} {
		t.Run(name, func(t *testing.T) {
			a := send(t, conn, s.topic, s.queue, s.props, s.body)
			if len(s.want) > 0 {
				t.Log(a.code, a.remark[:min(len(a.remark), 200)])
				require.NotEqual(t, protocol.ResponseSuccess, a.code)
				require.Less(t, len(a.remark), 1000, "a remark repeats what was sent")
				for _, want := range s.want {
					require.Contains(t, a.remark, want)
				}
				return
			}
			require.Equal(t, protocol.ResponseSuccess, a.code, a.remark)
			if strings.Contains(s.props, "DELAY\x0199") {
				return // it is stored elsewhere, and comes in two hours
			}
			q := client.MessageQueue{Topic: s.topic, BrokerName: brokerA, QueueID: a.resp.QueueID}
			eventually(t, 5*time.Second, "it can be read", func() bool {
				m, err := cl.Admin().MessageAt(t.Context(), q, a.resp.QueueOffset)
				if err != nil {
					return false
				}
				require.Equal(t, s.body, m.Body)
				require.True(t, strings.HasPrefix(string(m.Properties), s.props), "properties are not what was sent: %.100q", m.Properties)
				return true
			})
			if s.topic == "Limits" {
				end++
			}
		})
	}
	limits := client.MessageQueue{Topic: "Limits", BrokerName: brokerA}
	got := readQueue(t, cl, limits, 0, end, func(*client.MessageExt) {})
	require.Equal(t, end, got, "what was refused is not stored")

	group := func(n int) *protocol.SubscriptionGroupConfig {
		return &protocol.SubscriptionGroupConfig{GroupName: strings.Repeat("g", n), ConsumeEnable: true, RetryQueueNums: 1, RetryMaxTimes: 16}
	}
	require.NoError(t, cl.Admin().CreateGroup(t.Context(), b.addr(), group(120)))
	err = cl.Admin().CreateGroup(t.Context(), b.addr(), group(121))
	require.ErrorContains(t, err, "120")
	t.Log(err)
	for name, topic := range map[string]string{"too long": strings.Repeat("t", 128), "with a blank": "a b"} {
		err := cl.Admin().CreateTopic(t.Context(), b.addr(), &protocol.TopicConfig{TopicName: topic, ReadQueueNums: 1, WriteQueueNums: 1, Perm: 6}, "")
		require.Error(t, err, name)
		t.Log(err)
	}
	for _, n := range []int32{-1, 0, 65_537, 1<<31 - 1} {
		err := cl.Admin().CreateTopic(t.Context(), b.addr(), &protocol.TopicConfig{TopicName: "Count", ReadQueueNums: n, WriteQueueNums: n, Perm: 6, TopicFilterType: "SINGLE_TAG"}, "")
		t.Log(n, err)
		if n != 0 {
			require.Error(t, err, "%d queues", n)
		}
	}
	// A broker that has stored all that starts again with it.
	b.kill()
	b.start(t)
	require.Equal(t, end, readQueue(t, cl, limits, 0, end, func(*client.MessageExt) {}))
}
