package raftlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"rmq/engine"
	"rmq/internal/vfs"
)

// memberLog remembers who was a member since when, also where retention has removed the entries that say
// so: a snapshot of where the log begins has to tell the membership as of there. It is kept in
// rmq/raft/members, written before retention may go on.
type memberLog struct {
	mu    sync.Mutex
	list  []membership // by index
	saved int          // how many of them the file has
	looks []uint64     // membership entries of the log that were not read yet
}

// membership is one configuration, as the library encodes it, and its index.
type membership struct {
	Index uint64 `json:"index"`
	Data  []byte `json:"data"`
}

const membersName = "members"

// found notes that an entry of the log, not read yet, is one.
func (m *memberLog) found(kind FrameType, index uint64) {
	if kind == FrameConfig {
		m.looks = append(m.looks, index)
	}
}

// load reads the file, and the entries found in the log.
func (m *memberLog) load(s *LogStore) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := loadDoc(s.engine.Options().FS, path.Join(s.dir, membersName), &m.list); err != nil {
		return err
	}
	first, last := s.side.bounds()
	m.list = slices.DeleteFunc(m.list, func(c membership) bool { return c.Index >= first || c.Index > last })
	m.saved = len(m.list)
	for _, index := range m.looks {
		var l raft.Log
		err := s.GetLog(index, &l)
		if errors.Is(err, raft.ErrLogNotFound) || l.Type != raft.LogConfiguration {
			continue
		}
		if err != nil {
			return err
		}
		m.add(membership{index, l.Data})
	}
	m.looks = nil
	return nil
}

// add puts c in its place. Called with mu held.
func (m *memberLog) add(c membership) {
	i := sort.Search(len(m.list), func(i int) bool { return m.list[i].Index >= c.Index })
	if i < len(m.list) && m.list[i].Index == c.Index {
		return
	}
	m.list = slices.Insert(m.list, i, c)
}

// note takes an entry that is stored just now.
func (m *memberLog) note(kind FrameType, index uint64, data []byte) {
	if kind != FrameConfig {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(membership{index, slices.Clone(data)})
}

// cut forgets those from index on.
func (m *memberLog) cut(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = slices.DeleteFunc(m.list, func(c membership) bool { return c.Index >= index })
	m.saved = min(m.saved, len(m.list))
}

// asOf is the membership that counts at index.
func (m *memberLog) asOf(index uint64) (c raft.Configuration, at uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range slices.Backward(m.list) {
		if x.Index <= index {
			return raft.DecodeConfiguration(x.Data), x.Index, nil
		}
	}
	return c, 0, fmt.Errorf("membership as of entry %d is not known: take a snapshot of a newer state", index)
}

// save writes those that the file lacks, and drops those that no start of the log can need any more.
func (m *memberLog) save(s *LogStore) error {
	start := s.Start()
	m.mu.Lock()
	defer m.mu.Unlock()
	old := 0
	for old+1 < len(m.list) && m.list[old+1].Index <= start.Index {
		old++
	}
	if old == 0 && m.saved == len(m.list) {
		return nil
	}
	list := m.list[old:]
	if err := saveDoc(s.engine.Options().FS, path.Join(s.dir, membersName), list); err != nil {
		return err
	}
	m.list, m.saved = slices.Clone(list), len(list)
	return nil
}

// saveDoc puts v in the place of a file, as a line with the CRC-32 of the rest in eight hexadecimal digits
// and JSON behind it, so that a crash leaves the old or the new one.
func saveDoc(fsys vfs.FS, name string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := name + ".tmp"
	f, err := fsys.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(fmt.Appendf(nil, "%08x\n", crc32.ChecksumIEEE(body)), body...), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// loadDoc reads what saveDoc wrote; false if there is none.
func loadDoc(fsys vfs.FS, name string, v any) (bool, error) {
	b, err := vfs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sum, body, ok := strings.Cut(string(b), "\n")
	want, err := strconv.ParseUint(sum, 16, 32)
	if !ok || err != nil || uint32(want) != crc32.ChecksumIEEE([]byte(body)) {
		return false, &engine.CorruptionError{Path: name, What: "its checksum does not match", Err: err}
	}
	if err := json.Unmarshal([]byte(body), v); err != nil {
		return false, &engine.CorruptionError{Path: name, What: "it does not parse", Err: err}
	}
	return true, nil
}
