package crashtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"rmq/engine"
	"rmq/internal/run"
)

// Config is what a child is told to do. It travels as JSON in an environment variable.
type Config struct {
	Dir       string
	Source    Source
	Flush     engine.FlushMode
	Write     engine.WriteMode
	Producers int    // goroutines that append at full rate
	Queues    int    // of the topic
	First     uint64 // sequence numbers begin here
	MaxBytes  int64  // the child stops by itself after about so many bytes; 0: never
}

// Options are the store's: small files and frequent checkpoints, so that a short life holds many
// rolls and checkpoints.
func (c Config) Options() engine.Options {
	return engine.Options{
		Dir: c.Dir, Flush: c.Flush, Write: c.Write,
		SegmentBytes: 1 << 20, QueueFileBytes: 20_000, MaxHashSlots: 1 << 10, MaxIndexEntries: 4 << 10,
		MaxMessageBytes: 64 << 10, MaxUnflushed: 16 << 20, MaxPending: 4 << 20, TailCache: 2 << 20,
		FlushInterval: 20 * time.Millisecond, CheckpointBytes: 2 << 20, CheckpointPeriod: 50 * time.Millisecond,
		Retention: engine.RetentionOptions{Disabled: true},
	}
}

const childEnv = "RMQ_CRASH_CHILD"

// Child turns the process into an appending child if it was started as one, and then does not
// return. Call it first in TestMain.
func Child() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	var c Config
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.append(context.Background(), os.Stdout)
	}
	if err != nil {
		_, _ = os.Stderr.WriteString("crash child: " + err.Error() + "\n") // nowhere left to say it
		os.Exit(1)
	}
	os.Exit(0)
}

// readyAck is what the child sends first, once the store is open.
var readyAck = Ack{Producer: 0xffffffff}

// append opens the store and appends from all producers until killed. Each ack goes down the pipe
// only after the store has given it, so every ack that the parent reads was a promise.
func (c Config) append(ctx context.Context, acks io.Writer) error {
	s, err := engine.Open(ctx, c.Options())
	if err != nil {
		return err
	}
	var mu sync.Mutex // one write at a time: acks must not tear each other
	send := func(b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := acks.Write(b)
		return err
	}
	if err := send(AppendAck(nil, readyAck)); err != nil {
		return err
	}
	g := run.New(ctx, "crash")
	for p := range c.Producers {
		g.Go(strconv.Itoa(p), func(ctx context.Context) error {
			if p%2 == 0 {
				return c.single(ctx, s, uint32(p), send)
			}
			return c.vectors(ctx, s, uint32(p), send)
		})
	}
	if err := g.Wait(); err != nil {
		return errors.Join(err, s.Close())
	}
	return s.Close()
}

func (c Config) enough(s *engine.Store) bool { return c.MaxBytes > 0 && s.Appended() >= c.MaxBytes }

func (c Config) queue(seq uint64) int32 { return int32(seq % uint64(c.Queues)) }

// single appends one message after the other, each to the next queue.
func (c Config) single(ctx context.Context, s *engine.Store, producer uint32, send func([]byte) error) error {
	var rec, out []byte
	for seq := c.First; !c.enough(s); seq++ {
		queue := c.queue(seq)
		var err error
		if rec, err = c.Source.AppendRecord(rec[:0], queue, producer, seq); err != nil {
			return err
		}
		res, err := s.Append(ctx, rec)
		if err != nil {
			return err
		}
		out = AppendAck(out[:0], Ack{Producer: producer, Queue: queue, Seq: seq, Pos: res.Pos, Offset: res.QueueOffset})
		if err := send(out); err != nil {
			return err
		}
	}
	return nil
}

// vectors keeps many messages in flight at a time.
func (c Config) vectors(ctx context.Context, s *engine.Store, producer uint32, send func([]byte) error) error {
	const depth = 32
	as := make([]*engine.Append, depth)
	done := make(chan *engine.Append, depth)
	for i := range as {
		as[i] = &engine.Append{Done: func(a *engine.Append) { done <- a }}
	}
	var out []byte
	for seq := c.First; !c.enough(s); seq += depth {
		for i, a := range as {
			var err error
			n := seq + uint64(i)
			a.Tag = int64(n)
			if a.Record, err = c.Source.AppendRecord(a.Record[:0], c.queue(n), producer, n); err != nil {
				return err
			}
		}
		s.SubmitVector(as)
		out = out[:0]
		for range as {
			a := <-done
			if a.Err != nil {
				return a.Err
			}
			out = AppendAck(out, Ack{
				Producer: producer, Queue: c.queue(uint64(a.Tag)), Seq: uint64(a.Tag), Pos: a.Result.Pos, Offset: a.Result.QueueOffset,
			})
		}
		if err := send(out); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Killed is how a child ended.
type Killed struct {
	Acks  []Ack
	Ready bool // it had opened its store
}

// Start runs exe, a program whose main begins with [Child], as a child and kills it with SIGKILL
// after the given time, counted from its start, or from the moment when its store is open.
func Start(ctx context.Context, exe string, c Config, after time.Duration, fromReady bool) (Killed, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return Killed{}, err
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var trouble limitedBuffer
	cmd.Stderr = &trouble
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return Killed{}, err
	}
	if err := cmd.Start(); err != nil {
		return Killed{}, err
	}
	kill := func() { _ = cmd.Process.Kill() } // it may be gone already
	var timer *time.Timer
	if !fromReady {
		timer = time.AfterFunc(after, kill)
	}
	var k Killed
	in := bufio.NewReaderSize(pipe, 1<<20)
	b := make([]byte, AckBytes)
	for {
		if _, err := io.ReadFull(in, b); err != nil {
			break // the child is dead; half an ack is none
		}
		a := ParseAck(b)
		if a != readyAck {
			k.Acks = append(k.Acks, a)
			continue
		}
		k.Ready = true
		if fromReady {
			timer = time.AfterFunc(after, kill)
		}
	}
	if timer != nil {
		timer.Stop()
	}
	kill()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return k, err
	}
	if exit != nil && exit.Exited() {
		return k, fmt.Errorf("child ended by itself: %w: %s", err, trouble.b)
	}
	return k, nil
}

// limitedBuffer keeps the first few kilobytes.
type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), 8<<10-len(l.b))]...)
	return len(p), nil
}
