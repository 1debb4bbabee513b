package client

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"rmq/remoting/protocol"
)

// parseProperties reads the text in which brokers and name servers show their configuration: a name, an
// equals sign and a value a line, nothing escaped.
func parseProperties(text []byte) map[string]string {
	out := map[string]string{}
	for line := range bytes.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), "=")
		if name = strings.TrimSpace(name); ok && name != "" && !strings.HasPrefix(name, "#") {
			out[name] = strings.TrimSpace(value)
		}
	}
	return out
}

// formatProperties is the reverse, sorted.
func formatProperties(values map[string]string) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(values)) {
		b.WriteString(name + "=" + values[name] + "\n")
	}
	return b.Bytes()
}

func topicCounts(answers map[string]*protocol.Command, field string) map[string]int {
	out := map[string]int{}
	for addr, resp := range answers {
		n, err := strconv.Atoi(resp.GetString(field))
		if err == nil {
			out[addr] = n
		}
	}
	return out
}
