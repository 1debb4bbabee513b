//go:build interop

package wire

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/client"
)

// stockAdmin runs stock mqadmin subcommands, all in one JVM since one costs seconds, and returns what each printed.
func (l line) stockAdmin(t *testing.T, namesrv string, commands [][]string) []string {
	t.Helper()
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "conf"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "conf", "logback_tools.xml"), []byte("<configuration/>"), 0o644)) // 4.9 wants one
	run := l.java(t, "256m", []string{"-Drocketmq.client.logUseSlf4j=true", "-Drocketmq.home.dir=" + home, "-Drocketmq.namesrv.addr=" + namesrv}, "suite.Admin")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, run.Path, run.Args[1:]...)
	cmd.Dir = t.TempDir() // consumerStatus leaves files
	var in strings.Builder
	for _, c := range commands {
		in.WriteString(strings.Join(c, "\t") + "\n")
	}
	cmd.Stdin = strings.NewReader(in.String())
	text, err := cmd.CombinedOutput()
	parts := strings.Split("\n"+string(text), "\n##### ")[1:]
	require.NoError(t, err, "%s", text)
	require.Len(t, parts, len(commands), "%s", text)
	for i, p := range parts {
		_, parts[i], _ = strings.Cut(p, "\n")
	}
	return parts
}

// ourAdmin runs our mqadmin.
func ourAdmin(t *testing.T, namesrv string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(bin(t, "mqadmin"), args...)
	cmd.Env = append(os.Environ(), "NAMESRV_ADDR="+namesrv, "TMPDIR="+t.TempDir())
	cmd.Dir = t.TempDir()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), err
}

var (
	headings = regexp.MustCompile(`(?m)^#[^#\n]*#.*$|^#[A-Za-z]\S*(?: \S+)*\s*$`)
	blanks   = regexp.MustCompile(`\s+`)
)

// titles are the column titles of a text, in their order: what begins with # up to the next one.
func titles(text string) []string {
	var out []string
	for _, l := range headings.FindAllString(text, -1) {
		for _, title := range strings.Split(l, "#")[1:] {
			out = append(out, "#"+strings.TrimSpace(title))
		}
	}
	return out
}

// check compares what both tools print.
type check struct {
	args string // words; two or more blanks do not matter
	// columns says that both must print the same titles.
	columns bool
	// both are what both must print: each is found in the text with blanks made one.
	both []string
	// missing are titles of the stock tool that ours leaves out, and why.
	missing map[string]string
	since54 bool // 4.9 has no such command or flag
	until54 bool // 5.4 wants more flags
	changed bool // 4.9 has it and prints it otherwise: it has to work
}

