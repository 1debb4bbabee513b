package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/message"
	"rmq/remoting"
	"rmq/remoting/protocol"
)

// sendCall is a pipelined send that says when it has succeeded.
func sendCall(req *protocol.Command, done chan<- error) *remoting.Call {
	return &remoting.Call{Request: req, Timeout: time.Minute, Done: func(c *remoting.Call) {
		err := c.Err
		if err == nil {
			err = c.Response.Err()
		}
		done <- err
	}}
}

// A send is checked in the order of Apache: each case is right in all that comes before and wrong in what
// it is about and all that comes later.
func TestSendChecks(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "autoCreateSubscriptionGroup=false", "maxMessageSize=1000")})
	p := connect(t, b)
	p.send("T", 0, "x")
	body := strings.Repeat("x", 1001)
	for name, c := range map[string]struct {
		topic string
		queue int
		props []string
		code  protocol.ResponseCode
		says  string
	}{
		"name empty":       {"", 99, nil, protocol.ResponseInvalidParameter, "blank"},
		"name illegal":     {"a b", 99, nil, protocol.ResponseInvalidParameter, "illegal characters"},
		"name long":        {strings.Repeat("t", 128), 99, nil, protocol.ResponseInvalidParameter, "127"},
		"forbidden":        {message.TopicSchedule, 99, nil, protocol.ResponseNoPermission, "forbidden"},
		"forbidden, half":  {topicTransHalf, 99, nil, protocol.ResponseNoPermission, "forbidden"},
		"forbidden, max":   {topicTransMaxTime, 99, nil, protocol.ResponseNoPermission, "forbidden"},
		"queue":            {"T", 4, []string{"DELAY", "1"}, protocol.ResponseInvalidParameter, "queueId[4]"},
		"retry, no group":  {"%RETRY%nobody", 0, nil, protocol.ResponseSubscriptionGroupNotExist, "nobody"},
		"body":             {"T", 0, []string{"TRAN_MSG", "true"}, protocol.ResponseMessageIllegal, "maxMessageSize"},
		"retry name legal": {"%RETRY%" + strings.Repeat("t", 240), 0, nil, protocol.ResponseSubscriptionGroupNotExist, "subscription group"},
	} {
		resp := p.call(sendRequest(c.topic, c.queue, body, c.props...))
		require.Contains(t, p.require(resp, c.code), c.says, name)
		require.Equal(t, "DefaultRegion", resp.GetString("MSG_REGION"), name)
	}
	p.require(p.call(with(sendRequest("new", 0, "x"), "c", "none")), protocol.ResponseTopicNotExist)
	require.Nil(t, b.Topics.Get("new"))
	resp := p.call(sendRequest("T", 0, "x", "K", strings.Repeat("v", message.MaxPropertiesBytes)))
	require.Contains(t, p.require(resp, protocol.ResponseMessageIllegal), "properties")
	req := sendRequest("T", 0, "x")
	req.Remove("e")
	require.Contains(t, p.require(p.call(req), protocol.ResponseSystemError), "queueId")

	later := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir(), fmt.Sprintf("startAcceptSendRequestTimeStamp=%d", time.Now().Add(time.Hour).UnixMilli()))}))
	require.Contains(t, later.require(later.call(sendRequest("a b", 0, "x")), protocol.ResponseSystemError), "broker unable to service, until")

	// Without the permission to write only ordered topics are refused, as in Apache.
	b = startBroker(t, Options{Settings: settings(t, t.TempDir(), "brokerPermission=4")})
	ordered := protocol.NewTopicConfig("ordered", 1)
	ordered.Order = true
	require.NoError(t, b.Topics.Put(t.Context(), ordered))
	p = connect(t, b)
	p.require(p.call(sendRequest("ordered", 9, "x")), protocol.ResponseNoPermission)
	p.send("T", 0, "x")
}

