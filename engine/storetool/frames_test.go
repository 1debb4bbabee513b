package storetool

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/engine/format"
	"rmq/message"
)

// headers is a framing whose other frames are told by 8 bytes, magic and length, as those of a group's log are.
type headers struct{ engine.Plain }

const headersMagic = 0x48454144

func (h headers) Next(b []byte, pos int64, r *message.Record) (int, engine.FrameKind, error) {
	if len(b) >= 8 && binary.BigEndian.Uint32(b) == headersMagic {
		return int(binary.BigEndian.Uint32(b[4:])), engine.FrameOther, nil
	}
	return h.Plain.Next(b, pos, r)
}

// Proves that a frame which is told by its header is walked over wherever what was read ahead ends, and that one which runs
// out of its segment is damage.
func TestLongFrames(t *testing.T) {
	for name, last := range map[string]int{"whole": 20_000, "cut": 2 * readAhead} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "commitlog"), 0o755))
			log := make([]byte, 2*readAhead)
			put := func(pos, size int) int {
				binary.BigEndian.PutUint32(log[pos:], headersMagic)
				binary.BigEndian.PutUint32(log[pos+4:], uint32(size))
				return pos + size
			}
			end := put(0, readAhead-5000)
			put(end, last)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "commitlog", format.FileName(0)), log, 0o600))
			s, err := Open(Options{Dir: dir, SegmentBytes: int64(len(log)), Framing: headers{}})
			require.NoError(t, err)
			r, err := s.Verify(t.Context(), VerifyOptions{MaxFindings: -1})
			require.NoError(t, err)
			if name == "whole" {
				end += last
			}
			require.EqualValues(t, end, r.End)
		})
	}
}
