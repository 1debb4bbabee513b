// Package bakfile keeps small files that are always replaced whole, such as the JSON tables of a
// broker and of a name server, so that one good generation is there whenever the power goes.
//
// Beside NAME stand NAME.bak, the generation before it, and for a moment NAME.tmp. Apache RocketMQ
// uses the same names (org.apache.rocketmq.common.MixAll#string2File and ConfigManager), so that
// either reads what the other wrote.
package bakfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"rmq/internal/vfs"
)

// Save replaces the file by b and makes that durable; the file before it becomes the .bak. Missing
// directories are made. When it fails the old content is still what [Load] finds, or b is.
//
// Two Saves of one name must not run at once.
func Save(fsys vfs.FS, name string, b []byte) error {
	err := save(fsys, name, b)
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}

func save(fsys vfs.FS, name string, b []byte) error {
	dir, tmp := path.Dir(name), name+".tmp"
	if err := makeDir(fsys, dir); err != nil {
		return err
	}
	f, err := fsys.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Each step is durable before the next one, so that there is always a .bak when there is no file.
	if err := fsys.Rename(name, name+".bak"); err == nil {
		err = fsys.SyncDir(dir)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// makeDir makes dir and what is above it, durably.
func makeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := path.Dir(dir); parent != dir {
		if err := makeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(dir))
}

// Loaded is what [Load] found.
type Loaded struct {
	Text []byte // nil: there is nothing yet
	Path string // the file that it is from
	// Damage says why it is the .bak that was read, nil where it is not.
	Damage error
}

// Load reads the file, or its .bak where the file is missing, empty or refused by check. Then
// the file is kept aside as NAME.broken, so that the next Save does not make it the .bak.
//
// No file at all is no error. It is one when neither file is good, or one cannot be read: then
// nothing is changed.
func Load(fsys vfs.FS, name string, check func(text []byte) error) (Loaded, error) {
	text, err := read(fsys, name, check)
	var bad *checkError
	if err != nil && !errors.As(err, &bad) {
		return Loaded{}, err
	}
	if err == nil && text != nil {
		return Loaded{Text: text, Path: name}, nil
	}
	damage := err
	bak := name + ".bak"
	switch text, err = read(fsys, bak, check); {
	case err != nil:
		return Loaded{}, errors.Join(damage, err)
	case text == nil:
		return Loaded{}, damage
	case damage == nil:
		damage = fmt.Errorf("%s is missing or empty", name)
	}
	if err := fsys.Rename(name, name+".broken"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Loaded{}, errors.Join(damage, err)
	}
	return Loaded{Text: text, Path: bak, Damage: damage}, nil
}

type checkError struct {
	path string
	err  error
}

func (e *checkError) Error() string {
	return fmt.Sprintf("%s is damaged: %v: put a good copy there, or take the file away to start without it", e.path, e.err)
}

func (e *checkError) Unwrap() error { return e.err }

// read gives nil for a file that is missing or empty.
func read(fsys vfs.FS, name string, check func([]byte) error) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text := make([]byte, info.Size())
	if n, err := f.ReadAt(text, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(text)) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	if err := check(text); err != nil {
		return nil, &checkError{name, err}
	}
	return text, nil
}