// checks are run in this order, by the stock tool and by ours. Words that begin with $ are filled in.
var checks = []check{
	{args: "clusterList", columns: true, both: []string{"DefaultCluster broker-a 0 $BROKER $VERSION"}, changed: true},
	{args: "clusterList -m", columns: true, both: []string{"DefaultCluster broker-a 0 0"}},
	{args: "updateTopic -c DefaultCluster -t $TOPIC -r 4 -w 4", both: []string{"create topic to $BROKER success.", "topicName=$TOPIC, readQueueNums=4, writeQueueNums=4, perm=RW-"}},
	{args: "updateOrderConf -t $TOPICordered -m put -v broker-b:3", both: []string{"update orderConf success. topic=[$TOPICordered], orderConf=[broker-b:3]"}},
	{args: "updateTopic -b $BROKER -t $TOPICordered -r 2 -w 2 -o true", both: []string{"set broker orderConf. isOrder=true, orderConf=["}},
	{args: "updateTopicPerm -c DefaultCluster -t $TOPIC -p 6", both: []string{"update topic perm from 6 to 6 in $BROKER success."}},
	{args: "updateOrderConf -t $TOPICordered -m get", both: []string{"get orderConf success. topic=[$TOPICordered], orderConf=["}},
	{args: "updateOrderConf -t $TOPICordered -m delete", both: []string{"delete orderConf success. topic=[$TOPICordered]"}},
	{args: "topicList", both: []string{"$TOPIC ", "TBW102 "}},
	{args: "topicList -c", columns: true, both: []string{"DefaultCluster Demo Watchers"}},
	{args: "topicRoute -t Demo", both: []string{`"brokerName":`, `"readQueueNums":`}},
	{args: "topicRoute -t Demo -l", columns: true, both: []string{"DefaultCluster broker-a {0=$BROKER} 2 2 6"}, changed: true},
	{args: "topicStatus -t Demo", columns: true, both: []string{"broker-a 0 0 3 20", "broker-a 1 0 3 20", "Topic Put TPS"}, changed: true},
	{args: "topicClusterList -t Demo", both: []string{"DefaultCluster"}},
	{args: "allocateMQ -t Demo -i 10.0.0.1,10.0.0.2", both: []string{`"10.0.0.1"`, `"10.0.0.2"`, `"queueId"`}},
	{args: "statsAll -t Demo", columns: true, both: []string{"Demo Watchers 0 "}},
	{args: "updateSubGroup -c DefaultCluster -g $GROUP", both: []string{"create subscription group to $BROKER success.", "groupName=$GROUP, consumeEnable=true, consumeFromMinEnable=false"}},
	{args: "getConsumerConfig -g $GROUP", both: []string{"=DefaultCluster:broker-a=", "retryMaxTimes = 16", "consumeBroadcastEnable = false"}},
	{args: "consumerProgress", columns: true, both: []string{"Watchers 1 V5_3_3 PUSH CLUSTERING"}},
	{args: "consumerProgress -g Watchers", columns: true, both: []string{"Demo broker-a 1 3 3 0", "Consume TPS: ", "Consume Diff Total: 0"}, changed: true},
	{args: "consumerProgress -g Watchers -t Demo", columns: true, both: []string{"Demo broker-a 0 3 3 0 0 20", "Demo broker-a 1 3 3 0 0 20", "Consume Diff Total: 0"}, since54: true},
	{args: "consumerProgress -g Watchers -t Demo -s true", columns: true, both: []string{"Demo broker-a 0 3 3 127.0.0.1 0 0 20"}, since54: true},
	{args: "consumerStatus -g Watchers", columns: true, both: []string{"V5_3_3", "Same subscription in the same group of consumer", "Rebalance OK"}},
	{args: "consumerConnection -g Watchers", columns: true, both: []string{"GO V5_3_3", "Demo TagA", "ConsumeType: CONSUME_PASSIVELY", "MessageModel: CLUSTERING", "ConsumeFromWhere: CONSUME_FROM_FIRST_OFFSET"}},
	{args: "producerConnection -g Senders -t Demo", both: []string{"0001 ", "GO V5_3_3"}},
	{args: "producer -b $BROKER", both: []string{"producer group (Senders) instance : clientId=", "language=GO, version=479"}},
	{args: "brokerStatus -b $BROKER", both: []string{"brokerVersionDesc : $VERSION", "putTps ", "commitLogMaxOffset "}},
	{args: "brokerStatus -c DefaultCluster", both: []string{"$BROKER brokerVersionDesc : $VERSION"}},
	{args: "brokerConsumeStats -b $BROKER", columns: true, both: []string{"Demo Watchers broker-a 0 3 3 0 20", "Diff Total: "}},
	{args: "getBrokerConfig -b $BROKER", both: []string{"============$BROKER============", "brokerName = broker-a"}},
	{args: "getBrokerConfig -c DefaultCluster", both: []string{"============Master: $BROKER============"}},
	{args: "updateBrokerConfig -b $BROKER -k defaultTopicQueueNums -v 8", both: []string{"update broker config success, $BROKER"}},
	{args: "getNamesrvConfig", both: []string{"============$NAMESRV============"}},
	{args: "updateNamesrvConfig -k logLevel -v INFO", both: []string{"update name server config success!", "logLevel : INFO"}},
	{args: "updateKvConfig -s NS -k K -v V", both: []string{"create or update kv config to namespace success."}},
	{args: "deleteKvConfig -s NS -k K", both: []string{"delete kv config from namespace success."}},
	{args: "wipeWritePerm -b broker-a", both: []string{"wipe write perm of broker[broker-a] in name server[$NAMESRV] OK, "}},
	{args: "addWritePerm -b broker-a", both: []string{"add write perm of broker[broker-a] in name server[$NAMESRV] OK, "}},
	{args: "cleanExpiredCQ -b $BROKER", both: []string{"success"}},
	{args: "cleanUnusedTopic -b $BROKER", both: []string{"success"}},
	{args: "deleteExpiredCommitLog -b $BROKER", both: []string{"success"}},
	{args: "haStatus -b $BROKER", columns: true, both: []string{"#MasterAddr $BROKER", "#SlaveNum 0"}, since54: true},
	{args: "queryMsgById -i $ID", both: []string{"Topic: Demo", "Keys: [key0]", "Queue Offset: 0", "trackType=CONSUMED"}, until54: true},
	{args: "queryMsgById -t Demo -i $ID", both: []string{"Topic: Demo", "Keys: [key0]", "Queue Offset: 0", "trackType=CONSUMED"}, since54: true},
	{args: "queryMsgByUniqueKey -t Demo -i $KEY", both: []string{"Topic: Demo", "Keys: [key0]", "Queue Offset: 0", "trackType=CONSUMED"}},
	{args: "queryMsgByOffset -t Demo -b broker-a -i 0 -o 0", both: []string{"OffsetID: $ID", "Topic: Demo", "Tags: [TagA]", "trackType=CONSUMED"}},
	{args: "queryMsgByKey -t Demo -k key0", columns: true, both: []string{"$KEY 0 0"}, missing: map[string]string{"#IndexKey": "for turning pages of an index that is not ours"}},
	{args: "queryMsgTraceById -i $KEY", columns: true, both: []string{"Pub Senders 127.0.0.1 20", " 7ms success", "Sub Watchers 127.0.0.1 20", " 3ms success"}},
	{args: "queryCq -t Demo -q 0 -i 0 -c 2 -b $BROKER", both: []string{"max: 3, min: 0", "idx: 1", "physicOffset=0, physicSize="}},
	{args: "printMsg -t Demo", both: []string{"minOffset=0, maxOffset=3, MessageQueue [topic=Demo, brokerName=broker-a, queueId=0]", "MSGID: $KEY MessageExt [brokerName=broker-a, queueId=0, ", "BODY: body 0"}},
	{args: "printMsgByQueue -t Demo -a broker-a -i 0 -p true -d true -f true", both: []string{"MSGID: $KEY MessageExt [brokerName=broker-a, queueId=0, ", "BODY: body 0", "Tag: TagA Count: 3"}},
	{args: "consumeMessage -t Demo -b broker-a -i 0 -o 0 -c 1", both: []string{"Consume ok", "MSGID: $KEY MessageExt [brokerName=broker-a, queueId=0, "}},
	{args: "sendMessage -t $TOPIC -p hello -k k -c TagX", columns: true, both: []string{"broker-a ", "SEND_OK"}},
	{args: "checkMsgSendRT -t $TOPIC -a 2 -s 10", columns: true, both: []string{"broker-a 0 true ", "Avg RT: "}},
	{args: "sendMsgStatus -b broker-a -c 2", both: []string{"SendResult [sendStatus=SEND_OK, msgId=", "messageQueue=MessageQueue [topic=broker-a, brokerName=broker-a, queueId=0]"}},
	{args: "resetOffsetByTime -g $GROUP -t Demo -s 0", columns: true, both: []string{"broker-a 1 0", "broker-a 0 0"}},
	{args: "skipAccumulatedMessage -g $GROUP -t Demo", columns: true, both: []string{"broker-a 1 3", "broker-a 0 3"}, changed: true},
	{args: "cloneGroupOffset -s Watchers -d $GROUP -t Demo", both: []string{"clone group offset success. srcGroup[Watchers], destGroup=[$GROUP], topic[Demo]"}},
	{args: "exportConfigs -c DefaultCluster -f $OUT", both: []string{"export $OUT/configs.json success"}},
	{args: "exportMetadata -c DefaultCluster -f $OUT", both: []string{"export $OUT/metadata.json success"}},
	{args: "exportMetrics -c DefaultCluster -f $OUT", both: []string{"export $OUT/metrics.json success"}},
	{args: "deleteSubGroup -c DefaultCluster -g $GROUP -r true", both: []string{"delete subscription group [$GROUP] from broker [$BROKER] in cluster [DefaultCluster] success."}},
	{args: "deleteTopic -c DefaultCluster -t $TOPIC", both: []string{"delete topic [$TOPIC] from cluster [DefaultCluster] success.", "delete topic [$TOPIC] from NameServer success."}},
}