// What is not kept is refused and stored nowhere.
func TestRefused(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p := connect(t, b)
	p.send("T", 0, "x")
	end := b.store.Max()
	transaction := func(flag string) *protocol.Command { return with(sendRequest("T", 0, "x"), "f", flag) }
	for name, c := range map[string]struct {
		req  *protocol.Command
		code protocol.ResponseCode
	}{
		"half message":    {sendRequest("T", 0, "x", "TRAN_MSG", "true"), protocol.ResponseNoPermission},
		"prepared":        {transaction("4"), protocol.ResponseNoPermission},
		"rolled back":     {transaction("12"), protocol.ResponseNoPermission},
		"timer, seconds":  {sendRequest("T", 0, "x", "TIMER_DELAY_SEC", "5"), protocol.ResponseSystemError},
		"timer, millis":   {sendRequest("T", 0, "x", "TIMER_DELAY_MS", "5"), protocol.ResponseSystemError},
		"timer, absolute": {sendRequest("T", 0, "x", "TIMER_DELIVER_MS", "5"), protocol.ResponseSystemError},
		"inner batch":     {transaction("128"), protocol.ResponseMessageIllegal},
		"recall":          {protocol.NewRequest(protocol.RequestRecallMessage), protocol.ResponseNoPermission},
		"SQL92":           {with(pullRequest("G", "T", 0, 0, "a > 1", 0), "expressionType", "SQL92"), protocol.ResponseSystemError},
	} {
		require.NotEmpty(t, p.require(p.call(c.req), c.code), name)
	}
	for _, code := range append([]protocol.RequestCode{999, 70000}, laterRequests...) {
		remark := p.require(p.call(protocol.NewRequest(code)), protocol.ResponseRequestCodeNotSupported)
		require.Contains(t, remark, strconv.Itoa(int(code)))
	}
	unknown := b.unknown.Load()
	req := protocol.NewRequest(protocol.RequestEndTransaction)
	req.MarkOneway()
	require.NoError(t, p.conn.Oneway(req))
	p.send("U", 0, "behind the one-way request")
	require.Equal(t, unknown+1, b.unknown.Load())
	_, high, _ := b.store.QueueRange("T", 0)
	require.Equal(t, int64(1), high)
	require.Less(t, end, b.store.Max())
	// A consumer's retry of what was once half a message is an ordinary one.
	p.require(p.call(with(sendRequest("T", 0, "x", "TRAN_MSG", "true", "DELAY", "1"), "j", "1")), protocol.ResponseSuccess)
}

// Topics are created by a send as the template and the client say, and messages sent in one go to a
// topic that was not there keep their order.
func TestAutoCreate(t *testing.T) {
	b := startBroker(t, Options{Settings: settings(t, t.TempDir())})
	p := connect(t, b)
	const n = 200
	done := make(chan error, n)
	for i := range n {
		require.NoError(t, p.conn.Start(sendCall(sendRequest("new", 0, strconv.Itoa(i)), done)))
	}
	for range n {
		require.NoError(t, <-done)
	}
	c := b.Topics.Get("new")
	require.EqualValues(t, 4, c.WriteQueueNums)
	require.EqualValues(t, protocol.PermRead|protocol.PermWrite, c.Perm)
	p.dispatched()
	for next := int64(0); next < n; {
		got := p.pull("G", "new", 0, next, "*", 0)
		require.Equal(t, protocol.ResponseSuccess, got.code)
		for _, body := range got.bodies() {
			require.Equal(t, strconv.FormatInt(next, 10), body)
			next++
		}
	}
	p.require(p.call(with(sendRequest("few", 0, "x"), "d", "2")), protocol.ResponseSuccess)
	require.EqualValues(t, 2, b.Topics.Get("few").WriteQueueNums)
	p.require(p.call(with(sendRequest("many", 0, "x"), "d", "64")), protocol.ResponseSuccess)
	require.EqualValues(t, 8, b.Topics.Get("many").WriteQueueNums)

	p = connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir(), "autoCreateTopicEnable=false")}))
	require.Contains(t, p.require(p.call(sendRequest("new", 0, "x")), protocol.ResponseTopicNotExist), "topic[new] not exist")
	p.send("%RETRY%G", 0, "a retry topic is always created")
}

// A one-way send is stored and not answered.
func TestOneway(t *testing.T) {
	p := connect(t, startBroker(t, Options{Settings: settings(t, t.TempDir())}))
	p.send("T", 0, "first")
	req := sendRequest("T", 0, "one-way")
	require.NoError(t, p.conn.Oneway(req))
	bad := sendRequest("T", 99, "one-way")
	require.NoError(t, p.conn.Oneway(bad))
	p.send("T", 0, "last")
	p.dispatched()
	require.Equal(t, []string{"first", "one-way", "last"}, p.pull("G", "T", 0, 0, "*", 0).bodies())
}

