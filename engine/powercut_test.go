package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/internal/crashtest"
	"rmq/internal/vfs"
)

// trials is RMQ_CRASH_TRIALS, or short.
func trials(t *testing.T, short int) int {
	t.Helper()
	text := os.Getenv("RMQ_CRASH_TRIALS")
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "RMQ_CRASH_TRIALS")
	return n
}

// runSeed is RMQ_CRASH_SEED, or a new one; printed, so that a failure can be run again.
func runSeed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if text := os.Getenv("RMQ_CRASH_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "RMQ_CRASH_SEED")
	}
	t.Logf("RMQ_CRASH_SEED=%d", n)
	return n
}

// modes runs a test for each flush and write mode.
func modes(t *testing.T, test func(t *testing.T, flush engine.FlushMode, write engine.WriteMode)) {
	t.Helper()
	for _, flush := range []engine.FlushMode{engine.AsyncFlush, engine.SyncFlush} {
		for _, write := range []engine.WriteMode{engine.WritePwrite, engine.WriteMmap, engine.WriteMmapWarmed} {
			t.Run(flush.String()+"/"+write.String(), func(t *testing.T) { test(t, flush, write) })
		}
	}
}

const storeDir = "/store"

// tiny are options under which a few dozen messages roll segments and queue files.
func tiny(fsys vfs.FS, flush engine.FlushMode, write engine.WriteMode) engine.Options {
	return engine.Options{
		FS: fsys, Dir: storeDir, Flush: flush, Write: write,
		SegmentBytes: 8 << 10, QueueFileBytes: 200, MaxHashSlots: 16, MaxIndexEntries: 32,
		MaxMessageBytes: 2 << 10, MaxUnflushed: 64 << 10, MaxPending: 64 << 10, TailCache: 16 << 10,
		FlushInterval: time.Millisecond, FlushThorough: 5 * time.Millisecond,
		Retention: engine.RetentionOptions{Disabled: true},
	}
}

// history is what a scripted run has sent and seen, over all lives of a store.
type history struct {
	src   crashtest.Source
	seq   uint64
	floor int // so many of the first acks are on disk since before this life, and stay

	mu   sync.Mutex
	acks []crashtest.Ack
}

// seen returns the acks so far.
func (h *history) seen() []crashtest.Ack {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clip(h.acks)
}

func (h *history) ack(a crashtest.Ack) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acks = append(h.acks, a)
}

// step does one thing of a script: append one message, or several at once, flush, or checkpoint.
func (h *history) step(ctx context.Context, s *engine.Store, rng *rand.Rand) error {
	switch n := rng.IntN(12); n {
	case 0:
		return s.Flush(ctx)
	case 1:
		return s.Checkpoint(ctx)
	case 2, 3, 4:
		return h.vector(s, 2+rng.IntN(6))
	default:
		return h.one(ctx, s)
	}
}

func (h *history) one(ctx context.Context, s *engine.Store) error {
	seq := h.seq
	h.seq++
	queue := int32(seq % 3)
	rec, err := h.src.AppendRecord(nil, queue, 0, seq)
	if err != nil {
		return err
	}
	res, err := s.Append(ctx, rec)
	if err != nil {
		return err
	}
	h.ack(crashtest.Ack{Queue: queue, Seq: seq, Pos: res.Pos, Offset: res.QueueOffset})
	return nil
}

func (h *history) vector(s *engine.Store, n int) error {
	var wg sync.WaitGroup
	as := make([]*engine.Append, n)
	for i := range as {
		seq := h.seq
		h.seq++
		queue := int32(seq % 3)
		rec, err := h.src.AppendRecord(nil, queue, 0, seq)
		if err != nil {
			return err
		}
		as[i] = &engine.Append{Record: rec, Done: func(a *engine.Append) {
			if a.Err == nil {
				h.ack(crashtest.Ack{Queue: queue, Seq: seq, Pos: a.Result.Pos, Offset: a.Result.QueueOffset})
			}
			wg.Done()
		}}
	}
	wg.Add(n)
	s.SubmitVector(as)
	wg.Wait()
	for _, a := range as {
		if a.Err != nil {
			return a.Err
		}
	}
	return nil
}

// cut is one moment at which the power went: before a call.
type cut struct {
	call    vfs.Call
	image   *vfs.Heap
	acks    int   // acked before it
	flushed int64 // known to be flushed before it
}

// live runs a store on base from Open to Close and takes an image before each call that changes
// something.
func (h *history) live(t *testing.T, base *vfs.Heap, o engine.Options, rng *rand.Rand, steps int) []cut {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fsys := vfs.NewFaulty(base)
	var store atomic.Pointer[engine.Store]
	var mu sync.Mutex
	var cuts []cut
	seed := rng.Uint64()
	fsys.Before(func(c vfs.Call) {
		if c.N == 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		// What was promised is read before the image is taken.
		x := cut{call: c, acks: len(h.seen())}
		if s := store.Load(); s != nil {
			x.flushed = s.Flushed()
		}
		x.image = base.CrashImage(seed + uint64(c.N))
		cuts = append(cuts, x)
	})
	o.FS = fsys
	s, err := engine.Open(ctx, o)
	require.NoError(t, err)
	store.Store(s)
	for range steps {
		require.NoError(t, h.step(ctx, s, rng))
	}
	if rng.IntN(4) == 0 {
		require.NoError(t, s.WaitDispatchedPos(ctx, s.Visible()))
	}
	require.NoError(t, s.Close())
	require.Empty(t, base.OpenFiles())
	require.Empty(t, base.LiveMappings())
	require.Empty(t, base.HeldLocks())
	fsys.Before(nil)
	return cuts
}

