package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path"

	"rmq/internal/vfs"
)

// Reboot makes the state of a store look as if an earlier start of the machine had written it: what
// a power cut comes with. A store without a state is left alone.
func Reboot(fsys vfs.FS, root string) (err error) {
	f, err := fsys.OpenFile(path.Join(rmqDir(root), stateName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for slot := range int64(2) {
		b := make([]byte, stateSlotBytes)
		n, _ := f.ReadAt(b, slot*stateSlotBytes) // a short slot does not parse
		if n < 8 {
			continue
		}
		st := parseStateSlot(b[:n])
		if st == nil {
			continue
		}
		st.BootID = "another"
		body, err := json.Marshal(st)
		if err != nil {
			return err
		}
		clear(b)
		binary.BigEndian.PutUint32(b, uint32(len(body)))
		binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(body))
		copy(b[8:], body)
		if _, err := f.WriteAt(b, slot*stateSlotBytes); err != nil {
			return err
		}
	}
	return f.Sync()
}
