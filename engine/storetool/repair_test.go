package storetool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/internal/vfs"
	"rmq/message"
)

// patch changes bytes of a file.
func patch(t testing.TB, fsys vfs.FS, name string, off int64, change func(b []byte)) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	b := make([]byte, 16)
	n, err := f.ReadAt(b, off)
	if n == 0 {
		require.NoError(t, err)
	}
	change(b[:n])
	_, err = f.WriteAt(b[:n], off)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func add(n byte) func([]byte) { return func(b []byte) { b[0] += n } }

// at is a record of the log: the n-th that the filter likes.
func at(t testing.TB, o Options, n int, like func(*message.Record) bool) (pos int64, rec message.Record) {
	t.Helper()
	s, err := Open(o)
	require.NoError(t, err)
	pos = -1
	_, err = s.walk(context.Background(), s.low(), visitor{record: func(p int64, raw []byte, r *message.Record) error {
		if like(r) {
			if n--; n < 0 {
				require.NoError(t, message.ParseRecord(append([]byte(nil), raw...), &rec))
				pos = p
				return errStop
			}
		}
		return nil
	}})
	require.NoError(t, err)
	require.NotEqual(t, int64(-1), pos)
	return pos, rec
}

func plain(r *message.Record) bool {
	return r.SysFlag.Transaction() == 0 && len(r.Body) > 16 && string(r.Topic) == "Topic1" && r.QueueID == 1
}

const logDir, segBytes = "store/commitlog/", 16 << 10

func logFile(pos int64) (string, int64) {
	return logDir + format.FileName(pos-pos%segBytes), pos % segBytes
}

// contents are the records that the engine reads out of every queue of a store, by topic, queue and offset.
func contents(t testing.TB, o engine.Options) map[string]string {
	t.Helper()
	s, err := engine.Open(t.Context(), o)
	require.NoError(t, err)
	all := map[string]string{}
	for _, q := range s.Queues() {
		low, high, _ := s.QueueRange(q.Topic, q.ID)
		for n := low; n < high; {
			r, err := s.Get(q.Topic, q.ID, n, 32, 1<<20)
			require.NoError(t, err)
			require.NotZero(t, r.Count(), "%s/%d@%d of %d", q.Topic, q.ID, n, high)
			r.Each(func(rec []byte) {
				all[fmt.Sprintf("%s/%d@%d", q.Topic, q.ID, n)] = string(rec)
				n++
			})
			r.Release()
		}
	}
	require.NoError(t, s.Close())
	return all
}

