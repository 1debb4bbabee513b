package failover

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"rmq/bench/driver/wire"
)

// roleTimes are two moments after an event; zero where there was none.
type roleTimes struct {
	noticed time.Time // one that is left saw that its leader is gone
	led     time.Time // a node led, which need not be another one
}

// roles reads from the logs of brokers when they noticed an event at a moment that befell one of them, and when one led.
func roles(nodes []*wire.Node, struck *wire.Node, at time.Time) (r roleTimes, err error) {
	for _, n := range nodes {
		f, err := os.Open(n.Output())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			r.take(lines.Text(), n == struck, at)
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return r, err
		}
	}
	return r, nil
}

// take looks at one line of a log: "time=… level=INFO msg=role mode=raft role=leader …".
func (r *roleTimes) take(line string, struck bool, at time.Time) {
	stamp, rest, _ := strings.Cut(line, " ")
	_, rest, ok := strings.Cut(rest, " msg=role ")
	if !ok {
		return
	}
	when, err := time.Parse("time=2006-01-02T15:04:05.000Z07:00", stamp)
	if err != nil || when.Before(at.Truncate(time.Millisecond)) {
		return
	}
	first := func(t *time.Time) {
		if t.IsZero() || when.Before(*t) {
			*t = when
		}
	}
	switch {
	case strings.Contains(rest, " role=leader "):
		first(&r.led)
	case strings.Contains(rest, ` leader="" `) && !struck:
		first(&r.noticed)
	}
}
