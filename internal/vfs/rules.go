package vfs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ParseRules reads rules of [Faulty], one a line: the kind of operation, a pattern, then any of
// nth=N, onward, err=EIO or err=ENOSPC, short=BYTES, delay=DURATION, kill. Empty lines and those that begin
// with # are left out.
//
//	sync *commitlog* nth=3 err=EIO
//	sync * delay=500ms
func ParseRules(text string) ([]Rule, error) {
	var rules []Rule
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		r, err := parseRule(words)
		if err != nil {
			return nil, fmt.Errorf("fault rule %q: %w", strings.TrimSpace(line), err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func parseRule(words []string) (r Rule, err error) {
	op := slices.Index(opNames[:], words[0])
	if op < 0 || len(words) < 2 {
		return r, fmt.Errorf("begin with one of %s and a pattern", strings.Join(opNames[:], ", "))
	}
	r.Op, r.Match = Op(op), words[1]
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "nth":
			r.Nth, err = strconv.Atoi(value)
		case "onward":
			r.Onward = true
		case "kill":
			r.Kill = true
		case "short":
			r.Short, err = strconv.Atoi(value)
		case "delay":
			r.Delay, err = time.ParseDuration(value)
		case "err":
			known := map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC}
			if r.Err = known[value]; r.Err == nil {
				err = fmt.Errorf("error %q: use EIO or ENOSPC", value)
			}
		default:
			err = fmt.Errorf("%q: use nth, onward, short, delay, kill or err", w)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}
