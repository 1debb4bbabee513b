package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rmq/client"
)

func monitorCommands() []command {
	return []command{{"startMonitoring", "Watch all consumer groups and report trouble until it is ended", startMonitoring}}
}

// trouble is something that is wrong with a group.
type trouble struct {
	Time   string `json:"time"`
	Group  string `json:"group"`
	Kind   string `json:"kind"` // UNDONE_MESSAGES, CONSUME_FAILED, SUBSCRIPTION, REBALANCE, ERROR
	Detail string `json:"detail"`
}

// limits are from when on something is trouble.
type limits struct {
	undone int64
	delay  time.Duration
	failed int64
}

func startMonitoring(f *flags) action {
	interval := f.number("interval", "", 60, "seconds between rounds")
	rounds := f.number("rounds", "", 0, "end after so many rounds (default: never)")
	undone := f.number("undone", "", 100_000, "report groups that are more messages behind")
	delay := f.number("delay", "", 60_000, "report groups whose oldest message that is not consumed waits for more milliseconds")
	failed := f.number("failed", "", 20, "report members at which more messages failed")
	return func(ctx context.Context, t *tool) (any, error) {
		if *interval < 1 {
			return nil, usage("--interval=%d: use at least 1", *interval)
		}
		l := limits{*undone, time.Duration(*delay) * time.Millisecond, *failed}
		for round := int64(1); ; round++ {
			topics, err := t.admin.Topics(ctx)
			if err != nil {
				return nil, err
			}
			for _, topic := range topics {
				if group, ok := strings.CutPrefix(topic, retryPrefix); ok {
					if err := watch(ctx, t, group, l); err != nil {
						return nil, err
					}
				}
			}
			if round == *rounds {
				return nil, nil
			}
			if err := sleep(ctx, time.Duration(*interval)*time.Second); err != nil {
				return nil, err
			}
		}
	}
}

// watch reports what is wrong with a group now; the error is one of printing.
func watch(ctx context.Context, t *tool, group string, l limits) error {
	var failed error
	tell := func(kind, format string, args ...any) {
		x := trouble{time.Now().Format(time.RFC3339), group, kind, fmt.Sprintf(format, args...)}
		text := fmt.Sprintf("%s %s %s: %s", x.Time, x.Kind, x.Group, x.Detail)
		if t.json {
			line, err := marshal(x)
			failed = errors.Join(failed, err)
			text = string(line)
		}
		_, err := fmt.Fprintln(t.out, text)
		failed = errors.Join(failed, err)
	}
	stats, err := t.admin.ConsumeStats(ctx, group, "")
	if err != nil {
		tell("ERROR", "%v", err)
		return failed
	}
	behind := map[string]int64{}
	oldest := map[string]time.Duration{}
	for q, o := range stats.OffsetTable {
		if diff := o.BrokerOffset - o.ConsumerOffset; diff > 0 {
			behind[q.Topic] += diff
			if o.LastTimestamp > 0 {
				oldest[q.Topic] = max(oldest[q.Topic], time.Since(time.UnixMilli(o.LastTimestamp)))
			}
		}
	}
	for topic, n := range behind {
		if n > l.undone || oldest[topic] > l.delay {
			tell("UNDONE_MESSAGES", "%d messages of topic %s are not consumed, the last that was is %s old", n, topic, oldest[topic].Round(time.Second))
		}
	}
	state, err := groupStateOf(ctx, t, group)
	switch {
	case errors.Is(err, client.ErrNotOnline):
		return failed
	case err != nil:
		tell("ERROR", "%v", err)
		return failed
	}
	if len(state.Different) > 0 {
		tell("SUBSCRIPTION", "members subscribe to different things: %s", strings.Join(state.Different, ", "))
	}
	for _, q := range state.Twice {
		tell("REBALANCE", "%s", q)
	}
	for _, m := range state.Members {
		for _, r := range m.Rates {
			if r.ConsumeFailedMsgs > l.failed {
				tell("CONSUME_FAILED", "%d messages of topic %s failed at %s", r.ConsumeFailedMsgs, r.Topic, m.ClientID)
			}
		}
	}
	return failed
}

// groupStateOf asks all members of a group.
func groupStateOf(ctx context.Context, t *tool, group string) (*groupState, error) {
	cc, err := membersOf(ctx, t, "", group)
	if err != nil {
		return nil, err
	}
	return askMembers(ctx, t, "", group, cc, false), nil
}
