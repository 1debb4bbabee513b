package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/client"
	"rmq/remoting/protocol"
)

func exportCommands() []command {
	return []command{
		{"exportConfigs", "Write the settings that matter of a cluster's brokers into a file", exportConfigs},
		{"exportMetadata", "Write topics and consumer groups into a file", exportMetadata},
		{"exportMetrics", "Write what a cluster has to do into a file", exportMetrics},
	}
}

// export writes a JSON file, or with --json prints what would stand in it.
func export(t *tool, dir, name string, v any) (any, error) {
	if t.json {
		return asJSON{v}, nil
	}
	var p page
	if err := printJSON(&p, v); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, usage("--file-path=%s: %v", dir, err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(p.String()), 0o644); err != nil {
		return nil, usage("--file-path=%s: %v", dir, err)
	}
	return says(nil, "export %s success", file), nil
}

func exportDir(f *flags) *string {
	return f.text("file-path", "f", filepath.Join(os.TempDir(), "rocketmq", "export"), "directory of the file")
}

// exportedKeys are those of a broker's configuration that say what it promises.
var exportedKeys = []string{
	"brokerClusterName", "brokerId", "brokerName", "brokerRole", "fileReservedTime", "filterServerNums", "flushDiskType", "maxMessageSize",
	"messageDelayLevel", "msgTraceTopicName", "slaveReadEnable", "traceOn", "traceTopicEnable", "useTLS", "autoCreateTopicEnable", "autoCreateSubscriptionGroup",
}

type clusterScale struct {
	NameServers int `json:"namesrvSize"`
	Masters     int `json:"masterBrokerSize"`
	Slaves      int `json:"slaveBrokerSize"`
}

func exportConfigs(f *flags) action {
	cluster := f.need("cluster-name", "c", "the cluster")
	dir := exportDir(f)
	return func(ctx context.Context, t *tool) (any, error) {
		brokers, err := listBrokers(ctx, t, *cluster)
		if err != nil {
			return nil, err
		}
		scale := clusterScale{NameServers: len(t.admin.NameServers())}
		configs := map[string]map[string]string{}
		for _, b := range brokers {
			if b.id != 0 {
				scale.Slaves++
				continue
			}
			scale.Masters++
			all, err := t.admin.BrokerConfig(ctx, b.addr)
			if err != nil {
				return nil, err
			}
			configs[b.name] = map[string]string{}
			for _, key := range exportedKeys {
				if v, ok := all[key]; ok {
					configs[b.name][key] = v
				}
			}
		}
		return export(t, *dir, "configs.json", map[string]any{"clusterScale": scale, "brokerConfigs": configs})
	}
}

// metadata is what exportMetadata writes.
type metadata struct {
	Topics map[string]*protocol.TopicConfig             `json:"topicConfigTable,omitempty"`
	Groups map[string]*protocol.SubscriptionGroupConfig `json:"subscriptionGroupTable,omitempty"`
	Time   int64                                        `json:"exportTime"`
}

func exportMetadata(f *flags) action {
	to := f.target("of")
	f.choose("broker-addr", "cluster-name")
	dir := exportDir(f)
	onlyTopics := f.flag("topic", "t", "only topics")
	onlyGroups := f.flag("subscription-group", "g", "only consumer groups")
	special := f.flag("special-topic", "s", "with retry and dead letter topics")
	return func(ctx context.Context, t *tool) (any, error) {
		addrs, err := to.masters(ctx, t)
		if err != nil {
			return nil, err
		}
		m := &metadata{Time: time.Now().UnixMilli()}
		both := *onlyTopics == *onlyGroups
		for _, addr := range addrs {
			if both || *onlyTopics {
				if err = m.addTopics(ctx, t, addr, *special); err != nil {
					return nil, err
				}
			}
			if both || *onlyGroups {
				if err = m.addGroups(ctx, t, addr); err != nil {
					return nil, err
				}
			}
		}
		name := "metadata.json"
		switch {
		case both:
		case *onlyTopics:
			name = "topic.json"
		default:
			name = "subscriptionGroup.json"
		}
		return export(t, *dir, name, m)
	}
}