// Every kind of damage that can be done to a byte of a store is named by verify with its place, and
// repair makes a store without it that the engine opens, with every record before the damage.
func TestDamage(t *testing.T) {
	h, eo := made(t, 300)
	o := Options{FS: h, Dir: "store"}
	before := contents(t, eo)
	pos, rec := at(t, o, 20, plain)
	name, off := logFile(pos)
	last, _ := at(t, o, 299, func(*message.Record) bool { return true })
	lastName, _ := logFile(last)
	require.NotEqual(t, lastName, name, "there must be segments behind the damage")
	scheduled, _ := at(t, o, 3, func(r *message.Record) bool { return string(r.Topic) == message.TopicSchedule })
	_ = scheduled
	s, err := Open(o)
	require.NoError(t, err)
	index := s.indexes[1].path
	entry := int64(format.IndexHeaderBytes + 64*4 + 20*5)
	queue := func(topic string, n int64) (string, int64) {
		return fmt.Sprintf("store/consumequeue/%s/%020d", topic, n*20/400*400), n * 20 % 400
	}
	qname, qoff := queue("Topic1/1", rec.QueueOffset)
	sname, soff := queue("SCHEDULE_TOPIC_XXXX/2", 3)
	whole := len(before)
	const any = -1
	for what, c := range map[string]struct {
		file   string
		off    int64
		change func([]byte)
		want   string // a line of verify's
		left   int    // records that the repaired store has; any: fewer than before
	}{
		"total size":          {name, off + 2, add(1), `fault record .*` + fmt.Sprint(off) + `: (record|no record).*where good ones go on`, any},
		"total size huge":     {name, off, add(0x7f), `fault record .*total size says`, any},
		"magic":               {name, off + 4, add(1), `fault record .*no record magic: 0xdba320a7`, any},
		"blank magic":         {name, off + 4, func(b []byte) { copy(b, "\xcb\xd4\x31\x94") }, `fault record .*a blank record says that \d+ bytes are left where there are`, any},
		"body crc":            {name, off + 8, add(1), `fault record .*checksum does not match: body has`, any},
		"queue id":            {name, off + 15, add(1), `fault offset .*queue offset is \d+ where Topic1/2 goes on at \d+`, any},
		"queue offset":        {name, off + 27, add(1), `fault offset .*queue offset is \d+ where Topic1/1 goes on at ` + fmt.Sprint(rec.QueueOffset), any},
		"physical offset":     {name, off + 35, add(1), `fault record .*physical offset is ` + fmt.Sprint(pos+1), any},
		"sysflag host":        {name, off + 39, func(b []byte) { b[0] ^= 0x10 }, `fault record .*record lengths disagree`, any},
		"store time":          {name, off + 56, add(1), `note  time`, whole},
		"body":                {name, off + 90, add(1), `fault record .*checksum does not match`, any},
		"topic":               {name, off + 88 + int64(len(rec.Body)) + 1, add(1), `fault (offset|record) `, any},
		"zeros":               {name, off, func(b []byte) { clear(b[:8]) }, `fault record .*zeros where a record should be`, any},
		"behind the tail":     {lastName, segBytes - 20, add(7), `fault tail .*behind the last record are no zeros`, whole},
		"entry offset":        {qname, qoff + 7, add(1), `fault entry .*Topic1/1: entry ` + fmt.Sprint(rec.QueueOffset) + ` points at ` + fmt.Sprint(pos+1), whole},
		"entry size":          {qname, qoff + 11, add(1), `fault entry .*says size`, whole},
		"entry tags":          {qname, qoff + 19, add(1), `fault entry .*has tags code`, whole},
		"entry delivery time": {sname, soff + 19, add(1), `fault entry .*SCHEDULE_TOPIC_XXXX/2: entry 3 has tags code`, whole},
		"entry gone":          {qname, qoff, func(b []byte) { clear(b[:12]) }, `fault (missing|entry)`, whole},
		"entry behind":        {"store/consumequeue/Topic1/1/" + format.FileName(lastQueueFile(t, h, "store/consumequeue/Topic1/1")), 399, add(1), `fault extra .*is no entry`, whole},
		"index begin time":    {index, 7, add(1), `fault index .*\+0: begin time`, whole},
		"index end time":      {index, 15, add(1), `fault index .*\+8: end time`, whole},
		"index begin offset":  {index, 23, add(1), `fault index .*\+16: begin offset`, whole},
		"index end offset":    {index, 31, add(1), `fault index .*\+24: end offset`, whole},
		"index slot count":    {index, 35, add(1), `fault index .*\+32: the header counts`, whole},
		"index count":         {index, 39, add(0xff), `fault (index|missing)`, whole},
		"index count huge":    {index, 36, add(1), `fault index .*\+36: the number of the next entry`, whole},
		"index slot":          {index, 40 + 4*usedSlot(t, h, index) + 3, add(1), `fault index .*slot \d+ names entry`, whole},
		"index hash":          {index, entry + 3, add(1), `fault (index|extra) `, whole},
		"index hash negative": {index, entry, func(b []byte) { b[0] |= 0x80 }, `fault index .*negative hash`, whole},
		"index offset":        {index, entry + 11, add(1), `fault extra .*stands for`, whole},
		"index seconds":       {index, entry + 15, add(1), `fault index .*says 1 seconds after`, whole},
		"index previous":      {index, entry + 19, add(1), `fault index .*points back to entry`, whole},
		"checkpoint log":      {"store/checkpoint", 1, add(1), `fault stamp +.*log time \d+ is after the newest record`, whole},
		"checkpoint queues":   {"store/checkpoint", 9, add(1), `fault stamp +.*queue time \d+ is after the newest record`, whole},
		"checkpoint index":    {"store/checkpoint", 17, add(1), `fault stamp +.*index time \d+ is after the newest record`, whole},
		"manifest":            {"store/rmq/manifest", 20, add(1), `fault stamp +store/rmq/manifest: its checksum does not match`, whole},
		"state":               {"store/rmq/state", 10, add(1), ``, whole}, // one slot is left
	} {
		t.Run(what, func(t *testing.T) {
			img := h.KillImage()
			o := Options{FS: img, Dir: "store"}
			patch(t, img, c.file, c.off, c.change)
			r := verify(t, o)
			if c.want != "" {
				require.Regexp(t, `(?m)^`+c.want, lines(r))
			}
			if strings.HasPrefix(c.want, "fault") {
				require.False(t, r.OK())
			}
			if strings.HasPrefix(c.want, "fault record") {
				require.Equal(t, 1, r.Faults, "one byte, one fault: %s", lines(r))
			}
			rep, err := Repair(t.Context(), o, RepairOptions{To: "copy"})
			require.NoError(t, err)
			require.Empty(t, faults(rep.Verified), "the repaired store")
			eo := small(img, "copy")
			after := contents(t, eo)
			for k, v := range after {
				if what != "store time" {
					require.Equal(t, before[k], v, k)
				}
			}
			if c.left == any {
				require.Less(t, len(after), whole)
				require.Greater(t, len(after), 20)
				require.NotEmpty(t, rep.Dropped)
				n := int64(len(after))
				for _, d := range rep.Dropped {
					n += d.Records
				}
				require.GreaterOrEqual(t, n+1, int64(whole), "all that is not there any more was reported")
				require.NotEmpty(t, rep.Kept)
			} else {
				require.Len(t, after, c.left)
			}
		})
	}
}

