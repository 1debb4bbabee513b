package archtest

import (
	"bytes"
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

// root is where the module begins.
const root = "../.."

// tracked are the files that git tracks; without git, all that lie in the tree.
func tracked(t *testing.T) []string {
	t.Helper()
	var files []string
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil {
		for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
			if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
				files = append(files, name)
			}
		}
		require.NotEmpty(t, files)
		return files
	}
	require.NoError(t, filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "target" || rel == "bin") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			files = append(files, rel)
		}
		return nil
	}))
	require.NotEmpty(t, files)
	return files
}

// programs are the tracked Go files that are not tests.
func programs(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, name := range tracked(t) {
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "testdata/") {
			files = append(files, name)
		}
	}
	require.NotEmpty(t, files)
	return files
}

// goStatements and printing are the places of src that start a goroutine, and that print.
func goStatements(fset *token.FileSet, f *ast.File) []token.Position {
	var at []token.Position
	ast.Inspect(f, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			at = append(at, fset.Position(g.Pos()))
		}
		return true
	})
	return at
}

func printing(fset *token.FileSet, f *ast.File) []token.Position {
	var at []token.Position
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch x.Name + "." + sel.Sel.Name {
		case "fmt.Print", "fmt.Printf", "fmt.Println", "os.Stdout":
			at = append(at, fset.Position(sel.Pos()))
		}
		return true
	})
	return at
}

// Proves that nothing but internal/run starts a goroutine, so that each has an owner who waits for it.
func TestGoroutinesHaveOwners(t *testing.T) {
	fset := token.NewFileSet()
	for _, name := range programs(t) {
		if under(name, "internal/run", "internal/crashtest", "test") {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, at := range goStatements(fset, f) {
			t.Errorf("%s starts a goroutine that nobody waits for: use internal/run", at)
		}
	}
}

// Proves that nothing below cmd writes to standard output, which belongs to results.
func TestOnlyCommandsPrint(t *testing.T) {
	fset := token.NewFileSet()
	for _, name := range programs(t) {
		if under(name, "cmd", "internal/crashtest", "test") {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, at := range printing(fset, f) {
			t.Errorf("%s prints: only commands do", at)
		}
	}
}

// machine matches a path of somebody's machine and the name of a package host; its own parts are
// taken apart so that it does not match this file.
var machine = regexp.MustCompile(`(^|[^A-Za-z0-9_.])/` + `(work|farm|home|root)/` +
	`|proxy\.` + `golang\.org|repo1?\.` + `maven\.(org|apache\.org)|index\.` + `crates\.io|registry\.` + `npmjs`)

// Proves that no tracked text names a path of somebody's machine or the host of a package registry.
func TestNoMachinePaths(t *testing.T) {
	for _, name := range tracked(t) {
		b, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		if bytes.IndexByte(b, 0) >= 0 || strings.Contains(name, "testdata/fuzz/") {
			continue // not text
		}
		if at := machine.FindIndex(b); at != nil {
			t.Errorf("%s:%d names %q", name, 1+bytes.Count(b[:at[1]], []byte("\n")), b[at[0]:at[1]])
		}
	}
}

// Proves that each of the searches above finds what it looks for.
func TestSearchesFind(t *testing.T) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x.go", "package x\nfunc f() {\n\tgo f()\n\tfmt.Println(1)\n\t_ = os.Stdout\n}\n", 0)
	require.NoError(t, err)
	require.Len(t, goStatements(fset, f), 1)
	require.Len(t, printing(fset, f), 2)
	for _, bad := range []string{"see /" + "work/x", "dir=/" + "home/me/x", "https://proxy." + "golang.org", "repo1." + "maven.org"} {
		require.True(t, machine.MatchString(bad), bad)
	}
	for _, good := range []string{"/net" + "work/x", "docs/home/x", "./work/x", "Maven Central"} {
		require.False(t, machine.MatchString(good), good)
	}
}
