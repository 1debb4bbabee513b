//go:build interop

package wire

import (
	"bytes"
	"encoding/binary"
	"flag"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var regenerate = flag.Bool("regenerate", false, "write the recorded sessions of replication/ha/testdata anew")

// TestApachePair proves the harness, on Apache alone: a slave that attaches to an empty master, or to one that has
// written, catches up byte for byte. With -regenerate the sessions become the recordings of replication/ha/testdata.
func TestApachePair(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: it proves the harness, not our programs")
	}
	for _, l := range []line{server49, server54} {
		t.Run(string(l), func(t *testing.T) {
			ns := ourNamesrv(t)
			c := newClient(t, ns.addr)
			master, slave := newReplica(t), newReplica(t)
			master.segment, slave.segment = 16<<10, 16<<10
			wire := newTap(t, master.haAddr())
			// The 5.4 broker drops a configured haMasterAddress before it has somebody to tell it: what counts there is
			// what the name server says.
			misled := newTap(t, ns.addr, master.haAddr(), wire.addr)
			master.start(t, l, ns.addr, "brokerRole=ASYNC_MASTER")
			roles(t, c, master.name, map[int64]*replica{0: master})
			slave.start(t, l, misled.addr, "brokerRole=SLAVE", "brokerId=1")
			roles(t, c, master.name, map[int64]*replica{0: master, 1: slave})
			makeTopic(t, c, master, "Pair", 2, "PairReaders")
			eventually(t, "the slave asks for the log", func() bool { return len(wire.sent()) > 0 })
			keys := javaWrite(t, client54, ns.addr, "Pair", "first", 30, 1000)
			sameLog(t, c, master, slave)
			javaRead(t, client54, ns.addr, "Pair", "PairReaders", keys)
			sameLog(t, c, master, slave)
			_, end := master.span(t, c)
			eventually(t, "an idle heartbeat", func() bool { _, beats := stream(t, wire.received()); return beats > 1 })
			slave.stop(t)
			sent, got := wire.sent(), wire.received()
			log, beats := stream(t, got)
			require.Equal(t, master.read(t, 0, end), log, "the stream is the log from its beginning")
			require.Equal(t, end, int64(binary.BigEndian.Uint64(sent[len(sent)-8:])), "the last report is the end")
			t.Logf("%d bytes and %d heartbeats to the slave, %d reports back", len(got), beats, len(sent)/8)
			if *regenerate {
				dir := filepath.Join("..", "..", "..", "replication", "ha", "testdata")
				require.NoError(t, os.MkdirAll(dir, 0o755))
				name := filepath.Join(dir, "stock-"+map[line]string{server49: "4.9.7", server54: "5.4.0"}[l])
				require.NoError(t, os.WriteFile(name+"-master.bin", got, 0o644))
				require.NoError(t, os.WriteFile(name+"-slave.bin", sent, 0o644))
			}

			// One that comes late gets the last file only.
			late := newReplica(t)
			late.segment = master.segment
			late.start(t, l, ns.addr, "brokerRole=SLAVE", "brokerId=2")
			sameLog(t, c, master, late)
			first, _ := late.span(t, c)
			require.Equal(t, end-end%late.segment, first)
		})
	}
}

// stream takes what a stock master sent apart: the bytes of the log, in order and without a hole, and how many frames
// had none.
func stream(t *testing.T, b []byte) (log []byte, beats int) {
	t.Helper()
	for len(b) >= 12 {
		at, size := int64(binary.BigEndian.Uint64(b)), int(binary.BigEndian.Uint32(b[8:]))
		if size > 0 || len(log) > 0 {
			require.Equal(t, int64(len(log)), at)
		}
		if len(b) < 12+size {
			break // what it sent last has been cut off
		}
		log = append(log, b[12:12+size]...)
		if size == 0 {
			beats++
		}
		b = b[12+size:]
	}
	return log, beats
}

// tap forwards the connections to an address and records both directions. In answers it puts one text in the place of
// another of its length.
type tap struct {
	addr     string
	from, to []byte
	mu       sync.Mutex
	target   string
	up, down []byte // what those that dialled have sent, and what they got
}

func (p *tap) sent() []byte { p.mu.Lock(); defer p.mu.Unlock(); return append([]byte(nil), p.up...) }
func (p *tap) received() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]byte(nil), p.down...)
}

// turn makes another address the one that connections from now on are forwarded to.
func (p *tap) turn(to string) { p.mu.Lock(); defer p.mu.Unlock(); p.target = to }

func newTap(t *testing.T, to string, replace ...string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &tap{addr: l.Addr().String(), target: to}
	if len(replace) > 0 {
		require.Len(t, replace[1], len(replace[0]))
		p.from, p.to = []byte(replace[0]), []byte(replace[1])
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		wg.Wait() // the processes have ended, and with them the connections
	})
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			target := p.target
			p.mu.Unlock()
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close() // it will come again
				continue
			}
			wg.Go(func() { p.copy(out, in, &p.up, nil) })
			wg.Go(func() { p.copy(in, out, &p.down, p.from) })
		}
	})
	return p
}

func (p *tap) copy(dst, src net.Conn, kept *[]byte, from []byte) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if len(from) > 0 {
			copy(buf, bytes.ReplaceAll(buf[:n], from, p.to))
		}
		p.mu.Lock()
		*kept = append(*kept, buf[:n]...)
		p.mu.Unlock()
		if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
			_ = src.Close() // both, whoever was first
			_ = dst.Close()
			return
		}
	}
}
