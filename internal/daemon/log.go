package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

// Log is the log of a process. Its Logger may be used by any number of goroutines.
type Log struct {
	*slog.Logger
	level *slog.LevelVar
	file  *rotatedFile // nil: standard output
}

// OpenLog opens the log that c asks for: stdout, or a file that begins anew when it reaches
// LogMaxSize.
func OpenLog(c *Config, stdout io.Writer) (*Log, error) {
	l := &Log{level: &slog.LevelVar{}}
	l.SetLevel(c.LogLevel)
	w := stdout
	if c.LogFile != "" {
		f, err := openRotated(c.LogFile, int64(c.LogMaxSize), c.LogMaxFiles)
		if err != nil {
			return nil, fmt.Errorf("open logFile: %w", err)
		}
		l.file, w = f, f
	}
	o := &slog.HandlerOptions{Level: l.level}
	if c.LogFormat == "json" {
		l.Logger = slog.New(slog.NewJSONHandler(w, o))
	} else {
		l.Logger = slog.New(slog.NewTextHandler(w, o))
	}
	return l, nil
}

// SetLevel makes the log say more or less: DEBUG, INFO, WARN or ERROR.
func (l *Log) SetLevel(level string) {
	var v slog.Level
	if err := v.UnmarshalText([]byte(level)); err != nil {
		panic("BUG: no level of a log: " + level)
	}
	l.level.Set(v)
}

// Lost counts lines that the file did not take, as on a full disk.
func (l *Log) Lost() int64 {
	if l.file == nil {
		return 0
	}
	return l.file.lost.Load()
}

// Close closes the file, if there is one.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.close()
}

// rotatedFile is a log file and the older ones behind it: name.1 is the newest of those.
type rotatedFile struct {
	name string
	max  int64
	keep int
	lost atomic.Int64

	mu   sync.Mutex
	f    *os.File
	size int64
}

func openRotated(name string, maxBytes int64, keep int) (*rotatedFile, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	r := &rotatedFile{name: name, max: maxBytes, keep: keep}
	return r, r.open()
}

func (r *rotatedFile) open() error {
	f, err := os.OpenFile(r.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.f, r.size = f, info.Size()
	return nil
}

// Write takes one line. A line that cannot be written is lost and counted; the process goes on.
func (r *rotatedFile) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		r.lost.Add(1)
		return 0, fs.ErrClosed
	}
	if r.size > 0 && r.size+int64(len(line)) > r.max {
		r.rotate()
	}
	n, err := r.f.Write(line)
	r.size += int64(n)
	if err != nil {
		r.lost.Add(1)
	}
	return n, err
}

// rotate moves every file one place back. Where that does not work, the present file goes on.
func (r *rotatedFile) rotate() {
	r.size = 0 // not to be tried again with the next line
	for i := r.keep; i > 1; i-- {
		err := os.Rename(r.name+"."+strconv.Itoa(i-1), r.name+"."+strconv.Itoa(i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	if os.Rename(r.name, r.name+".1") != nil {
		return
	}
	old := r.f
	if r.open() != nil {
		return
	}
	_ = old.Close() // every line went down with a call of its own
}

func (r *rotatedFile) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil
	}
	f := r.f
	r.f = nil
	return f.Close()
}
