package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"rmq/broker"
	"rmq/client"
	"rmq/internal/config"
	"rmq/namesrv"
)

var rewrite = flag.Bool("rewrite", false, "write what commands print into the scripts of testdata/cluster")

// Every subcommand against a name server and a broker: what it prints, as columns and as JSON, how it
// ends, and what then is true. Scripts are in testdata/cluster.
func TestClusterScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "cluster"),
		UpdateScripts: *rewrite,
		Setup: func(e *testscript.Env) error {
			e.Setenv("TMPDIR", e.WorkDir+"/tmp")
			e.Setenv("TZ", "UTC")
			e.Setenv("HOME", e.WorkDir)
			return os.Mkdir(e.WorkDir+"/tmp", 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cluster": cluster, "consumer": consumer, "producer": producer, "norm": norm, "exits": exits, "stopbroker": stopBroker,
		},
	})
}

// pairOfPorts finds a port that is free together with the one two below it.
func pairOfPorts() (int, error) {
	var lc net.ListenConfig
	for range 100 {
		l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		fast, err := lc.Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port-2))
		if err == nil {
			_ = fast.Close() // nobody used it
		}
		_ = l.Close() // likewise
		if err == nil {
			return port, nil
		}
	}
	return 0, errors.New("no two free ports")
}

func flagsOf(values map[string]string) []config.Setting {
	var out []config.Setting
	for k, v := range values {
		out = append(out, config.Setting{Key: k, Value: v, From: config.FromFlag(k)})
	}
	return out
}

// anew does start again where somebody took the port that it had found free.
func anew[T any](start func(port int) (T, error)) (started T, port int, err error) {
	for range 10 {
		if port, err = pairOfPorts(); err != nil {
			return started, 0, err
		}
		if started, err = start(port); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return started, port, err
}

func startNamesrv(dir string, port int) (*namesrv.NameServer, error) {
	settings, _, err := namesrv.LoadConfig(namesrv.LoadOptions{Flags: flagsOf(map[string]string{
		"listenPort": strconv.Itoa(port), "bindAddress": "127.0.0.1", "kvConfigPath": dir + "/kv.json", "configStorePath": dir + "/namesrv.properties",
	})})
	if err != nil {
		return nil, err
	}
	return namesrv.Start(context.Background(), namesrv.Options{Settings: settings})
}

func startBroker(dir, name, servers string, port int) (*broker.Broker, error) {
	settings, _, err := broker.LoadConfig(broker.LoadOptions{Getenv: func(string) string { return "" }, Flags: flagsOf(map[string]string{
		"storePathRootDir": filepath.Join(dir, name), "brokerIP1": "127.0.0.1", "bindAddress": "127.0.0.1", "brokerName": name, "namesrvAddr": servers,
		"mappedFileSizeCommitLog": strconv.Itoa(4 << 20), "mappedFileSizeConsumeQueue": "20000", "maxHashSlotNum": "1000", "maxIndexNum": "4000",
		"maxMessageSize": "1048576", "listenPort": strconv.Itoa(port), "diskMaxUsedSpaceRatio": "99",
	})})
	if err != nil {
		return nil, err
	}
	b, err := broker.New(broker.Options{Settings: settings})
	if err != nil {
		return nil, err
	}
	return b, b.Start(context.Background())
}

// running is a name server with brokers, in this process.
type running struct {
	ns      *namesrv.NameServer
	brokers []*broker.Broker // nil once stopped
	addrs   []string
}

// startCluster runs a name server and a broker for each name.
func startCluster(dir string, names ...string) (*running, error) {
	ns, _, err := anew(func(port int) (*namesrv.NameServer, error) { return startNamesrv(dir, port) })
	if err != nil {
		return nil, err
	}
	r := &running{ns: ns}
	for _, name := range names {
		b, port, err := anew(func(port int) (*broker.Broker, error) { return startBroker(dir, name, ns.Addr().String(), port) })
		if err != nil {
			return nil, errors.Join(err, r.stop())
		}
		r.brokers, r.addrs = append(r.brokers, b), append(r.addrs, fmt.Sprintf("127.0.0.1:%d", port))
		if err := await(func() bool { known, _ := b.NameServers(); return known == 1 }); err != nil {
			return nil, errors.Join(err, r.stop())
		}
	}
	return r, nil
}

func (r *running) stopBroker(i int) error {
	b := r.brokers[i]
	r.brokers[i] = nil
	if b == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.Shutdown(ctx)
}

func (r *running) stop() error {
	var errs []error
	for i := range r.brokers {
		errs = append(errs, r.stopBroker(i))
	}
	return errors.Join(append(errs, r.ns.Shutdown(context.Background()))...)
}

// await asks until the answer is yes.
func await(yes func() bool) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if yes() {
			return nil
		}
	}
	return errors.New("it did not come to pass in 20 s")
}

