package storetool

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"rmq/engine/format"
	"rmq/message"
)

// Parts of a store that Dump shows.
const (
	PartFiles      = "files"
	PartManifest   = "manifest"
	PartState      = "state"
	PartCheckpoint = "checkpoint"
	PartQueues     = "queues"
	PartEntries    = "entries" // of consume queues
	PartIndex      = "index"
	PartKeys       = "keys" // entries of the index
	PartRecords    = "records"
)

// Parts lists them, in the order in which they are shown.
func Parts() []string {
	return []string{PartManifest, PartState, PartCheckpoint, PartFiles, PartQueues, PartEntries, PartIndex, PartKeys, PartRecords}
}

// DumpOptions choose what to show.
type DumpOptions struct {
	Parts []string // nil: all but files, entries and keys
	JSON  bool     // one object a line

	Topic      string // "": all
	Queue      int32  // -1: all
	FromOffset int64  // queue offsets [FromOffset, ToOffset); ToOffset below 0: no end
	ToOffset   int64
	FromPos    int64 // records: log position of the first
	Limit      int64 // records, entries and keys shown of each part; 0: no limit
	BodyBytes  int   // how much of a body to show
}

// The lines of a dump in JSON. Every line has a member "kind" as well.
type (
	fileLine struct {
		Kind string `json:"kind"`
		Path string `json:"path"`
		Size int64  `json:"size"`
		Used int64  `json:"used"` // end of the last byte that is not zero
	}
	checkpointLine struct {
		Kind          string `json:"kind"`
		Physic        int64  `json:"physicMsgTimestamp"`
		Logics        int64  `json:"logicsMsgTimestamp"`
		Index         int64  `json:"indexMsgTimestamp"`
		MasterFlushed int64  `json:"masterFlushedOffset"`
		Confirm       int64  `json:"confirmPhyOffset"`
		Abort         bool   `json:"abort"`
	}
	manifestLine struct {
		Kind string `json:"kind"`
		Manifest
	}
	stateLine struct {
		Kind string `json:"kind"`
		State
	}
	queueLine struct {
		Kind  string `json:"kind"`
		Topic string `json:"topic"`
		Queue int32  `json:"queue"`
		Min   int64  `json:"min"` // first entry that is no filler and whose record the log may hold
		Max   int64  `json:"max"` // behind the last entry
		Files int    `json:"files"`
	}
	entryLine struct {
		Kind   string `json:"kind"`
		Topic  string `json:"topic"`
		Queue  int32  `json:"queue"`
		Offset int64  `json:"offset"`
		Pos    int64  `json:"pos"`
		Size   int32  `json:"size"`
		Tags   int64  `json:"tagsCode"`
		Filler bool   `json:"filler,omitempty"`
	}
	indexLine struct {
		Kind        string `json:"kind"`
		Path        string `json:"path"`
		BeginTime   int64  `json:"beginTimestamp"`
		EndTime     int64  `json:"endTimestamp"`
		BeginOffset int64  `json:"beginPhyOffset"`
		EndOffset   int64  `json:"endPhyOffset"`
		UsedSlots   int32  `json:"hashSlotCount"`
		Count       int32  `json:"indexCount"`
	}
	keyLine struct {
		Kind    string `json:"kind"`
		Path    string `json:"path"`
		Number  int32  `json:"number"`
		Hash    int32  `json:"hash"`
		Pos     int64  `json:"pos"`
		Seconds int32  `json:"seconds"`
		Prev    int32  `json:"previous"`
	}
	recordLine struct {
		Kind       string            `json:"kind"`
		Pos        int64             `json:"pos"`
		Size       int32             `json:"size"`
		Version    int               `json:"version"`
		Topic      string            `json:"topic"`
		Queue      int32             `json:"queue"`
		Offset     int64             `json:"offset"`
		ID         string            `json:"id"`
		StoreTime  int64             `json:"storeTimestamp"`
		BornTime   int64             `json:"bornTimestamp"`
		StoreHost  string            `json:"storeHost"`
		BornHost   string            `json:"bornHost"`
		Flag       int32             `json:"flag"`
		SysFlag    int32             `json:"sysFlag"`
		Reconsume  int32             `json:"reconsumeTimes"`
		Prepared   int64             `json:"preparedTransactionOffset"`
		BodyCRC    uint32            `json:"bodyCRC"`
		BodyBytes  int               `json:"bodyBytes"`
		Body       []byte            `json:"body,omitempty"`
		Properties map[string]string `json:"properties,omitempty"`
	}
	damageLine struct {
		Kind  string `json:"kind"`
		From  int64  `json:"from"`
		To    int64  `json:"to"`
		What  string `json:"what"`
		Bytes int64  `json:"bytes"`
	}
)

