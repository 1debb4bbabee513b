package compat

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/message"
)

// Options are those that open the directory with our engine.
func (s Sizes) Options(dir string) engine.Options {
	return engine.Options{
		Dir: dir, SegmentBytes: s.Segment, QueueFileBytes: s.QueueFile,
		MaxHashSlots: s.Slots, MaxIndexEntries: s.Entries,
		// the dates of a checkout say nothing, and other disk users are no reason to delete
		Retention: engine.RetentionOptions{Disabled: true},
	}
}

// Open opens dir with our engine, waits until everything is dispatched, and closes it at the end
// of the test unless that has happened.
func (s Sizes) Open(t testing.TB, dir string) *engine.Store {
	t.Helper()
	store, err := engine.Open(t.Context(), s.Options(dir))
	if err != nil {
		t.Fatalf("open %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close %s: %v", dir, err)
		}
	})
	return store
}

// maxComplaints keeps a broken store from printing a line for each record.
const maxComplaints = 20

// checker collects what differs.
type checker struct {
	t     testing.TB
	s     *engine.Store
	d     *Dump
	count int
	// byQueue has the records of the dump by queue, in order of their offsets
	byQueue map[QueueName][]Record
	// recovered: Apache recovered the directory after an unclean stop before it was asked
	recovered bool
	byHash    map[int32][]int64 // positions of the records of the dump by the hashes of their keys
	known     map[int64]bool    // positions of the records of the dump
}

func (c *checker) complain(format string, args ...any) {
	c.t.Helper()
	c.count++
	if c.count <= maxComplaints {
		c.t.Errorf(format, args...)
	}
}

// Check asks s everything that the dump has an answer to: the ends of the log, the queues and their
// ranges, every record by queue offset and by position, every key query, every offset by time.
func Check(t testing.TB, s *engine.Store, d *Dump) {
	t.Helper()
	check(t, s, d, false)
}

// CheckRecovered is Check for a dump of a directory that Apache had to recover. Its recovery drops
// the index files younger than the checkpoint, but makes entries only for what it replays, and so
// may forget keys; ours must then have those of every record.
func CheckRecovered(t testing.TB, s *engine.Store, d *Dump) {
	t.Helper()
	check(t, s, d, true)
}

// DropTorn returns d without the record that a kill tore at the end of the log, if s, which has just
// recovered the same directory, cut one there. No checksum covers topic and properties, so Apache keeps
// a record whose last bytes were never stored; it was not acked. Nothing else may be missing from ours:
// what was cut must be that one record, and end in a zero.
func DropTorn(t testing.TB, s *engine.Store, d *Dump) *Dump {
	t.Helper()
	end, report := s.Max(), s.Recovery()
	if d.Max == end || len(report.Broken) != 1 || report.CutRecords != 0 {
		return d
	}
	cut, err := os.ReadFile(report.Broken[0])
	if err != nil {
		t.Fatal(err)
	}
	cut = append(cut, make([]byte, max(0, d.Max-end-int64(len(cut))))...)
	var r message.Record
	if err := message.ParseRecord(cut, &r); err != nil {
		t.Fatalf("Apache has a record at %d that ours does not read: %v", end, err)
	}
	if int64(r.Size) != d.Max-end || r.PhysicalOffset != end || cut[r.Size-1] != 0 {
		t.Fatalf("ours cut the log at %d, Apache at %d, and what lies between is no torn record: %q", end, d.Max, r.Properties)
	}
	t.Logf("Apache keeps the record at %d, whose properties end in zeros; ours cut it", end)
	torn := *d
	torn.Max, torn.Queues = end, maps.Clone(d.Queues)
	torn.Records = slices.DeleteFunc(slices.Clone(d.Records), func(r Record) bool { return r.Pos == end })
	name := QueueName{string(r.Topic), r.QueueID}
	if q, ok := d.Queues[name]; ok && r.SysFlag.ConsumesOffset() {
		q.Max--
		torn.Queues[name] = q
	}
	torn.Keys = slices.Clone(d.Keys)
	for i := range torn.Keys {
		q := &torn.Keys[i]
		q.Positions = slices.DeleteFunc(slices.Clone(q.Positions), func(pos int64) bool { return pos == end })
	}
	torn.Times = slices.Clone(d.Times)
	for i := range torn.Times {
		q := &torn.Times[i]
		if (QueueName{q.Topic, q.Queue}) == name {
			q.Offsets = slices.Clone(q.Offsets)
			for n := range q.Offsets {
				q.Offsets[n] = min(q.Offsets[n], torn.Queues[name].Max)
			}
		}
	}
	return &torn
}