// cluster starts a name server and brokers, broker-a alone or those named, and puts their addresses into NAMESRV_ADDR,
// BROKER and, of the second broker, BROKER2.
func cluster(ts *testscript.TestScript, _ bool, names []string) {
	if len(names) == 0 {
		names = []string{"broker-a"}
	}
	r, err := startCluster(ts.MkAbs("."), names...)
	ts.Check(err)
	ts.Defer(func() { ts.Check(r.stop()) })
	clusters.Store(ts, r)
	ts.Setenv("NAMESRV_ADDR", r.ns.Addr().String())
	ts.Setenv("BROKER", r.addrs[0])
	if len(r.addrs) > 1 {
		ts.Setenv("BROKER2", r.addrs[1])
	}
}

var clusters sync.Map // *testscript.TestScript → *running

// stopbroker N ends the N-th broker of the script's cluster.
func stopBroker(ts *testscript.TestScript, _ bool, args []string) {
	i, err := strconv.Atoi(args[0])
	ts.Check(err)
	r, _ := clusters.Load(ts)
	ts.Check(r.(*running).stopBroker(i - 1))
}

func member(ts *testscript.TestScript, instance string) *client.Client {
	c, err := client.New(client.Options{NameServers: ts.Getenv("NAMESRV_ADDR"), Instance: instance})
	ts.Check(err)
	ts.Defer(func() { _ = c.Close(context.Background()) }) // the script may have ended a broker or deleted the topic
	return c
}

// consumer GROUP TOPIC runs a member of a group until the script ends, and waits until it has consumed all.
func consumer(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	c := member(ts, "member-of-"+args[0])
	p, err := c.NewPushConsumer(client.PushConsumerOptions{
		Group: args[0], From: client.FromFirst, CommitInterval: 20 * time.Millisecond,
		Handler: func(context.Context, []*client.MessageExt) error { return nil },
	})
	ts.Check(err)
	ts.Check(p.Subscribe(args[1], client.Tags("TagA || TagB")))
	ts.Check(p.Start(ctx))
	ts.Check(await(func() bool {
		s, err := c.Admin().ConsumeStats(ctx, args[0], args[1])
		if err != nil || len(s.OffsetTable) == 0 {
			return false
		}
		for _, o := range s.OffsetTable {
			if o.ConsumerOffset < o.BrokerOffset {
				return false
			}
		}
		return true
	}))
}

// producer GROUP TOPIC N sends messages to the queues of a topic in turn and stays until the script ends.
func producer(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	p, err := member(ts, "member-of-"+args[0]).NewProducer(client.ProducerOptions{Group: args[0]})
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	queues, err := p.Queues(ctx, args[1])
	ts.Check(err)
	for i := range n {
		_, err := p.Send(ctx, &client.Message{Topic: args[1], Body: []byte(fmt.Sprint("body ", i)), Tags: "Tag" + string("AB"[i%2]), Keys: []string{fmt.Sprint("key", i%3)}},
			client.ToQueue(queues[i%len(queues)]))
		ts.Check(err)
	}
}

