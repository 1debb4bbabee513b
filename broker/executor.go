package broker

import (
	"context"
	"strconv"
	"sync"
	"time"

	"rmq/internal/run"
)

// family is a kind of requests that share one bounded queue and its workers (the thread pools of
// org.apache.rocketmq.broker.BrokerController).
type family uint8

// The families. Requests of familyReader are served on the goroutine that reads their connection:
// they must not wait for a disk or another machine.
const (
	familyReader family = iota
	familySend
	familyPull
	familyLitePull
	familyQuery
	familyClient
	familyConsumer
	familyHeartbeat
	familyAdmin
	families
)

func (f family) String() string {
	return [...]string{"reader", "send", "pull", "litePull", "query", "clientManage", "consumerManage", "heartbeat", "admin"}[f]
}

// job is what waits in the queue of an executor.
type job interface {
	run()
	// refuse is called instead of run when the job waited too long.
	refuse(cause string)
}

// lingerWorker is how long a worker without work stays.
const lingerWorker = 10 * time.Second

// executor runs jobs on at most workers goroutines, which come and go with the work, so that an
// executor without work owns none. At most capacity jobs wait. Safe for concurrent use.
type executor struct {
	name              string
	workers, capacity int
	limit             func() time.Duration // how long a job may wait; nil or 0: for ever
	group             *run.Group
	wake              chan struct{}

	mu      sync.Mutex
	queue   ring[waiting]
	running int // workers
	idle    int // of them, those that wait to be woken
	closed  bool
}

// waiting is a job and since when it waits.
type waiting struct {
	job   job
	since time.Time
}

func newExecutor(group *run.Group, name string, workers, capacity int, limit func() time.Duration) *executor {
	return &executor{
		name: name, workers: max(workers, 1), capacity: max(capacity, 1), limit: limit, group: group,
		wake: make(chan struct{}, max(workers, 1)),
	}
}

// submit queues j, or returns false when the queue is full or closed.
func (e *executor) submit(j job) bool {
	e.mu.Lock()
	if e.closed || e.queue.len() >= e.capacity {
		e.mu.Unlock()
		return false
	}
	e.queue.push(waiting{j, time.Now()})
	start := false
	switch {
	case e.idle > 0:
		e.idle--
		e.wake <- struct{}{}
	case e.running < e.workers:
		e.running++
		start = true
	}
	e.mu.Unlock()
	if start {
		e.group.Go(e.name, e.work)
	}
	return true
}

// work runs jobs until there have been none for a while.
func (e *executor) work(ctx context.Context) error {
	var timer *time.Timer
	for {
		e.mu.Lock()
		w, ok := e.queue.pop()
		if ok {
			e.mu.Unlock()
			e.runOne(w)
			continue
		}
		e.idle++
		e.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(lingerWorker)
			defer timer.Stop()
		} else {
			timer.Reset(lingerWorker)
		}
		select {
		case <-e.wake:
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		e.mu.Lock()
		if e.idle > 0 {
			e.idle--
			e.running--
			e.mu.Unlock()
			return nil
		}
		e.mu.Unlock()
		<-e.wake // somebody has counted on this worker
	}
}

func (e *executor) runOne(w waiting) {
	if e.limit != nil {
		if limit := e.limit(); limit > 0 {
			if took := time.Since(w.since); took > limit {
				w.job.refuse(e.tooLate(took, 0))
				return
			}
		}
	}
	w.job.run()
}

func (e *executor) tooLate(took time.Duration, size int) string {
	return "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: " +
		took.Round(time.Millisecond).String() + ", size of queue: " + strconv.Itoa(size) + ", queue: " + e.name
}

// sweep refuses what has waited too long behind workers that are all busy.
func (e *executor) sweep(now time.Time) {
	if e.limit == nil {
		return
	}
	limit := e.limit()
	for limit > 0 {
		e.mu.Lock()
		w, ok := e.queue.peek()
		if !ok || now.Sub(w.since) <= limit {
			e.mu.Unlock()
			return
		}
		e.queue.pop()
		size := e.queue.len()
		e.mu.Unlock()
		w.job.refuse(e.tooLate(now.Sub(w.since), size))
	}
}

// close takes no more jobs and refuses those that wait. Call it before the group is waited for.
func (e *executor) close() {
	e.mu.Lock()
	e.closed = true
	var left []waiting
	for w, ok := e.queue.pop(); ok; w, ok = e.queue.pop() {
		left = append(left, w)
	}
	e.mu.Unlock()
	for _, w := range left {
		w.job.refuse("the broker is shutting down")
	}
}

// busy says that a job is under way.
func (e *executor) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running > e.idle
}

// state is how many jobs wait, and for how long the first of them has.
func (e *executor) state(now time.Time) (size int, head time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w, ok := e.queue.peek(); ok {
		return e.queue.len(), max(now.Sub(w.since), 0)
	}
	return 0, 0
}

// ring is a queue in one slice that grows and, once empty, lets go of a large one.
type ring[T any] struct {
	buf     []T
	head, n int
}

const keepRing = 1024

func (r *ring[T]) len() int { return r.n }

func (r *ring[T]) push(v T) {
	if r.n == len(r.buf) {
		grown := make([]T, max(2*len(r.buf), 8))
		for i := range r.n {
			grown[i] = r.buf[(r.head+i)%len(r.buf)]
		}
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)%len(r.buf)] = v
	r.n++
}

func (r *ring[T]) peek() (v T, ok bool) {
	if r.n == 0 {
		return v, false
	}
	return r.buf[r.head], true
}

func (r *ring[T]) pop() (v T, ok bool) {
	if r.n == 0 {
		return v, false
	}
	var zero T
	v, r.buf[r.head] = r.buf[r.head], zero
	r.head = (r.head + 1) % len(r.buf)
	if r.n--; r.n == 0 && len(r.buf) > keepRing {
		r.buf, r.head = nil, 0
	}
	return v, true
}