// dumper writes lines.
type dumper struct {
	s   *Store
	o   DumpOptions
	w   *bufio.Writer
	enc *json.Encoder
	n   int64 // lines of the present part
}

// Dump writes what is in the store to w. It shows what is there, right or wrong; what cannot be read as
// a record is shown as damage. The error is one of the file system, of w or of ctx, or names a part
// that does not exist.
func (s *Store) Dump(ctx context.Context, w io.Writer, o DumpOptions) error {
	if len(o.Parts) == 0 {
		o.Parts = []string{PartManifest, PartState, PartCheckpoint, PartQueues, PartIndex, PartRecords}
	}
	for _, p := range o.Parts {
		if !slices.Contains(Parts(), p) {
			return inputError(fmt.Sprintf("no part %q: choose from %s", p, strings.Join(Parts(), ", ")))
		}
	}
	d := &dumper{s: s, o: o, w: bufio.NewWriterSize(w, 64<<10)}
	d.enc = json.NewEncoder(d.w)
	d.enc.SetEscapeHTML(false)
	for _, p := range Parts() {
		if !slices.Contains(o.Parts, p) {
			continue
		}
		d.n = 0
		if err := d.part(ctx, p); err != nil && !errors.Is(err, errStop) {
			return err
		}
	}
	return d.w.Flush()
}

func (d *dumper) part(ctx context.Context, p string) error {
	switch p {
	case PartManifest:
		return d.manifest()
	case PartState:
		if st := d.s.state; st != nil {
			return d.line(stateLine{"state", *st}, "state seq=%d start=%d flushed=%d dispatched=%d confirm=%d index-end=%d clean=%t last=%s boot=%s",
				st.Seq, st.Start, st.Flushed, st.Dispatched, st.Confirm, st.IndexEnd, st.Clean, when(st.LastTime), st.BootID)
		}
	case PartCheckpoint:
		if p := d.s.page; d.s.checkpoint != nil {
			return d.line(checkpointLine{"checkpoint", p.Physic, p.Logics, p.Index, p.MasterFlushed, p.Confirm, d.s.aborted},
				"checkpoint log=%s queues=%s index=%s master-flushed=%d confirm=%d abort=%t", when(p.Physic), when(p.Logics), when(p.Index), p.MasterFlushed, p.Confirm, d.s.aborted)
		}
	case PartFiles:
		return d.files(ctx)
	case PartQueues, PartEntries:
		return d.queues(ctx, p == PartEntries)
	case PartIndex:
		return d.index()
	case PartKeys:
		return d.keys(ctx)
	case PartRecords:
		return d.records(ctx)
	}
	return nil
}

// line writes one line; errStop comes when the limit of a part is reached.
func (d *dumper) line(v any, text string, args ...any) error {
	if d.o.JSON {
		return d.enc.Encode(v)
	}
	_, err := fmt.Fprintf(d.w, text+"\n", args...)
	return err
}

// counted is line, with the limit.
func (d *dumper) counted(v any, text string, args ...any) error {
	if err := d.line(v, text, args...); err != nil {
		return err
	}
	if d.n++; d.o.Limit > 0 && d.n >= d.o.Limit {
		return errStop
	}
	return nil
}

