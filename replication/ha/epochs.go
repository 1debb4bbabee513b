package ha

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"

	"rmq/internal/vfs"
)

// Epoch is one reign: a master that led from Start on. Epochs only grow. What stands before the first
// one, in a log that was kept without replication or by Apache, is epoch 0.
//
// A restart of a master adds one, a promotion goes to the next multiple of [PromotionStep]: so a
// promoted slave outranks the old master however often that one restarts unseen.
type Epoch struct {
	Epoch int64  `json:"epoch"`
	Start int64  `json:"start"` // position in the log
	By    string `json:"by"`    // who led: two masters may draw one number
	// Run tells this reign from one of the same master with the same number and start, which it has forgotten: the
	// directory was replaced by an older copy. "" if it is not known.
	Run string `json:"run,omitempty"`
}

// is says whether two are one reign.
func (e Epoch) is(o Epoch) bool {
	return e.Epoch == o.Epoch && e.Start == o.Start && e.By == o.By && (e.Run == o.Run || e.Run == "" || o.Run == "")
}

// PromotionStep is the distance of the epochs of promotions.
const PromotionStep = 1_000_000

// Epochs is a history, oldest first.
type Epochs []Epoch

// Last is the newest epoch, 0 if there is none.
func (es Epochs) Last() int64 {
	if len(es) == 0 {
		return 0
	}
	return es[len(es)-1].Epoch
}

// newest is the newest reign.
func (es Epochs) newest() Epoch {
	if len(es) == 0 {
		return Epoch{}
	}
	return es[len(es)-1]
}

// next is the epoch of who leads next.
func (es Epochs) next(promoted bool) int64 {
	if promoted {
		return (es.Last()/PromotionStep + 1) * PromotionStep
	}
	return es.Last() + 1
}

// At is the epoch of the byte at pos, and where the next one begins; end of time if none does.
func (es Epochs) At(pos int64) (epoch, next int64) {
	for i := len(es) - 1; i >= 0; i-- {
		if es[i].Start <= pos {
			if i+1 < len(es) {
				return es[i].Epoch, es[i+1].Start
			}
			return es[i].Epoch, 1<<63 - 1
		}
	}
	if len(es) > 0 {
		return 0, es[0].Start
	}
	return 0, 1<<63 - 1
}

// upTo is the history of a log that ends at end.
func (es Epochs) upTo(end int64) Epochs {
	n := len(es)
	for n > 0 && es[n-1].Start > end {
		n--
	}
	return es[:n:n]
}

// sameStart is how many reigns that began at one position are kept.
const sameStart = 8

// add is the history with one more reign. Reigns that began where this one does have left nothing here, but perhaps
// on a slave, if this node has lost it: the last ones are kept, so that it is known whose those bytes are.
func (es Epochs) add(e Epoch) Epochs {
	n := len(es)
	for n > 0 && es[n-1].Start > e.Start {
		n--
	}
	first := n
	for first > 0 && es[first-1].Start == e.Start {
		first--
	}
	return append(append(slices.Clone(es[:first]), es[max(first, n-sameStart+1):n]...), e)
}

// prune forgets reigns that ended before low.
func (es Epochs) prune(low int64) Epochs {
	for len(es) > 1 && es[1].Start <= low && es[0].Start < low {
		es = es[1:]
	}
	return es
}

// validate says what is wrong with a history that came from outside.
func (es Epochs) validate() error {
	for i, e := range es {
		if e.Epoch <= 0 || e.Start < 0 || i > 0 && (e.Epoch <= es[i-1].Epoch || e.Start < es[i-1].Start) {
			return fmt.Errorf("epoch %d at %d is out of order", e.Epoch, e.Start)
		}
	}
	return nil
}

// meet finds where two histories part: the end of the newest epoch that both began at the same place,
// as far as both have it. What stands before all epochs is one that both began at 0.
func meet(a Epochs, aEnd int64, b Epochs, bEnd int64) (pos int64) {
	a, b = append(Epochs{{}}, a...), append(Epochs{{}}, b...)
	end := func(es Epochs, i int, end int64) int64 {
		if i+1 < len(es) {
			return min(end, es[i+1].Start)
		}
		return end
	}
	i, j := len(a)-1, -1
	for ; j < 0; i-- {
		j = slices.IndexFunc(b, a[i].is)
	}
	return min(end(a, i+1, aEnd), end(b, j, bEnd))
}

// record is what a node remembers of itself and its group: <root>/rmq/epochs.
//
// The file is one line: the CRC-32 of the rest in eight hexadecimal digits, a space, and JSON.
type record struct {
	Group  uint64 `json:"group,string"` // drawn by the first master, taken over by its slaves
	Epochs Epochs `json:"epochs"`
	// Role is what became of the node against its configuration: "leader" after a promotion,
	// "follower" when somebody else was promoted; "" as configured.
	Role   string `json:"role,omitempty"`
	Leader string `json:"leader,omitempty"` // replication address of who leads
	Client string `json:"client,omitempty"` // where clients reach it
	// Former is the replication address of the master in whose place this node was promoted, until
	// that one has heard of it.
	Former string `json:"former,omitempty"`
	Mode   string `json:"mode,omitempty"` // of the master that this slave has followed
	// Replicas are those that a master has had in sync: who must be heard before it may lead again
	// after a power cut.
	Replicas []string `json:"replicas,omitempty"`
}

const (
	recordName   = "epochs"
	roleLeader   = "leader"
	roleFollower = "follower"
)

var errRecord = errors.New("not an epoch file, or a damaged one")

func recordPath(root string) string { return path.Join(root, "rmq", recordName) }

func appendRecord(dst []byte, r record) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	dst = fmt.Appendf(dst, "%08x ", crc32.ChecksumIEEE(body))
	return append(append(dst, body...), '\n'), nil
}

func parseRecord(b []byte) (r record, err error) {
	b = bytes.TrimSuffix(b, []byte("\n"))
	if len(b) < 9 || b[8] != ' ' {
		return r, errRecord
	}
	sum, err := strconv.ParseUint(string(b[:8]), 16, 32)
	if err != nil || crc32.ChecksumIEEE(b[9:]) != uint32(sum) {
		return r, errRecord
	}
	if err := json.Unmarshal(b[9:], &r); err != nil {
		return r, fmt.Errorf("%w: %w", errRecord, err)
	}
	return r, r.Epochs.validate()
}

// loadRecord reads the epoch file; an empty record if there is none. A damaged one is an error: a node
// that has forgotten its epochs could take another log for its own.
func loadRecord(fsys vfs.FS, root string) (r record, err error) {
	name := recordPath(root)
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return r, err
	}
	b := make([]byte, st.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return r, fmt.Errorf("read %s: %w", name, err)
	}
	if r, err = parseRecord(b); err != nil {
		return r, fmt.Errorf("%s: %w: put a good copy there, or move the whole directory away and let the node be filled from its peer", name, err)
	}
	return r, nil
}

// saveRecord replaces the epoch file, durably: at every moment the old or the new one is there whole.
func saveRecord(fsys vfs.FS, root string, r record) error {
	b, err := appendRecord(nil, r)
	if err != nil {
		return err
	}
	name := recordPath(root)
	f, err := fsys.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(name+".tmp", name)
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return fsys.SyncDir(path.Dir(name))
}
