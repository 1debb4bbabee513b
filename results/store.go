package results

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"syscall"
)

// Names inside a run's directory.
const (
	ManifestFile = "manifest.json"
	EnvFile      = "env.json"
	ProbeFile    = "probe.json"
	CellsDir     = "cells"
	ResultFile   = "result.json"
	HistFile     = "hist.bin"
	SeriesFile   = "series.ndjson"
	HistoryFile  = "history.jsonl"
)

// Store is the directory of one run. Each file is written beside its place and renamed into it,
// so whoever reads sees the old one, the new one or none. Methods are safe for concurrent use.
type Store struct {
	dir string
	mu  sync.Mutex
}

// Create makes dir ready for a new run and writes its manifest. Errors: [ErrExists] where a run
// is already, [ErrNotWritable]; on an error nothing new is left behind.
func Create(dir string, m *Manifest) (*Store, error) {
	if _, err := os.Stat(filepath.Join(dir, ManifestFile)); err == nil {
		return nil, fmt.Errorf("%s: %w: choose another --out or remove it", dir, ErrExists)
	}
	made, err := firstMissing(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, notWritable(dir, err)
	}
	s := &Store{dir: dir}
	if err := s.WriteManifest(m); err != nil {
		if made != "" {
			_ = os.RemoveAll(made) // only what was made just now, still empty of results
		}
		return nil, notWritable(dir, err)
	}
	return s, nil
}

// firstMissing is the topmost directory of dir's path that does not exist yet, or "".
func firstMissing(dir string) (string, error) {
	missing := ""
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		switch {
		case err == nil && !st.IsDir():
			return "", fmt.Errorf("%s: %w: %s is not a directory: choose another --out", dir, ErrNotWritable, d)
		case err == nil:
			return missing, nil
		case errors.Is(err, fs.ErrNotExist):
			missing = d
		case errors.Is(err, fs.ErrPermission):
			return "", notWritable(dir, err)
		default:
			return "", fmt.Errorf("%s: %w: a part of the path is not a directory: choose another --out", dir, ErrNotWritable)
		}
		if d == filepath.Dir(d) {
			return missing, nil
		}
	}
}

func notWritable(dir string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w (%w): choose another --out", dir, ErrNotWritable, err)
}

// Open opens the directory of a run. It reads the manifest, so a directory without one, of
// another schema or with a damaged one is refused at once.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	if _, err := s.Manifest(); err != nil {
		return nil, err
	}
	return s, nil
}

// Dir is the run's directory.
func (s *Store) Dir() string { return s.dir }

// RepDir is the directory of one repetition of a cell.
func (s *Store) RepDir(c Cell, block int) string {
	return filepath.Join(s.dir, RepPath(c, block))
}

// RepPath is RepDir relative to the run's directory.
func RepPath(c Cell, block int) string {
	return filepath.Join(CellsDir, c.ID(), strconv.Itoa(block))
}

// WriteManifest stamps the schema version and replaces manifest.json.
func (s *Store) WriteManifest(m *Manifest) error {
	m.Schema = SchemaVersion
	return s.writeJSON(ManifestFile, m)
}

// WriteEnv replaces env.json.
func (s *Store) WriteEnv(e *Env) error {
	e.Schema = SchemaVersion
	return s.writeJSON(EnvFile, e)
}

// WriteProbe replaces probe.json.
func (s *Store) WriteProbe(p *Probe) error {
	p.Schema = SchemaVersion
	return s.writeJSON(ProbeFile, p)
}

// WriteRep writes one repetition: histograms and series first, result.json last, so that a
// repetition with a result is whole. Writing it again, with the open part added, replaces it.
func (s *Store) WriteRep(r *Rep, hists []Hist, series []Row) error {
	r.Schema = SchemaVersion
	dir := RepPath(r.Cell, r.Block)
	hb, err := EncodeHists(hists)
	if err != nil {
		return err
	}
	var sb bytes.Buffer
	enc := json.NewEncoder(&sb)
	if err := enc.Encode(seriesHead{Schema: SchemaVersion}); err != nil {
		return err
	}
	for i := range series {
		if err := enc.Encode(&series[i]); err != nil {
			return fmt.Errorf("encode series row %d: %w", i, err)
		}
	}
	if err := s.writeFile(filepath.Join(dir, HistFile), hb); err != nil {
		return err
	}
	if err := s.writeFile(filepath.Join(dir, SeriesFile), sb.Bytes()); err != nil {
		return err
	}
	return s.writeJSON(filepath.Join(dir, ResultFile), r)
}

// seriesHead is the first line of series.ndjson.
type seriesHead struct {
	Schema int `json:"schema"`
}

// AppendHistory adds lines to history.jsonl.
func (s *Store) AppendHistory(lines []HistoryLine) error {
	path := filepath.Join(s.dir, HistoryFile)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b := bytes.NewBuffer(old)
	enc := json.NewEncoder(b)
	for _, l := range lines {
		l.Schema = SchemaVersion
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return s.writeFile(HistoryFile, b.Bytes())
}

// WriteArtifact writes any further file into the run's directory, a report for instance.
func (s *Store) WriteArtifact(name string, b []byte) error { return s.writeFile(name, b) }

func (s *Store) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return s.writeFile(name, append(b, '\n'))
}