// addTopics adds the topics of a broker that people made; queues of several brokers add up.
func (m *metadata) addTopics(ctx context.Context, t *tool, addr string, special bool) error {
	all, err := t.admin.TopicConfigs(ctx, addr)
	if err != nil {
		return err
	}
	system, err := t.admin.SystemTopics(ctx)
	if err != nil {
		return err
	}
	if m.Topics == nil {
		m.Topics = map[string]*protocol.TopicConfig{}
	}
	for name, c := range all.TopicConfigTable {
		if slices.Contains(system, name) || isDerived(name) && !special {
			continue
		}
		if have := m.Topics[name]; have != nil {
			have.ReadQueueNums += c.ReadQueueNums
			have.WriteQueueNums += c.WriteQueueNums
			continue
		}
		m.Topics[name] = c
	}
	return nil
}

// systemGroups are those that every broker has (org.apache.rocketmq.common.MixAll).
var systemGroups = []string{
	"DEFAULT_CONSUMER", "TOOLS_CONSUMER", "SCHEDULE_CONSUMER", "FILTERSRV_CONSUMER", "__MONITOR_CONSUMER", "SELF_TEST_C_GROUP",
	"CID_ONS-HTTP-PROXY", "CID_ONSAPI_PERMISSION", "CID_ONSAPI_OWNER", "CID_ONSAPI_PULL",
}

func isSystemGroup(group string) bool {
	return slices.Contains(systemGroups, group) || strings.HasPrefix(group, "CID_RMQ_SYS_")
}

// addGroups does the same for consumer groups and the queues of their retry topics.
func (m *metadata) addGroups(ctx context.Context, t *tool, addr string) error {
	all, err := t.admin.Groups(ctx, addr)
	if err != nil {
		return err
	}
	if m.Groups == nil {
		m.Groups = map[string]*protocol.SubscriptionGroupConfig{}
	}
	for name, c := range all.SubscriptionGroupTable {
		if isSystemGroup(name) {
			continue
		}
		if have := m.Groups[name]; have != nil {
			have.RetryQueueNums += c.RetryQueueNums
			continue
		}
		m.Groups[name] = c
	}
	return nil
}

// flows are figures of what went through a broker: messages a second, or of the day before.
type (
	tpsFigures struct {
		NormalIn, NormalOut, TransIn, ScheduleIn float64
	}
	dayFigures struct {
		NormalIn, NormalOut, TransIn, ScheduleIn int64
	}
)

func (f tpsFigures) named(prefix string) map[string]float64 {
	if prefix != "" {
		return map[string]float64{"totalNormalInTps": f.NormalIn, "totalNormalOutTps": f.NormalOut, "totalTransInTps": f.TransIn, "totalScheduleInTps": f.ScheduleIn}
	}
	return map[string]float64{"normalInTps": f.NormalIn, "normalOutTps": f.NormalOut, "transInTps": f.TransIn, "scheduleInTps": f.ScheduleIn}
}

func (f dayFigures) named() map[string]int64 {
	return map[string]int64{"normalOneDayInNum": f.NormalIn, "normalOneDayOutNum": f.NormalOut, "transOneDayInNum": f.TransIn, "scheduleOneDayInNum": f.ScheduleIn}
}

func exportMetrics(f *flags) action {
	cluster := f.need("cluster-name", "c", "the cluster")
	dir := exportDir(f)
	return func(ctx context.Context, t *tool) (any, error) {
		brokers, err := listBrokers(ctx, t, *cluster)
		if err != nil {
			return nil, err
		}
		var tps tpsFigures
		var day dayFigures
		reports := map[string]any{}
		for _, b := range brokers {
			if b.id != 0 {
				continue
			}
			r, bt, bd, err := brokerMetrics(ctx, t, b)
			if err != nil {
				return nil, err
			}
			reports[b.name] = r
			tps.NormalIn, tps.NormalOut, tps.TransIn, tps.ScheduleIn = tps.NormalIn+bt.NormalIn, tps.NormalOut+bt.NormalOut, tps.TransIn+bt.TransIn, tps.ScheduleIn+bt.ScheduleIn
			day.NormalIn, day.NormalOut, day.TransIn, day.ScheduleIn = day.NormalIn+bd.NormalIn, day.NormalOut+bd.NormalOut, day.TransIn+bd.TransIn, day.ScheduleIn+bd.ScheduleIn
		}
		return export(t, *dir, "metrics.json", map[string]any{
			"evaluateReport": reports,
			"totalData":      map[string]any{"totalTps": tps.named("total"), "totalOneDayNum": day.named()},
		})
	}
}