// Hole is a range of the log, both ends included, in which Apache finds no record by its keys.
type Hole struct{ From, To int64 }

// Holes are where the keys of records are that Apache itself does not find, in a directory that it had
// to recover: it drops the index files younger than its checkpoint, and dispatches again from the start
// of a segment that it chooses by other times. So each hole must end where a segment begins; one that
// does not is nothing that Apache's recovery makes.
func Holes(t testing.TB, d *Dump, segment int64) (holes []Hole) {
	t.Helper()
	type name struct{ topic, key string }
	found := map[name]map[int64]bool{}
	for _, q := range d.Keys {
		if q.Begin != 0 || len(q.Positions) >= q.Max || q.Max < 64 {
			continue // bounded, or cut off by the limit
		}
		n := name{q.Topic, q.Key}
		found[n] = map[int64]bool{}
		for _, pos := range q.Positions {
			found[n][pos] = true
		}
	}
	records := slices.Clone(d.Records)
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.Pos, b.Pos) })
	open, last := false, int64(-1) // last: the newest record all of whose keys are found
	for _, r := range records {
		asked, lost := false, false
		for _, key := range append(strings.Fields(r.Keys), r.UniqueKey) {
			if all, ok := found[name{r.Topic, key}]; ok {
				asked = true
				lost = lost || !all[r.Pos]
			}
		}
		switch {
		case lost && !open:
			holes = append(holes, Hole{last + 1, r.Pos})
			open = true
		case lost:
			holes[len(holes)-1].To = r.Pos
		case asked:
			if open && r.Pos/segment == holes[len(holes)-1].To/segment {
				t.Errorf("Apache finds no keys from %d to %d, but again in the middle of a segment, at %d", holes[len(holes)-1].From, holes[len(holes)-1].To, r.Pos)
			}
			open, last = false, r.Pos
		}
	}
	return holes
}

func check(t testing.TB, s *engine.Store, d *Dump, recovered bool) {
	t.Helper()
	if len(d.Records) == 0 || !d.Complete {
		t.Fatal("the dump is empty or cut short, so nothing would be compared")
	}
	c := &checker{
		t: t, s: s, d: d, recovered: recovered,
		byQueue: map[QueueName][]Record{}, byHash: map[int32][]int64{}, known: map[int64]bool{},
	}
	for _, r := range d.Records {
		c.known[r.Pos] = true
		for _, key := range append(strings.Fields(r.Keys), r.UniqueKey) {
			if key != "" {
				hash := format.IndexHash([]byte(r.Topic), []byte(key))
				c.byHash[hash] = append(c.byHash[hash], r.Pos)
			}
		}
	}
	if s.Min() != d.Min || s.Max() != d.Max {
		c.complain("log holds %d to %d, Apache says %d to %d", s.Min(), s.Max(), d.Min, d.Max)
	}
	c.queues()
	for _, q := range d.Keys {
		c.key(q)
	}
	for _, q := range d.Times {
		c.time(q)
	}
	if c.count > maxComplaints {
		t.Errorf("and %d more differences", c.count-maxComplaints)
	}
	t.Logf("compared with %s: %d queues, %d records, %d key queries, %d time queries",
		d.Line, len(d.Queues), len(d.Records), len(d.Keys), len(d.Times))
}

