package archtest

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// floors says on which floor a package lives; imports go down only. The longest prefix counts, and
// every package needs a line, so that a new one is placed on purpose.
var floors = map[string]int{
	"rmq/internal/binenc": -1, "rmq/internal/vfs": -1, "rmq/internal/run": -1, "rmq/internal/watermark": -1, "rmq/internal/config": -1,
	"rmq/message": 0, "rmq/engine/format": 0, "rmq/remoting/protocol": 0, "rmq/filter": 0,
	"rmq/internal/bakfile": 0, "rmq/internal/daemon": 0, "rmq/internal/vfs/powercut": 0,
	"rmq/engine/mappedfile": 1,
	"rmq/engine":            2,
	"rmq/remoting":          2,
	"rmq/client":            3,
	"rmq/engine/storetool":  3, "rmq/results": 3, "rmq/results/report": 4,
	"rmq/replication": 3, "rmq/replication/ha": 4, "rmq/replication/raftlog": 4,
	"rmq/broker": 5, "rmq/namesrv": 4,
	"rmq/bench/probe": 4, "rmq/bench": 5, "rmq/bench/driver": 6, "rmq/bench/failover": 7,
	"rmq/cmd/internal": 8, "rmq/cmd": 9,
}

// testOnly are rooms that no program links.
var testOnly = []string{"rmq/internal/archtest", "rmq/internal/crashtest", "rmq/internal/vfs/powercut", "rmq/results/resultstest", "rmq/test"}

// never are packages that must not be reached by any detour, though the floors would allow it.
var never = map[string][]string{
	"rmq/internal/binenc":    {"rmq"},
	"rmq/internal/config":    {"rmq"},
	"rmq/internal/daemon":    {"github.com"},
	"rmq/internal/run":       {"rmq"},
	"rmq/internal/vfs":       {"rmq"},
	"rmq/internal/watermark": {"rmq"},
	"rmq/message":            {"rmq/internal/vfs", "rmq/internal/run", "rmq/internal/watermark", "rmq/engine"},
	"rmq/engine/format":      {"rmq/internal/vfs", "rmq/internal/run", "rmq/internal/watermark", "rmq/message"},
	"rmq/filter":             {"rmq/internal/vfs", "rmq/internal/run", "rmq/internal/watermark", "rmq/internal/config", "rmq/message"},
	"rmq/remoting/protocol":  {"rmq/internal/vfs", "rmq/internal/run", "rmq/internal/watermark", "rmq/internal/config", "rmq/message", "rmq/engine", "net"},
	"rmq/engine/mappedfile":  {"rmq/message"},
	"rmq/engine":             {"github.com/spf13", "github.com/olekukonko", "github.com/HdrHistogram", "net/http"},
	"rmq/engine/storetool":   {"github.com/spf13", "github.com/olekukonko", "net/http"},
	"rmq/remoting":           {"rmq/engine", "rmq/internal/vfs", "github.com/spf13", "net/http"},
	"rmq/client":             {"rmq/engine", "rmq/broker", "rmq/namesrv", "github.com/spf13", "net/http"},
	"rmq/replication":        {"rmq/remoting", "rmq/client", "rmq/broker", "rmq/namesrv", "github.com/spf13", "net/http"},
	"rmq/results":            {"rmq/engine", "rmq/bench", "rmq/message", "net/http"},
	"rmq/results/report":     {"rmq/engine", "rmq/bench", "rmq/message", "net/http"},
	"rmq/broker":             {"rmq/namesrv", "rmq/client", "rmq/bench", "rmq/results", "github.com/spf13"},
	"rmq/namesrv":            {"rmq/engine", "rmq/broker", "rmq/replication", "github.com/spf13"},
	"rmq/bench":              {"rmq/engine"},
	"rmq/bench/probe":        {"rmq/engine", "rmq/message", "rmq/internal/vfs"},
}

