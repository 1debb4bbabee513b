package engine

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"rmq/internal/vfs"
)

// manifest says what a store directory is: <root>/rmq/manifest. It is one line with the CRC-32 of
// the rest in eight hexadecimal digits, then JSON with the members below. It is written once, when
// the store is made or adopted, and again when a store without a cluster is given one.
//
// No manifest means that the directory is new or Apache's.
type manifest struct {
	FormatVersion   int    `json:"formatVersion"`
	StoreUUID       string `json:"storeUuid"`
	Cluster         string `json:"cluster,omitempty"`
	Format          string `json:"format,omitempty"` // of the log, "": plain
	SegmentBytes    int64  `json:"segmentBytes"`
	QueueFileBytes  int64  `json:"queueFileBytes"`
	MaxHashSlots    int32  `json:"maxHashSlots"`
	MaxIndexEntries int32  `json:"maxIndexEntries"`
}

const (
	manifestName  = "manifest"
	formatVersion = 2 // of everything below <root>/rmq; a plain store is still one of version 1
)

// MismatchError says that a store directory and the options disagree about Key.
type MismatchError struct {
	Dir, Key        string
	Stored, Options string
	Hint            string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s was written with %s=%s, the options say %s: %s", e.Dir, e.Key, e.Stored, e.Options, e.Hint)
}

// FormatError says that the log of a directory is framed in another way than it would be read.
type FormatError struct{ Dir, Stored, Options string } // "": plain

func (e *FormatError) Error() string {
	name := func(format string) string {
		if format == "" {
			return "plain"
		}
		return format
	}
	fix := "start the broker with enableDLegerCommitLog=" + strconv.FormatBool(e.Stored == "raft")
	return fmt.Sprintf("%s holds a %s log and would be opened as a %s one; nothing was changed: %s, or name another storePathRootDir",
		e.Dir, name(e.Stored), name(e.Options), fix)
}

// VersionError says that a newer program wrote the directory.
type VersionError struct {
	Path       string
	Have, Know int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format %d, this program knows up to %d: use a newer one", e.Path, e.Have, e.Know)
}

// RefusedError says that the directory has parts that the engine would not keep in step with the
// log. Opening it could lose what they hold.
type RefusedError struct{ Path, What string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %s is not supported: open the store with the broker that wrote it", e.Path, e.What)
}

