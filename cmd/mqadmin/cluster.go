package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/client"
	"rmq/remoting/protocol"
	"rmq/replication"
)

func clusterCommands() []command {
	return []command{
		{"clusterList", "List clusters and brokers with their load", clusterList},
		{"clusterRT", "Send messages to every broker and show how long it takes", clusterRT},
	}
}

// brokerRow is one broker of clusterList.
type brokerRow struct {
	Cluster       string  `json:"cluster" col:"#Cluster Name"`
	Broker        string  `json:"broker" col:"#Broker Name"`
	ID            int64   `json:"brokerId" col:"#BID"`
	Addr          string  `json:"addr" col:"#Addr"`
	Version       string  `json:"version" col:"#Version"`
	In            string  `json:"-" col:"#InTPS(LOAD)"`
	Out           string  `json:"-" col:"#OutTPS(LOAD)"`
	Timer         string  `json:"-" col:"#Timer(Progress)"`
	PageCacheWait int64   `json:"pageCacheLockMillis" col:"#PCWait(ms)"`
	Hours         float64 `json:"hours" col:"#Hour" fmt:"%.2f"` // since the oldest message was stored
	DiskRatio     float64 `json:"diskRatio" col:"#SPACE" fmt:"%.4f"`
	Active        bool    `json:"active" col:"#ACTIVATED"`

	Role        string  `json:"role"`                  // master, slave; leader, follower, read-only of a group
	Replication string  `json:"replication,omitempty"` // none, async, sync, raft; a broker of Apache does not tell
	InTPS       float64 `json:"inTps"`
	OutTPS      float64 `json:"outTps"`
	SendQueue   int64   `json:"sendQueue"`
	SendWait    int64   `json:"sendQueueWaitMillis"`
	PullQueue   int64   `json:"pullQueue"`
	PullWait    int64   `json:"pullQueueWaitMillis"`
	AckQueue    int64   `json:"ackQueue"`
	AckWait     int64   `json:"ackQueueWaitMillis"`
	TimerRead   int64   `json:"timerReadBehindSeconds"`
	TimerPlace  int64   `json:"timerOffsetBehind"`
	Error       string  `json:"error,omitempty"` // why the broker did not tell
}

// volumeRow is one broker of clusterList -m.
type volumeRow struct {
	Cluster string `json:"cluster" col:"#Cluster Name"`
	Broker  string `json:"broker" col:"#Broker Name"`
	InYest  int64  `json:"inYesterday" col:"#InTotalYest"`
	OutYest int64  `json:"outYesterday" col:"#OutTotalYest"`
	InToday int64  `json:"inToday" col:"#InTotalToday"`
	OutTday int64  `json:"outToday" col:"#OutTotalToday"`
}

// roleRow is one broker of clusterList -r.
type roleRow struct {
	Cluster     string `json:"cluster" col:"#Cluster Name"`
	Broker      string `json:"broker" col:"#Broker Name"`
	ID          int64  `json:"brokerId" col:"#BID"`
	Addr        string `json:"addr" col:"#Addr"`
	Role        string `json:"role" col:"#Role"`
	Epoch       int64  `json:"epoch" col:"#Epoch"`
	Replication string `json:"replication,omitempty" col:"#Replication"`
	Follows     string `json:"follows,omitempty" col:"#Follows"` // where clients reach its master or leader
	Why         string `json:"why,omitempty"`                    // it takes no messages
}

func clusterList(f *flags) action {
	byRole := f.flag("roles", "r", "show who is master or slave, leader or follower, by what each broker says of itself")
	more := f.flag("more-stats", "m", "show what went in and out, yesterday and today")
	interval := f.number("interval", "i", 0, "show it again every so many seconds")
	cluster := f.text("cluster-name", "c", "", "only this cluster")
	return func(ctx context.Context, t *tool) (any, error) {
		return every(ctx, t, *interval, func() (any, error) {
			brokers, err := listBrokers(ctx, t, *cluster)
			if err != nil {
				return nil, err
			}
			if *more {
				return volumes(ctx, t, brokers)
			}
			if *byRole {
				return rolesOf(ctx, t, brokers)
			}
			return loads(ctx, t, brokers)
		})
	}
}