func (s *Store) writeFile(name string, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return WriteFileAtomic(filepath.Join(s.dir, name), b)
}

// WriteFileAtomic writes a file beside its place, syncs it and renames it into place, making its
// directory where it is missing. On an error the old file stays and no other is left.
func WriteFileAtomic(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the temporary file; the error above is the one to tell
	}
	return err
}

// readJSON reads a file whose first field is its schema version.
func readJSON(path, want string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return decodeJSON(path, want, b, v)
}

func decodeJSON(path, want string, b []byte, v any) error {
	var head struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return &DamagedError{Path: path, Want: want, Err: err}
	}
	if head.Schema == nil || *head.Schema != SchemaVersion {
		e := &SchemaError{Path: path, Want: SchemaVersion}
		if head.Schema != nil {
			e.Got = *head.Schema
		}
		return e
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &DamagedError{Path: path, Want: want, Err: err}
	}
	return nil
}

// Manifest reads manifest.json.
func (s *Store) Manifest() (*Manifest, error) {
	m := new(Manifest)
	err := readJSON(filepath.Join(s.dir, ManifestFile), "a run manifest (JSON)", m)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%s: %w: name one with a %s", s.dir, ErrNoRun, ManifestFile)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Run is a run read back.
type Run struct {
	Dir      string
	Manifest *Manifest
	Env      *Env   // nil when the run ended before it was written
	Probe    *Probe // nil when there was none
	Cells    []*CellRuns
}

// CellRuns is one cell with its repetitions, by block.
type CellRuns struct {
	Cell Cell
	Reps []*Rep
}

// Load reads the whole run but histograms and series. Cells come in the order of the manifest. A
// repetition without a result is passed over in an incomplete run and an error in a complete one.
func (s *Store) Load() (*Run, error) {
	m, err := s.Manifest()
	if err != nil {
		return nil, err
	}
	r := &Run{Dir: s.dir, Manifest: m, Env: new(Env), Probe: new(Probe)}
	if err := readJSON(filepath.Join(s.dir, EnvFile), "an environment record (JSON)", r.Env); errors.Is(err, fs.ErrNotExist) {
		r.Env = nil
	} else if err != nil {
		return nil, err
	}
	if err := readJSON(filepath.Join(s.dir, ProbeFile), "a probe record (JSON)", r.Probe); errors.Is(err, fs.ErrNotExist) {
		r.Probe = nil
	} else if err != nil {
		return nil, err
	}
	for _, c := range m.Cells {
		cr := &CellRuns{Cell: c}
		for block := range m.Order {
			rep := new(Rep)
			err := readJSON(filepath.Join(s.RepDir(c, block), ResultFile), "a result (JSON)", rep)
			if errors.Is(err, fs.ErrNotExist) && !m.Complete {
				continue
			}
			if err != nil {
				return nil, missing(err, "a result (JSON), for the run is complete")
			}
			cr.Reps = append(cr.Reps, rep)
		}
		sort.Slice(cr.Reps, func(i, j int) bool { return cr.Reps[i].Block < cr.Reps[j].Block })
		r.Cells = append(r.Cells, cr)
	}
	return r, nil
}

// Check reads the histograms and series of every repetition of r, so that a damaged one is found
// before a word is said about the run.
func (s *Store) Check(r *Run) error {
	for _, c := range r.Cells {
		for _, rep := range c.Reps {
			if _, err := s.Hists(c.Cell, rep.Block); err != nil {
				return err
			}
			if _, err := s.Series(c.Cell, rep.Block); err != nil {
				return err
			}
		}
	}
	return nil
}

// missing makes the absence of a file that belongs to a run a [*DamagedError].
func missing(err error, want string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && errors.Is(err, fs.ErrNotExist) {
		return &DamagedError{Path: pe.Path, Want: want, Err: errors.New("the file is missing")}
	}
	return err
}

// Hists reads the histograms of one repetition.
func (s *Store) Hists(c Cell, block int) ([]Hist, error) {
	path := filepath.Join(s.RepDir(c, block), HistFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, missing(err, "histograms ("+histMagic+")")
	}
	hs, err := DecodeHists(b)
	if err != nil {
		return nil, &DamagedError{Path: path, Want: "histograms (" + histMagic + ")", Err: err}
	}
	return hs, nil
}

// Series reads the rows of one repetition.
func (s *Store) Series(c Cell, block int) ([]Row, error) {
	path := filepath.Join(s.RepDir(c, block), SeriesFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, missing(err, "a time series")
	}
	var rows []Row
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	if !sc.Scan() {
		return nil, &DamagedError{Path: path, Want: "a schema line", Err: io.ErrUnexpectedEOF}
	}
	var head seriesHead
	if err := decodeJSON(path, "a schema line", sc.Bytes(), &head); err != nil {
		return nil, err
	}
	for sc.Scan() {
		var r Row
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return nil, &DamagedError{Path: path, Want: fmt.Sprintf("one JSON object per line (line %d)", len(rows)+2), Err: err}
		}
		rows = append(rows, r)
	}
	if err := sc.Err(); err != nil {
		return nil, &DamagedError{Path: path, Want: "lines below 1 MiB", Err: err}
	}
	return rows, nil
}
