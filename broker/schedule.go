package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rmq/engine"
	"rmq/internal/run"
	"rmq/message"
	"rmq/remoting/protocol"
)

// delayOffsetName is the document that says how far each level has been delivered.
const delayOffsetName = "delayOffset"

// ScheduleService delivers messages with a delay level: they lie in [message.TopicSchedule], in the
// queue of their level, until they are due, and are then stored once more in their own topic and queue
// (org.apache.rocketmq.broker.schedule.ScheduleMessageService). Order within a level is kept. A crash
// may deliver a message twice, since progress is saved now and then.
//
// It runs on a master only, see [ScheduleService.SetMaster]. Goroutine: schedule.
type ScheduleService struct {
	store   Store
	meta    MetaLog
	clock   func() time.Time
	conf    func() *Config
	host    func(m *message.Message) // fills in the store host
	log     *slog.Logger
	version func() int64
	period  func(configured time.Duration) time.Duration // of saves
	delays  []time.Duration                              // of level i+1
	arrived chan struct{}

	mu      sync.Mutex
	offsets []int64 // of level i+1: the first not delivered
	dirty   bool
	data    protocol.DataVersion
	steps   int
	master  bool
	group   *run.Group // while it runs
}

// Bounds of the service.
const (
	deliverBatch = 64
	deliverBytes = 1 << 20
	deliverRetry = 100 * time.Millisecond
)

// parseDelayLevels reads "1s 5s … 2h", which the options of the store have checked.
func parseDelayLevels(s string) (delays []time.Duration) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	for _, f := range strings.Fields(s) {
		n, err := strconv.Atoi(f[:len(f)-1])
		if unit := units[f[len(f)-1]]; err == nil && unit > 0 {
			delays = append(delays, time.Duration(n)*unit)
		}
	}
	return delays
}

// delayOffsets is delayOffset.json.
type delayOffsets struct {
	DataVersion protocol.DataVersion `json:"dataVersion"`
	OffsetTable map[string]int64     `json:"offsetTable"`
}

func (s *ScheduleService) load() error {
	s.offsets = make([]int64, len(s.delays))
	return s.meta.Load(delayOffsetName, s.adopt)
}

// adopt makes the progress what a document says. Delivery must not run.
func (s *ScheduleService) adopt(doc []byte) error {
	var f delayOffsets
	if err := protocol.DecodeBody(doc, &f); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.master {
		return nil // it is this node that delivers
	}
	s.data, s.dirty = f.DataVersion, false
	for level, offset := range f.OffsetTable {
		if n, err := strconv.Atoi(level); err == nil && n >= 1 && n <= len(s.offsets) {
			s.offsets[n-1] = offset
		}
	}
	return nil
}

// Save writes the progress down if there has been any.
func (s *ScheduleService) Save() error {
	s.mu.Lock()
	if !s.dirty {
		s.mu.Unlock()
		return nil
	}
	s.dirty = false
	b := s.encode()
	s.mu.Unlock()
	if err := s.meta.Save(delayOffsetName, b); err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return err
	}
	return nil
}

// encode is called with mu held.
func (s *ScheduleService) encode() []byte {
	f := delayOffsets{DataVersion: s.data, OffsetTable: map[string]int64{}}
	for i, offset := range s.offsets {
		if offset > 0 {
			f.OffsetTable[strconv.Itoa(i+1)] = offset
		}
	}
	b, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		panic("BUG: delay offsets cannot be encoded: " + err.Error())
	}
	return b
}

// Text is the document as it would be saved now.
func (s *ScheduleService) Text() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.encode()
}

// Progress is, per level from 1 on, the next queue offset to deliver and the end of the queue.
func (s *ScheduleService) Progress() map[int][2]int64 {
	s.mu.Lock()
	offsets := slices.Clone(s.offsets)
	s.mu.Unlock()
	out := map[int][2]int64{}
	for i, offset := range offsets {
		if _, high, ok := s.store.QueueRange(message.TopicSchedule, int32(i)); ok && high > 0 {
			out[i+1] = [2]int64{offset, high}
		}
	}
	return out
}

// SetMaster starts or stops delivery. When it returns after false, nothing is delivered any more.
func (s *ScheduleService) SetMaster(master bool) {
	s.mu.Lock()
	if s.master == master {
		s.mu.Unlock()
		return
	}
	s.master = master
	group := s.group
	if master {
		s.group = run.New(context.Background(), "schedule")
		group = s.group
	}
	s.mu.Unlock()
	if master {
		for i := range s.delays {
			s.store.Watch(message.TopicSchedule, int32(i))
		}
		group.Go("deliver", s.deliver)
		return
	}
	for i := range s.delays {
		s.store.Unwatch(message.TopicSchedule, int32(i))
	}
	group.Cancel()
	if err := group.Wait(); err != nil {
		s.log.Error("delivery of delayed messages", "err", err)
	}
}

// arrive hears of new records in the queues of the levels. It does not block.
func (s *ScheduleService) arrive() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// deliver moves what is due until ctx ends. It sleeps until the next message is due, one arrives, or it
// is time to save.
func (s *ScheduleService) deliver(ctx context.Context) error {
	s.clamp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	saved := s.clock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.arrived:
		}
		save := s.period(s.conf().FlushDelayOffsets)
		wait := save
		for level := range s.delays {
			next, err := s.deliverLevel(ctx, level)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				s.log.Warn("a delayed message cannot be delivered yet", "level", level+1, "err", err)
				next = deliverRetry
			}
			wait = min(wait, next)
		}
		if now := s.clock(); now.Sub(saved) >= save {
			saved = now
			if err := s.Save(); err != nil {
				s.log.Error("delay offsets are not saved; it will be tried again", "err", err)
			}
		}
		timer.Reset(max(wait, time.Millisecond))
	}
}