// verify opens the image and compares it with what had been promised at the cut. All messages that
// the run ever sent are in all, in log order.
func (h *history) verify(t *testing.T, o engine.Options, x cut, all []crashtest.Ack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	name := fmt.Sprintf("cut before %v, %d acked, %d flushed", x.call, x.acks, x.flushed)
	require.NoError(t, engine.Reboot(x.image, storeDir))
	o.FS = x.image
	s, err := engine.Open(ctx, o)
	require.NoError(t, err, name)
	report := s.Recovery()
	rep, err := crashtest.Audit(ctx, s, h.src, h.acks[:x.acks])
	require.NoError(t, err, "%s: %+v", name, report)
	require.LessOrEqual(t, len(rep.Found), len(all), name)
	if len(rep.Found) > 0 {
		require.True(t, slices.Equal(all[:len(rep.Found)], rep.Found), "%s: not the front of the log", name)
	}
	if o.Flush == engine.SyncFlush {
		require.Empty(t, rep.Lost, "%s: %s: %+v", name, rep.LostText(), report)
	}
	end := int64(0)
	for _, a := range rep.Lost {
		require.False(t, slices.Contains(h.acks[:h.floor], a), "%s: recovered once and lost: %+v", name, report)
		require.GreaterOrEqual(t, a.Pos, x.flushed, "%s: flushed and lost: %+v", name, report)
		end = max(end, a.Pos)
	}
	require.LessOrEqual(t, end-report.End, o.MaxUnflushed, "%s: more than W lost", name)

	// The store goes on, and keeps both.
	again := history{src: crashtest.Source{Seed: h.src.Seed, MaxBody: h.src.MaxBody}, seq: 1 << 40, acks: rep.Found}
	for range 4 {
		require.NoError(t, again.one(ctx, s), name)
	}
	require.NoError(t, s.Close(), name)
	require.Empty(t, x.image.OpenFiles(), name)
	require.Empty(t, x.image.LiveMappings(), name)
	s, err = engine.Open(ctx, o)
	require.NoError(t, err, name)
	require.True(t, s.Recovery().Clean, name)
	rep, err = crashtest.Audit(ctx, s, h.src, again.acks)
	require.NoError(t, err, name)
	require.Empty(t, rep.Lost, name)
	require.NoError(t, s.Close(), name)
}

// TestPowerCutAtEveryCall proves, for scripted runs from the first Open to Close, that a power cut
// before any call that changes something loses nothing acked under sync flush, and under async flush
// only a tail that was never flushed and is no longer than promised; that what is left is the front of
// the log as it was written, and that the store can be used again. A second life on some of the
// images shows the same for cuts during recovery.
func TestPowerCutAtEveryCall(t *testing.T) {
	modes(t, func(t *testing.T, flush engine.FlushMode, write engine.WriteMode) {
		seed := runSeed(t)
		rng := rand.New(rand.NewPCG(seed, uint64(flush)<<8|uint64(write)))
		want, done, acks := trials(t, 1), 0, 0
		for done < want {
			n, a := powerCuts(t, flush, write, rng)
			done += n
			acks += a
		}
		t.Logf("%v flush, %v: %d power cuts, %d acks, acked-lost = 0 under sync flush, never more than W under async", flush, write, done, acks)
	})
}

func powerCuts(t *testing.T, flush engine.FlushMode, write engine.WriteMode, rng *rand.Rand) (n, acks int) {
	t.Helper()
	base := vfs.NewHeap()
	h := &history{src: crashtest.Source{Seed: rng.Uint64(), MaxBody: 900}}
	o := tiny(base, flush, write)
	o.SyncAside = rng.IntN(2) == 0
	if rng.IntN(2) == 0 { // nothing is flushed but on request, by a checkpoint above all
		o.FlushInterval, o.FlushThorough = time.Hour, time.Hour
	}
	cuts := h.live(t, base, o, rng, 25)
	all := inLogOrder(h.acks)
	pick := rng.IntN(len(cuts))
	second := cuts[pick]
	second.image = second.image.KillImage() // for the second life below
	for _, x := range some(cuts, rng) {
		h.verify(t, o, x, all)
		n++
	}
	acks = len(all)

	// A second life on one of the images.
	require.NoError(t, engine.Reboot(second.image, storeDir))
	o.FS = second.image.KillImage()
	s, err := engine.Open(t.Context(), o)
	require.NoError(t, err)
	rep, err := crashtest.Audit(t.Context(), s, h.src, nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	h2 := &history{src: h.src, seq: 1 << 30, acks: rep.Found, floor: len(rep.Found)}
	cuts = h2.live(t, second.image, o, rng, 5)
	all = inLogOrder(h2.acks)
	for _, x := range some(cuts, rng) {
		h2.verify(t, o, x, all)
		n++
	}
	return n, acks + len(all) - h2.floor
}

// some is all of the cuts where RMQ_CRASH_TRIALS asks for many, and else every third.
func some(cuts []cut, rng *rand.Rand) []cut {
	if os.Getenv("RMQ_CRASH_TRIALS") != "" {
		return cuts
	}
	var list []cut
	for i := rng.IntN(3); i < len(cuts); i += 3 {
		list = append(list, cuts[i])
	}
	return list
}

func inLogOrder(acks []crashtest.Ack) []crashtest.Ack {
	all := slices.Clone(acks)
	slices.SortFunc(all, func(a, b crashtest.Ack) int { return int(min(max(a.Pos-b.Pos, -1), 1)) })
	return all
}
