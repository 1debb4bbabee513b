package results

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// Part says which of its two halves a result of a cell is. They are reported apart: latencies of
// a closed loop hide stalls, and the maximum of an open loop is whatever it was told to be.
type Part string

// The parts of a cell.
const (
	PartClosed Part = "closed" // a fixed number of outstanding messages: the maximum rate
	PartOpen   Part = "open"   // messages fall due on a schedule that waits for nobody: latencies
)

// Cell is one combination of factor levels. All fields are factors: two runs of equal cells may
// be compared, and where a field differs it is printed first.
type Cell struct {
	Driver    string            `json:"driver"`            // embedded, null, wire, null-server
	Flush     string            `json:"flush"`             // async, sync
	Repl      string            `json:"repl"`              // none
	Write     string            `json:"write"`             // pwrite, mmap
	Topics    int               `json:"topics"`            // number of topics
	Queues    int               `json:"queues"`            // queues per topic
	SizeBytes int               `json:"size_bytes"`        // message body
	Producers int               `json:"producers"`         // concurrent senders
	Window    int               `json:"window"`            // outstanding messages per sender
	Rate      string            `json:"rate"`              // as asked: "" (maximum, then 50 % of it), "max", "50%", "60000"
	Arrival   string            `json:"arrival,omitempty"` // of the open part: uniform, poisson
	Keys      string            `json:"keys,omitempty"`    // topic choice: uniform, zipf:0.99, rr
	Entropy   float64           `json:"entropy,omitempty"` // of the body, 0 to 1
	Consumers int               `json:"consumers,omitempty"`
	Extra     map[string]string `json:"extra,omitempty"` // factors that have no field of their own
}

// Stores says whether the driver keeps messages: what it acknowledges can be read back.
func (c Cell) Stores() bool { return c.Driver != "null" && c.Driver != "null-server" }

// Factor is one factor of a cell with its level as text, units included.
type Factor struct{ Name, Level string }

// Factors lists every factor in a fixed order.
func (c Cell) Factors() []Factor {
	f := []Factor{
		{"driver", c.Driver},
		{"flush", c.Flush},
		{"repl", c.Repl},
		{"write", c.Write},
		{"topics", strconv.Itoa(c.Topics)},
		{"queues", strconv.Itoa(c.Queues)},
		{"size", FormatSize(int64(c.SizeBytes))},
		{"producers", strconv.Itoa(c.Producers)},
		{"window", strconv.Itoa(c.Window)},
		{"rate", c.Rate},
		{"arrival", c.Arrival},
		{"keys", c.Keys},
		{"entropy", trimFloat(c.Entropy)},
		{"consumers", strconv.Itoa(c.Consumers)},
	}
	names := make([]string, 0, len(c.Extra))
	for n := range c.Extra {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		f = append(f, Factor{n, c.Extra[n]})
	}
	return f
}

var unsafeInName = regexp.MustCompile(`[^A-Za-z0-9._=-]+`)

// ID names the cell's directory, and the cell wherever one line must do: short, safe in a path,
// equal exactly when the factors are, as long as levels differ in letters and digits.
func (c Cell) ID() string {
	parts := []string{
		c.Flush, c.Repl, c.Write,
		"t" + strconv.Itoa(c.Topics),
		"q" + strconv.Itoa(c.Queues),
		FormatSize(int64(c.SizeBytes)),
		"p" + strconv.Itoa(c.Producers),
		"w" + strconv.Itoa(c.Window),
		c.Driver,
	}
	if c.Rate != "" {
		parts = append(parts, "r"+strings.ReplaceAll(c.Rate, "%", "pct"))
	}
	if c.Arrival != "" && c.Arrival != "uniform" {
		parts = append(parts, c.Arrival)
	}
	if c.Keys != "" && c.Keys != "uniform" {
		parts = append(parts, "k"+c.Keys)
	}
	if c.Entropy != 0 {
		parts = append(parts, "e"+trimFloat(c.Entropy))
	}
	if c.Consumers != 0 {
		parts = append(parts, "c"+strconv.Itoa(c.Consumers))
	}
	for _, f := range c.Factors()[14:] {
		parts = append(parts, f.Name+"="+f.Level)
	}
	for i, p := range parts {
		parts[i] = unsafeInName.ReplaceAllString(p, "_")
	}
	return strings.Join(parts, "-")
}

// FormatSize prints a number of bytes in the largest binary unit that keeps it whole, the form
// that flags take.
func FormatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for i+1 < len(units) && n != 0 && n%1024 == 0 {
		n /= 1024
		i++
	}
	return fmt.Sprintf("%d%s", n, units[i])
}

func trimFloat(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