// every does work once, or with an interval again and again until the user ends it.
func every(ctx context.Context, t *tool, seconds int64, work func() (any, error)) (any, error) {
	if seconds <= 0 {
		return work()
	}
	for {
		res, err := work()
		if err != nil {
			return res, err
		}
		if err := show(t.out, res, t.json); err != nil {
			return nil, err
		}
		if err := sleep(ctx, time.Duration(seconds)*time.Second); err != nil {
			return nil, err
		}
		if !t.json {
			fmt.Fprintln(t.out)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// brokerAt is one broker of a cluster.
type brokerAt struct {
	cluster, name string
	id            int64
	addr          string
}

// listBrokers are the brokers of one cluster, or with "" of all, by cluster, name and id.
func listBrokers(ctx context.Context, t *tool, cluster string) ([]brokerAt, error) {
	info, err := t.admin.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	clusters := slices.Sorted(maps.Keys(info.ClusterAddrTable))
	if cluster != "" {
		if !slices.Contains(clusters, cluster) {
			return nil, fmt.Errorf("cluster %s: %w: there are %v", cluster, client.ErrNotFound, clusters)
		}
		clusters = []string{cluster}
	}
	var out []brokerAt
	for _, c := range clusters {
		for _, name := range slices.Sorted(slices.Values(info.ClusterAddrTable[c])) {
			addrs := info.BrokerAddrTable[name].BrokerAddrs
			for _, id := range slices.Sorted(maps.Keys(addrs)) {
				out = append(out, brokerAt{c, name, id, addrs[id]})
			}
		}
	}
	return out, nil
}

// loads asks every broker; one that does not answer has a row that says so.
func loads(ctx context.Context, t *tool, brokers []brokerAt) (any, error) {
	rows := []brokerRow{}
	var errs []error
	for _, b := range brokers {
		row := brokerRow{Cluster: b.cluster, Broker: b.name, ID: b.id, Addr: b.addr}
		info, err := t.admin.RuntimeInfo(ctx, b.addr)
		if err != nil {
			row.Error = err.Error()
			errs = append(errs, fmt.Errorf("broker %s: %w", b.name, err))
		}
		row.fill(info, time.Now())
		row.Replication, row.Role, _ = roleOf(b, info)
		rows = append(rows, row)
	}
	return rows, errors.Join(errs...)
}

// roleOf is what a broker is by what it says; one of Apache's says nothing, and its number tells.
func roleOf(b brokerAt, info map[string]string) (mode, role string, st replication.Status) {
	st, _, ok := replication.ParseInfo(info)
	if ok {
		mode = st.Mode.String()
	}
	switch leads := ok && st.Role == replication.Leader || !ok && b.id == 0; {
	case ok && (st.Mode == replication.Raft || st.Role == replication.ReadOnly):
		return mode, st.Role.String(), st
	case leads:
		return mode, "master", st
	default:
		return mode, "slave", st
	}
}

// rolesOf asks every broker; one that does not answer has none.
func rolesOf(ctx context.Context, t *tool, brokers []brokerAt) (any, error) {
	rows := []roleRow{}
	var errs []error
	for _, b := range brokers {
		row := roleRow{Cluster: b.cluster, Broker: b.name, ID: b.id, Addr: b.addr}
		info, err := t.admin.RuntimeInfo(ctx, b.addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("broker %s: %w", b.name, err))
			continue
		}
		var st replication.Status
		row.Replication, row.Role, st = roleOf(b, info)
		if row.Epoch, row.Why = st.Epoch, st.Why; st.Role == replication.Follower {
			row.Follows = st.Client
		}
		rows = append(rows, row)
	}
	return rows, errors.Join(errs...)
}

func (r *brokerRow) fill(info map[string]string, now time.Time) {
	n := func(key string) int64 { v, _ := strconv.ParseInt(info[key], 10, 64); return v }
	r.Version = info["brokerVersionDesc"]
	r.InTPS, r.OutTPS = firstNumber(info["putTps"]), firstNumber(info["getTransferredTps"])
	if _, ok := info["getTransferredTps"]; !ok {
		r.OutTPS = firstNumber(info["getTransferedTps"]) // before 5.0
	}
	r.SendQueue, r.SendWait = n("sendThreadPoolQueueSize"), n("sendThreadPoolQueueHeadWaitTimeMills")
	r.PullQueue, r.PullWait = n("pullThreadPoolQueueSize"), n("pullThreadPoolQueueHeadWaitTimeMills")
	r.AckQueue, r.AckWait = n("ackThreadPoolQueueSize"), n("ackThreadPoolQueueHeadWaitTimeMills")
	r.TimerRead, r.TimerPlace = n("timerReadBehind"), n("timerOffsetBehind")
	r.PageCacheWait = n("pageCacheLockTimeMills")
	if oldest := n("earliestMessageTimeStamp"); oldest > 0 {
		r.Hours = float64(now.UnixMilli()-oldest) / 3_600_000
	}
	r.DiskRatio = firstNumber(info["commitLogDiskRatio"])
	r.Active = info["brokerActive"] == "true"
	r.In = fmt.Sprintf("%.2f(%d,%dms)", r.InTPS, r.SendQueue, r.SendWait)
	r.Out = fmt.Sprintf("%.2f(%d,%dms|%d,%dms)", r.OutTPS, r.PullQueue, r.PullWait, r.AckQueue, r.AckWait)
	r.Timer = fmt.Sprintf("%d-%d(%.1fw, %.1f, %.1f)", r.TimerRead, r.TimerPlace,
		float64(n("timerCongestNum"))/10_000, firstNumber(info["timerEnqueueTps"]), firstNumber(info["timerDequeueTps"]))
}

func firstNumber(text string) float64 {
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	x, _ := strconv.ParseFloat(word, 64)
	return x
}

// volumes are of masters and slaves alike, as far as they answer.
func volumes(ctx context.Context, t *tool, brokers []brokerAt) (any, error) {
	rows := []volumeRow{}
	var errs []error
	for _, b := range brokers {
		info, err := t.admin.RuntimeInfo(ctx, b.addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("broker %s: %w", b.name, err))
			continue
		}
		n := func(key string) int64 { v, _ := strconv.ParseInt(info[key], 10, 64); return v }
		rows = append(rows, volumeRow{
			Cluster: b.cluster, Broker: b.name,
			InYest:  n("msgPutTotalTodayMorning") - n("msgPutTotalYesterdayMorning"),
			OutYest: n("msgGetTotalTodayMorning") - n("msgGetTotalYesterdayMorning"),
			InToday: n("msgPutTotalTodayNow") - n("msgPutTotalTodayMorning"),
			OutTday: n("msgGetTotalTodayNow") - n("msgGetTotalTodayMorning"),
		})
	}
	return rows, errors.Join(errs...)
}

// roundTrip is one broker of clusterRT.
type roundTrip struct {
	Cluster string  `json:"cluster" col:"#Cluster Name"`
	Broker  string  `json:"broker" col:"#Broker Name"`
	RT      float64 `json:"rtMillis" col:"#RT" fmt:"%.2f"` // average of all but the first
	OK      int     `json:"successCount" col:"#successCount"`
	Failed  int     `json:"failCount" col:"#failCount"`
}

func clusterRT(f *flags) action {
	amount := f.number("amount", "a", 100, "messages for each broker")
	size := f.number("size", "s", 128, "bytes of a message")
	cluster := f.text("cluster", "c", "", "only this cluster")
	interval := f.number("interval", "i", 10, "show it again every so many seconds, 0: once")
	asLog := f.truth("print-log", "p", false, "print lines for a log: time|room|cluster|broker|RT")
	room := f.text("machine-room", "m", "noname", "name of the room in those lines")
	return func(ctx context.Context, t *tool) (any, error) {
		if *amount < 2 || *size < 1 {
			return nil, usage("--amount=%d and --size=%d: use at least 2 messages, since the first does not count, and 1 byte", *amount, *size)
		}
		p, err := t.client().NewProducer(client.ProducerOptions{Group: toolGroup()})
		if err != nil {
			return nil, err
		}
		return every(ctx, t, *interval, func() (any, error) {
			brokers, err := listBrokers(ctx, t, *cluster)
			if err != nil {
				return nil, err
			}
			rows := []roundTrip{}
			for _, b := range brokers {
				if b.id == 0 {
					rows = append(rows, trips(ctx, p, b, int(*amount), int(*size)))
				}
			}
			if !*asLog {
				return rows, ctx.Err()
			}
			r := &report{data: rows}
			for _, row := range rows {
				r.and("%s|%s|%s|%s|%.0f", time.Now().Format(time.DateTime), *room, row.Cluster, row.Broker, row.RT)
			}
			return r, ctx.Err()
		})
	}
}

// trips sends to the topic that has a broker's name, as every broker does for this purpose.
func trips(ctx context.Context, p *client.Producer, b brokerAt, amount, size int) roundTrip {
	row := roundTrip{Cluster: b.cluster, Broker: b.name}
	var total time.Duration
	counted := 0
	for i := range amount {
		start := time.Now()
		_, err := p.Send(ctx, &client.Message{Topic: b.name, Body: filler(size)})
		if err != nil {
			row.Failed++
			continue
		}
		row.OK++
		if i > 0 {
			total += time.Since(start)
			counted++
		}
	}
	if counted > 0 {
		row.RT = millis(total) / float64(counted)
	}
	return row
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// filler is a body of n bytes.
func filler(n int) []byte { return []byte(strings.Repeat("rmq ", n/4+1)[:n]) }

// toolGroup is a producer group that nobody else has.
func toolGroup() string { return "mqadmin_" + strconv.FormatInt(time.Now().UnixNano(), 36) }

// versionName is the name of a client's or broker's version.
func versionName(v int32) string { return protocol.VersionName(v) }
