package results

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"sort"
	"syscall"
	"time"
)

// FailoverFile is the only file of a failover run beside env.json and the reports.
const FailoverFile = "failover.json"

// FailoverBin is the length of a bin of acknowledgements round an event.
const FailoverBin = 10 * time.Millisecond

// Names of events.
const (
	FailKill      = "kill"      // SIGKILL of who leads
	FailFreeze    = "freeze"    // SIGSTOP of who leads, SIGCONT some time later
	FailStop      = "stop"      // SIGTERM of who leads
	FailHandover  = "handover"  // who leads is asked to hand over
	FailPartition = "partition" // who leads and the others do not hear each other
	FailSlow      = "slow"      // one replica is heard late
)

// FailoverEvents lists the events in the order of reports.
func FailoverEvents() []string {
	return []string{FailKill, FailFreeze, FailStop, FailHandover, FailPartition, FailSlow}
}

// Failover is failover.json: how long clients went without when a node failed, trial by trial.
type Failover struct {
	Schema   int       `json:"schema"`
	RunID    string    `json:"run_id"`
	Label    string    `json:"label,omitempty"`
	Tool     string    `json:"tool"`
	Version  string    `json:"version"`
	Command  []string  `json:"command"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Complete bool      `json:"complete"`
	Reason   string    `json:"reason,omitempty"` // why it is not complete

	Seed      int64  `json:"seed"`
	Flush     string `json:"flush"`
	Repl      string `json:"repl"`
	Class     Class  `json:"durability_class"`
	Topics    int    `json:"topics"`
	Queues    int    `json:"queues"`
	SizeBytes int    `json:"size_bytes"`
	// LogBytes is how much log there was at least before the first trial.
	LogBytes  int64   `json:"log_bytes"`
	Rate      string  `json:"rate"` // as asked: "50%", "2000"
	MaxPerS   float64 `json:"max_per_s,omitempty"`
	RatePerS  float64 `json:"rate_per_s"` // of all clients together
	Consumers int     `json:"consumers"`
	FreezeS   float64 `json:"freeze_s,omitempty"`
	DelayMS   float64 `json:"delay_ms,omitempty"` // of a slow replica, each way

	Clients []FailoverClient `json:"clients"`
	Skipped []FailoverSkip   `json:"skipped,omitempty"`
	Trials  []*FailoverTrial `json:"trials"`
	// LostBetween counts acknowledged messages that were not found, of those due in no trial.
	LostBetween int64 `json:"lost_between,omitempty"`
	// Damaged counts bodies that are not as they were sent, and offsets that hold no message. Nobody can tell whose they are.
	Damaged int64 `json:"damaged,omitempty"`
	// GoneBetween counts messages that consumers had read, nobody acknowledged, and were not found, of those due in no trial.
	GoneBetween int64 `json:"gone_between,omitempty"`
	// ExpiredBetween counts those of a cluster whose retention had removed log: nobody can tell what became of them.
	ExpiredBetween int64    `json:"expired_between,omitempty"`
	Notes          []string `json:"notes,omitempty"`
}

// FailoverClient is one kind of client.
type FailoverClient struct {
	Name     string  `json:"name"`
	What     string  `json:"what"`
	RatePerS float64 `json:"rate_per_s"`
}

// FailoverSkip is an event or a client that was asked for and could not be had.
type FailoverSkip struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
}

// FailoverTrial is one event and what came of it.
type FailoverTrial struct {
	Event    string    `json:"event"`
	N        int       `json:"n"` // from 1, within its event
	At       time.Time `json:"at"`
	From     string    `json:"from"`         // who led
	To       string    `json:"to,omitempty"` // who led at the end of the trial
	AfterS   float64   `json:"after_s"`      // how long was looked after the event
	LateMS   float64   `json:"late_ms"`      // responses beyond count as delayed
	LogBytes int64     `json:"log_bytes"`    // of log before
	HealS    float64   `json:"heal_s"`       // from the end of the trial until all replicas were in sync again
	// Void says why the trial does not count: its log or its load was too small, for instance.
	Void string `json:"void,omitempty"`
	// NoticedMS and LedMS are what the logs of brokers say, in ms since the event: one that was left saw that its leader is
	// gone, and a node led. nil: nothing of the kind within the trial, or not told.
	NoticedMS   *float64              `json:"noticed_ms,omitempty"`
	LedMS       *float64              `json:"led_ms,omitempty"`
	ConsumerMS  *float64              `json:"consumer_silence_ms,omitempty"` // longest time without a message at the consumers
	Clients     []FailoverClientTrial `json:"clients"`
	Audited     bool                  `json:"audited"` // what was acknowledged has been read back
	ReadAndGone int64                 `json:"read_and_gone,omitempty"`
}

// FailoverClientTrial is what one client saw of an event. Messages are those that were due from one second before the event
// to the end of the trial. Times are in ms since the event unless they are lengths.
type FailoverClientTrial struct {
	Client string `json:"client"`
	// NextAckMS is when acknowledgements came again: the end of the longest silence that began within 300 ms of the event, if
	// any message was affected or there was none as long in the second before; else the first acknowledgement of a message
	// sent after it. What falls silent later is in WindowMS. nil: none came.
	NextAckMS *float64 `json:"next_ack_ms"`
	// WindowMS is the unavailable window by due time: the longest that a message which was delayed, failed, left unknown or never
	// answered had to wait from its due time until any that was sent no earlier was acknowledged. 0: none was affected.
	WindowMS *float64 `json:"window_ms"`
	// SilenceMS is the longest time between two acknowledgements.
	SilenceMS *float64 `json:"silence_ms"`
	// To95MS is when 95 % of the rate before the event was reached again, over 100 ms.
	To95MS *float64 `json:"to_95_ms"`

	BeforePerS float64 `json:"before_per_s"` // acknowledged, in the second before the event
	MaxMS      float64 `json:"max_ms"`       // longest response
	Due        int64   `json:"due"`
	Acked      int64   `json:"acked"`
	Delayed    int64   `json:"delayed"` // of the acknowledged
	Failed     int64   `json:"failed"`  // answered with an error after all that the client tries
	// Unknown were answered with an outcome that is unknown after all that the client tries: they may be stored.
	Unknown    int64  `json:"unknown,omitempty"`
	Unfinished int64  `json:"unfinished"`
	Duplicated int64  `json:"duplicated"`        // stored more than once: retries of what had been stored
	Lost       int64  `json:"lost"`              // acknowledged and not found
	Expired    int64  `json:"expired,omitempty"` // acknowledged and not found where retention had removed log
	Failure    string `json:"failure,omitempty"` // the first error
	// Bins counts acknowledgements in bins of 10 ms; FirstBin is the number of the first one, the bin of the event is 0.
	FirstBin int     `json:"first_bin"`
	Bins     []int32 `json:"bins"`
}

// FailoverSample is one message of a client, times in ns since the event.
type FailoverSample struct {
	Due    int64
	Sent   int64
	Done   int64 // when it was answered; math.MaxInt64: never
	Failed bool  // it was not acknowledged
	// Unknown says of one that was not that it may be stored all the same.
	Unknown bool
}

const (
	failoverBefore  = int64(time.Second)
	failoverAtLeast = int64(5 * time.Millisecond)
	failoverSpan    = int64(100 * time.Millisecond)
	failoverOnset   = int64(300 * time.Millisecond)
)

// FailoverLate is the response, in ns, beyond which a message counts as delayed: twice the p99 of the second before the
// event, 5 ms or more.
func FailoverLate(samples []FailoverSample) int64 {
	var took []int64
	for _, s := range samples {
		if s.Due >= -failoverBefore && s.Due < 0 && !s.Failed && s.Done < 0 {
			took = append(took, s.Done-s.Due)
		}
	}
	if len(took) == 0 {
		return failoverAtLeast
	}
	slices.Sort(took)
	return max(failoverAtLeast, 2*took[len(took)*99/100])
}

// AnalyseFailover says what a client saw of an event that was looked at for after; late is of [FailoverLate].
func AnalyseFailover(client string, samples []FailoverSample, after time.Duration, late int64) FailoverClientTrial {
	end := int64(after)
	t := FailoverClientTrial{Client: client, FirstBin: -int(failoverBefore / int64(FailoverBin) / 2)}
	bins := make([]int32, int(end/int64(FailoverBin))-t.FirstBin+1)
	var acks []int64
	var hurt []FailoverSample
	first, longest := int64(math.MaxInt64), int64(0)
	for _, s := range samples {
		acked := !s.Failed && s.Done < math.MaxInt64
		if acked && s.Done >= -failoverBefore && s.Done <= end {
			acks = append(acks, s.Done)
			if i := int(floorDiv(s.Done, int64(FailoverBin))) - t.FirstBin; i >= 0 && i < len(bins) {
				bins[i]++
			}
			if s.Sent >= 0 {
				first = min(first, s.Done)
			}
		}
		if s.Due < -failoverBefore || s.Due >= end {
			continue
		}
		t.Due++
		bad := true
		switch {
		case s.Done == math.MaxInt64:
			t.Unfinished++
		case s.Failed && s.Unknown:
			t.Unknown++
		case s.Failed:
			t.Failed++
		default:
			t.Acked++
			longest = max(longest, s.Done-s.Due)
			if bad = s.Done-s.Due > late; bad {
				t.Delayed++
			}
		}
		if bad && s.Done >= 0 { // what was late before the event is not its doing
			hurt = append(hurt, s)
		}
	}
	slices.Sort(acks)
	t.MaxMS, t.Bins = ms(longest), bins
	before := sort.Search(len(acks), func(i int) bool { return acks[i] >= 0 })
	t.BeforePerS = float64(before) / (float64(failoverBefore) / 1e9)
	next := first
	if len(acks) > 0 {
		silence, ofEvent, over := longestSilence(acks, before, end)
		t.SilenceMS = Ptr(ms(silence))
		usual := int64(0)
		for i := 1; i < before; i++ {
			usual = max(usual, acks[i]-acks[i-1])
		}
		if (len(hurt) > 0 || ofEvent > usual) && over > next {
			next = over
		}
	}
	if next <= end {
		t.NextAckMS = Ptr(ms(next))
		t.WindowMS = unavailable(samples, hurt, end)
		t.To95MS = to95(acks, before, next, end)
	}
	return t
}

// longestSilence is the longest time between two acknowledgements that is not over before the event, the longest of those
// that begin soon after the event, and when that was over; math.MaxInt64 if it lasts to the end.
func longestSilence(acks []int64, before int, end int64) (longest, ofEvent, over int64) {
	last := int64(0)
	if before > 0 {
		last = acks[before-1]
	}
	for i := before; i <= len(acks); i++ {
		at, until := end, int64(math.MaxInt64)
		if i < len(acks) {
			at, until = acks[i], acks[i]
		}
		longest = max(longest, at-last)
		if last < failoverOnset && at-last > ofEvent {
			ofEvent, over = at-last, until
		}
		last = at
	}
	return longest, ofEvent, over
}

// unavailable is the longest that a message which was delayed, failed or never answered had to wait from its due time
// until any that was sent no earlier was acknowledged; nil if for one of them none was.
func unavailable(samples, hurt []FailoverSample, end int64) *float64 {
	bySent := slices.Clone(samples)
	slices.SortFunc(bySent, func(a, b FailoverSample) int { return cmp.Compare(a.Sent, b.Sent) })
	soonest := make([]int64, len(bySent)+1) // the first ack of those from here on
	soonest[len(bySent)] = math.MaxInt64
	for i := len(bySent) - 1; i >= 0; i-- {
		soonest[i] = soonest[i+1]
		if !bySent[i].Failed {
			soonest[i] = min(soonest[i], bySent[i].Done)
		}
	}
	longest := int64(0)
	for _, h := range hurt {
		i := sort.Search(len(bySent), func(i int) bool { return bySent[i].Sent >= h.Due })
		served := soonest[i]
		if !h.Failed {
			served = min(served, h.Done)
		}
		if served > end && h.Due < end-failoverBefore {
			return nil
		}
		longest = max(longest, min(served, end)-h.Due)
	}
	return Ptr(ms(longest))
}

// to95 is the first moment, in steps of a bin from the next ack on, from which 100 ms hold 95 % of the rate before.
func to95(acks []int64, before int, next, end int64) *float64 {
	want := 0.95 * float64(before) * float64(failoverSpan) / float64(failoverBefore)
	if before == 0 || next == math.MaxInt64 {
		return nil
	}
	for at := floorDiv(next, int64(FailoverBin)) * int64(FailoverBin); at+failoverSpan <= end; at += int64(FailoverBin) {
		lo := sort.Search(len(acks), func(i int) bool { return acks[i] >= at })
		hi := sort.Search(len(acks), func(i int) bool { return acks[i] >= at+failoverSpan })
		if float64(hi-lo) >= want {
			return Ptr(ms(max(at, 0)))
		}
	}
	return nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }

// FailoverFigure is a time over trials, in ms. Never counts the trials in which it did not come to pass: they are in the
// maximum and the percentiles as longer than the trial, which prints as "never".
type FailoverFigure struct {
	N     int      `json:"n"`
	Never int      `json:"never,omitempty"`
	P50   float64  `json:"p50_ms"`
	P99   float64  `json:"p99_ms"`
	Max   float64  `json:"max_ms"`
	I50   Interval `json:"p50_interval"`

	values []float64
}

// Values are the times that came to pass, by trial.
func (f FailoverFigure) Values() []float64 { return f.values }

func figure(vs []*float64) FailoverFigure {
	f := FailoverFigure{N: len(vs)}
	var sorted []float64
	for _, v := range vs {
		if v == nil {
			f.Never++
			sorted = append(sorted, math.MaxFloat64)
			continue
		}
		f.values = append(f.values, *v)
		sorted = append(sorted, *v)
	}
	if len(sorted) == 0 {
		return f
	}
	slices.Sort(sorted)
	// The nearest rank: of 100 trials the 99th percentile is the last but one.
	rank := func(p float64) float64 { return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)] }
	f.P50, f.P99, f.Max = rank(0.50), rank(0.99), sorted[len(sorted)-1]
	if f.Never == 0 {
		f.I50 = BootstrapMedian(f.values, statsSeed)
	}
	return f
}

// FailoverSummary is one event as one client saw it.
type FailoverSummary struct {
	Event   string         `json:"event"`
	Client  string         `json:"client"`
	Trials  int            `json:"trials"` // that count
	Void    int            `json:"void,omitempty"`
	NextAck FailoverFigure `json:"next_ack"`
	Window  FailoverFigure `json:"window"`
	Silence FailoverFigure `json:"silence"`
	To95    FailoverFigure `json:"to_95"`

	Due        int64 `json:"due"`
	Acked      int64 `json:"acked"`
	Delayed    int64 `json:"delayed"`
	Failed     int64 `json:"failed"`
	Unknown    int64 `json:"unknown,omitempty"`
	Unfinished int64 `json:"unfinished"`
	Duplicated int64 `json:"duplicated"`
	Lost       int64 `json:"lost"`
	Expired    int64 `json:"expired,omitempty"`
	Unaudited  int   `json:"unaudited,omitempty"` // trials whose messages were not read back
	// Bins are mean acknowledgements in a bin of 10 ms, over the trials that count, the bin of the event at -FirstBin.
	FirstBin int       `json:"first_bin"`
	Bins     []float64 `json:"bins"`
}

// Summarize boils the trials down, event by event and client by client. Void trials are counted and left out; what they
// lost is not.
func (f *Failover) Summarize() []*FailoverSummary {
	var out []*FailoverSummary
	for _, e := range FailoverEvents() {
		for _, c := range f.Clients {
			if s := f.summarize(e, c.Name); s != nil {
				out = append(out, s)
			}
		}
	}
	return out
}

func (f *Failover) summarize(event, client string) *FailoverSummary {
	s := &FailoverSummary{Event: event, Client: client}
	var next, window, silence, to95 []*float64
	for _, t := range f.Trials {
		i := slices.IndexFunc(t.Clients, func(c FailoverClientTrial) bool { return c.Client == client })
		if t.Event != event || i < 0 {
			continue
		}
		c := &t.Clients[i]
		s.Lost, s.Expired = s.Lost+c.Lost, s.Expired+c.Expired
		if !t.Audited {
			s.Unaudited++
		}
		if t.Void != "" {
			s.Void++
			continue
		}
		s.Trials++
		next, window, silence, to95 = append(next, c.NextAckMS), append(window, c.WindowMS), append(silence, c.SilenceMS), append(to95, c.To95MS)
		s.Due, s.Acked, s.Delayed, s.Failed = s.Due+c.Due, s.Acked+c.Acked, s.Delayed+c.Delayed, s.Failed+c.Failed
		s.Unknown, s.Unfinished, s.Duplicated = s.Unknown+c.Unknown, s.Unfinished+c.Unfinished, s.Duplicated+c.Duplicated
		s.FirstBin = c.FirstBin
		for i, n := range c.Bins {
			if i == len(s.Bins) {
				s.Bins = append(s.Bins, 0)
			}
			s.Bins[i] += float64(n)
		}
	}
	if s.Trials+s.Void == 0 {
		return nil
	}
	for i := range s.Bins {
		s.Bins[i] /= float64(s.Trials)
	}
	s.NextAck, s.Window, s.Silence, s.To95 = figure(next), figure(window), figure(silence), figure(to95)
	return s
}

// FailoverStages is where the time of an event goes until its first client has acknowledgements again.
type FailoverStages struct {
	Event  string         `json:"event"`
	Notice FailoverFigure `json:"notice"` // from the event until one that was left saw that its leader is gone
	Elect  FailoverFigure `json:"elect"`  // from there until a node led
	Client FailoverFigure `json:"client"` // from there until the first client's next ack
}

// Stages are the stages of each event, over the trials that count and tell of them.
func (f *Failover) Stages() (out []FailoverStages) {
	for _, e := range FailoverEvents() {
		var notice, elect, client []*float64
		for _, t := range f.Trials {
			if t.Event != e || t.Void != "" || t.LedMS == nil || len(t.Clients) == 0 {
				continue
			}
			noticed := *t.LedMS
			if t.NoticedMS != nil {
				noticed = min(*t.NoticedMS, noticed)
			}
			notice, elect = append(notice, &noticed), append(elect, Ptr(*t.LedMS-noticed))
			if next := t.Clients[0].NextAckMS; next != nil {
				client = append(client, Ptr(max(0, *next-*t.LedMS)))
			} else {
				client = append(client, nil)
			}
		}
		if len(notice) > 0 {
			out = append(out, FailoverStages{e, figure(notice), figure(elect), figure(client)})
		}
	}
	return out
}

// Lost is how many acknowledged messages were not found, all in all.
func (f *Failover) Lost() (n int64) {
	n = f.LostBetween
	for _, t := range f.Trials {
		n += t.lost()
	}
	return n
}

func (t *FailoverTrial) lost() (n int64) {
	for _, c := range t.Clients {
		n += c.Lost
	}
	return n
}

// MayLose says that the replication allows an event to lose acknowledged messages: under async a slave that is promoted, as
// after kill, stop and hand-over, need not have the newest.
func (f *Failover) MayLose(event string) bool {
	return f.Repl == "async" && slices.Contains([]string{FailKill, FailStop, FailHandover}, event)
}

// AllowedLost is how many of the lost the replication allows.
func (f *Failover) AllowedLost() (n int64) {
	promoted := false
	for _, t := range f.Trials {
		if f.MayLose(t.Event) {
			promoted = true
			n += t.lost()
		}
	}
	if promoted {
		n += f.LostBetween // due more than a second before such an event, or beside it
	}
	return n
}

// ReadAndGone is how many messages consumers had read that nobody acknowledged and that were not found, all in all.
func (f *Failover) ReadAndGone() (n int64) {
	n = f.GoneBetween
	for _, t := range f.Trials {
		n += t.ReadAndGone
	}
	return n
}

// Pair says that the replication is that of a master and a slave.
func (f *Failover) Pair() bool { return f.Repl == "async" || f.Repl == "sync" }

// Broken is how many messages break what the replication promises. A pair does not promise that what was read stays: it
// loses what its old master took and its new one never saw.
func (f *Failover) Broken() int64 {
	n := f.Damaged + f.Lost() - f.AllowedLost()
	if !f.Pair() {
		n += f.ReadAndGone()
	}
	return n
}

// Expired is how many acknowledged messages were not found because retention had removed log, all in all.
func (f *Failover) Expired() (n int64) {
	n = f.ExpiredBetween
	for _, t := range f.Trials {
		for _, c := range t.Clients {
			n += c.Expired
		}
	}
	return n
}

// Enough says how many trials of an event make a claim: 100 kills, 30 of the others.
func Enough(event string) int {
	if event == FailKill {
		return 100
	}
	return 30
}

// WriteFailover replaces failover.json in dir.
func WriteFailover(dir string, f *Failover) error {
	f.Schema = SchemaVersion
	return (&Store{dir: dir}).writeJSON(FailoverFile, f)
}

// WriteFailoverEnv replaces env.json in dir.
func WriteFailoverEnv(dir string, e *Env) error { return (&Store{dir: dir}).WriteEnv(e) }

// ReadFailover reads the failover run in dir. [ErrNoRun] when there is none.
func ReadFailover(dir string) (*Failover, *Env, error) {
	f, e := new(Failover), new(Env)
	err := readJSON(filepath.Join(dir, FailoverFile), "a failover run (JSON)", f)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil, fmt.Errorf("%s: %w: name one with a %s", dir, ErrNoRun, FailoverFile)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := readJSON(filepath.Join(dir, EnvFile), "an environment record (JSON)", e); errors.Is(err, fs.ErrNotExist) {
		return f, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	return f, e, nil
}

// FailoverComparison is one figure of two runs. The ratio is above one when B does better: its time is shorter.
type FailoverComparison struct {
	Event  string         `json:"event"`
	Client string         `json:"client"`
	Figure string         `json:"figure"`
	ClassA Class          `json:"class_a"`
	ClassB Class          `json:"class_b"`
	A      FailoverFigure `json:"a"`
	B      FailoverFigure `json:"b"`
	Ratio  Ratio          `json:"ratio"`
	Why    string         `json:"why,omitempty"` // where it is not comparable
}

// CompareFailover sets B against A, event by event and client by client. Runs of different durability classes or loads are
// listed and not compared.
func CompareFailover(a, b *Failover, band float64) []*FailoverComparison {
	if band == 0 {
		band = DefaultBand
	}
	why := ""
	switch {
	case a.Class != b.Class:
		why = fmt.Sprintf("durability %s against %s: another promise, not ranked", a.Class, b.Class)
	case !near(a.RatePerS, b.RatePerS, 0.25):
		why = fmt.Sprintf("%s against %s of load", FormatRate(a.RatePerS), FormatRate(b.RatePerS))
	}
	var out []*FailoverComparison
	var ratios []*Ratio
	sb := b.Summarize()
	for _, x := range a.Summarize() {
		i := slices.IndexFunc(sb, func(y *FailoverSummary) bool { return y.Event == x.Event && y.Client == x.Client })
		if i < 0 {
			continue
		}
		y := sb[i]
		for _, fig := range []struct {
			name string
			a, b FailoverFigure
		}{{"next ack", x.NextAck, y.NextAck}, {"window", x.Window, y.Window}} {
			c := &FailoverComparison{Event: x.Event, Client: x.Client, Figure: fig.name, ClassA: a.Class, ClassB: b.Class, A: fig.a, B: fig.b, Why: why}
			c.Ratio = Ratio{Verdict: NotComparable, Band: band}
			if why == "" {
				c.Ratio = UnpairedRatio(inverse(fig.a.values), inverse(fig.b.values), band)
				ratios = append(ratios, &c.Ratio)
			}
			out = append(out, c)
		}
	}
	holmOver(ratios)
	return out
}

// inverse makes a shorter time the larger number. What did not last at all counts as a microsecond.
func inverse(ms []float64) []float64 {
	out := make([]float64, len(ms))
	for i, v := range ms {
		out[i] = 1 / max(v, 1e-3)
	}
	return out
}
