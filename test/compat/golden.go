package compat

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Sizes are the file sizes that a directory was written with, in the units of the Java properties
// mappedFileSizeCommitLog, mappedFileSizeConsumeQueue, maxHashSlotNum and maxIndexNum.
type Sizes struct {
	Segment, QueueFile int64
	Slots, Entries     int32
}

// Golden is one sample directory below testdata.
type Golden struct {
	Name    string
	Class   string // what wrote it
	Killed  bool   // by SIGKILL, while it wrote; else stopped the clean way
	Sizes   Sizes
	PropCRC bool // each record ends with the checksum property of 5.2 and later
}

// Goldens are the sample directories. testdata/README.md says how they came about.
var Goldens = []Golden{
	{
		Name:  "apache-4.9.8-clean",
		Class: "org.apache.rocketmq.store.DefaultMessageStore of rocketmq-store 4.9.8",
		Sizes: Sizes{Segment: 64 << 10, QueueFile: 400, Slots: 50, Entries: 200},
	},
	{
		Name:    "apache-5.3.3-killed",
		Class:   "org.apache.rocketmq.store.DefaultMessageStore of rocketmq-store 5.3.3",
		Killed:  true,
		Sizes:   Sizes{Segment: 64 << 10, QueueFile: 400, Slots: 50, Entries: 200},
		PropCRC: true,
	},
}

// Dir is where the directory lies, seen from the folder of package compat.
func (g Golden) Dir() string { return filepath.Join("testdata", g.Name, "store") }

// AnswersPath names the gzipped lines that Apache answered.
func (g Golden) AnswersPath() string { return filepath.Join("testdata", g.Name, "answers.jsonl.gz") }

// Load copies the directory into a temporary one and reads what Apache answered about it. For a
// killed one those are the answers after Apache's own recovery of another copy.
func (g Golden) Load(t testing.TB) (string, *Dump) {
	t.Helper()
	dir := t.TempDir()
	if err := CopyDir(g.Dir(), dir); err != nil {
		t.Fatal(err)
	}
	packed, err := os.ReadFile(g.AnswersPath())
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	run, err := ParseRun(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(run.Dumps) != 1 || !run.Dumps[0].Complete {
		t.Fatalf("%s holds %d dumps, wanted a complete one", g.AnswersPath(), len(run.Dumps))
	}
	return dir, run.Dumps[0]
}

// CopyDir copies a tree of regular files with their modification times. Blocks of zeros are left
// out of the copy's disk blocks, since index files are mostly holes.
func CopyDir(from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		return copyFile(p, target)
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err == nil {
			err = os.Chtimes(to, info.ModTime(), info.ModTime())
		}
	}()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for pos := int64(0); ; {
		n, err := io.ReadFull(in, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := out.WriteAt(block[:n], pos); err != nil {
				return err
			}
		}
		pos += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("copy %s: %w", from, err)
		}
	}
}