// neverDirect are imports that must not stand in the files of a package, though something below it
// may have them.
var neverDirect = map[string][]string{
	"rmq/message":           {"os", "net"},
	"rmq/remoting/protocol": {"os", "net", "time"},
	"rmq/engine/format":     {"os", "net", "time"},
	"rmq/engine":            {"golang.org/x/sys/unix", "github.com/edsrzf/mmap-go", "syscall"},
}

// pkg is what the checks need of a line of go list.
type pkg struct {
	path          string
	imports, deps []string
}

func under(p string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") })
}

func floorOf(p string) (int, bool) {
	for ; p != "."; p = path.Dir(p) {
		if f, ok := floors[p]; ok {
			return f, true
		}
	}
	return 0, false
}

// complaints are all ways in which p breaks the rules of the house.
func complaints(p pkg) []string {
	if under(p.path, testOnly...) {
		return nil
	}
	floor, ok := floorOf(p.path)
	if !ok {
		return []string{p.path + " stands on no floor: add it to the table, or put it where it belongs"}
	}
	var bad []string
	for _, dep := range p.deps {
		if under(dep, "rmq") {
			f, ok := floorOf(dep)
			switch {
			case under(dep, testOnly...):
				bad = append(bad, fmt.Sprintf("%s reaches %s, which is for tests", p.path, dep))
			case ok && f >= floor:
				bad = append(bad, fmt.Sprintf("%s (floor %d) reaches %s (floor %d)", p.path, floor, dep, f))
			}
		}
		if under(dep, never[p.path]...) {
			bad = append(bad, fmt.Sprintf("%s must not reach %s", p.path, dep))
		}
	}
	for _, imp := range p.imports {
		if slices.Contains(neverDirect[p.path], imp) {
			bad = append(bad, fmt.Sprintf("%s must not import %s", p.path, imp))
		}
	}
	return bad
}

// Proves that imports go down only, and that nothing arrives by a detour where it must not.
func TestFloors(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}};{{join .Imports ","}};{{join .Deps ","}}`, "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), ";")
		require.Len(t, f, 3)
		seen[f[0]] = true
		for _, c := range complaints(pkg{path: f[0], imports: strings.Split(f[1], ","), deps: strings.Split(f[2], ",")}) {
			t.Error(c)
		}
	}
	for p := range never {
		require.True(t, seen[p], "%s has rules but is gone", p)
	}
}

// Proves that the check of the floors can fail, once for every kind of rule.
func TestFloorsNoticesEachKind(t *testing.T) {
	for _, c := range []struct {
		pkg  pkg
		want string
	}{
		{pkg{path: "rmq/message", deps: []string{"rmq/internal/binenc"}}, ""},
		{pkg{path: "rmq/bench/driver/embedded", deps: []string{"rmq/engine", "rmq/bench"}}, ""},
		{pkg{path: "rmq/newroom"}, "stands on no floor"},
		{pkg{path: "rmq/engine", deps: []string{"rmq/results"}}, "(floor 2) reaches rmq/results (floor 3)"},
		{pkg{path: "rmq/results", deps: []string{"rmq/engine/format"}}, "must not reach rmq/engine/format"},
		{pkg{path: "rmq/bench", deps: []string{"rmq/engine"}}, "must not reach rmq/engine"},
		{pkg{path: "rmq/engine", deps: []string{"github.com/spf13/pflag"}}, "must not reach github.com/spf13/pflag"},
		{pkg{path: "rmq/cmd/rmqbench", deps: []string{"rmq/internal/crashtest"}}, "for tests"},
		{pkg{path: "rmq/message", imports: []string{"net"}}, "must not import net"},
		{pkg{path: "rmq/internal/run", deps: []string{"rmq/internal/vfs"}}, "must not reach rmq/internal/vfs"},
	} {
		got := strings.Join(complaints(c.pkg), "\n")
		if c.want == "" {
			require.Empty(t, got)
			continue
		}
		require.Contains(t, got, c.want)
	}
}
