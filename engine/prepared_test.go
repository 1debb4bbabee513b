package engine

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rmq/message"
)

// TestAppendReadsNothing proves that appends to a prepared segment that is not in the page cache
// never make the kernel read a page first: every write ends on a page boundary.
func TestAppendReadsNothing(t *testing.T) {
	readBytes := func() int64 {
		text, err := os.ReadFile("/proc/self/io")
		if err != nil {
			t.Skip("this system does not count the bytes a process reads:", err)
		}
		_, rest, _ := strings.Cut(string(text), "\nread_bytes: ")
		line, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseInt(line, 10, 64)
		require.NoError(t, err)
		return n
	}
	const total = 64 << 20
	for _, flush := range []FlushMode{AsyncFlush, SyncFlush} {
		t.Run(flush.String(), func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(context.Background(), Options{Dir: dir, Flush: flush, SegmentBytes: 2 * total, IndexDisabled: true})
			require.NoError(t, err)
			defer s.Close()
			require.NoError(t, s.WaitPrepared(context.Background()))
			files, err := filepath.Glob(dir + "/commitlog/*")
			require.NoError(t, err)
			for _, name := range files {
				f, err := os.Open(name)
				require.NoError(t, err)
				require.NoError(t, f.Sync())
				require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
				require.NoError(t, f.Close())
			}
			body := make([]byte, 16<<10)
			rand.NewChaCha8([32]byte{1}).Read(body) // never fails
			rng := rand.New(rand.NewPCG(1, 2))
			before := readBytes()
			for n := 0; n < total; {
				size := 1 + rng.IntN(len(body))
				rec, err := message.AppendRecord(nil, &message.Message{Topic: "T", BornHost: bornHost, StoreHost: storeHost, Body: body[:size]})
				require.NoError(t, err)
				_, err = s.Append(context.Background(), rec)
				require.NoError(t, err)
				n += len(rec)
			}
			require.Zero(t, readBytes()-before)
		})
	}
}