// faults are the lines of the faults.
func faults(r *Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		if f.Severity == Fault {
			b.WriteString(f.String() + "\n")
		}
	}
	return b.String()
}

func lastQueueFile(t testing.TB, fsys vfs.FS, dir string) int64 {
	t.Helper()
	entries, err := fsys.ReadDir(dir)
	require.NoError(t, err)
	last := int64(-1)
	for _, e := range entries {
		n, err := format.ParseFileName(e.Name())
		require.NoError(t, err)
		last = max(last, n)
	}
	return last
}

func usedSlot(t testing.TB, fsys vfs.FS, name string) int64 {
	t.Helper()
	b, err := readFile(fsys, name)
	require.NoError(t, err)
	for i := int64(0); ; i++ {
		if binary.BigEndian.Uint32(b[40+4*i:]) != 0 {
			return i
		}
	}
}

// Files that are missing, misnamed or of another size are named, and repair makes a store without them.
func TestFileDamage(t *testing.T) {
	h, _ := made(t, 300)
	create := func(name, text string) func(*testing.T, *vfs.Heap) {
		return func(t *testing.T, h *vfs.Heap) {
			f, err := h.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte(text), 0)
			require.NoError(t, errors.Join(err, f.Close()))
		}
	}
	truncate := func(name string, n int64) func(*testing.T, *vfs.Heap) {
		return func(t *testing.T, h *vfs.Heap) {
			f, err := h.OpenFile(name, os.O_RDWR, 0)
			require.NoError(t, err)
			require.NoError(t, errors.Join(f.Truncate(n), f.Close()))
		}
	}
	remove := func(name string) func(*testing.T, *vfs.Heap) {
		return func(t *testing.T, h *vfs.Heap) { require.NoError(t, h.RemoveAll(name)) }
	}
	for what, c := range map[string]struct {
		do   func(*testing.T, *vfs.Heap)
		want string
	}{
		"stranger in the log":    {create(logDir+"notes.txt", "x"), `fault file .*notes.txt: a stranger`},
		"stranger in a queue":    {create("store/consumequeue/Topic1/1/x.tmp", "x"), `fault file .*x.tmp: a stranger`},
		"stranger among queues":  {create("store/consumequeue/Topic1/one", "x"), `fault file .*one: a stranger`},
		"stranger among topics":  {create("store/consumequeue/file", "x"), `fault file .*file: a stranger`},
		"stranger in the index":  {create("store/index/readme", "x"), `note  file .*readme: a stranger`},
		"short segment":          {truncate(logDir+format.FileName(2*segBytes), 5000), `fault file .*has 5000 bytes where segments have 16384`},
		"long segment":           {truncate(logDir+format.FileName(2*segBytes), segBytes+100), `fault file .*has 16484 bytes`},
		"segment gone":           {remove(logDir + format.FileName(2*segBytes)), `fault file .*segments from 32768 to 49152 are missing`},
		"first segments gone":    {remove(logDir + format.FileName(0)), `(?s).*`},
		"short queue file":       {truncate("store/consumequeue/Topic1/1/"+format.FileName(0), 399), `fault file .*has 399 bytes where queue files have 400`},
		"queue file gone":        {remove("store/consumequeue/Topic1/1/" + format.FileName(0)), `fault missing .*Topic1/1: entry 0 is missing, and 20 in all`},
		"queue gone":             {remove("store/consumequeue/Topic1/1"), `fault missing .*Topic1/1: entry 0 is missing`},
		"all queues gone":        {remove("store/consumequeue"), `fault missing`},
		"short index file":       {truncateIndex, `fault file .*has 100 bytes where index files have`},
		"index gone":             {remove("store/index"), `fault index .*there is no index for the \d+ keys`},
		"checkpoint gone":        {remove("store/checkpoint"), `note  stamp +.*there is none`},
		"short checkpoint":       {truncate("store/checkpoint", 100), `fault stamp +.*has 100 bytes`},
		"state gone":             {remove("store/rmq/state"), `(?s).*`},
		"manifest gone":          {remove("store/rmq/manifest"), `(?s).*`},
		"our directory gone":     {remove("store/rmq"), `(?s).*`},
		"queue of another topic": {create("store/consumequeue/Ghost/0/"+format.FileName(0), ""), `note  file .*has 0 bytes`},
	} {
		t.Run(what, func(t *testing.T) {
			img := h.KillImage()
			require.NoError(t, img.MkdirAll("store/consumequeue/Ghost/0", 0o755))
			c.do(t, img)
			o := Options{FS: img, Dir: "store"}
			r := verify(t, o)
			require.Regexp(t, `(?m)^`+c.want, lines(r))
			for _, inPlace := range []bool{false, true} {
				ro := RepairOptions{InPlace: inPlace}
				rep, err := Repair(t.Context(), o, ro)
				require.NoError(t, err)
				require.Empty(t, faults(rep.Verified), "in place: %t", inPlace)
				if !inPlace {
					require.Equal(t, "store-repaired", rep.Dir)
					require.Equal(t, lines(r), lines(verify(t, o)), "the source is as it was")
				}
				require.Greater(t, len(contents(t, small(img, rep.Dir))), 40)
			}
		})
	}
}