// norm COMMAND ARGS runs a command that must succeed and writes what it printed into the file out, with words in
// the place of what no two runs share.
func norm(ts *testscript.TestScript, neg bool, args []string) {
	if err := ts.Exec(args[0], args[1:]...); err != nil == !neg {
		ts.Fatalf("%v: %v\n%s", args, err, ts.ReadFile("stderr"))
	}
	text := ts.ReadFile("stdout")
	if neg {
		text = ts.ReadFile("stderr")
	}
	text = strings.NewReplacer(ts.Getenv("NAMESRV_ADDR"), "NAMESRV", ts.Getenv("BROKER"), "BROKER", cmp.Or(ts.Getenv("BROKER2"), "BROKER2"), "BROKER2", ts.MkAbs("."), "WORK").Replace(text)
	for _, r := range volatile {
		text = r.what.ReplaceAllString(text, r.with)
	}
	ts.Check(os.WriteFile(ts.MkAbs("out"), []byte(text), 0o644))
}

var volatile = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\b[0-9A-F]{32}\b`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+)?`), "TIME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDR"},
	{regexp.MustCompile(`(rt=|rtMillis": |averageMillis": |RT: |TPS: |Tps": |tps": |diskRatio": |hours": )[0-9.e-]+`), "${1}N"},
	{regexp.MustCompile(`(true +)\d+\.\d\d`), "${1}N"},
	{regexp.MustCompile(`\b\d+\.\d{2,}\b`), "N"},
	{regexp.MustCompile(`\b1[789]\d{11}\b`), "MILLIS"},
	{regexp.MustCompile(` {3,}`), "  "},
}

// A time can be written in three ways; what is none says how to write one.
func TestParseTime(t *testing.T) {
	for _, ok := range []string{"now", "1700000000000", "2026-01-31#23:59:59:123"} {
		_, err := parseTime("s", ok)
		require.NoError(t, err, ok)
	}
	at, err := parseTime("s", "2026-01-31#23:59:59:123")
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 1, 31, 23, 59, 59, 123e6, time.Local), at)
	for _, bad := range []string{"", "yesterday", "2026-01-31", "2026-13-31#23:59:59:000", "2026-01-31 23:59:59:000"} {
		_, err := parseTime("s", bad)
		require.ErrorContains(t, err, "is no time: write now, milliseconds since 1970, or like 2026-01-31#23:59:59:000", bad)
	}
}

// What a broker tells becomes a row of clusterList, whatever it leaves out.
func TestBrokerRow(t *testing.T) {
	var r brokerRow
	r.fill(map[string]string{
		"putTps": "1.5 2.5 3.5", "getTransferedTps": " 7.25 1 2", "sendThreadPoolQueueSize": "4", "sendThreadPoolQueueHeadWaitTimeMills": "5",
		"earliestMessageTimeStamp": "1000", "commitLogDiskRatio": "0.25", "brokerActive": "true", "timerCongestNum": "25000",
	}, time.UnixMilli(1000+5_400_000))
	require.Equal(t, "1.50(4,5ms)", r.In)
	require.Equal(t, "7.25(0,0ms|0,0ms)", r.Out)
	require.Equal(t, "0-0(2.5w, 0.0, 0.0)", r.Timer)
	require.Equal(t, 1.5, r.Hours)
	var none brokerRow
	none.fill(map[string]string{"earliestMessageTimeStamp": "-1"}, time.Now())
	require.Zero(t, none.Hours, "an empty store has no oldest message")
}

// The order of a topic is read as it is written.
func TestParseOrder(t *testing.T) {
	q, err := parseOrder("broker-a:4;broker-b:8")
	require.NoError(t, err)
	require.Equal(t, map[string]int{"broker-a": 4, "broker-b": 8}, q)
	require.Equal(t, "broker-a:4;broker-b:8", orderText(q))
	for _, bad := range []string{"broker-a", "broker-a:x", ":4", "broker-a:0"} {
		_, err := parseOrder(bad)
		require.ErrorContains(t, err, "write broker:queues;broker:queues", bad)
	}
}

