package storetool

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"testing"

	"pgregory.net/rapid"

	"rmq/engine"
	"rmq/internal/vfs"
	"rmq/message"
)

// allFiles are the files below a directory.
func allFiles(fsys vfs.FS, dir string) (names []string) {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			names = append(names, allFiles(fsys, name)...)
		} else {
			names = append(names, name)
		}
	}
	return names
}

// Whatever is changed in whichever files, verify and dump finish without an error, and repair makes a
// store that has no faults, that the engine opens, and whose every body was in the store before.
func TestRandomDamage(t *testing.T) {
	closed, _ := made(t, 150)
	running := vfs.NewHeap()
	s, err := engine.Open(t.Context(), small(running, "store"))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1, 100)
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 2, 50)
	killed := running.KillImage()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, h := range []*vfs.Heap{closed, running} {
		for _, raw := range contents(t, small(h.KillImage(), "store")) {
			known[body(t, raw)] = true
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		img := closed.KillImage()
		if rapid.Bool().Draw(rt, "killed") {
			img = killed.KillImage()
		}
		names := allFiles(img, "store")
		for range rapid.IntRange(1, 4).Draw(rt, "changes") {
			damageFile(rt, img, rapid.SampledFrom(names).Draw(rt, "file"))
		}
		o := Options{FS: img, Dir: "store", SegmentBytes: segBytes, QueueFileBytes: 400, MaxHashSlots: 64, MaxIndexEntries: 128}
		st, err := Open(o)
		if err != nil {
			rt.Fatalf("open: %v", err)
		}
		if _, err := st.Verify(t.Context(), VerifyOptions{}); err != nil {
			rt.Fatalf("verify: %v", err)
		}
		var out bytes.Buffer
		if err := st.Dump(t.Context(), &out, DumpOptions{Parts: Parts(), Queue: -1, ToOffset: -1, JSON: rapid.Bool().Draw(rt, "json")}); err != nil {
			rt.Fatalf("dump: %v", err)
		}
		salvage := rapid.Bool().Draw(rt, "salvage")
		ro := RepairOptions{To: "copy", Salvage: salvage}
		if !salvage && rapid.Bool().Draw(rt, "in place") {
			ro = RepairOptions{InPlace: true}
		}
		rep, err := Repair(t.Context(), o, ro)
		if err != nil {
			rt.Fatalf("repair: %v", err)
		}
		if rep.Verified.Faults > 0 {
			rt.Fatalf("the repaired store has faults:\n%s", lines(rep.Verified))
		}
		for k, raw := range contents(t, small(img, rep.Dir)) {
			if !known[body(t, raw)] {
				rt.Fatalf("%s is a record that nobody wrote", k)
			}
		}
	})
}

func body(t testing.TB, raw string) string {
	t.Helper()
	var r message.Record
	if err := message.ParseRecord([]byte(raw), &r); err != nil {
		t.Fatal(err)
	}
	return string(r.Body)
}

// damageFile changes a few bytes of a file, or cuts it, or removes it. Bytes that no checksum covers are
// left alone in the log: they are as good as others.
func damageFile(t *rapid.T, fsys vfs.FS, name string) {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // nothing depends on it
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	inLog := path.Dir(name) == "store/commitlog"
	switch rapid.IntRange(0, 9).Draw(t, "how") {
	case 0:
		err = f.Truncate(rapid.Int64Range(0, st.Size()+100).Draw(t, "size"))
	case 1:
		err = fsys.Remove(name)
	default:
		if st.Size() == 0 {
			return
		}
		at := rapid.Int64Range(0, st.Size()-1).Draw(t, "at")
		n := rapid.Int64Range(1, 64).Draw(t, "bytes")
		if inLog { // enough to hit a checksum or a length
			n = 1500
		}
		b := make([]byte, min(n, st.Size()-at))
		for i := range b {
			b[i] = rapid.Byte().Draw(t, "byte")
			if inLog && i > 0 {
				b[i] = b[0] * byte(i)
			}
			if inLog && i == 0 && rapid.Bool().Draw(t, "zeros") {
				break
			}
		}
		_, err = f.WriteAt(b, at)
	}
	if err != nil {
		t.Fatal(err)
	}
}