// Every error of the store has an answer, and one that is not known is a SYSTEM_ERROR.
func TestStoreCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code protocol.ResponseCode
		says string
	}{
		{engine.ErrBusy, protocol.ResponseSystemBusy, "busy"},
		{&engine.DiskLevelError{Percent: 91, Limit: 90, Path: "/d", Need: 10, Have: 9}, protocol.ResponseServiceNotAvailable, "the disk of /d is 91 % full, appends are refused above 90 %: need 10 free bytes, have 9"},
		{&engine.SpaceError{Path: "/d", Need: 7, Have: 3, Err: syscall.ENOSPC}, protocol.ResponseServiceNotAvailable, "no space for /d: need 7 bytes, have 3"},
		{&engine.FileError{Op: "write", Path: "/d", Err: syscall.ENOSPC}, protocol.ResponseServiceNotAvailable, "write /d"},
		{engine.ErrPoisoned, protocol.ResponseServiceNotAvailable, "poisoned"},
		{engine.ErrClosed, protocol.ResponseServiceNotAvailable, "shutting down"},
		{engine.ErrIndeterminate, protocol.ResponseFlushDiskTimeout, "unknown"},
		{&engine.TooLargeError{Size: 2, Limit: 1}, protocol.ResponseMessageIllegal, "limit of 1"},
		{&message.LimitError{Part: "topic"}, protocol.ResponseMessageIllegal, "topic"},
		{&message.BatchError{What: "empty"}, protocol.ResponseMessageIllegal, "empty"},
		{engine.ErrUnsupported, protocol.ResponseMessageIllegal, "not supported"},
		{message.ErrHost, protocol.ResponseMessageIllegal, "host"},
		{message.ErrShort, protocol.ResponseMessageIllegal, "short"},
		{message.ErrLength, protocol.ResponseMessageIllegal, "lengths"},
		{message.ErrBadMagic, protocol.ResponseMessageIllegal, "magic"},
		{engine.ErrNotFound, protocol.ResponseSystemError, "not found"},
		{engine.ErrOffsetTooSmall, protocol.ResponseSystemError, "before the log"},
		{engine.ErrOffsetTooLarge, protocol.ResponseSystemError, "behind the log"},
	} {
		code, remark, known := storeCode(fmt.Errorf("around: %w", c.err))
		require.True(t, known, "%v", c.err)
		require.Equal(t, c.code, code, "%v", c.err)
		require.Contains(t, remark, c.says)
	}
	code, _, known := storeCode(errors.New("new"))
	require.False(t, known)
	require.Equal(t, protocol.ResponseSystemError, code)
}

// A full disk refuses sends, naming file and bytes, and takes them again by itself when there is space.
func TestDiskFull(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS)
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "mappedFileSizeCommitLog=65536", "maxMessageSize=40000"), FS: fs})
	p := connect(t, b)
	p.send("T", 0, "x")
	fs.Add(vfs.Rule{Op: vfs.OpAllocate, Err: syscall.ENOSPC})
	body := strings.Repeat("x", 30000)
	var resp *protocol.Command
	require.Eventually(t, func() bool {
		resp = p.call(sendRequest("T", 0, body))
		return resp.Code != 0 && protocol.ResponseCode(resp.Code) != protocol.ResponseSystemBusy
	}, 10*time.Second, time.Millisecond)
	remark := p.require(resp, protocol.ResponseServiceNotAvailable)
	require.Contains(t, remark, "need 65536 bytes, have")
	require.NotContains(t, remark, unknownOutcome)
	fs.Clear()
	require.Eventually(t, func() bool { return p.call(sendRequest("T", 0, body)).Code == 0 }, 10*time.Second, 10*time.Millisecond)
}