func (c *checker) queues() {
	for _, r := range c.d.Records {
		q := QueueName{r.Topic, r.Queue}
		c.byQueue[q] = append(c.byQueue[q], r)
	}
	ours := map[QueueName]bool{}
	for _, q := range c.s.Queues() {
		ours[QueueName{q.Topic, q.ID}] = true
		if _, ok := c.d.Queues[QueueName{q.Topic, q.ID}]; !ok {
			c.complain("queue %s/%d is not there for Apache", q.Topic, q.ID)
		}
	}
	for q, r := range c.d.Queues {
		if r.Max == 0 {
			continue // 4.9 shows a delay queue as soon as it has looked into it
		}
		minOffset, maxOffset, ok := c.s.QueueRange(q.Topic, q.ID)
		if !ok || !ours[q] {
			c.complain("queue %s/%d is missing, Apache has %d to %d", q.Topic, q.ID, r.Min, r.Max)
			continue
		}
		if minOffset != r.Min || maxOffset != r.Max {
			c.complain("queue %s/%d holds %d to %d, Apache says %d to %d", q.Topic, q.ID, minOffset, maxOffset, r.Min, r.Max)
		}
		c.records(q, r, c.byQueue[q])
	}
}

func (c *checker) records(q QueueName, r Range, want []Record) {
	got, err := ReadQueue(c.s, q, r.Min)
	if err != nil {
		c.complain("%v", err)
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			c.complain("%s/%d/%d is missing: %+v", q.Topic, q.ID, want[i].Offset, want[i])
		case i >= len(want):
			c.complain("%s/%d has a record that Apache does not have: %+v", q.Topic, q.ID, got[i])
		case got[i] != want[i]:
			c.complain("%s/%d/%d\n got %+v\nwant %+v", q.Topic, q.ID, want[i].Offset, got[i], want[i])
		}
	}
}

// ReadQueue reads a queue from offset to its end, and each of its records once more by position.
func ReadQueue(s *engine.Store, q QueueName, offset int64) ([]Record, error) {
	var all []Record
	_, end, _ := s.QueueRange(q.Topic, q.ID)
	for offset < end {
		r, err := s.Get(q.Topic, q.ID, offset, 32, 1<<20)
		if err != nil {
			return all, fmt.Errorf("get %s/%d/%d: %w", q.Topic, q.ID, offset, err)
		}
		n := len(all)
		r.Each(func(rec []byte) {
			one, perr := Describe(rec)
			if perr != nil {
				err = perr
			}
			all = append(all, one)
		})
		next := r.NextOffset
		r.Release()
		if err != nil {
			return all, fmt.Errorf("parse %s/%d/%d: %w", q.Topic, q.ID, offset, err)
		}
		if next <= offset || next != offset+int64(len(all)-n) {
			return all, fmt.Errorf("get %s/%d/%d gave %d records and %d as the next offset", q.Topic, q.ID, offset, len(all)-n, next)
		}
		offset = next
	}
	return all, nil
}

// Describe says of record bytes what the harness says.
func Describe(rec []byte) (Record, error) {
	var r message.Record
	if err := message.ParseRecord(rec, &r); err != nil {
		return Record{}, err
	}
	if err := r.CheckCRC(); err != nil {
		return Record{}, err
	}
	property := func(name string) string { return string(r.Properties.Get(name)) }
	return Record{
		Topic: string(r.Topic), Queue: r.QueueID, Offset: r.QueueOffset, Pos: r.PhysicalOffset,
		Size: int(r.Size), CRC: crc32.ChecksumIEEE(rec[:r.Size]), StoreTime: r.StoreTimestamp,
		ID: fmt.Sprintf("%X%016X", r.StoreHost, r.PhysicalOffset), Keys: property(message.PropKeys),
		UniqueKey: property(message.PropUniqKey), Tags: property(message.PropTags),
	}, nil
}