func truncateIndex(t *testing.T, h *vfs.Heap) {
	entries, err := h.ReadDir("store/index")
	require.NoError(t, err)
	f, err := h.OpenFile(path.Join("store/index", entries[0].Name()), os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f.Truncate(100), f.Close()))
}

// Salvage loses the damaged record and nothing else: all others are there, in order, renumbered.
func TestSalvage(t *testing.T) {
	h, eo := made(t, 300)
	before := contents(t, eo)
	o := Options{FS: h, Dir: "store"}
	pos, rec := at(t, o, 20, plain)
	name, off := logFile(pos)
	patch(t, h, name, off+90, add(1))
	rep, err := Repair(t.Context(), o, RepairOptions{Salvage: true})
	require.NoError(t, err)
	require.Empty(t, faults(rep.Verified))
	require.EqualValues(t, 299, rep.Records)
	require.EqualValues(t, rec.Size, rep.Lost)
	require.Empty(t, rep.Dropped)
	require.Positive(t, rep.Moved)
	require.Len(t, rep.Kept, 1)
	kept, err := readFile(h, rep.Kept[0])
	require.NoError(t, err)
	require.Len(t, kept, int(rec.Size), "the damaged record is kept, byte for byte")
	after := contents(t, small(h, rep.Dir))
	require.Len(t, after, len(before)-1)
	for k, v := range before {
		var topic string
		var id, n int64
		m := regexp.MustCompile(`^(.*)/(\d+)@(\d+)$`).FindStringSubmatch(k)
		topic = m[1]
		_, _ = fmt.Sscan(m[2], &id)
		_, _ = fmt.Sscan(m[3], &n)
		if topic == "Topic1" && id == 1 {
			if n == rec.QueueOffset {
				continue
			}
			if n > rec.QueueOffset {
				n--
			}
		}
		require.Equal(t, body(t, v), body(t, after[fmt.Sprintf("%s/%d@%d", topic, id, n)]), k)
	}
}