// A send that the disk holds up is answered in time: it may be stored. One that finds no place is told
// so at once, and what stands behind it is stored all the same.
func TestSlowDisk(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS)
	b := startBroker(t, Options{Settings: settings(t, t.TempDir(), "flushDiskType=SYNC_FLUSH", "syncFlushTimeout=300", "sendThreadPoolQueueCapacity=2"), FS: fs})
	p := connect(t, b)
	p.send("T", 0, "x")
	gate := vfs.NewGate()
	defer gate.Open()
	fs.Add(vfs.Rule{Op: vfs.OpSync, Match: "*/00000000000000000000", Stall: gate})
	began := time.Now()
	done := make(chan error, 2)
	answers := make(chan *protocol.Command, 2)
	for range 2 {
		call := sendCall(sendRequest("T", 0, "held up"), done)
		after := call.Done
		call.Done = func(c *remoting.Call) {
			if c.Err == nil {
				answers <- c.Response.Clone()
			}
			after(c)
		}
		require.NoError(t, p.conn.Start(call))
	}
	<-gate.Arrived()
	require.Eventually(t, func() bool { return b.sending.Load() == 2 }, 5*time.Second, time.Millisecond)
	require.Contains(t, p.require(p.call(sendRequest("T", 0, "too many")), protocol.ResponseSystemBusy), "[OVERLOAD]")
	for i := range 2 {
		resp := <-answers
		remark := p.require(resp, protocol.ResponseFlushDiskTimeout)
		require.True(t, strings.HasPrefix(remark, unknownOutcome), remark)
		require.Equal(t, strconv.Itoa(i+1), resp.GetString("queueOffset"))
		require.Len(t, resp.GetString("msgId"), 32)
	}
	require.Less(t, time.Since(began), 3*time.Second)
	gate.Open()
	require.Eventually(t, func() bool { return b.sending.Load() == 0 }, 5*time.Second, time.Millisecond)
	p.dispatched()
	require.Equal(t, []string{"x", "held up", "held up"}, p.pull("G", "T", 0, 0, "*", 0).bodies())
	resp := p.send("T", 0, "again")
	require.Equal(t, "3", resp.GetString("queueOffset"))
}

// When log bytes cannot be written, sends under way are told that their outcome is not known, later ones
// that nothing is stored any more, and the process is asked to end.
func TestPoison(t *testing.T) {
	fs := vfs.NewFaulty(vfs.OS)
	fatal := make(chan error, 1)
	b, err := New(Options{
		Settings: settings(t, t.TempDir(), "flushDiskType=SYNC_FLUSH"), FS: fs, Fatal: func(err error) { fatal <- err }, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	p := connect(t, b)
	p.send("T", 0, "x")
	p.dispatched()
	fs.Add(vfs.Rule{Op: vfs.OpSync, Match: "*/00000000000000000000", Err: syscall.EIO})
	remark := p.require(p.call(sendRequest("T", 0, "lost")), protocol.ResponseServiceNotAvailable)
	require.True(t, strings.HasPrefix(remark, unknownOutcome), remark)
	require.ErrorIs(t, <-fatal, syscall.EIO)
	remark = p.require(p.call(sendRequest("T", 0, "later")), protocol.ResponseServiceNotAvailable)
	require.NotContains(t, remark, unknownOutcome)
	require.Len(t, p.pull("G", "T", 0, 0, "*", 0).records, 1, "reads go on")
	require.ErrorIs(t, stopBroker(b), syscall.EIO)
}

// A broker that is opened again has all that it had: messages, queues, topics, groups, offsets.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := settings(t, dir)
	b, err := New(Options{Settings: s})
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	p := connect(t, b)
	id := p.send("T", 2, "kept", "KEYS", "k").GetString("msgId")
	p.dispatched()
	p.call(with(with(pullRequest("G", "T", 2, 0, "*", 0), "commitOffset", "1"), "sysFlag", "5"))
	require.NoError(t, stopBroker(b))

	b = startBroker(t, Options{Settings: s})
	p = connect(t, b)
	require.EqualValues(t, 4, b.Topics.Get("T").WriteQueueNums)
	require.NotNil(t, b.Groups.Get("G"))
	offset, ok := b.Offsets.Query([]byte("G"), []byte("T"), 2)
	require.True(t, ok)
	require.Equal(t, int64(1), offset)
	got := p.pull("G", "T", 2, 0, "*", 0)
	require.Equal(t, []string{"kept"}, got.bodies())
	require.Equal(t, id, got.records[0].ID().String())
	require.Equal(t, "1", p.send("T", 2, "next").GetString("queueOffset"))
}
