package broker

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	"rmq/internal/vfs"
	"rmq/message"
	"rmq/remoting/protocol"
	"rmq/replication"
)

// advertised is the address at which clients find the broker.
func (b *Broker) advertised() string {
	c := b.conf()
	return c.address(c.BrokerIP1, c.ListenPort)
}

// viewStats answers 315.
func (p *processors) viewStats(x *exchange, h *protocol.ViewBrokerStatsHeader) error {
	minute, hour, day, ok := p.Stats.View(h.StatsName, h.StatsKey)
	if !ok {
		return answerf(protocol.ResponseSystemError, "The stats <%s> <%s> not exist", h.StatsName, h.StatsKey)
	}
	item := func(s Stat) protocol.BrokerStatsItem {
		return protocol.BrokerStatsItem{Sum: s.Sum, TPS: s.TPS, AvgPT: s.AvgPT}
	}
	return x.body(protocol.BrokerStatsData{StatsMinute: item(minute), StatsHour: item(hour), StatsDay: item(day)})
}

// runtimeInfo answers 28. Tools split and parse these texts, so that keys and formats are those of Apache,
// and every number is there.
func (p *processors) runtimeInfo(x *exchange, h *protocol.RuntimeInfoHeader) error {
	t := map[string]string{}
	if !h.RoleOnly {
		p.aboutProcess(t)
		p.aboutTraffic(t)
		p.aboutStore(t)
		p.aboutDisks(t)
		p.aboutQueues(t)
	}
	if !h.RoleOnly || !p.leads.Load() {
		maps.Copy(t, replication.Info(p.store))
	}
	return x.body(protocol.KVTable{Table: t})
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func (p *processors) aboutProcess(t map[string]string) {
	up := p.clock().Sub(p.Stats.Boot)
	t["brokerActive"] = strconv.FormatBool(p.leads.Load())
	t["brokerVersion"] = decimal(protocol.Version)
	t["brokerVersionDesc"] = protocol.VersionName(protocol.Version)
	t["bootTimestamp"] = decimal(p.Stats.Boot.UnixMilli())
	t["runtime"] = fmt.Sprintf("[ %d days, %d hours, %d minutes, %d seconds ]",
		int(up.Hours())/24, int(up.Hours())%24, int(up.Minutes())%60, int(up.Seconds())%60)
	t["startAcceptSendRequestTimeStamp"] = decimal(p.conf().AcceptSendsFrom)
}

func (p *processors) aboutTraffic(t map[string]string) {
	s := p.Stats
	t["putTps"] = s.rateText(func(r rateSample) int64 { return r.put })
	t["getFoundTps"] = s.rateText(func(r rateSample) int64 { return r.found })
	t["getMissTps"] = s.rateText(func(r rateSample) int64 { return r.miss })
	t["getTotalTps"] = s.rateText(func(r rateSample) int64 { return r.found + r.miss })
	transferred := s.rateText(func(r rateSample) int64 { return r.transferred })
	t["getTransferredTps"] = transferred
	t["getTransferedTps"] = transferred // tools of 4.9 read it so

	put, get := s.put.Nums(), s.get.Nums()
	s.mu.Lock()
	m := s.morning
	s.mu.Unlock()
	t["msgPutTotalYesterdayMorning"], t["msgPutTotalTodayMorning"], t["msgPutTotalTodayNow"] = decimal(m.putBefore), decimal(m.put), decimal(put)
	t["msgGetTotalYesterdayMorning"], t["msgGetTotalTodayMorning"], t["msgGetTotalTodayNow"] = decimal(m.getBefore), decimal(m.get), decimal(get)

	t["putMessageTimesTotal"] = decimal(s.put.calls.Load())
	t["putMessageFailedTimes"] = decimal(s.failed.Load())
	t["putMessageSizeTotal"] = decimal(s.put.Size())
	t["putMessageAverageSize"] = javaDouble(float64(s.put.Size()) / float64(max(put, 1)))
	t["putMessageDistributeTime"] = s.putTook.String()
	t["putMessageEntireTimeMax"] = decimal(time.Duration(s.putTook.max.Load()).Milliseconds())
	t["getMessageEntireTimeMax"] = decimal(time.Duration(s.getMax.Load()).Milliseconds())
	t["putLatency99"] = fmt.Sprintf("%.2f", s.putTook.quantile(0.99))
	t["putLatency999"] = fmt.Sprintf("%.2f", s.putTook.quantile(0.999))
}

func (p *processors) aboutStore(t map[string]string) {
	s := p.store.Stats()
	t["commitLogMinOffset"], t["commitLogMaxOffset"] = decimal(s.Min), decimal(s.Visible)
	t["dispatchBehindBytes"] = decimal(max(s.Visible-s.Dispatched, 0))
	t["dispatchMaxBuffer"] = "0" // nothing queues up between log and dispatcher
	t["remainHowManyDataToFlush"] = humanBytes(max(s.Appended-s.Flushed, 0))
	t["remainHowManyDataToCommit"] = humanBytes(max(s.Appended-s.Written, 0))
	t["remainTransientStoreBufferNumbs"] = "0" // there is no such pool, as where transientStorePoolEnable is false
	// What a benchmark asks for; Apache has no such keys.
	t["logFlushTimes"], t["logWriteTimes"], t["logPreparedBytes"] = decimal(s.Flushes), decimal(s.Writes), decimal(s.PreparedBytes)
	t["logUnpreparedSegments"], t["logStalls"] = decimal(s.UnpreparedSegments), decimal(s.Stalls)
	t["pageCacheLockTimeMills"] = "0" // no append holds the lock over I/O
	t["earliestMessageTimeStamp"] = decimal(p.earliest())
	for _, key := range []string{"timerReadBehind", "timerOffsetBehind", "timerCongestNum", "timerEnqueueTps", "timerDequeueTps"} {
		t[key] = "0" // no timer messages are kept
	}
	for level, at := range p.schedule.Progress() {
		t["scheduleMessageOffset_"+strconv.Itoa(level)] = fmt.Sprintf("%d,%d", at[0], at[1])
	}
}

// oldest is when the oldest message of a log that begins at min was stored, in milliseconds.
type oldest struct{ min, at int64 }

// earliest is when the oldest message of the log was stored, in milliseconds; -1 without any.
func (p *processors) earliest() int64 {
	low := p.store.Min()
	if at := p.storedAt(low); at >= 0 {
		return at
	}
	if known := p.oldest.Load(); known != nil && known.min == low {
		return known.at
	}
	// The log of a group has more than messages in it: the first of them is the first of some queue.
	first := int64(-1)
	for _, q := range p.store.Queues() {
		from, _, ok := p.store.QueueRange(q.Topic, q.ID)
		if !ok {
			continue
		}
		entries, err := p.store.Entries(q.Topic, q.ID, from, 1)
		if err == nil && len(entries) > 0 && entries[0].Offset >= low && (first < 0 || entries[0].Offset < first) {
			first = entries[0].Offset
		}
	}
	if first < 0 {
		return -1
	}
	at := p.storedAt(first)
	if at >= 0 {
		p.oldest.Store(&oldest{low, at})
	}
	return at
}

// storedAt is when the message at a position of the log was stored, -1 if there is none.
func (p *processors) storedAt(pos int64) int64 {
	r, err := p.store.Lookup(pos)
	if r == nil {
		return -1
	}
	defer r.Release()
	at := int64(-1)
	if err == nil {
		r.Each(func(rec []byte) { at = message.StoreTime(rec) })
	}
	return at
}

func (p *processors) aboutDisks(t map[string]string) {
	c := p.conf()
	usage, err := p.o.FS.Usage(c.StorePathCommitLog)
	if err != nil {
		p.log.Warn("disk usage", "path", c.StorePathCommitLog, "err", err)
	}
	ratio := javaDouble(usedRatio(usage))
	t["commitLogDiskRatio"] = ratio
	t["commitLogDiskRatio_"+c.StorePathCommitLog] = ratio
	queues, err := p.o.FS.Usage(c.StorePathConsumeQueue)
	if err != nil {
		queues = usage // it is made with the first queue
	}
	t["consumeQueueDiskRatio"] = javaDouble(usedRatio(queues))
	t["commitLogDirCapacity"] = fmt.Sprintf("Total : %s, Free : %s.", humanBytes(usage.Total), humanBytes(usage.Free))
}

// usedRatio is how full a disk is, from 0 to 1: of what an ordinary user may take, in whole percents
// rounded up, as retention counts and Apache shows it.
func usedRatio(u vfs.Usage) float64 {
	used := u.Total - u.Free
	if all := used + u.Avail; all > 0 {
		return float64((used*100+all-1)/all) / 100
	}
	return 0
}

// runtimeQueues are the executors that tools know, by the names that they have in the answer.
var runtimeQueues = map[string]family{"send": familySend, "pull": familyPull, "litePull": familyLitePull, "query": familyQuery}

func (p *processors) aboutQueues(t map[string]string) {
	for name, f := range runtimeQueues {
		s := p.queueState(f)
		t[name+"ThreadPoolQueueSize"] = strconv.Itoa(s.Size)
		t[name+"ThreadPoolQueueCapacity"] = strconv.Itoa(s.Capacity)
		t[name+"ThreadPoolQueueHeadWaitTimeMills"] = decimal(s.HeadWait.Milliseconds())
	}
	// POP and transactions are refused, not queued.
	for _, key := range []string{
		"ackThreadPoolQueueSize", "ackThreadPoolQueueCapacity", "ackThreadPoolQueueHeadWaitTimeMills",
		"EndTransactionQueueSize", "EndTransactionThreadPoolQueueCapacity",
	} {
		t[key] = "0"
	}
}

// humanBytes writes a size with the units of org.apache.rocketmq.common.MixAll.humanReadableByteCount.
func humanBytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, prefix := float64(n), 0
	for f >= unit && prefix < len("KMGTPE") {
		f /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[prefix-1])
}

