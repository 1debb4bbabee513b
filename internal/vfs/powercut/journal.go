package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// sectorBytes is what a device writes whole or not at all; pageBytes what the kernel writes at once.
const (
	sectorBytes = 512
	pageBytes   = 4096
)

type kind uint8

const (
	_            kind = iota
	kindImage         // ino, off: bytes before the change; none: a zeros
	kindSize          // ino, a: size before the change
	kindSynced        // ino: records of it up to number a are durable
	kindEntry         // a name came (to) or went (from), or both: a rename. ino of the file; a: ino that to had, b: 1 for a new directory
	kindDirMoved      // a directory went from → to
	kindDirSync       // from: entries of this directory up to record a are durable
	kindFSSync        // everything up to record a is durable
)

// record is one line of the journal.
type record struct {
	kind     kind
	ino, off uint64
	a, b     uint64
	from, to string
	data     []byte
	n        uint64 // its number, from 1; not written
}

const journalName = "journal"

// journal appends records. Safe for concurrent use.
type journal struct {
	mu  sync.Mutex
	f   *os.File
	n   uint64
	buf []byte
}

// add appends records, all or none.
func (j *journal) add(rs ...record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = j.buf[:0]
	for i := range rs {
		j.buf = appendRecord(j.buf, &rs[i])
	}
	if _, err := j.f.Write(j.buf); err != nil {
		return fmt.Errorf("power cut journal: %w", err)
	}
	j.n += uint64(len(rs))
	return nil
}

// last is the number of the newest record.
func (j *journal) last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.n
}

func appendRecord(dst []byte, r *record) []byte {
	begin := len(dst)
	dst = append(dst, 0, 0, 0, 0, byte(r.kind))
	for _, v := range []uint64{r.ino, r.off, r.a, r.b} {
		dst = binary.AppendUvarint(dst, v)
	}
	for _, s := range []string{r.from, r.to, string(r.data)} {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	binary.BigEndian.PutUint32(dst[begin:], uint32(len(dst)-begin-4))
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[begin:]))
}

// readJournal reads what a process has left. A torn record at the end belongs to a change that was not
// begun.
func readJournal(side string) ([]record, error) {
	b, err := os.ReadFile(filepath.Join(side, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rs []record
	for len(b) >= 8 {
		n := int(binary.BigEndian.Uint32(b)) + 4
		if n+4 > len(b) || binary.BigEndian.Uint32(b[n:]) != crc32.ChecksumIEEE(b[:n]) {
			break
		}
		r, err := parseRecord(b[4:n])
		if err != nil {
			return nil, fmt.Errorf("record %d of the power cut journal in %s: %w", len(rs)+1, side, err)
		}
		r.n = uint64(len(rs) + 1)
		rs = append(rs, r)
		b = b[n+4:]
	}
	return rs, nil
}

func parseRecord(b []byte) (r record, err error) {
	r.kind, b = kind(b[0]), b[1:]
	number := func() (v uint64) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err = errors.New("a number is cut short")
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() (s []byte) {
		n := number()
		if uint64(len(b)) < n {
			err = errors.New("a text is cut short")
			return nil
		}
		s, b = b[:n], b[n:]
		return s
	}
	r.ino, r.off, r.a, r.b = number(), number(), number(), number()
	r.from, r.to, r.data = string(text()), string(text()), text()
	return r, err
}
