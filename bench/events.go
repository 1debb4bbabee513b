package bench

import (
	"sort"
	"sync"
	"time"

	"rmq/results"
)

const (
	maxEvents = 5000
	standsOut = 5 * time.Millisecond // a flush below this is no event
)

// eventLog collects what happened inside the target. Safe for concurrent use.
type eventLog struct {
	clock *clock

	mu      sync.Mutex
	events  []event
	dropped int
}

type event struct {
	at, took     int64 // ns; at is the end
	kind, detail string
}

func (l *eventLog) add(kind, detail string, took time.Duration) {
	if kind == results.EventFlush && took < standsOut {
		return
	}
	at := l.clock.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) >= maxEvents {
		l.dropped++
		return
	}
	l.events = append(l.events, event{at, int64(took), kind, detail})
}

// list returns the events with times since t0, and how many found no room.
func (l *eventLog) list(t0 int64) ([]results.Event, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var es []results.Event
	for _, e := range l.events {
		es = append(es, results.Event{TS: seconds(e.at - e.took - t0), Kind: e.kind, Detail: e.detail, TookUS: float64(e.took) / 1e3})
	}
	sort.SliceStable(es, func(i, j int) bool { return es[i].TS < es[j].TS })
	return es, l.dropped
}

// cause is the longest event that a message lay in flight through.
func (l *eventLog) cause(from, to int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	kind, longest := "", int64(-1)
	for _, e := range l.events {
		if e.at >= from && e.at-e.took <= to && e.took > longest {
			kind, longest = e.kind, e.took
		}
	}
	return kind
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }
