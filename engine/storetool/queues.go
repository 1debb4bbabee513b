package storetool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// queueView is a consume queue as a broker would see it: files, and what our journal adds to them.
type queueView struct {
	s     *Store
	files *queueFiles   // nil: none
	j     *journalQueue // nil: the files say everything
}

func (s *Store) queueView(topic string, id int32) *queueView {
	v := &queueView{s: s}
	i, found := slices.BinarySearchFunc(s.queues, queueKey{topic, id}, func(q *queueFiles, k queueKey) int {
		return cmp.Or(strings.Compare(q.topic, k.topic), cmp.Compare(q.id, k.id))
	})
	if found {
		v.files = s.queues[i]
	}
	if s.journal != nil && !s.journal.closed {
		v.j = s.journal.queues[queueKey{topic, id}]
	}
	return v
}

// dir is where the files are, or would be.
func (v *queueView) dir(topic string, id int32) string {
	if v.files != nil {
		return v.files.dir
	}
	return path.Join(v.s.o.QueueDir, topic, strconv.Itoa(int(id)))
}

// place is the file and the offset in it of entry n.
func (v *queueView) place(topic string, id int32, n int64) (string, int64) {
	if v.j != nil && n >= v.j.base {
		return path.Join(v.s.o.Dir, "rmq", "queues.journal"), -1
	}
	size := v.s.o.QueueFileBytes
	at := n * format.CQEntryBytes
	return path.Join(v.dir(topic, id), format.FileName(at-at%size)), at % size
}

