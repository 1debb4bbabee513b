//go:build drills

package drills

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// frame is a length word and a header word before a header and a body, each as given.
func frame(length, header uint32, rest []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, length)
	return append(binary.BigEndian.AppendUint32(b, header), rest...)
}

// badFrames are inputs after which a connection cannot go on.
func badFrames() map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	garbage := make([]byte, 4096)
	for i := range garbage {
		garbage[i] = byte(rnd.Uint32())
	}
	garbage[0] = 0x7f // a length far above the limit
	good := protocol.AppendCommand(nil, protocol.NewRequest(protocol.RequestGetBrokerRuntimeInfo))
	nested := []byte(`{"code":105,"extFields":` + strings.Repeat("[", 100_000))
	return map[string][]byte{
		"a length of zero":                 frame(0, 0, nil),
		"a length below the header word":   frame(3, 0, nil),
		"a negative length":                frame(0xffffffff, 0, nil),
		"a length one above the limit":     frame(16<<20-4+1, 0, nil),
		"the greatest length":              frame(0x7fffffff, 0, nil),
		"a header longer than its frame":   frame(20, 17, make([]byte, 16)),
		"a header of 16 MiB in 20 bytes":   frame(20, 0xffffff, make([]byte, 16)),
		"an unknown kind of header":        frame(20, 7<<24|16, make([]byte, 16)),
		"a JSON header that is none":       frame(20, 16, []byte("this is not json")),
		"a JSON header without an end":     frame(20, 16, []byte(`{"code":10,"opaq`)),
		"a JSON header of brackets":        frame(uint32(4+len(nested)), uint32(len(nested)), nested),
		"a binary header of zeros, cut":    frame(8, 1<<24|4, make([]byte, 4)),
		"a binary header past its end":     frame(25, 1<<24|21, append(make([]byte, 17), 0x7f, 0xff, 0xff, 0xff)),
		"garbage":                          garbage,
		"HTTP":                             []byte("GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
		"a TLS handshake":                  {0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3},
		"garbage behind a request":         append(bytes.Clone(good), garbage...),
		"a bad frame behind good requests": append(bytes.Repeat(good, 50), frame(20, 17, make([]byte, 16))...),
	}
}

// Proves that no frame that breaks the rules harms a broker or a name server: the connection is closed
// without an answer to it, others are served as before, and nothing of it stays. What is cut short ends
// with its connection. An unknown code is answered 3, and not at all when it is one-way.
func TestRobustBadFrames(t *testing.T) {
	c := newCluster(t, 1, []string{"conf/single/broker.conf"})
	c.start(t)
	b := c.brokers[0]
	rpc, err := remoting.NewClient(context.WithoutCancel(t.Context()), remoting.ClientOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rpc.Close()) })
	before := b.usage(t)
	for _, n := range []*node{b, c.namesrvs[0]} {
		other, err := rpc.Dial(t.Context(), n.addr())
		require.NoError(t, err)
		alive := func(what string) {
			_, err := other.Call(t.Context(), protocol.NewRequest(protocol.RequestGetBrokerRuntimeInfo))
			require.NoError(t, err, "another connection after %s", what)
		}
		for what, bytes := range badFrames() {
			t.Run(n.program+"/"+what, func(t *testing.T) {
				conn, err := net.Dial("tcp", n.addr())
				require.NoError(t, err)
				defer conn.Close()
				_, _ = conn.Write(bytes) // it may be closed half way
				require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
				answers, err := io.ReadAll(conn)
				if err != nil {
					require.ErrorContains(t, err, "reset by peer")
				}
				if !strings.Contains(what, "behind") {
					require.Empty(t, answers)
				}
				alive(what)
			})
		}
		t.Run(n.program+"/cut short", func(t *testing.T) {
			whole := protocol.AppendCommand(nil, protocol.NewRequest(protocol.RequestGetBrokerRuntimeInfo))
			for n2 := range len(whole) {
				conn, err := net.Dial("tcp", n.addr())
				require.NoError(t, err)
				_, err = conn.Write(whole[:n2])
				require.NoError(t, err)
				require.NoError(t, conn.Close())
			}
			alive("requests that were cut short")
		})
		t.Run(n.program+"/unknown code", func(t *testing.T) {
			resp, err := other.Call(t.Context(), protocol.NewRequest(31999))
			require.NoError(t, err)
			require.Equal(t, int32(protocol.ResponseRequestCodeNotSupported), resp.Code)
			require.Contains(t, string(resp.Remark), "31999")
			require.NoError(t, other.Oneway(protocol.NewRequest(31999)))
			alive("an unknown code")
		})
		require.NoError(t, other.Close())
	}
	b.awaitUsage(t, before, 8<<20)
}
