package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"rmq/bench"
	"rmq/results"
)

// progress shows where a run stands: one line that is written over on a terminal, else a new line
// when a part begins and every few seconds.
type progress struct {
	w     io.Writer
	live  bool
	every time.Duration

	mu    sync.Mutex
	said  time.Time
	place string
	dirty bool
	began time.Time
}

func newProgress(w io.Writer, every time.Duration) *progress {
	p := &progress{w: w, every: every, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		p.live = term.IsTerminal(int(f.Fd()))
	}
	return p
}

func (p *progress) update(s bench.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := fmt.Sprint(s.Step, s.Part, s.Cell)
	if s.Step == 0 {
		place = s.Phase
	}
	fresh := place != p.place
	p.place = place
	if !p.live && !fresh && time.Since(p.said) < p.every {
		return
	}
	p.said = time.Now()
	line := describe(s, time.Since(p.began))
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		p.dirty = true
	} else {
		fmt.Fprintln(p.w, line)
	}
}

func describe(s bench.Progress, total time.Duration) string {
	line := fmt.Sprintf("%5s ", total.Round(time.Second))
	if s.Step == 0 {
		line += s.Phase
		if s.Detail != "" {
			line += ": " + s.Detail
		}
		return line
	}
	line += fmt.Sprintf("cell %d of %d  %s %s  %s", s.Step, s.Steps, s.Cell, s.Part, s.Phase)
	if s.RatePerS > 0 {
		line += "  " + results.FormatRate(s.RatePerS)
	}
	if s.P99US > 0 {
		line += "  p99 " + results.FormatUS(s.P99US)
	}
	if s.ETA > 0 {
		line += "  ETA " + s.ETA.Round(time.Second).String()
	}
	return line
}

// close leaves the terminal's line.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dirty {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.dirty = false
	}
}
