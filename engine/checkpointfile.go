package engine

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path"

	"rmq/engine/format"
	"rmq/internal/vfs"
)

// checkpointFile is the stock <root>/checkpoint (org.apache.rocketmq.store.StoreCheckpoint).
type checkpointFile struct {
	fs   vfs.FS
	path string
}

func newCheckpointFile(fsys vfs.FS, dir string) *checkpointFile {
	return &checkpointFile{fsys, path.Join(dir, "checkpoint")}
}

// load reads the page and the checksum of its bytes; zeros when there is no file, or one that is
// too short to be whole.
func (c *checkpointFile) load() (format.CheckpointPage, uint32, error) {
	b, err := vfs.ReadFile(c.fs, c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return format.CheckpointPage{}, 0, nil
	}
	if err != nil {
		return format.CheckpointPage{}, 0, err
	}
	p, err := format.ParseCheckpointPage(b)
	if err != nil {
		return format.CheckpointPage{}, 0, nil //nolint:nilerr // no stamp at all is the safe reading
	}
	return p, crc32.ChecksumIEEE(b), nil
}

// sum is the checksum that load will give for the page.
func (c *checkpointFile) sum(p format.CheckpointPage) uint32 {
	return crc32.ChecksumIEEE(format.AppendCheckpointPage(nil, p))
}

// save makes the page durable. Its members lie in one sector, so a power cut leaves the old page or
// the new one.
func (c *checkpointFile) save(p format.CheckpointPage) error {
	b := format.AppendCheckpointPage(nil, p)
	f, err := c.fs.OpenFile(c.path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return c.fs.SyncDir(path.Dir(c.path))
}