// TestAdminColumns proves that operators cannot tell the tools apart: each stock subcommand, of both release lines,
// works on our cluster, and ours prints the same columns and the same values.
func TestAdminColumns(t *testing.T) {
	ns := ourNamesrv(t)
	b := ourBroker(t, ns.addr, t.TempDir(), "traceTopicEnable=true")
	first := populate(t, ns.addr)
	words := func(by, text string) string { return fill(text, by, ns, b, first, "V5_3_3") }
	ours := map[string]string{}
	for _, c := range checks {
		out, err := ourAdmin(t, ns.addr, strings.Fields(words("ours", c.args))...)
		require.NoError(t, err, c.args)
		ours[c.args] = out
	}
	lines := []line{client49, client54}
	if short() {
		lines = lines[:1] // many commands of 5.4 take three seconds to end
	}
	for _, l := range lines {
		t.Run(string(l), func(t *testing.T) {
			var commands [][]string
			run := slices.DeleteFunc(slices.Clone(checks), func(c check) bool { return c.since54 && l == client49 || c.until54 && l == client54 })
			for _, c := range run {
				commands = append(commands, strings.Fields(words(string(l), c.args)))
			}
			outs := l.stockAdmin(t, ns.addr, commands)
			for i, c := range run {
				stock := outs[i]
				t.Run(c.args, func(t *testing.T) {
					require.NotContains(t, stock, "Exception")
					if c.changed && l == client49 {
						return
					}
					c.compare(t, stock, func(s string) string { return words(string(l), s) })
					c.compare(t, ours[c.args], func(s string) string { return words("ours", s) })
					if c.columns {
						want := slices.DeleteFunc(titles(stock), func(s string) bool { return c.missing[s] != "" })
						require.Equal(t, want, titles(ours[c.args]), "%s\n%s", stock, ours[c.args])
					}
				})
			}
		})
	}
}

