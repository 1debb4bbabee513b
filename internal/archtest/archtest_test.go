package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// floors says on which floor a package lives; a package may import what is on a lower floor, and
// what the table beside says. The longest prefix counts.
var floors = map[string]int{
	"rmq/internal/binenc": -1, "rmq/internal/vfs": -1, "rmq/internal/run": -1, "rmq/internal/watermark": -1, "rmq/internal/config": -1,
	"rmq/message": 0, "rmq/engine/format": 0, "rmq/remoting/protocol": 0, "rmq/filter": 0,
	"rmq/engine/mappedfile": 1,
	"rmq/engine":            2, "rmq/remoting": 2,
	"rmq/engine/storetool": 3, "rmq/replication": 3, "rmq/client": 3, "rmq/results": 3, "rmq/results/report": 4,
	"rmq/broker": 4, "rmq/namesrv": 4,
	"rmq/bench": 5, "rmq/bench/probe": 4, "rmq/bench/driver": 6,
	"rmq/cmd": 7,
}

// testOnly are rooms that no program links.
var testOnly = []string{"rmq/internal/archtest", "rmq/internal/crashtest", "rmq/results/resultstest", "rmq/test"}

// never are imports that the floors alone would allow, transitively.
var never = map[string][]string{
	"rmq/message":           {"rmq/internal/vfs", "rmq/internal/run", "rmq/internal/watermark", "os", "net"},
	"rmq/engine/format":     {"rmq/internal/vfs", "rmq/message", "os", "net"},
	"rmq/engine/mappedfile": {"rmq/message"},
	"rmq/engine":            {"rmq/results", "github.com/spf13/pflag", "github.com/spf13/cobra", "net/http"},
	"rmq/results":           {"rmq/engine", "rmq/bench", "rmq/message"},
	"rmq/results/report":    {"rmq/engine", "rmq/bench", "rmq/message"},
	"rmq/bench":             {"rmq/engine", "rmq/broker", "rmq/client"},
	"rmq/bench/probe":       {"rmq/engine", "rmq/message", "rmq/internal/vfs"},
}

func floorOf(pkg string) (int, bool) {
	for p := pkg; p != "." && p != "/"; p = filepath.Dir(p) {
		if f, ok := floors[p]; ok {
			return f, true
		}
	}
	return 0, false
}

func under(pkg string, roots []string) bool {
	for _, r := range roots {
		if pkg == r || strings.HasPrefix(pkg, r+"/") {
			return true
		}
	}
	return false
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestFloors proves that imports go down only, and that nothing arrives by a detour where it must not.
func TestFloors(t *testing.T) {
	for _, line := range goList(t, "-f", "{{.ImportPath}} {{join .Imports \",\"}} {{join .Deps \",\"}}", "./...") {
		pkg, rest, _ := strings.Cut(line, " ")
		imports, deps, _ := strings.Cut(rest, " ")
		if under(pkg, testOnly) {
			continue
		}
		floor, ok := floorOf(pkg)
		require.True(t, ok, "%s stands on no floor: add it to the table, or put it where it belongs", pkg)
		for _, imp := range strings.Split(imports, ",") {
			if !strings.HasPrefix(imp, "rmq/") {
				continue
			}
			require.False(t, under(imp, testOnly), "%s imports %s, which is for tests", pkg, imp)
			f, ok := floorOf(imp)
			require.True(t, ok, imp)
			require.Less(t, f, floor, "%s (floor %d) imports %s (floor %d)", pkg, floor, imp, f)
		}
		for _, dep := range strings.Split(deps, ",") {
			for _, n := range never[pkg] {
				require.False(t, dep == n && strings.HasPrefix(n, "rmq/") || dep == n && !strings.Contains(n, "/") && strings.Contains(","+imports+",", ","+n+","),
					"%s must not reach %s", pkg, dep)
			}
		}
	}
}

// sources are the tracked Go files, tests included if asked.
func sources(t *testing.T, tests bool) []string {
	t.Helper()
	var files []string
	root := "../.."
	require.NoError(t, filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "target" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(p, ".go") && (tests || !strings.HasSuffix(p, "_test.go")) {
			files = append(files, p)
		}
		return nil
	}))
	require.NotEmpty(t, files)
	return files
}

// TestGoroutinesHaveOwners proves that only internal/run starts goroutines.
func TestGoroutinesHaveOwners(t *testing.T) {
	fset := token.NewFileSet()
	for _, name := range sources(t, false) {
		if strings.Contains(name, "internal/run/") || strings.Contains(name, "internal/crashtest/") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine that nobody waits for: use internal/run", fset.Position(g.Pos()))
			}
			return true
		})
	}
}

// TestOnlyCommandsPrint proves that nothing below cmd writes to standard output.
func TestOnlyCommandsPrint(t *testing.T) {
	printing := regexp.MustCompile(`\bfmt\.Print(f|ln)?\(|\bos\.Stdout\b`)
	for _, name := range sources(t, false) {
		if strings.Contains(name, "/cmd/") || strings.Contains(name, "internal/crashtest/") {
			continue
		}
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.False(t, printing.Match(b), "%s prints", name)
	}
}

// TestNoMachinePaths proves that no path of somebody's machine and no package host is in the sources.
func TestNoMachinePaths(t *testing.T) {
	bad := regexp.MustCompile(`(^|[^A-Za-z0-9_.])/` + `(work|farm|home|root)/|proxy\.` + `golang\.org|repo1\.` + `maven\.org`)
	for _, name := range sources(t, true) {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		if m := bad.Find(b); m != nil {
			t.Errorf("%s names %s", name, m)
		}
	}
}