// when is a time in milliseconds as people read it.
func when(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func (d *dumper) manifest() error {
	m := d.s.manifest
	switch {
	case d.s.manifestErr != nil:
		return d.line(damageLine{Kind: "damage", What: "manifest: " + d.s.manifestErr.Error()}, "manifest: %v", d.s.manifestErr)
	case m == nil:
		return d.line(map[string]any{"kind": "sizes", "segmentBytes": d.s.o.SegmentBytes, "queueFileBytes": d.s.o.QueueFileBytes, "maxHashSlots": d.s.o.MaxHashSlots, "maxIndexEntries": d.s.o.MaxIndexEntries},
			"no manifest: a directory of Apache RocketMQ; sizes from its files: segments=%d queue-files=%d slots=%d entries=%d", d.s.o.SegmentBytes, d.s.o.QueueFileBytes, d.s.o.MaxHashSlots, d.s.o.MaxIndexEntries)
	}
	return d.line(manifestLine{"manifest", *m}, "manifest format=%d uuid=%s cluster=%q segments=%d queue-files=%d slots=%d entries=%d",
		m.FormatVersion, m.StoreUUID, m.Cluster, m.SegmentBytes, m.QueueFileBytes, m.MaxHashSlots, m.MaxIndexEntries)
}

func (d *dumper) files(ctx context.Context) error {
	var all []file
	for _, x := range d.s.segments {
		all = append(all, x.file)
	}
	for _, q := range d.s.queues {
		all = append(all, q.files...)
	}
	all = append(all, d.s.indexes...)
	for _, x := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f, err := d.s.o.FS.OpenFile(x.path, 0, 0)
		if err != nil {
			return err
		}
		used, err := lastNonZero(f, 0, x.size)
		_ = f.Close() // read only
		if err != nil {
			return err
		}
		if err := d.line(fileLine{"file", x.path, x.size, used}, "file %s size=%d used=%d", x.path, x.size, used); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) wants(topic string, id int32) bool {
	return (d.o.Topic == "" || d.o.Topic == topic) && (d.o.Queue < 0 || d.o.Queue == id)
}

func (d *dumper) wantsOffset(n int64) bool {
	return n >= d.o.FromOffset && (d.o.ToOffset < 0 || n < d.o.ToOffset)
}

func (d *dumper) queues(ctx context.Context, entries bool) error {
	queues := map[queueKey]bool{}
	for _, q := range d.s.queues {
		queues[queueKey{q.topic, q.id}] = true
	}
	if d.s.journal != nil && !d.s.journal.closed {
		for k := range d.s.journal.queues {
			queues[k] = true
		}
	}
	for _, k := range sortedKeys(queues) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !d.wants(k.topic, k.id) {
			continue
		}
		if err := d.queue(k, entries); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) queue(k queueKey, entries bool) error {
	v := d.s.queueView(k.topic, k.id)
	q := queueLine{Kind: "queue", Topic: k.topic, Queue: k.id, Min: -1}
	from := int64(0)
	switch {
	case v.files != nil && len(v.files.files) > 0:
		from, q.Files = v.files.files[0].start/format.CQEntryBytes, len(v.files.files)
	case v.j != nil:
		from = v.j.base
	}
	end, err := v.end(from)
	if err != nil {
		return err
	}
	q.Max = end
	err = v.each(from, end, func(n int64, b []byte) error {
		for i := 0; i < len(b); i += format.CQEntryBytes {
			n := n + int64(i/format.CQEntryBytes)
			e, _ := format.ParseCQEntry(b[i:])
			if q.Min < 0 && e.Valid() && !e.IsFiller() && e.Offset >= d.s.low() {
				if q.Min = n; !entries {
					return errStop
				}
			}
			if entries && d.wantsOffset(n) {
				if err := d.counted(entryLine{"entry", k.topic, k.id, n, e.Offset, e.Size, e.TagsHash, e.IsFiller()},
					"entry %s/%d@%d pos=%d size=%d tags-code=%d", k.topic, k.id, n, e.Offset, e.Size, e.TagsHash); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if entries || err != nil && !errors.Is(err, errStop) {
		return err
	}
	if q.Min < 0 {
		q.Min = q.Max
	}
	return d.line(q, "queue %s/%d min=%d max=%d files=%d", q.Topic, q.Queue, q.Min, q.Max, q.Files)
}

func (d *dumper) index() error {
	for _, x := range d.s.indexes {
		f, err := d.s.o.FS.OpenFile(x.path, 0, 0)
		if err != nil {
			return err
		}
		var b [format.IndexHeaderBytes]byte
		_, err = f.ReadAt(b[:], 0)
		_ = f.Close() // read only
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		h, err := format.ParseIndexHeader(b[:])
		if err != nil {
			return err
		}
		if err := d.line(indexLine{"index", x.path, h.BeginTime, h.EndTime, h.BeginOffset, h.EndOffset, h.UsedSlots, h.Count},
			"index %s from=%s to=%s begin=%d end=%d slots=%d next=%d", x.path, when(h.BeginTime), when(h.EndTime), h.BeginOffset, h.EndOffset, h.UsedSlots, h.Count); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) keys(ctx context.Context) error {
	c := d.s.newIndexCursor(func(Finding) {}) // what is wrong is verify's to say
	defer c.close()
	for {
		if err := c.advance(); err != nil || !c.ok {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if c.e.Offset < d.o.FromPos {
			continue
		}
		if err := d.counted(keyLine{"key", c.file.path, c.n, c.e.Hash, c.e.Offset, c.e.SecondsDiff, c.e.Prev},
			"key %s #%d hash=%d pos=%d seconds=%d previous=%d", path.Base(c.file.path), c.n, c.e.Hash, c.e.Offset, c.e.SecondsDiff, c.e.Prev); err != nil {
			return err
		}
	}
}

func (d *dumper) records(ctx context.Context) error {
	tail, err := d.s.walk(ctx, max(d.o.FromPos, d.s.low()), visitor{
		record: func(pos int64, _ []byte, r *message.Record) error {
			if !d.wants(string(r.Topic), r.QueueID) || !d.wantsOffset(r.QueueOffset) {
				return nil
			}
			return d.record(pos, r)
		},
		damaged: func(x damage) error {
			return d.line(damageLine{"damage", x.from, x.to, x.err.Error(), x.to - x.from}, "damage %d to %d: %v", x.from, x.to, x.err)
		},
	})
	if err != nil || tail.used == tail.end {
		return err
	}
	return d.line(damageLine{"tail", tail.end, tail.used, tail.err.Error(), tail.used - tail.end}, "tail %d to %d: %v", tail.end, tail.used, tail.err)
}

func (d *dumper) record(pos int64, r *message.Record) error {
	version := 1
	if r.Magic == message.MagicV2 {
		version = 2
	}
	body := r.Body[:min(len(r.Body), max(d.o.BodyBytes, 0))]
	if !d.o.JSON {
		var b strings.Builder
		r.Properties.Each(func(name, value []byte) bool {
			fmt.Fprintf(&b, " %s=%s", name, strconv.Quote(string(value)))
			return true
		})
		if d.o.BodyBytes > 0 {
			b.WriteString(" body=" + strconv.Quote(string(body)))
		}
		return d.counted(nil, "record %d size=%d v%d %s/%d@%d stored=%s born=%s store-host=%v born-host=%v flag=%d sys-flag=%#x reconsume=%d prepared=%d crc=%d body-bytes=%d%s",
			pos, r.Size, version, r.Topic, r.QueueID, r.QueueOffset, when(r.StoreTimestamp), when(r.BornTimestamp), message.Host(r.StoreHost), message.Host(r.BornHost),
			r.Flag, int32(r.SysFlag), r.ReconsumeTimes, r.PreparedTransactionOffset, r.BodyCRC, len(r.Body), b.String())
	}
	l := recordLine{
		Kind: "record", Pos: pos, Size: r.Size, Version: version, Topic: string(r.Topic), Queue: r.QueueID, Offset: r.QueueOffset,
		ID: string(message.AppendRawID(nil, r.StoreHost, r.PhysicalOffset)), StoreTime: r.StoreTimestamp, BornTime: r.BornTimestamp,
		StoreHost: message.Host(r.StoreHost).String(), BornHost: message.Host(r.BornHost).String(), Flag: r.Flag, SysFlag: int32(r.SysFlag),
		Reconsume: r.ReconsumeTimes, Prepared: r.PreparedTransactionOffset, BodyCRC: r.BodyCRC, BodyBytes: len(r.Body), Body: body,
	}
	r.Properties.Each(func(name, value []byte) bool {
		if l.Properties == nil {
			l.Properties = map[string]string{}
		}
		l.Properties[string(name)] = string(value)
		return true
	})
	return d.counted(l, "")
}