// fill puts what a run knows into the words of a check.
func fill(text, by string, ns, b *node, first *client.SendResult, version string) string {
	return strings.NewReplacer("$TOPIC", "Topic-"+by, "$GROUP", "Group-"+by, "$BROKER", b.addr, "$NAMESRV", ns.addr, "$ID", first.OffsetID,
		"$KEY", first.ID, "$OUT", filepath.Join(b.dir, "out-"+by), "$VERSION", version).Replace(text)
}

// TestAdminOnApache proves that our tool works on a cluster of Apache.
func TestAdminOnApache(t *testing.T) {
	ns := apacheNamesrv(t)
	b := apacheBroker(t, ns.addr, t.TempDir(), "traceTopicEnable=true")
	first := populate(t, ns.addr)
	require.Eventually(t, func() bool { // Apache answers with an exception until it has taken its first sample
		_, err := ourAdmin(t, ns.addr, "clusterList")
		return err == nil
	}, 30*time.Second, 100*time.Millisecond)
	for _, c := range checks {
		t.Run(c.args, func(t *testing.T) {
			words := func(s string) string { return fill(s, "ours", ns, b, first, "V5_4_0") }
			out, err := ourAdmin(t, ns.addr, strings.Fields(words(c.args))...)
			require.NoError(t, err)
			c.compare(t, out, words)
		})
	}
}

func (c *check) compare(t *testing.T, out string, words func(string) string) {
	t.Helper()
	flat := blanks.ReplaceAllString(out, " ")
	for _, want := range c.both {
		require.Contains(t, flat, words(want), "%s", out)
	}
}

