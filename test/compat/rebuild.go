package compat

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"rmq/engine/format"
	"rmq/message"
)

// CheckRebuiltQueues throws the consume queues and our own state out of a copy of theirs, lets our
// engine rebuild them from the log, and compares them with those that Apache wrote: every file's used
// bytes, and the whole file where the rest of theirs is untouched. The dump says how far queues go.
//
// recovered says that Apache made queue entries in a recovery after an unclean stop. 4.9 does that
// before it has read the delay levels, and so leaves the hash of the tag in the delay queues where
// the time of delivery belongs; those eight bytes are then not compared.
func CheckRebuiltQueues(t testing.TB, sizes Sizes, theirs string, d *Dump, recovered bool) {
	t.Helper()
	dir := t.TempDir()
	if err := CopyDir(theirs, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"consumequeue", "rmq"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := sizes.Open(t, dir)
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	for q, r := range d.Queues {
		n, err := compareQueue(sizes, q, r, theirs, dir, recovered && d.Line == "4.9" && q.Topic == message.TopicSchedule)
		if err != nil {
			t.Errorf("rebuilt queue %s/%d: %v", q.Topic, q.ID, err)
		}
		files += n
	}
	if files == 0 {
		t.Error("no queue file was compared")
	}
	t.Logf("%d rebuilt queue files compared with those of Apache", files)
}

func compareQueue(sizes Sizes, q QueueName, r Range, theirs, ours string, noTags bool) (int, error) {
	rel := filepath.Join("consumequeue", q.Topic, strconv.Itoa(int(q.ID)))
	end := r.Max * format.CQEntryBytes
	if end == 0 {
		return 0, nil // nothing but a name, perhaps not even a directory
	}
	entries, err := os.ReadDir(filepath.Join(theirs, rel))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		start, err := format.ParseFileName(e.Name())
		if err != nil {
			return n, err
		}
		if start >= end {
			continue
		}
		want, err := os.ReadFile(filepath.Join(theirs, rel, e.Name()))
		if err != nil {
			return n, err
		}
		got, err := os.ReadFile(filepath.Join(ours, rel, e.Name()))
		if err != nil {
			return n, err
		}
		if len(got) != len(want) || int64(len(want)) != sizes.QueueFile {
			return n, fmt.Errorf("file %s has %d bytes, Apache's %d", e.Name(), len(got), len(want))
		}
		if used := end - start; used < int64(len(want)) && len(bytes.TrimLeft(want[used:], "\x00")) > 0 {
			got, want = got[:used], want[:used] // stale bytes behind a cut say nothing
		}
		if noTags {
			dropTags(got)
			dropTags(want)
		}
		if !bytes.Equal(got, want) {
			for i := range want {
				if got[i] != want[i] {
					at := i / format.CQEntryBytes * format.CQEntryBytes
					return n, fmt.Errorf("file %s, entry %d is %x, Apache's %x", e.Name(),
						(start+int64(at))/format.CQEntryBytes, got[at:at+format.CQEntryBytes], want[at:at+format.CQEntryBytes])
				}
			}
		}
		n++
	}
	return n, nil
}

func dropTags(entries []byte) {
	for ; len(entries) >= format.CQEntryBytes; entries = entries[format.CQEntryBytes:] {
		clear(entries[12:format.CQEntryBytes])
	}
}
