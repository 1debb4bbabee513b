package report_test

import (
	"bytes"
	"errors"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/results"
	"rmq/results/report"
	"rmq/results/resultstest"
)

func grid() resultstest.Options {
	return resultstest.Options{Cells: resultstest.Matrix([]string{"async", "sync"}, []int{1, 64, 1024}, []int{1, 8, 64}), Reps: 6, DurS: 6}
}

// troubled is a run with everything that can go wrong in it: an invalid cell, an invalid
// repetition, missing counters, an early end.
func troubled() resultstest.Options {
	return resultstest.Options{
		Reps: 4, DurS: 5,
		Manifest: func(m *results.Manifest) { m.Complete, m.Reason = false, "interrupted" },
		Edit: func(r *results.Rep) {
			if r.Cell.Topics == 256 && r.Cell.Flush == "sync" {
				r.Open.Verify.Lost = 3
				r.Closed.Verify.Lost = 3
			}
			if r.Cell.Topics == 1 && r.Block == 2 {
				r.Closed.Resources.StealS = results.Ptr(1.5)
				r.Closed.Throughput.AckedPerS *= 0.7
			}
			r.Open.Resources.DevFlushes = nil
			r.Closed.Phases[2].Note = "not_steady: throughput still moved 6 % in the last 2 s"
		},
	}
}

func page(t *testing.T, o resultstest.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, open(t, o).HTML(&b, report.HTMLOptions{}))
	return b.Bytes()
}

// Proves that the same files give the same page, to the byte.
func TestHTMLGolden(t *testing.T) {
	o := resultstest.Options{Cells: resultstest.Matrix([]string{"async", "sync"}, []int{1}, []int{64}), Reps: 2, DurS: 2}
	got := page(t, o)
	require.Equal(t, string(got), string(page(t, o)))
	golden(t, "page.html", got)
}

var (
	address = regexp.MustCompile(`(?i)(https?:|//[a-z0-9]|\bftp:|data:|javascript:|@import|url\()`)
	loads   = regexp.MustCompile(`(?i)<(link|iframe|object|embed|img|image|use|base|form|video|audio|source)\b|\b(src|srcset|xlink:href|action|poster|background)\s*=`)
	href    = regexp.MustCompile(`(?i)\bhref="([^"]*)"`)
	fetches = regexp.MustCompile(`\b(fetch|XMLHttpRequest|WebSocket|EventSource|importScripts|sendBeacon|import)\b\s*\(`)
)

// Proves that the page fetches nothing: no address, no element or attribute that loads, no script
// that could, and links only within the page or to files beside it.
func TestHTMLFetchesNothing(t *testing.T) {
	for name, o := range map[string]resultstest.Options{"quick": quick(), "troubled": troubled()} {
		got := string(page(t, o))
		for what, re := range map[string]*regexp.Regexp{"address": address, "loading element": loads, "fetch": fetches} {
			require.Empty(t, re.FindAllString(got, -1), "%s: %s", name, what)
		}
		hrefs := href.FindAllStringSubmatch(got, -1)
		require.NotEmpty(t, hrefs)
		ids := regexp.MustCompile(`\bid="([^"]+)"`).FindAllStringSubmatch(got, -1)
		known := map[string]bool{}
		for _, id := range ids {
			require.False(t, known[id[1]], "id %s twice", id[1])
			known[id[1]] = true
		}
		for _, h := range hrefs {
			if anchor, ok := strings.CutPrefix(h[1], "#"); ok {
				require.True(t, known[anchor], "link to %s leads nowhere", h[1])
				continue
			}
			require.True(t, filepath.IsLocal(h[1]), "%s leaves the run's directory", h[1])
		}
	}
}

// Proves that links to raw data lead to files that exist.
func TestHTMLRawDataLinks(t *testing.T) {
	s, err := resultstest.Write(filepath.Join(t.TempDir(), "run"), quick())
	require.NoError(t, err)
	r, err := report.New(s)
	require.NoError(t, err)
	require.NoError(t, s.AppendHistory(r.History()))
	var b bytes.Buffer
	require.NoError(t, r.HTML(&b, report.HTMLOptions{LinkBase: "run"}))
	n := 0
	for _, h := range href.FindAllStringSubmatch(b.String(), -1) {
		if strings.HasPrefix(h[1], "#") {
			continue
		}
		n++
		_, err := os.Stat(filepath.Join(filepath.Dir(s.Dir()), h[1]))
		require.NoError(t, err, h[1])
	}
	require.Equal(t, 4+4*3*3, n, "four files of the run, three of each repetition")
}

// Proves that links follow a page that is written elsewhere.
func TestLinkBase(t *testing.T) {
	require.Empty(t, report.LinkBase("runs/a/report.html", "runs/a"))
	require.Equal(t, "a", report.LinkBase("runs/report.html", "runs/a"))
	require.Equal(t, "../runs/a", report.LinkBase("pages/report.html", "runs/a"))
}