// populate makes a topic of two queues with three messages each, a producer and a consumer that has read them. It
// returns where the first message is.
func populate(t *testing.T, namesrv string) *client.SendResult {
	t.Helper()
	ctx := t.Context()
	awaitAdmin := func(what string, yes func() bool) {
		require.Eventually(t, yes, time.Minute, 20*time.Millisecond, what)
	}
	awaitAdmin("the broker registers", func() bool {
		out, err := ourAdmin(t, namesrv, "updateTopic", "-c", "DefaultCluster", "-t", "Demo", "-r", "2", "-w", "2")
		return err == nil && strings.Contains(out, "success")
	})
	c := newClient(t, namesrv)
	p, err := c.NewProducer(client.ProducerOptions{Group: "Senders"})
	require.NoError(t, err)
	var first *client.SendResult
	for i := range 6 {
		q := client.MessageQueue{Topic: "Demo", BrokerName: "broker-a", QueueID: int32(i % 2)}
		res, err := p.Send(ctx, &client.Message{Topic: "Demo", Body: fmt.Appendf(nil, "body %d", i), Tags: "TagA", Keys: []string{fmt.Sprint("key", i)}}, client.ToQueue(q))
		require.NoError(t, err)
		if first == nil {
			first = res
		}
	}
	trace := func(fields ...string) string { return strings.Join(fields, "\x01") + "\x02" }
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	_, err = p.Send(ctx, &client.Message{Topic: "RMQ_SYS_TRACE_TOPIC", Keys: []string{first.ID}, Body: []byte( // as Java's clients do
		trace("Pub", now, "DefaultRegion", "Senders", "Demo", first.ID, "TagA", "key0", "127.0.0.1:10911", "6", "7", "0", first.OffsetID, "true") +
			trace("SubBefore", now, "DefaultRegion", "Watchers", "R1", first.ID, "0", "key0") +
			trace("SubAfter", "R1", first.ID, "3", "true", "key0", "0", now, "Watchers"))})
	require.NoError(t, err)
	k, err := c.NewPushConsumer(client.PushConsumerOptions{
		Group: "Watchers", From: client.FromFirst, CommitInterval: 50 * time.Millisecond,
		Handler: func(context.Context, []*client.MessageExt) error { return nil },
	})
	require.NoError(t, err)
	require.NoError(t, k.Subscribe("Demo", client.Tags("TagA")))
	require.NoError(t, k.Start(ctx))
	awaitAdmin("the consumer has read everything", func() bool {
		s, err := c.Admin().ConsumeStats(ctx, "Watchers", "Demo")
		done := int64(0)
		if err == nil {
			for _, o := range s.OffsetTable {
				done += o.ConsumerOffset
			}
		}
		return done == 6
	})
	return first
}

var stockOption = regexp.MustCompile(`(?m)^ -(\w),--([A-Za-z ]+?)( +<arg>)?(?: {2,}|$)`)

var stockCommand = regexp.MustCompile(`(?m)^   (\w+)  `)

// TestAdminFlags proves that ours has every subcommand of the stock tools or says what it lacks for it, and every
// flag, by letter and by name, with a value where stock wants one.
func TestAdminFlags(t *testing.T) {
	for _, l := range []line{client49, client54} {
		var names []string
		for _, m := range stockCommand.FindAllStringSubmatch(l.stockAdmin(t, "127.0.0.1:9", [][]string{nil})[0], -1) {
			if _, err := ourAdmin(t, "", m[1], "--help"); err != nil {
				_, err = ourAdmin(t, "", m[1])
				require.ErrorContains(t, err, "which this version does not have", "%s %s", l, m[1])
				continue
			}
			names = append(names, m[1])
		}
		require.Greater(t, len(names), 40, "%s", names)
		compared := 0
		var commands [][]string
		for _, n := range names {
			commands = append(commands, []string{"help", n})
		}
		for i, help := range l.stockAdmin(t, "127.0.0.1:9", commands) {
			ours, err := ourAdmin(t, "", names[i], "--help")
			require.NoError(t, err, names[i])
			for _, o := range stockOption.FindAllStringSubmatch(help, -1) {
				letter, long, value := o[1], strings.ReplaceAll(strings.TrimSpace(o[2]), " ", "-"), o[3] != ""
				if letter == "h" || letter == "n" || long == "cplus" { // 4.9: C++ consumers, which say themselves what they are
					continue
				}
				flag := regexp.MustCompile(`(?m)^ +-` + letter + `, --(\S+)( \S+)?  `).FindStringSubmatch(ours)
				require.NotEmpty(t, flag, "%s %s -%s,--%s", l, names[i], letter, long)
				require.Equal(t, strings.ToLower(strings.ReplaceAll(long, "-", "")), strings.ReplaceAll(flag[1], "-", ""), "%s %s -%s: compared without hyphens", l, names[i], letter)
				require.Equal(t, value, flag[2] != "", "%s %s -%s,--%s: whether it takes a value", l, names[i], letter, long)
				compared++
			}
		}
		require.Greater(t, compared, 100, "flags of %s", l)
	}
}
