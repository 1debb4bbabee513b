package ha

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// scriptSide reads "id=m cluster=c group=7 seg=100 log=0-500 epochs=1@0,2@300".
func scriptSide(t *testing.T, line string) side {
	t.Helper()
	s := side{Hello: Hello{Cluster: "c", SegmentBytes: 100}, Group: 7}
	for _, f := range strings.Fields(line) {
		key, value, _ := strings.Cut(f, "=")
		scan := func(format string, args ...any) {
			_, err := fmt.Sscanf(value, format, args...)
			require.NoError(t, err, f)
		}
		switch key {
		case "id":
			s.ID = value
		case "cluster":
			s.Cluster = value
		case "group":
			scan("%d", &s.Group)
		case "seg":
			scan("%d", &s.SegmentBytes)
		case "log":
			scan("%d-%d", &s.Min, &s.End)
		case "epochs":
			for e := range strings.SplitSeq(value, ",") {
				var x Epoch
				_, err := fmt.Sscanf(e, "%d@%d", &x.Epoch, &x.Start)
				require.NoError(t, err)
				s.Epochs = append(s.Epochs, x)
			}
		default:
			t.Fatalf("unknown %s", f)
		}
	}
	require.NoError(t, s.validate())
	return s
}

// Proves what comes of every kind of meeting of a master (first line) and a slave (second).
func TestMeetings(t *testing.T) {
	datadriven.RunTest(t, "testdata/meetings", func(t *testing.T, d *datadriven.TestData) string {
		m, s, _ := strings.Cut(d.Input, "\n")
		got := decide(scriptSide(t, "id=master "+m), scriptSide(t, "id=slave "+s))
		switch {
		case got.Refuse != "":
			return "refuse: " + got.refusal() + "\n"
		case got.Demote:
			return "demote\n"
		case got.Ahead:
			return fmt.Sprintf("ahead of %d\n", got.Pos)
		}
		return fmt.Sprintf("%s at %d\n", got.Do, got.Pos)
	})
}

// Proves that whatever two nodes hold, the slave never keeps a byte that the master may not have, is
// never cut when it is ahead in the master's own epoch, and is done after a few steps.
func TestMeetingsEnd(t *testing.T) {
	histories := []Epochs{nil, {{Epoch: 1, Start: 0}}, {{Epoch: 1, Start: 0}, {Epoch: 2, Start: 100}}, {{Epoch: 1, Start: 0}, {Epoch: 2, Start: 200}}, {{Epoch: 1, Start: 0}, {Epoch: 3, Start: 150}}, {{Epoch: 2, Start: 100}}, {{Epoch: 1, Start: 0}, {Epoch: 2, Start: 100}, {Epoch: 4, Start: 200}}}
	for _, me := range histories {
		for _, se := range histories {
			for _, min := range []int64{0, 100, 200} {
				for _, mEnd := range []int64{0, 100, 150, 200, 250} {
					for _, sEnd := range []int64{0, 50, 100, 150, 200, 250, 300} {
						m := side{Hello: Hello{ID: "m", Epochs: me.upTo(mEnd), Min: min, End: mEnd}}
						s := side{Hello: Hello{ID: "s", Epochs: se.upTo(sEnd), End: sEnd}}
						if mEnd < min || m.validate() != nil || s.validate() != nil {
							continue
						}
						requireEnds(t, m, s)
					}
				}
			}
		}
	}
}

func requireEnds(t *testing.T, m, s side) {
	t.Helper()
	for range 4 {
		got := decide(m, s)
		what := fmt.Sprintf("master %+v, slave %+v: %+v", m, s, got)
		switch {
		case got.Refuse != "" || got.Demote:
			return
		case got.Ahead:
			require.Greater(t, s.End, m.End, what)
			require.Equal(t, m.Epochs.Last(), s.Epochs.Last(), what)
			return
		case got.Do == StepStream:
			require.Equal(t, s.End, got.Pos, what)
			require.LessOrEqual(t, got.Pos, m.End, what)
			require.GreaterOrEqual(t, got.Pos, m.Min, what)
			return
		case got.Do == StepTruncate:
			require.Less(t, got.Pos, s.End, what)
			s.End, s.Epochs = got.Pos, s.Epochs.upTo(got.Pos)
		case got.Do == StepRestart:
			s.Min, s.End, s.Epochs = got.Pos, got.Pos, nil
		}
	}
	t.Fatalf("no end: master %+v, slave %+v", m, s)
}

// Proves that greetings that make no sense are refused.
func TestHelloRefused(t *testing.T) {
	for _, text := range []string{
		`{`, `{}`, `{"id":"a","min":5,"end":3}`, `{"id":"a","min":-1}`, `{"id":"a","end":9,"checkLen":10}`,
		`{"id":"a","end":9999999,"checkLen":4097}`, `{"id":"a","epochs":[{"epoch":2,"start":0},{"epoch":1,"start":1}]}`,
	} {
		_, err := parseHello([]byte(text))
		require.Error(t, err, text)
	}
	_, err := parseHello([]byte(`{"id":"a","end":9,"checkLen":9}`))
	require.NoError(t, err)
	_, err = parseWelcome([]byte(`{"id":"a","pos":-1}`))
	require.Error(t, err)
}

// Proves that a master which was put back to an older copy of itself, and has led since under numbers that it used
// before, cuts nothing from its slave; and that a reign of before a promotion is a tail as ever.
func TestForgottenReign(t *testing.T) {
	first := Epoch{Epoch: 1, Start: 0, By: "m", Run: "a"}
	slave := side{Hello: Hello{ID: "s", Client: "s:1", End: 500, Epochs: Epochs{first, {Epoch: 2, Start: 100, By: "m", Run: "b"}}}, Group: 7}
	for _, since := range []Epochs{
		{{Epoch: 2, Start: 100, By: "m", Run: "c"}},
		{{Epoch: 2, Start: 100, By: "m", Run: "c"}, {Epoch: 3, Start: 100, By: "m", Run: "d"}},
		{{Epoch: 4, Start: 150, By: "m", Run: "e"}},
	} {
		m := side{Hello: Hello{ID: "m", End: 200, Epochs: append(Epochs{first}, since...)}, Group: 7}
		got := decide(m, slave)
		require.Contains(t, got.refusal(), "an older copy of the directory of m was put back")
		require.Contains(t, got.refusal(), "mqadmin promote -b s:1")
	}
	promoted := Epoch{Epoch: PromotionStep, Start: 90, By: "other"}
	m := side{Hello: Hello{ID: "m", End: 200, Epochs: Epochs{first, promoted, {Epoch: 2 * PromotionStep, Start: 150, By: "m", Run: "f"}}}, Group: 7}
	require.Equal(t, outcome{Do: StepTruncate, Pos: 90}, decide(m, slave))

	// Whoever loses the whole of a reign in a power cut still knows of it: what only the slave has is a tail.
	m.Epochs = Epochs{first, slave.Epochs[1]}.add(Epoch{Epoch: 3, Start: 100, By: "m", Run: "g"})
	require.Equal(t, outcome{Do: StepTruncate, Pos: 100}, decide(m, slave))
	for i := range int64(20) {
		m.Epochs = m.Epochs.add(Epoch{Epoch: 4 + i, Start: 100, By: "m"})
	}
	require.Len(t, m.Epochs, 1+sameStart)
}