// clamp brings offsets that lie outside their queue to its nearer end.
func (s *ScheduleService) clamp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, offset := range s.offsets {
		low, high, ok := s.store.QueueRange(message.TopicSchedule, int32(i))
		if !ok {
			low, high = 0, 0
		}
		if in := min(max(offset, low), high); in != offset {
			s.log.Warn("delay offset corrected", "level", i+1, "was", offset, "is", in)
			s.offsets[i], s.dirty = in, true
		}
	}
}

const nothingDue = time.Duration(1<<63 - 1)

// deliverLevel delivers what is due of one level, and says in how long the next message is.
func (s *ScheduleService) deliverLevel(ctx context.Context, level int) (time.Duration, error) {
	queue := int32(level)
	for ctx.Err() == nil {
		s.mu.Lock()
		offset := s.offsets[level]
		s.mu.Unlock()
		low, high, ok := s.store.QueueRange(message.TopicSchedule, queue)
		if !ok || offset >= high {
			return nothingDue, nil
		}
		if offset < low {
			s.advance(level, low)
			continue
		}
		entries, err := s.store.Entries(message.TopicSchedule, queue, offset, deliverBatch)
		if err != nil {
			return 0, err
		}
		due, next := 0, nothingDue
		now := s.clock()
		for _, e := range entries {
			at := time.UnixMilli(e.TagsHash)
			if wait := at.Sub(now); wait > 0 && wait <= s.delays[level] {
				next = wait
				break
			}
			due++ // also what claims to be due later than a message that came just now
		}
		if due == 0 {
			return next, nil
		}
		if err := s.deliverRun(ctx, level, offset, due); err != nil {
			return 0, err
		}
	}
	return nothingDue, nil
}

func (s *ScheduleService) advance(level int, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offsets[level], s.dirty = offset, true
	if s.steps++; s.steps%max(s.conf().DelayOffsetStep, 1) == 0 {
		s.data = s.data.Next(s.version(), s.clock().UnixMilli())
	}
}

// deliverRun stores up to count messages of a level again, from offset on, and moves its offset behind
// those that were stored.
func (s *ScheduleService) deliverRun(ctx context.Context, level int, offset int64, count int) error {
	var r engine.ReadResult
	defer r.Release()
	err := s.store.Read(&r, &engine.ReadQuery{Topic: message.TopicSchedule, QueueID: int32(level), Offset: offset, MaxCount: count, MaxBytes: deliverBytes})
	if r.Count() == 0 {
		if err == nil && r.NextOffset > offset { // the log no longer holds them
			s.advance(level, r.NextOffset)
			return nil
		}
		return errors.Join(err, fmt.Errorf("level %d at %d: %s", level+1, offset, r.Status))
	}
	var as []*engine.Append
	done := make(chan struct{}, r.Count())
	r.Each(func(rec []byte) {
		encoded, err := s.restore(rec)
		if err != nil {
			s.log.Error("a delayed message is dropped", "level", level+1, "err", err)
			encoded = nil
		}
		as = append(as, &engine.Append{Record: encoded, Done: func(*engine.Append) { done <- struct{}{} }})
	})
	return s.put(ctx, level, offset, as, done)
}

// put stores the records, those that are nil left out, and waits for them.
func (s *ScheduleService) put(ctx context.Context, level int, offset int64, as []*engine.Append, done <-chan struct{}) error {
	kept := slices.DeleteFunc(slices.Clone(as), func(a *engine.Append) bool { return a.Record == nil })
	n, err := s.store.SubmitFront(ctx, kept)
	for range n {
		<-done // the store ends all of them, also when it closes
	}
	for _, a := range kept[:n] {
		err = cmp.Or(err, a.Err) // one tells it: those behind it failed with it
	}
	// In order: nothing counts behind the first that failed.
	k := 0
	for _, a := range as {
		if a.Record != nil {
			if k == n || a.Err != nil {
				break
			}
			k++
		}
		offset++
	}
	s.advance(level, offset)
	return err
}

// restore makes the record of a delayed message as it is stored where it was sent to. Its properties
// stay as they are, the level among them, as in Apache.
func (s *ScheduleService) restore(rec []byte) ([]byte, error) {
	var r message.Record
	if err := message.ParseRecord(rec, &r); err != nil {
		return nil, err
	}
	topic := r.Properties.Get(message.PropRealTopic)
	queue, err := strconv.ParseInt(string(r.Properties.Get(message.PropRealQueue)), 10, 32)
	if len(topic) == 0 || err != nil {
		return nil, fmt.Errorf("record at %d does not say where it goes: no %s and %s", r.PhysicalOffset, message.PropRealTopic, message.PropRealQueue)
	}
	if string(topic) == topicTransHalf {
		return nil, fmt.Errorf("record at %d goes to %s", r.PhysicalOffset, topicTransHalf)
	}
	m := message.Message{
		Topic: string(topic), QueueID: int32(queue), Flag: r.Flag, SysFlag: r.SysFlag, BornTimestamp: r.BornTimestamp,
		BornHost: message.Host(r.BornHost), ReconsumeTimes: r.ReconsumeTimes, PreparedTransactionOffset: r.PreparedTransactionOffset,
		Body: r.Body, Properties: r.Properties, V2: len(topic) > message.MaxTopicBytesV1,
	}
	s.host(&m)
	return message.AppendRecord(nil, &m)
}
