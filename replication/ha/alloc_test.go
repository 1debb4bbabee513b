package ha

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proves that a frame costs no allocation: not to the master that sends bytes and takes the ack, and not to the slave
// that takes bytes and sends the ack, once their buffers have grown.
func TestFramesAllocate(t *testing.T) {
	n := master(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer out.Close()
	in, err := l.Accept()
	require.NoError(t, err)
	defer in.Close()
	from, to := newPeerConn(n.s, out), newPeerConn(n.s, in)
	from.limit, to.limit = MaxDataBytes, MaxDataBytes
	body := make([]byte, 16<<10) // fits the socket: one goroutine can do both sides
	var bad error
	step := func(_ Header, _ []byte, err error) {
		if err != nil {
			bad = err
		}
	}
	allocs := testing.AllocsPerRun(500, func() {
		step(Header{}, nil, from.write(Header{Type: FrameData, Group: 1, Epoch: 1, Pos: 10}, body))
		step(to.read())
		step(Header{}, nil, to.write(Header{Type: FrameAck, Group: 1, Epoch: 1, Pos: 20, Confirm: 20}, nil))
		step(from.read())
	})
	require.NoError(t, bad)
	require.Less(t, allocs, 1.0, "allocations for a frame and its ack")
}
