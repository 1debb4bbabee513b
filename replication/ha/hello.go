package ha

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Hello is what a node says of itself when it dials another.
type Hello struct {
	ID           string `json:"id"`
	Incarnation  string `json:"incarnation"` // of the process, drawn at its start
	Cluster      string `json:"cluster"`
	SegmentBytes int64  `json:"segmentBytes"`
	Epochs       Epochs `json:"epochs"`
	Min          int64  `json:"min"` // begin of its log
	End          int64  `json:"end"`
	// The CRC-32C of the CheckLen bytes before End says whether the two logs are one.
	CheckLen int    `json:"checkLen"`
	CheckCRC uint32 `json:"checkCrc"`
	Client   string `json:"client,omitempty"` // where clients reach it
	Listen   string `json:"listen,omitempty"` // its replication port
	// Who leads in its newest epoch, for a master that has been replaced.
	Leader       string `json:"leader,omitempty"`
	LeaderClient string `json:"leaderClient,omitempty"`
}

// Welcome is the answer.
type Welcome struct {
	Hello
	Do        Step   `json:"do"`
	Pos       int64  `json:"pos"` // where
	Mode      string `json:"mode"`
	Durable   bool   `json:"durable"` // acks count once they are on the slave's disk
	Heartbeat int64  `json:"heartbeatMillis"`
}

// Step is what the side that has dialled is to do.
type Step string

// The steps. After each but the first the slave dials again.
const (
	StepStream   Step = "stream"   // take what follows from Pos on
	StepPull     Step = "pull"     // send what you have from Pos on: the master has lost it
	StepTruncate Step = "truncate" // cut the log at Pos
	StepRestart  Step = "restart"  // begin an empty log at Pos
	StepRedirect Step = "redirect" // somebody else leads: Leader
	StepNone     Step = "none"     // the answer to an announcement
)

func parseHello(b []byte) (h Hello, err error) {
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	return h, h.validate()
}

func parseWelcome(b []byte) (w Welcome, err error) {
	if err := json.Unmarshal(b, &w); err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	if w.Pos < 0 || w.Heartbeat < 0 {
		return w, fmt.Errorf("welcome to position %d", w.Pos)
	}
	return w, w.validate()
}

func (h *Hello) validate() error {
	if h.Min < 0 || h.End < h.Min || h.CheckLen < 0 || h.CheckLen > checkBytes || int64(h.CheckLen) > h.End-h.Min {
		return fmt.Errorf("hello of a log from %d to %d with %d bytes checked", h.Min, h.End, h.CheckLen)
	}
	if h.ID == "" {
		return fmt.Errorf("hello without an id")
	}
	return h.Epochs.validate()
}

// checkBytes is how much of the end of a log two nodes compare before they go on.
const checkBytes = 4096

// side is one of two nodes that meet.
type side struct {
	Hello
	Group uint64
}

func (s *side) empty() bool { return s.Min == s.End }

// outcome is what comes of a meeting.
type outcome struct {
	Do     Step
	Pos    int64
	Demote bool   // the master is none any more: the other knows a newer epoch
	Refuse string // why they do not belong together
	Fix    string // and what to do
	Ahead  bool   // the slave holds more than the master in the master's own epoch
}

func refuse(fix, format string, args ...any) outcome {
	return outcome{Refuse: fmt.Sprintf(format, args...), Fix: fix}
}

// refusal is what the other side is told.
func (o *outcome) refusal() string {
	if o.Refuse == "" {
		return ""
	}
	return o.Refuse + ": " + o.Fix
}

// whoseCopy is what to do when two logs are not one: nobody but the operator knows which has the messages.
func whoseCopy(m, s side) string {
	return fmt.Sprintf("if %s has the messages, move the directory of %s away and start it empty: it is filled; if %s came back with an empty or older directory, end it, promote %s (mqadmin promote -b %s), and start %s empty as its slave",
		m.ID, s.ID, m.ID, s.ID, s.Client, m.ID)
}

// forgot says whether slave s holds bytes behind pos, where the logs part, of a reign of m itself that m does not know,
// though nobody else has led since.
func forgot(m, s side, pos int64) bool {
	last := s.Epochs.newest()
	if pos >= s.End || last.Start >= s.End || last.By != m.ID || slices.ContainsFunc(m.Epochs, last.is) {
		return false
	}
	return !slices.ContainsFunc(m.Epochs, func(e Epoch) bool { return e.Start >= pos && e.By != m.ID })
}

// aheadFix is what to do when the slave s of m holds what m has lost.
func aheadFix(m, s side) string {
	return fmt.Sprintf("end %s, promote %s (mqadmin promote -b %s), and start %s again: it follows, and takes what it lacks; or, to give up what only the slave has, move the directory of %s away and start it empty",
		m.ID, s.ID, s.Client, m.ID, s.ID)
}

// decide says how slave s goes on with master m. It knows nothing of bytes: whether the logs agree
// before the position of a [StepStream] is compared by the caller.
func decide(m, s side) outcome {
	switch {
	case m.Cluster != s.Cluster:
		return refuse("check brokerClusterName, brokerName and haMasterAddress", "%s is of cluster %q, %s of %q", s.ID, s.Cluster, m.ID, m.Cluster)
	case m.SegmentBytes != s.SegmentBytes:
		return refuse("give both the same mappedFileSizeCommitLog; a directory keeps the one it was made with", "%s has segments of %d bytes, %s of %d",
			s.ID, s.SegmentBytes, m.ID, m.SegmentBytes)
	case m.ID == s.ID:
		return refuse("give each broker of a name a brokerId or address of its own", "both sides are %s", m.ID)
	case m.Group != s.Group && m.Group != 0 && s.Group != 0:
		return refuse(whoseCopy(m, s), "%s holds the log of group %016x, %s that of %016x, which is another one",
			s.ID, s.Group, m.ID, m.Group)
	case s.Epochs.Last() > m.Epochs.Last():
		return outcome{Demote: true}
	case s.empty() && m.Min <= s.End && s.End <= m.End:
		return outcome{Do: StepStream, Pos: s.End}
	case s.empty():
		return outcome{Do: StepRestart, Pos: m.Min}
	}
	pos := meet(m.Epochs, m.End, s.Epochs, s.End)
	switch {
	case m.empty() && m.Group == s.Group && m.Min == s.Min && s.Epochs.newest().is(m.Epochs.newest()):
		return outcome{Ahead: true, Pos: m.Min} // the master has lost all of it
	case pos < s.Min, pos == s.Min && (m.Group == 0 || m.Group != s.Group):
		return refuse(whoseCopy(m, s), "the log of %s (%d to %d, newest epoch %d) has nothing in common with that of %s (%d to %d, epoch %d)",
			s.ID, s.Min, s.End, s.Epochs.Last(), m.ID, m.Min, m.End, m.Epochs.Last())
	case pos < s.End && pos == m.End && s.Epochs.newest().is(m.Epochs.newest()):
		return outcome{Ahead: true, Pos: pos}
	case forgot(m, s, pos):
		return refuse(aheadFix(m, s), "%s holds the log up to %d, in epoch %d in which %s led and of which it knows nothing: an older copy of the directory of %s was put back, and what comes behind %d is not cut from the slave",
			s.ID, s.End, s.Epochs.Last(), m.ID, m.ID, pos)
	case pos < m.Min:
		return outcome{Do: StepRestart, Pos: m.Min}
	case pos < s.End:
		return outcome{Do: StepTruncate, Pos: pos}
	}
	return outcome{Do: StepStream, Pos: pos}
}