// haStatus answers 907, for a master without slaves.
func (p *processors) haStatus(x *exchange, _ *noHeader) error {
	st := p.store.Status()
	info := protocol.HARuntimeInfo{Master: st.Role == replication.Leader, MasterCommitLogMaxOffset: p.store.Max(), HAConnectionInfo: []protocol.HAConnectionInfo{}}
	if !info.Master {
		info.HAClientRuntimeInfo.MasterAddr = st.Client // of a group: its leader
		if addr := p.haMaster.Load(); addr != nil {
			info.HAClientRuntimeInfo.MasterAddr = *addr
		}
		info.HAClientRuntimeInfo.MaxOffset = st.Written
		return x.body(info)
	}
	for _, peer := range st.Peers {
		if peer.Quiet < 0 {
			continue // not connected
		}
		if peer.InSync {
			info.InSyncSlaveNums++
		}
		info.HAConnectionInfo = append(info.HAConnectionInfo, protocol.HAConnectionInfo{
			Addr: peer.Addr, SlaveAckOffset: peer.Written, Diff: peer.LagBytes, InSync: peer.InSync, TransferFromWhere: peer.Written,
		})
	}
	return x.body(info)
}

// epochs answers 1007: who led when, by epochs of masters or terms of a group.
func (p *processors) epochs(x *exchange, _ *noHeader) error {
	log, ok := p.store.(replication.Chronicle)
	if !ok {
		return answerf(protocol.ResponseSystemError, "%s has no epochs: its log is kept without replication", p.conf().node())
	}
	reigns, err := log.Reigns()
	if err != nil {
		return err
	}
	c := p.conf()
	id, _ := p.identity()
	cache := protocol.EpochEntryCache{
		ClusterName: c.BrokerClusterName, BrokerName: c.BrokerName, BrokerID: id, MaxOffset: p.store.Status().Written, EpochList: []protocol.EpochEntry{},
	}
	for i, r := range reigns {
		end := cache.MaxOffset
		if i+1 < len(reigns) {
			end = reigns[i+1].Start
		}
		cache.EpochList = append(cache.EpochList, protocol.EpochEntry{Epoch: r.Epoch, StartOffset: r.Start, EndOffset: end})
	}
	return x.body(cache)
}