// each calls f for runs of entries in [from, to), in order. What no file and no journal has is zeros.
// f gets the number of the first entry; the bytes are its own until it returns.
func (v *queueView) each(from, to int64, f func(n int64, b []byte) error) error {
	size := v.s.o.QueueFileBytes / format.CQEntryBytes
	buf := make([]byte, min(to-from, 13107)*format.CQEntryBytes)
	var open vfs.File
	var opened string
	defer func() {
		if open != nil {
			_ = open.Close() // read only
		}
	}()
	for n := from; n < to; {
		if v.j != nil && n >= v.j.base {
			k := min(to, v.j.n) - n
			if i := n - v.j.from; k > 0 && i >= 0 {
				if err := f(n, v.j.entries[i*format.CQEntryBytes:(i+k)*format.CQEntryBytes]); err != nil {
					return err
				}
				n += k
				continue
			}
		}
		k := min(to-n, int64(len(buf)/format.CQEntryBytes), size-n%size)
		if v.j != nil && n < v.j.base {
			k = min(k, v.j.base-n)
		}
		b := buf[:k*format.CQEntryBytes]
		clear(b)
		if x := v.fileAt(n * format.CQEntryBytes); x != nil && (v.j == nil || n < v.j.base) {
			if opened != x.path {
				if open != nil {
					_ = open.Close() // read only
				}
				var err error
				if open, err = v.s.o.FS.OpenFile(x.path, os.O_RDONLY, 0); err != nil {
					return err
				}
				opened = x.path
			}
			if _, err := open.ReadAt(b, n*format.CQEntryBytes-x.start); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		if err := f(n, b); err != nil {
			return err
		}
		n += k
	}
	return nil
}

func (v *queueView) fileAt(at int64) *file {
	if v.files == nil {
		return nil
	}
	files := v.files.files
	i, found := slices.BinarySearchFunc(files, at, func(x file, at int64) int { return cmp.Compare(x.start, at) })
	if !found {
		i--
	}
	if i < 0 || at >= files[i].start+v.s.o.QueueFileBytes {
		return nil
	}
	return &files[i]
}

// end is the number behind the last entry that says something, looking from entry n on. In a store
// that was killed, bytes in the files that the journal does not speak of count for nothing.
func (v *queueView) end(n int64) (int64, error) {
	if v.j != nil {
		return max(n, v.j.n), nil
	}
	if v.files == nil {
		return n, nil
	}
	last := n
	for _, x := range v.files.files {
		from := max(n*format.CQEntryBytes-x.start, 0)
		if from >= x.size {
			continue
		}
		f, err := v.s.o.FS.OpenFile(x.path, os.O_RDONLY, 0)
		if err != nil {
			return 0, err
		}
		used, err := lastNonZero(f, from, x.size)
		_ = f.Close() // read only
		if err != nil {
			return 0, err
		}
		if used > from {
			last = max(last, (x.start+used+format.CQEntryBytes-1)/format.CQEntryBytes)
		}
	}
	return last, nil
}

// maxQueueOffset is more than any queue will ever have, and far from where positions overflow.
const maxQueueOffset = 1 << 55

// nameable reports whether a queue can have a directory. Engines put records of others in no queue.
func nameable(topic []byte, id int32) bool {
	return len(topic) > 0 && len(topic) <= 255 && id >= 0 && string(topic) != "." && string(topic) != ".." && !bytes.ContainsAny(topic, "/\x00")
}

// queued reports whether a record has an entry in a consume queue of the ordinary kind.
func queued(r *message.Record) bool {
	return r.SysFlag.ConsumesOffset() && !r.SysFlag.Has(message.FlagInnerBatch) && nameable(r.Topic, r.QueueID)
}

// queueCheck compares one queue with the records of the log.
type queueCheck struct {
	topic string
	id    int32
	seen  bool
	next  int64  // the queue offset that the next record should have
	alt   int64  // another one that would do, after a surprise; -1: none
	start int64  // queue offset of the first entry in want
	want  []byte // entries that the log asks for, not yet compared
	begun bool   // what stands before the first entry was looked at
	lost  bool   // damage in the log may have hidden records since the last one
}

// queueChecks are all of them.
type queueChecks struct {
	s       *Store
	add     func(Finding)
	r       *Report
	all     map[queueKey]*queueCheck
	bytes   int // in all want together
	key     []byte
	lookup  map[string]*queueCheck
	lost    int64 // how many ranges of damage there were
	damaged []damage
}

// flushAt bounds the memory that waiting comparisons take.
const flushAt = 64 << 20

func (c *queueChecks) get(topic []byte, id int32) *queueCheck {
	c.key = append(strconv.AppendInt(append(c.key[:0], topic...), int64(id), 10), '/')
	q := c.lookup[string(c.key)]
	if q == nil {
		q = &queueCheck{topic: string(topic), id: id, alt: -1}
		c.lookup[string(c.key)] = q
		c.all[queueKey{q.topic, id}] = q
	}
	return q
}

// expect notes the entry of a record, and says whether its queue offset is right; want is what it
// should be.
func (c *queueChecks) expect(topic []byte, id int32, queueOffset int64, e format.CQEntry) (want int64, ok bool, err error) {
	q := c.get(topic, id)
	want, ok = q.next, true
	switch {
	case queueOffset < 0 || queueOffset > maxQueueOffset:
		ok = false
	case !q.seen:
		want = queueOffset
		if c.s.low() == 0 && c.lost == 0 && queueOffset != 0 {
			want, ok = 0, false
		}
		q.seen, q.start = true, queueOffset
	case queueOffset == q.next:
	case queueOffset == q.alt, q.lost && queueOffset > q.next:
		if err := c.flush(q); err != nil {
			return 0, false, err
		}
		q.start, want = queueOffset, queueOffset
	default:
		ok = false
	}
	q.alt, q.lost = -1, false
	at := want
	if !ok {
		if q.alt = queueOffset + 1; len(q.want) == 0 && q.next == 0 {
			q.seen, q.start = true, want
		}
	}
	q.want = format.AppendCQEntry(q.want, e)
	q.next = at + 1
	if c.bytes += format.CQEntryBytes; c.bytes >= flushAt {
		err = c.flushAll()
	}
	return want, ok, err
}

// damage says that records may be missing from here on.
func (c *queueChecks) damage(d damage) {
	c.lost++
	c.damaged = append(c.damaged, d)
	for _, q := range c.all {
		q.lost = true
	}
}

func (c *queueChecks) flushAll() error {
	waiting := map[queueKey]bool{}
	for k, q := range c.all {
		waiting[k] = len(q.want) > 0
	}
	for _, k := range sortedKeys(waiting) {
		if err := c.flush(c.all[k]); err != nil {
			return err
		}
	}
	return nil
}

func (c *queueChecks) finding(q *queueCheck, v *queueView, sev Severity, kind string, n, pos int64, text string, args ...any) {
	name, offset := v.place(q.topic, q.id, n)
	c.add(Finding{Severity: sev, Kind: kind, Path: name, Offset: offset, Pos: pos, Topic: q.topic, Queue: q.id, Text: fmt.Sprintf("entry %d ", n) + fmt.Sprintf(text, args...)})
}

// flush compares what is waiting of q.
func (c *queueChecks) flush(q *queueCheck) error {
	if len(q.want) == 0 {
		return nil
	}
	v := c.s.queueView(q.topic, q.id)
	if !q.begun {
		q.begun = true
		if err := c.before(q, v); err != nil {
			return err
		}
	}
	count := int64(len(q.want) / format.CQEntryBytes)
	missFrom := int64(-1)
	missing := func(to int64) {
		if missFrom < 0 {
			return
		}
		pos, _ := format.ParseCQEntry(q.want[(missFrom-q.start)*format.CQEntryBytes:])
		sev, why := Fault, ""
		if c.s.unclean() && to == q.start+count {
			sev, why = Note, ": the next start of a broker makes them"
		}
		c.finding(q, v, sev, KindMissing, missFrom, pos.Offset, "is missing, and %d in all up to entry %d%s", to-missFrom, to-1, why)
		missFrom = -1
	}
	err := v.each(q.start, q.start+count, func(n int64, b []byte) error {
		want := q.want[(n-q.start)*format.CQEntryBytes:][:len(b)]
		if bytes.Equal(want, b) {
			missing(n)
			return nil
		}
		for i := 0; i < len(b); i += format.CQEntryBytes {
			n := n + int64(i/format.CQEntryBytes)
			have, _ := format.ParseCQEntry(b[i:])
			want, _ := format.ParseCQEntry(want[i:])
			switch have {
			case want:
				missing(n)
			case (format.CQEntry{}):
				if missFrom < 0 {
					missFrom = n
				}
			default:
				missing(n)
				c.differ(q, v, n, have, want)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	missing(q.start + count)
	c.r.QueueEntries += count
	c.bytes -= len(q.want)
	q.start += count
	if cap(q.want) > 1<<16 {
		q.want = nil
	}
	q.want = q.want[:0]
	return nil
}

// differ names the fields in which an entry is wrong.
func (c *queueChecks) differ(q *queueCheck, v *queueView, n int64, have, want format.CQEntry) {
	var parts []string
	if have.Offset != want.Offset {
		parts = append(parts, fmt.Sprintf("points at %d, its record stands at %d", have.Offset, want.Offset))
	}
	if have.Size != want.Size {
		parts = append(parts, fmt.Sprintf("says size %d, its record has %d", have.Size, want.Size))
	}
	if have.TagsHash != want.TagsHash {
		parts = append(parts, fmt.Sprintf("has tags code %d, its record asks for %d", have.TagsHash, want.TagsHash))
	}
	c.finding(q, v, Fault, KindEntry, n, want.Offset, "%s", strings.Join(parts, "; "))
}

// before looks at the entries that stand before the first one whose record the log holds: of records
// that are gone, or fillers.
func (c *queueChecks) before(q *queueCheck, v *queueView) error {
	if v.files == nil || len(v.files.files) == 0 {
		return nil
	}
	from := v.files.files[0].start / format.CQEntryBytes
	if from >= q.start {
		return nil
	}
	last, wrong := int64(-1), 0
	return v.each(from, q.start, func(n int64, b []byte) error {
		for i := 0; i < len(b) && wrong < 8; i += format.CQEntryBytes {
			n := n + int64(i/format.CQEntryBytes)
			e, _ := format.ParseCQEntry(b[i:])
			text := ""
			switch {
			case e.IsFiller():
			case !e.Valid():
				text = "is none, though later ones are"
			case e.Offset+int64(e.Size) > c.s.low() && !c.hidden(e.Offset):
				text = fmt.Sprintf("points at %d, where no record of the queue stands", e.Offset)
			case e.Offset <= last:
				text = fmt.Sprintf("points at %d, behind one that points at %d", e.Offset, last)
			}
			if text != "" {
				wrong++
				c.finding(q, v, Fault, KindFiller, n, positionless, "%s", text)
			}
			if !e.IsFiller() {
				last = e.Offset
			}
		}
		return nil
	})
}

// hidden reports whether damage in the log may hide the record at pos.
func (c *queueChecks) hidden(pos int64) bool {
	for _, d := range c.damaged {
		if pos >= d.from && pos < d.to {
			return true
		}
	}
	return false
}

// finish compares what is left, and looks for entries behind the last record of each queue and for
// queues that the log knows nothing of.
func (c *queueChecks) finish(end int64) error {
	if err := c.flushAll(); err != nil {
		return err
	}
	queues := map[queueKey]bool{}
	for k := range c.all {
		queues[k] = true
	}
	for _, q := range c.s.queues {
		queues[queueKey{q.topic, q.id}] = true
	}
	if c.s.journal != nil && !c.s.journal.closed {
		for k := range c.s.journal.queues {
			queues[k] = true
		}
	}
	c.r.Queues = len(queues)
	for _, k := range sortedKeys(queues) {
		if err := c.after(k, end); err != nil {
			return err
		}
	}
	return nil
}

// after looks at the entries behind those that the log asked for.
func (c *queueChecks) after(k queueKey, end int64) error {
	q := c.all[k]
	v := c.s.queueView(k.topic, k.id)
	from := int64(0)
	switch {
	case q != nil:
		from = q.next
	case v.files != nil && len(v.files.files) > 0:
		from = v.files.files[0].start / format.CQEntryBytes
	case v.j != nil:
		from = v.j.base
	}
	if q == nil {
		q = &queueCheck{topic: k.topic, id: k.id}
	}
	to, err := v.end(from)
	if err != nil {
		return err
	}
	said, extra := 0, int64(0)
	var first format.CQEntry
	worst := Note
	err = v.each(from, to, func(n int64, b []byte) error {
		for i := 0; i < len(b); i += format.CQEntryBytes {
			n := n + int64(i/format.CQEntryBytes)
			e, _ := format.ParseCQEntry(b[i:])
			text, sev := "", Fault
			switch {
			case e == format.CQEntry{}, e.IsFiller() && !q.seen:
				continue
			case e.IsFiller():
				text = "is a filler behind the last record of the queue"
			case e.Valid() && (e.Offset < c.s.low() && !q.seen || c.hidden(e.Offset)):
				continue // the record has expired, or is lost in damage that was reported
			case e.Offset >= end:
				text = fmt.Sprintf("points at %d, the log ends at %d", e.Offset, end)
				if c.s.unclean() {
					sev = Note
				}
			case !e.Valid():
				text = "is no entry"
			default:
				text = fmt.Sprintf("points at %d, where no record of the queue stands", e.Offset)
			}
			if extra++; extra == 1 {
				first, worst = e, sev
			}
			if sev == Fault {
				worst = sev
			}
			if said++; said <= 4 {
				c.finding(q, v, sev, KindExtra, n, first.Offset, "%s", text)
			}
		}
		return nil
	})
	if extra > 4 {
		c.finding(q, v, worst, KindExtra, to-1, positionless, "is the last of %d without a record", extra)
	}
	return err
}

func sortedKeys(queues map[queueKey]bool) []queueKey {
	keys := make([]queueKey, 0, len(queues))
	for k := range queues {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b queueKey) int {
		return cmp.Or(strings.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id))
	})
	return keys
}