// Topics whose traffic is no normal one, and the statistics of a whole broker.
const (
	topicTransHalf = "RMQ_SYS_TRANS_HALF_TOPIC"
	topicSchedule  = "SCHEDULE_TOPIC_XXXX"
	statBrokerPut  = "BROKER_PUT_NUMS"
	statBrokerGet  = "BROKER_GET_NUMS"
)

func brokerMetrics(ctx context.Context, t *tool, b brokerAt) (report map[string]any, tps tpsFigures, day dayFigures, err error) {
	info, err := t.admin.RuntimeInfo(ctx, b.addr)
	if err != nil {
		return nil, tps, day, err
	}
	var m metadata
	if err := errors.Join(m.addTopics(ctx, t, b.addr, false), m.addGroups(ctx, t, b.addr)); err != nil {
		return nil, tps, day, err
	}
	stat := func(name, key string) protocol.BrokerStatsData {
		s, err := t.admin.Stats(ctx, b.addr, name, key)
		if err != nil { // it has counted nothing
			return protocol.BrokerStatsData{}
		}
		return *s
	}
	trans, delayed := stat(statTopicPut, topicTransHalf), stat(statTopicPut, topicSchedule)
	put, get := stat(statBrokerPut, b.cluster), stat(statBrokerGet, b.cluster)
	tps = tpsFigures{
		NormalIn:  max(cmp.Or(put.StatsMinute.TPS, firstNumber(info["putTps"]))-trans.StatsMinute.TPS-delayed.StatsMinute.TPS, 0),
		NormalOut: cmp.Or(get.StatsMinute.TPS, firstNumber(info["getTransferredTps"])), TransIn: trans.StatsMinute.TPS, ScheduleIn: delayed.StatsMinute.TPS,
	}
	n := func(key string) int64 { v, _ := strconv.ParseInt(info[key], 10, 64); return v }
	day = dayFigures{
		NormalIn:  max(n("msgPutTotalTodayMorning")-n("msgPutTotalYesterdayMorning")-daySum(&trans)-daySum(&delayed), 0),
		NormalOut: n("msgGetTotalTodayMorning") - n("msgGetTotalYesterdayMorning"), TransIn: daySum(&trans), ScheduleIn: daySum(&delayed),
	}
	return map[string]any{
		"runtimeEnv":     map[string]any{},
		"runtimeVersion": map[string]any{"rocketmqVersion": info["brokerVersionDesc"], "clientInfo": clientVersions(ctx, t, m.Groups)},
		"runtimeQuota": map[string]any{
			"topicSize": len(m.Topics), "groupSize": len(m.Groups), "messageAverageSize": info["putMessageAverageSize"],
			"diskRatio": map[string]string{"commitLogDiskRatio": info["commitLogDiskRatio"], "consumeQueueDiskRatio": info["consumeQueueDiskRatio"]},
			"tps":       tps.named(""), "oneDayNum": day.named(),
		},
	}, tps, day, nil
}

// clientVersions are languages and versions of the consumers that are online.
func clientVersions(ctx context.Context, t *tool, groups map[string]*protocol.SubscriptionGroupConfig) []string {
	out := []string{}
	for g := range groups {
		cc, err := t.admin.ConsumerConnection(ctx, g)
		if err != nil {
			if !errors.Is(err, client.ErrNotOnline) && !errors.Is(err, client.ErrNoRoute) {
				t.note("members of group %s: %v", g, err)
			}
			continue
		}
		for _, c := range cc.ConnectionSet {
			out = append(out, c.Language.String()+"%"+versionName(c.Version))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
