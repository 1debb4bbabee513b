package broker

import (
	"fmt"
	"log/slog"
	"path"
	"sync"

	"rmq/internal/bakfile"
	"rmq/internal/vfs"
)

// MetaLog keeps what a broker knows beside its messages: topics, groups, consumer offsets, the
// progress of delays. Each of them is a named document, saved as a whole. Names carry no directory
// and no ending: topics, subscriptionGroup, consumerOffset, delayOffset. Safe for concurrent use.
type MetaLog interface {
	// Load gives the newest document of a name to parse, and an older one if parse refuses it. No
	// document at all is no error, and parse is not called then. The bytes are parse's to keep.
	Load(name string, parse func(b []byte) error) error
	// Save replaces the document of a name. When it returns nil the document survives the machine.
	Save(name string, b []byte) error
}

// FileMetaLog keeps each document in DIR/NAME.json, and the one before it in DIR/NAME.json.bak, as
// Apache does (org.apache.rocketmq.common.ConfigManager); see [bakfile].
type FileMetaLog struct {
	fs  vfs.FS
	dir string
	log *slog.Logger

	mu sync.Mutex // one save at a time; held over its I/O
}

// NewFileMetaLog keeps documents in dir, which is made by the first save. A nil logger is silent.
func NewFileMetaLog(fsys vfs.FS, dir string, log *slog.Logger) *FileMetaLog {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &FileMetaLog{fs: fsys, dir: dir, log: log}
}

func (l *FileMetaLog) path(name string) string { return path.Join(l.dir, name+".json") }

// Load implements MetaLog. Without a readable file it falls back to the .bak; when that cannot be read
// either, the error names both.
func (l *FileMetaLog) Load(name string, parse func(b []byte) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	got, err := bakfile.Load(l.fs, l.path(name), parse)
	if err != nil {
		return fmt.Errorf("load %s: %w", name, err)
	}
	if got.Damage != nil {
		l.log.Warn("config file replaced by its backup", "backup", got.Path, "cause", got.Damage)
	}
	return nil
}

// Save implements MetaLog.
func (l *FileMetaLog) Save(name string, b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bakfile.Save(l.fs, l.path(name), b)
}