// Every command of the table has a letter for each of its stock flags only once, and says what it is for.
func TestCommandTable(t *testing.T) {
	seen := map[string]bool{}
	for _, fam := range families() {
		for _, c := range fam.commands {
			require.False(t, seen[c.name], c.name)
			seen[c.name] = true
			require.NotEmpty(t, c.short, c.name)
			cmd := newClusterCmd(c, fam.id, nil, nil)
			cmd.Flags().VisitAll(func(f *pflag.Flag) { require.NotEmpty(t, f.Usage, c.name+" "+f.Name) })
		}
	}
}

// Traces in the form of Java's clients say who sent and who consumed a message, also half of it.
func TestMessageTrace(t *testing.T) {
	record := func(fields ...string) string { return strings.Join(fields, "\x01") + "\x02" }
	msg := &client.MessageExt{BornHost: netip.MustParseAddrPort("10.0.0.7:1234"), Body: []byte(
		record("Pub", "1700000000000", "DefaultRegion", "P", "T", "ID", "TagA", "k", "10.0.0.1:10911", "6", "87", "0", "OFFSETID", "true") +
			record("Pub", "1700000000000", "DefaultRegion", "P", "T", "OTHER", "TagA", "k", "10.0.0.1:10911", "6", "87", "0", "OFFSETID", "true") +
			record("SubBefore", "1700000001000", "DefaultRegion", "G", "R1", "ID", "2", "null") +
			record("SubAfter", "R1", "ID", "5", "false", "null", "1", "1700000001000", "G") +
			record("SubBefore", "1700000002000", "DefaultRegion", "G", "R2", "ID", "3", "k"))}
	var m messageTrace
	m.add(msg, "ID")
	require.Equal(t, []sendTrace{{
		Type: "Pub", Group: "P", Host: "10.0.0.7", Time: stampSeconds(1700000000000), Cost: "87ms", Millis: 87, Status: "success", Topic: "T", Tags: "TagA", Keys: "k",
	}}, m.Sends)
	require.Len(t, m.Consumes, 2)
	require.Equal(t, []string{"failed", "5ms", "G", "10.0.0.7"}, []string{m.Consumes[0].Status, m.Consumes[0].Cost, m.Consumes[0].Group, m.Consumes[0].Host})
	require.Equal(t, "unknown", m.Consumes[1].Status)
	require.EqualValues(t, 3, m.Consumes[1].Retry)
	require.NotPanics(t, func() { m.add(&client.MessageExt{BornHost: msg.BornHost, Body: []byte("Pub\x01\x02\x02SubAfter")}, "") })
}

// Columns line up, and nothing follows the last word of a line.
func TestColumns(t *testing.T) {
	type row struct {
		A string  `col:"#A"`
		B float64 `col:"#Bee" fmt:"%.1f"`
		C string  `col:"#C"`
		D string
	}
	var p page
	p.columns([]row{{"längest", 1, "", "x"}, {"s", 20.25, "c", "y"}})
	require.Equal(t, "#A       #Bee  #C\nlängest  1.0\ns        20.2  c\n", p.String())
}

// A command against a cluster ends within 50 ms; this shows what it takes.
func BenchmarkTopicRoute(b *testing.B) {
	r, err := startCluster(b.TempDir(), "broker-a")
	require.NoError(b, err)
	defer func() { require.NoError(b, r.stop()) }()
	exe, err := os.Executable()
	require.NoError(b, err)
	dir := b.TempDir()
	require.NoError(b, os.Symlink(exe, filepath.Join(dir, "mqadmin")))
	for b.Loop() {
		out, err := exec.Command(filepath.Join(dir, "mqadmin"), "topicRoute", "-t", "TBW102", "-n", r.ns.Addr().String()).CombinedOutput()
		require.NoError(b, err, "%s", out)
	}
}