// key compares a query without time bounds exactly, but for how often a position is named: a record
// that was being indexed when Apache was killed is there twice afterwards. The index keeps seconds,
// counted from the first record of each file. Apache takes the cut time for the true one and so
// misses records; ours gives those less than a second too old. So with bounds ours must have all
// that Apache has, every record of the dump that truly lies inside, and nothing a second outside.
func (c *checker) key(q KeyQuery) {
	got, err := c.s.QueryKey(q.Topic, q.Key, q.Max, q.Begin, q.End)
	if err != nil {
		c.complain("query %s#%s: %v", q.Topic, q.Key, err)
		return
	}
	if q.Begin == 0 {
		have, want := slices.Compact(slices.Clone(got)), slices.Compact(slices.Clone(q.Positions))
		if len(got) == q.Max || len(q.Positions) == q.Max { // the newest, as many as both found room for
			n := min(len(have), len(want))
			have, want = have[len(have)-n:], want[len(want)-n:]
		}
		same := slices.Equal(have, want) && (len(have) > 0 || len(q.Positions) == 0)
		if !same && c.recovered {
			same = c.keyAfterRecovery(q, got)
		}
		if !same {
			c.complain("query %s#%s max %d\n got %d\nwant %d", q.Topic, q.Key, q.Max, got, q.Positions)
		}
		return
	}
	if len(got) == q.Max {
		return // cut off by the limit
	}
	want := append([]int64(nil), q.Positions...)
	for _, r := range c.d.Records {
		if r.Topic != q.Topic || !slices.Contains(strings.Fields(r.Keys), q.Key) {
			continue
		}
		if r.StoreTime >= q.Begin && r.StoreTime <= q.End {
			want = append(want, r.Pos)
		}
		if (r.StoreTime < q.Begin-1000 || r.StoreTime > q.End+1000) && slices.Contains(got, r.Pos) {
			c.complain("query %s#%s in %d to %d gave a record of %d", q.Topic, q.Key, q.Begin, q.End, r.StoreTime)
		}
	}
	for _, pos := range want {
		if !slices.Contains(got, pos) {
			c.complain("query %s#%s in %d to %d misses the record at %d", q.Topic, q.Key, q.Begin, q.End, pos)
		}
	}
}

// keyAfterRecovery reports whether got has what Apache found and every record with a key of that
// hash, and nothing else but records that stand in no queue.
func (c *checker) keyAfterRecovery(q KeyQuery, got []int64) bool {
	want := append(slices.Clone(q.Positions), c.byHash[format.IndexHash([]byte(q.Topic), []byte(q.Key))]...)
	for _, pos := range got {
		if c.known[pos] && !slices.Contains(want, pos) {
			return false
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if len(got) == q.Max { // the newest ones
		want = slices.DeleteFunc(want, func(pos int64) bool { return pos < got[0] })
	}
	for _, pos := range want {
		if !slices.Contains(got, pos) {
			return false
		}
	}
	return true
}

// time compares with the answers of 5.x, which are: the first offset whose store time is not before
// the one asked for, else the end. Those of 4.9 depend on the dates of files and on which of two
// neighbours is nearer, so there the rule itself is checked.
func (c *checker) time(q TimeQuery) {
	for i, at := range q.Times {
		got, err := c.s.OffsetByTime(q.Topic, q.Queue, at, engine.LowerBound)
		if err != nil {
			c.complain("offset of %s/%d at %d: %v", q.Topic, q.Queue, at, err)
			continue
		}
		want := q.Offsets[i]
		if c.d.Line == "4.9" {
			name := QueueName{q.Topic, q.Queue}
			all := c.byQueue[name]
			n, _ := slices.BinarySearchFunc(all, at, func(r Record, at int64) int { return cmp.Compare(r.StoreTime, at) })
			want = c.d.Queues[name].Min + int64(n)
		}
		if got != want {
			c.complain("offset of %s/%d at %d is %d, Apache says %d", q.Topic, q.Queue, at, got, want)
		}
	}
}
