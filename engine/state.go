package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"strings"

	"rmq/internal/vfs"
)

// storeState is what the store knows about its own log at a moment: <root>/rmq/state.
//
// The file has two slots of 2048 bytes, written in turn, so that a torn write leaves the other
// one. A slot is its length (4 bytes), the CRC-32 of what follows (4), and JSON. The slot with
// the higher sequence number counts.
type storeState struct {
	Seq        int64  `json:"seq"`
	Start      int64  `json:"start"`      // the log begins here, or later
	Flushed    int64  `json:"flushed"`    // on disk at least up to here
	Dispatched int64  `json:"dispatched"` // queues and index on disk know everything below
	Confirm    int64  `json:"confirm"`    // visible to readers at least up to here
	LastTime   int64  `json:"lastTime"`   // store time of the newest record below Dispatched, milliseconds
	IndexEnd   int64  `json:"indexEnd"`   // position of the newest record in the index on disk, -1: none
	IndexFiles int    `json:"indexFiles"` // files of the index
	Clean      bool   `json:"clean"`      // closed; queues and index on disk know all that was visible, and Flushed is the end of the log
	Closed     bool   `json:"closed"`     // closed in order: Flushed is the end of the log, though queues may lack what is hidden
	BootID     string `json:"bootId"`     // of the machine when this was written
	// CheckpointSum is the CRC-32 of the stock checkpoint file as we left it. Another one means
	// that somebody else has used the directory since.
	CheckpointSum uint32 `json:"checkpointSum"`
	// NextSum is that of the checkpoint being written when this was: a crash in between leaves either.
	NextSum uint32 `json:"nextSum"`
}

const (
	stateName      = "state"
	stateSlotBytes = 2048
)

var errStateDamaged = errors.New("no slot of the state file is whole")

// loadState reads the newest whole slot; nil without error when there is no file.
func loadState(fsys vfs.FS, dir string) (*storeState, error) {
	b, err := vfs.ReadFile(fsys, path.Join(dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var best *storeState
	for slot := range 2 {
		if off := slot * stateSlotBytes; off+8 <= len(b) {
			if st := parseStateSlot(b[off:min(len(b), off+stateSlotBytes)]); st != nil && (best == nil || st.Seq > best.Seq) {
				best = st
			}
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%s: %w", path.Join(dir, stateName), errStateDamaged)
	}
	return best, nil
}

func parseStateSlot(b []byte) *storeState {
	n := int(binary.BigEndian.Uint32(b))
	if n <= 0 || n > len(b)-8 || crc32.ChecksumIEEE(b[8:8+n]) != binary.BigEndian.Uint32(b[4:]) {
		return nil
	}
	st := &storeState{}
	if json.Unmarshal(b[8:8+n], st) != nil {
		return nil
	}
	return st
}

// stateFile writes states. One user at a time.
type stateFile struct {
	f   vfs.File
	seq int64
}

// openState opens or creates the state file; the next write takes the slot after old's.
func openState(fsys vfs.FS, dir string, old *storeState) (*stateFile, error) {
	f, err := fsys.OpenFile(path.Join(dir, stateName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	s := &stateFile{f: f}
	if old != nil {
		s.seq = old.Seq
	}
	return s, nil
}

// save makes st durable.
func (s *stateFile) save(st storeState) error {
	s.seq++
	st.Seq, st.BootID = s.seq, bootID()
	body, err := json.Marshal(st)
	if err != nil {
		return err
	}
	slot := make([]byte, stateSlotBytes)
	if len(body) > len(slot)-8 {
		return fmt.Errorf("BUG: state of %d bytes does not fit its slot", len(body))
	}
	binary.BigEndian.PutUint32(slot, uint32(len(body)))
	binary.BigEndian.PutUint32(slot[4:], crc32.ChecksumIEEE(body))
	copy(slot[8:], body)
	if _, err := s.f.WriteAt(slot, s.seq%2*stateSlotBytes); err != nil {
		return err
	}
	return s.f.SyncData()
}

func (s *stateFile) close() error { return s.f.Close() }

// bootID tells one start of the machine from the next; empty where the system has none.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // empty is the answer then
	return strings.TrimSpace(string(b))
}
