//go:build drills

package drills

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"
)

func init() {
	plays["F40"] = play{do: cutReplication, links: true, scale: "cut for 2 to 4 s of 10 to 120"}
	plays["F41"] = play{do: isolateLeader, links: true, scale: "isolated for 3 s"}
	plays["F42"] = play{do: oneWays, links: true, scale: "three nodes instead of five: one-way cuts and bridges"}
	plays["F43"] = play{do: flap, links: true}
	plays["F44"] = play{do: slowLinks, links: true, scale: "2 s each"}
	plays["F48"] = play{do: forgedPeer}
}

// F40
func cutReplication(x *trial) {
	x.up()
	leader := x.awaitLeader()
	for _, s := range []linkState{{hole: true}, {cut: true}} {
		x.moment(300 * time.Millisecond)
		x.strike()
		x.isolate(leader, s)
		if !x.col.sync {
			x.resumes(15 * time.Second)
		}
		time.Sleep(2*time.Second + time.Duration(x.rnd.Int64N(int64(2*time.Second)))) // how long the link is cut
		x.isolate(leader, linkState{})
		if x.col.sync {
			x.l.fault()
			x.resumes(20 * time.Second)
		}
		x.l.awaitAcks(x, 50)
	}
	x.settle()
}

// F41
func isolateLeader(x *trial) {
	x.up()
	for range 2 {
		leader := x.awaitLeader()
		x.strike()
		x.isolate(leader, linkState{hole: true})
		x.resumes(15 * time.Second)
		time.Sleep(3 * time.Second) // how long there are two who may think they lead
		x.isolate(leader, linkState{})
		x.l.fault()
		x.resumes(10 * time.Second)
		x.l.awaitAcks(x, 50)
		x.caughtUpUnderLoad(leader)
	}
	x.settle()
}

// F42
func oneWays(x *trial) {
	x.up()
	leader := x.awaitLeader()
	others := x.others(leader)
	for _, cut := range []func(){
		func() { x.link(leader, others[0]).set(linkState{hole: true}) },
		func() { x.link(others[1], leader).set(linkState{hole: true}) },
		func() { x.between(others[0], others[1], linkState{hole: true}) }, // the leader is the bridge
		func() { x.link(leader, others[0]).set(linkState{mute: true}) },
		func() { x.isolate(leader, linkState{deaf: true}) },
	} {
		x.strike()
		cut()
		x.resumes(20 * time.Second)
		time.Sleep(time.Second) // how long it lasts
		for _, k := range x.links {
			k.set(linkState{})
		}
		x.l.fault()
		x.resumes(15 * time.Second)
		x.l.awaitAcks(x, 30)
	}
	x.settle()
}

// F43
func flap(x *trial) {
	x.up()
	x.strike()
	for range 12 {
		for _, k := range x.links {
			if x.rnd.IntN(2) == 0 {
				k.set([]linkState{{cut: true}, {hole: true}, {mute: true}}[x.rnd.IntN(3)])
			}
		}
		time.Sleep(time.Duration(50+x.rnd.IntN(250)) * time.Millisecond) // how fast they flap
		for _, k := range x.links {
			k.set(linkState{})
		}
		time.Sleep(time.Duration(50+x.rnd.IntN(250)) * time.Millisecond) // how fast they flap
	}
	x.l.fault()
	x.resumes(15 * time.Second)
	x.l.awaitAcks(x, 50)
	x.settle()
}

// F44
func slowLinks(x *trial) {
	x.up()
	for _, s := range []linkState{{delay: 2 * time.Millisecond}, {delay: 20 * time.Millisecond}, {delay: 200 * time.Millisecond}, {bytesPerSec: 125_000}} {
		x.strike()
		for _, k := range x.links {
			k.set(s)
		}
		x.resumes(20 * time.Second)
		time.Sleep(2 * time.Second) // how long it lasts
		for _, k := range x.links {
			k.set(linkState{})
		}
		x.l.fault()
		x.resumes(15 * time.Second)
	}
	x.settle()
}

// F48
func forgedPeer(x *trial) {
	x.up()
	leader := x.awaitLeader()
	addr := net.JoinHostPort(leader.host, strconv.Itoa(x.replicationPort(leader)))
	forged := map[string][]byte{
		"an ack of what was never sent, on the stock wire": binary.BigEndian.AppendUint64(nil, 1<<50),
		"an ack of nothing, then of everything":            append(make([]byte, 8), 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"eight bytes of our opening, then noise":           append([]byte{255, 255, 255, 255, 255, 255, 255, 255}, make([]byte, 4096)...),
		"noise":                                            randomBytes(x, 4096),
	}
	for what, b := range forged {
		x.strike()
		conn, err := net.Dial("tcp", addr)
		require.NoError(x, err)
		_, _ = conn.Write(b) // it may be closed half way
		require.NoError(x, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		buf := make([]byte, 64<<10)
		for err == nil {
			_, err = conn.Read(buf)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			x.Errorf("%s: the connection is kept", what)
		}
		_ = conn.Close() // the other end has closed it
		x.resumes(10 * time.Second)
	}
	x.settle()
}

func randomBytes(x *trial, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(x.rnd.Uint32())
	}
	return b
}