// Proves what a page must say: troubles first, classes apart, invalid cells marked, missing
// counters named, the command to repeat each cell.
func TestHTMLContent(t *testing.T) {
	got := strings.ReplaceAll(string(page(t, troubled())), "\u00a0", " ")
	for _, want := range []string{
		"INCOMPLETE: interrupted", "INVALID", "lost 3, duplicated 0", "1 of 4 repetitions left out, closed loop: steal 15 %", "not_steady", "unverified",
		"the device counts no flushes", "fsync, 1 node", "page cache, 1 node", "price of D1 over D1a", "prefers-color-scheme: dark", "@media print",
		"rmqbench run --flush=sync --repl=none --write=pwrite --topics=256", "shared host", "mq-deadline",
	} {
		require.Contains(t, got, want, "the page does not say %q", want)
	}
	require.Less(t, strings.Index(got, "The run is incomplete"), strings.Index(got, "bottleneck flush"), "troubles come first")
	require.False(t, strings.Contains(got, "NaN") || strings.Contains(got, "Inf"), "a number is missing")
	require.NotContains(t, string(page(t, quick())), `id="heat"`, "2 × 2 cells make no heat map")
	require.Contains(t, string(page(t, grid())), `id="heat"`)
}

// Proves that a run that ended before its first result, and one without environment and probe,
// still have a page and a screen.
func TestReportsOfAlmostNothing(t *testing.T) {
	m := &results.Manifest{RunID: "x", Reason: "interrupted", Cells: quick().Cells, Order: [][]int{{0}}}
	m.Cells = resultstest.Matrix([]string{"sync"}, []int{1, 8}, []int{64})
	s, err := results.Create(filepath.Join(t.TempDir(), "run"), m)
	require.NoError(t, err)
	r, err := report.New(s)
	require.NoError(t, err)
	for _, f := range []func(*bytes.Buffer) error{
		func(b *bytes.Buffer) error { return r.Text(b) },
		func(b *bytes.Buffer) error { return r.Markdown(b) },
		func(b *bytes.Buffer) error { return r.JSON(b) },
		func(b *bytes.Buffer) error { return r.HTML(b, report.HTMLOptions{}) },
	} {
		var b bytes.Buffer
		require.NoError(t, f(&b))
		require.Contains(t, b.String(), "interrupted")
	}
	require.Empty(t, r.History())
}

// Proves that the command to repeat a cell says what matters and is no default: that the log had no
// bound, and which disk was measured.
func TestRepeatSaysBoundAndDisk(t *testing.T) {
	for dir, want := range map[string]string{
		"/mnt/nvme0": "--max-bytes=0B --seed=0 --dir=/mnt/nvme0 --out again",
		"/mnt/it's":  `--max-bytes=0B --seed=0 --dir='/mnt/it'\''s' --out again`,
		"":           "--max-bytes=0B --seed=0 --out again",
	} {
		r := open(t, resultstest.Options{DurS: 1, Reps: 1, Manifest: func(m *results.Manifest) { m.MaxBytes, m.Config["dir"] = 0, dir }})
		require.Contains(t, r.RepeatCommand(r.Run().Cells[0].Cell), want)
	}
}

// Proves that the labels of an axis are the short decimals that people write.
func TestTicksAreShort(t *testing.T) {
	require.Equal(t, []float64{-0.1, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}, report.Ticks(-0.12, 0.8, 10))
	require.Equal(t, []float64{0, 20, 40, 60}, report.Ticks(0, 60, 3))
}

// Proves that the page of a browser is more than bytes: headless Chromium renders it, light and
// dark, wide and narrow, into a picture that is not empty. Skips loudly where there is none.
func TestHTMLPicture(t *testing.T) {
	browser := ""
	for _, n := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(n); err == nil {
			browser = p
			break
		}
	}
	if browser == "" {
		t.Skip("SKIPPED: no chromium on PATH, nobody has looked at the page")
	}
	dir := t.ArtifactDir()
	file := filepath.Join(dir, "report.html")
	require.NoError(t, os.WriteFile(file, page(t, quick()), 0o644))
	for name, look := range map[string][]string{
		"wide-light":  {"--window-size=1280,1600", "--blink-settings=preferredColorScheme=1"},
		"narrow-dark": {"--window-size=500,1600", "--blink-settings=preferredColorScheme=0"},
	} {
		shot := filepath.Join(dir, name+".png")
		args := append([]string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), "--screenshot=" + shot,
		}, look...)
		out, err := exec.CommandContext(t.Context(), browser, append(args, "file://"+file)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		f, err := os.Open(shot)
		require.NoError(t, err)
		img, err := png.Decode(f)
		require.NoError(t, errors.Join(err, f.Close()))
		colours := map[color.Color]int{}
		for y := 0; y < img.Bounds().Dy(); y += 3 {
			for x := 0; x < img.Bounds().Dx(); x += 3 {
				colours[img.At(x, y)]++
			}
		}
		require.Greater(t, len(colours), 50, "%s: a page of text and charts has more colours than this", name)
		r, g, b, _ := img.At(2, 2).RGBA()
		require.Equal(t, name == "narrow-dark", r+g+b < 3*0x8000, "%s: the ground has the wrong shade", name)
	}
}