// openManifest reads the manifest and checks it, and the directory, against the options. Nil
// without error means there is none.
func openManifest(o *Options) (*manifest, error) {
	if err := refuseForeign(o.FS, o.Dir, o.QueueDir); err != nil {
		return nil, err
	}
	m, err := loadManifest(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, refuseUnmarked(o)
	}
	if err := m.check(o); err != nil {
		return nil, err
	}
	if m.Cluster == "" && o.Cluster != "" {
		m.Cluster = o.Cluster
		if err := saveManifest(o.FS, o.Dir, m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// refuseUnmarked looks at a directory without a manifest: one of Apache's is plain, and one beside which
// members of a group keep theirs belongs to them.
func refuseUnmarked(o *Options) error {
	if o.Format != "" {
		entries, err := readDirOrNone(o.FS, o.CommitLogDir)
		if err == nil && len(entries) > 0 {
			return &FormatError{Dir: o.Dir, Options: o.Format}
		}
		return err
	}
	entries, err := readDirOrNone(o.FS, o.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "raft-") {
			continue
		}
		dir := path.Join(o.Dir, e.Name())
		if m, err := loadManifest(o.FS, dir); err != nil || m != nil && m.Format != "" {
			return errors.Join(err, &FormatError{Dir: dir, Stored: "raft"})
		}
	}
	return nil
}

// createManifest makes the directory one of ours.
func createManifest(o *Options) error {
	version := 1
	if o.Format != "" {
		version = formatVersion
	}
	return saveManifest(o.FS, o.Dir, &manifest{
		FormatVersion: version, StoreUUID: newUUID(), Cluster: o.Cluster, Format: o.Format,
		SegmentBytes: o.SegmentBytes, QueueFileBytes: o.QueueFileBytes,
		MaxHashSlots: o.MaxHashSlots, MaxIndexEntries: o.MaxIndexEntries,
	})
}

// check compares the manifest with the options and reports every difference.
func (m *manifest) check(o *Options) error {
	var errs []error
	differ := func(key, stored, options, hint string) {
		if stored != options {
			errs = append(errs, &MismatchError{Dir: o.Dir, Key: key, Stored: stored, Options: options, Hint: hint})
		}
	}
	number := func(key string, stored, options int64) {
		differ(key, strconv.FormatInt(stored, 10), strconv.FormatInt(options, 10), "open it with the value it was written with")
	}
	if m.Format != o.Format {
		return &FormatError{Dir: o.Dir, Stored: m.Format, Options: o.Format}
	}
	number("mappedFileSizeCommitLog", m.SegmentBytes, o.SegmentBytes)
	number("mappedFileSizeConsumeQueue", m.QueueFileBytes, o.QueueFileBytes)
	if !o.IndexDisabled {
		number("maxHashSlotNum", int64(m.MaxHashSlots), int64(o.MaxHashSlots))
		number("maxIndexNum", int64(m.MaxIndexEntries), int64(o.MaxIndexEntries))
	}
	if m.Cluster != "" && o.Cluster != "" {
		differ("cluster", m.Cluster, o.Cluster, "use the directory of that cluster, or another one")
	}
	return errors.Join(errs...)
}

// loadManifest reads <root>/rmq/manifest. Nil without error means there is none; a damaged one is
// a [*CorruptionError], one of a newer program a [*VersionError].
func loadManifest(fsys vfs.FS, root string) (*manifest, error) {
	name := path.Join(rmqDir(root), manifestName)
	b, err := vfs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	damaged := func(what string, err error) (*manifest, error) {
		return nil, &CorruptionError{Path: name, What: what + " (move the file away to have the directory adopted)", Err: err}
	}
	sum, body, ok := strings.Cut(string(b), "\n")
	if want, err := strconv.ParseUint(sum, 16, 32); !ok || len(sum) != 8 || err != nil || uint32(want) != crc32.ChecksumIEEE([]byte(body)) {
		return damaged("its checksum does not match", err)
	}
	m := &manifest{}
	if err := json.Unmarshal([]byte(body), m); err != nil {
		return damaged("it does not parse", err)
	}
	if m.FormatVersion > formatVersion {
		return nil, &VersionError{Path: name, Have: m.FormatVersion, Know: formatVersion}
	}
	return m, nil
}

// saveManifest replaces the manifest: at every moment the old or the new one is there whole.
func saveManifest(fsys vfs.FS, root string, m *manifest) error {
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	body = append(body, '\n')
	dir := rmqDir(root)
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b := append(fmt.Appendf(nil, "%08x\n", crc32.ChecksumIEEE(body)), body...)
	if err := replaceFile(fsys, path.Join(dir, manifestName), b); err != nil {
		return err
	}
	return fsys.SyncDir(root)
}

// replaceFile writes b under name by way of a temporary file, so that a power cut leaves the old
// content or the new.
func replaceFile(fsys vfs.FS, name string, b []byte) error {
	tmp := name + ".tmp"
	f, err := fsys.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
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
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// newUUID is a random UUID, version 4.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// refuseForeign looks for parts of an Apache directory that hold messages' whereabouts in ways the
// engine does not keep up: batch queues, RocksDB, DLedger, extension units, light queues.
// Everything else that it does not know (config, timerwheel, timerlog, …) is left alone.
func refuseForeign(fsys vfs.FS, root, queueDir string) error {
	refused := func(name, what string) error { return &RefusedError{Path: name, What: what} }

	entries, err := readDirOrNone(fsys, root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "dledger-") {
			return refused(path.Join(root, e.Name()), "a DLedger store")
		}
	}
	for _, part := range []struct{ name, what string }{
		{"batchconsumequeue", "a batch consume queue (queue.type=BatchCQ)"},
		{"consumequeue_ext", "an extended consume queue (enableConsumeQueueExt=true)"},
	} {
		name := path.Join(root, part.name)
		switch used, err := holdsFiles(fsys, name); {
		case err != nil:
			return err
		case used:
			return refused(name, part.what)
		}
	}
	entries, err = readDirOrNone(fsys, queueDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(queueDir, e.Name())
		switch {
		case e.Name() == "CURRENT", strings.HasPrefix(e.Name(), "MANIFEST-"), strings.HasSuffix(e.Name(), ".sst"):
			return refused(name, "a RocksDB consume queue (storeType=defaultRocksDB)")
		case e.IsDir() && strings.HasPrefix(e.Name(), "%LMQ%"):
			return refused(name, "multi-dispatch to light queues (enableLmq=true)")
		}
	}
	return nil
}

func readDirOrNone(fsys vfs.FS, dir string) ([]os.DirEntry, error) {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// holdsFiles reports whether there is a regular file somewhere below dir.
func holdsFiles(fsys vfs.FS, dir string) (bool, error) {
	entries, err := readDirOrNone(fsys, dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			return true, nil
		}
		if used, err := holdsFiles(fsys, path.Join(dir, e.Name())); used || err != nil {
			return used, err
		}
	}
	return false, nil
}