// A store that a kill left torn is repaired in place into one that closed; what was cut lies in
// rmq/broken, and nothing of the good part is missing.
func TestRepairKilled(t *testing.T) {
	h := vfs.NewHeap()
	eo := small(h, "store")
	s, err := engine.Open(t.Context(), eo)
	require.NoError(t, err)
	fill(t, s, 3, 200)
	img := h.KillImage()
	want := contents(t, small(h.KillImage(), "store"))
	end := s.Max()
	name, off := logFile(end)
	patch(t, img, name, off, func(b []byte) { copy(b, "torn") })
	require.NoError(t, s.Close())
	o := Options{FS: img, Dir: "store"}
	for _, ro := range []RepairOptions{{To: "copy"}, {InPlace: true}} {
		rep, err := Repair(t.Context(), o, ro)
		require.NoError(t, err)
		require.Empty(t, lines(rep.Verified), "not even a note: it is closed")
		require.Equal(t, end, rep.Cut)
		require.EqualValues(t, 4, rep.Lost)
		require.Empty(t, rep.Dropped)
		kept := rep.Kept[0]
		if ro.InPlace {
			kept = rep.Kept[2] // behind state and journal
		}
		b, err := readFile(img, kept)
		require.NoError(t, err)
		require.Equal(t, "torn", string(b))
		require.Equal(t, want, contents(t, small(img, rep.Dir)))
	}
}

// A repair that fails leaves no copy, one onto something that exists is refused, and so is one of a
// store that is open.
func TestRepairRefuses(t *testing.T) {
	h, eo := made(t, 100)
	o := Options{FS: h, Dir: "store"}
	require.NoError(t, h.MkdirAll("there", 0o755))
	_, err := Repair(t.Context(), o, RepairOptions{To: "there"})
	require.ErrorIs(t, err, ErrExists)
	_, err = Repair(t.Context(), o, RepairOptions{To: "store/inside"})
	require.ErrorContains(t, err, "lies inside the store")
	_, err = Repair(t.Context(), Options{FS: h, Dir: "nowhere"}, RepairOptions{})
	require.ErrorIs(t, err, ErrNoStore)
	_, err = Repair(t.Context(), Options{FS: h, Dir: "there"}, RepairOptions{})
	require.ErrorIs(t, err, ErrNoStore)
	_, err = Repair(t.Context(), o, RepairOptions{InPlace: true, To: "copy"})
	require.ErrorContains(t, err, "in place")

	s, err := engine.Open(t.Context(), eo)
	require.NoError(t, err)
	for _, ro := range []RepairOptions{{}, {InPlace: true}} {
		_, err = Repair(t.Context(), o, ro)
		require.ErrorIs(t, err, ErrInUse)
	}
	require.NoError(t, s.Close())

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	_, err = Repair(ctx, o, RepairOptions{To: "copy"})
	require.ErrorContains(t, err, "enough")
	for _, name := range []string{"copy", "copy.partial", "store-repaired", "store-repaired.partial"} {
		_, err = h.Stat(name)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	require.Empty(t, lines(verify(t, o)), "the store is as it was")
}

// A write that fails at any point of a copy is an error, leaves no copy and does not touch the source.
func TestRepairFaults(t *testing.T) {
	h, _ := made(t, 60)
	failed := 0
	for n := 1; n < 400; n += 2 {
		img := h.KillImage()
		faulty := vfs.NewFaulty(img, vfs.Rule{Op: vfs.OpWrite, Nth: n, Err: errors.New("disk broke")})
		_, err := Repair(t.Context(), Options{FS: faulty, Dir: "store"}, RepairOptions{To: "copy"})
		if err == nil {
			break
		}
		failed++
		require.ErrorContains(t, err, "disk broke")
		for _, name := range []string{"copy", "copy.partial"} {
			_, err = img.Stat(name)
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
		require.Empty(t, lines(verify(t, Options{FS: img, Dir: "store"})))
	}
	require.Greater(t, failed, 5)
}

// What Apache wrote is repaired into a store that has all its records, for both of its samples.
func TestRepairApache(t *testing.T) {
	for _, name := range []string{"apache-4.9.8-clean", "apache-5.3.3-killed"} {
		t.Run(name, func(t *testing.T) {
			dir := path.Join("../../test/compat/testdata", name, "store")
			to := path.Join(t.TempDir(), "copy")
			before := verify(t, Options{Dir: dir})
			rep, err := Repair(t.Context(), Options{Dir: dir}, RepairOptions{To: to, Clock: func() time.Time { return time.UnixMilli(1) }})
			require.NoError(t, err)
			require.Empty(t, faults(rep.Verified))
			require.Equal(t, before.Records, rep.Records)
			require.Equal(t, before.End, rep.End)
			if _, err := os.Stat(path.Join(dir, "config", "delayOffset.json")); err == nil {
				require.FileExists(t, path.Join(to, "config", "delayOffset.json"))
			}
		})
	}
}
