package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rmq/engine"
	"rmq/engine/storetool"
	"rmq/replication/raftlog"
)

// storeFlags say what a store was written with, where the files do not.
type storeFlags struct {
	commitLog, delays string
	segment, queue    string
	slots, entries    int32
}

func newStoreCmd(stdout io.Writer) *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Dump, verify or repair a store that no broker has open",
		Args:  known,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	p := cmd.PersistentFlags()
	p.StringVar(&f.commitLog, "store-path-commit-log", "", "directory of the log (default DIR/commitlog)")
	p.StringVar(&f.segment, "mapped-file-size-commit-log", "", "size of its files (default: as in the manifest, or as most files are)")
	p.StringVar(&f.queue, "mapped-file-size-consume-queue", "", "size of queue files (default: likewise)")
	p.Int32Var(&f.slots, "max-hash-slot-num", 0, "slots of an index file (default: likewise)")
	p.Int32Var(&f.entries, "max-index-num", 0, "entries of an index file (default: likewise)")
	p.StringVar(&f.delays, "message-delay-level", "", "delay levels (default 1s 5s 10s 30s 1m ... 2h)")
	cmd.AddCommand(newDumpCmd(stdout, &f), newVerifyCmd(stdout, &f), newRepairCmd(stdout, &f))
	return cmd
}

// options are those of the directory that a command was given.
func (f *storeFlags) options(dir string) (storetool.Options, error) {
	o := storetool.Options{Dir: path.Clean(dir), CommitLogDir: f.commitLog, MaxHashSlots: f.slots, MaxIndexEntries: f.entries, MessageDelay: f.delays,
		Formats: map[string]engine.Framing{"raft": raftlog.Framing{}}}
	var err error
	if o.SegmentBytes, err = parseSize("mapped-file-size-commit-log", f.segment); err != nil {
		return o, err
	}
	if o.QueueFileBytes, err = parseSize("mapped-file-size-consume-queue", f.queue); err != nil {
		return o, err
	}
	if f.slots < 0 || f.entries < 0 || f.entries == 1 {
		return o, usage("--max-hash-slot-num=%d and --max-index-num=%d: use at least 1 and 2", f.slots, f.entries)
	}
	return o, nil
}

// parseSize reads 1073741824, 64KiB, 1GiB; "" is 0.
func parseSize(flag, text string) (int64, error) {
	num, unit := text, int64(1)
	for suffix, n := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if s, ok := strings.CutSuffix(text, suffix); ok {
			num, unit = s, n
		}
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n < 20 && unit == 1 || n <= 0 || n > math.MaxInt32/unit+1 {
		return 0, usage("--%s=%s is no size of a file: use bytes, or a number with KiB, MiB or GiB", flag, text)
	}
	return n * unit, nil
}

// oneDir makes anything but one directory bad input.
func oneDir(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage("%s takes one directory, the root of a store: see %s --help", cmd.Name(), cmd.CommandPath())
	}
	return nil
}

func newDumpCmd(stdout io.Writer, f *storeFlags) *cobra.Command {
	o := storetool.DumpOptions{}
	cmd := &cobra.Command{
		Use:   "dump DIR",
		Short: "Show what is in a store, right or wrong, as text or as JSON lines",
		Long: `Show what is in a store, right or wrong, as text or as JSON lines.

Parts: ` + strings.Join(storetool.Parts(), ", ") + `. Without --part all but files, entries and keys.`,
		Args: oneDir,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Queue < -1 || o.Limit < 0 || o.BodyBytes < 0 || o.FromOffset < 0 || o.FromPos < 0 {
				return usage("--queue-id, --limit, --body, --from-offset and --from-pos must not be negative")
			}
			opt, err := f.options(args[0])
			if err != nil {
				return err
			}
			s, err := storetool.Open(opt)
			if err != nil {
				return err
			}
			return s.Dump(cmd.Context(), stdout, o)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&o.Parts, "part", nil, "what to show; several with commas")
	fl.BoolVar(&o.JSON, "json", false, "one JSON object a line")
	fl.StringVar(&o.Topic, "topic", "", "only this topic")
	fl.Int32Var(&o.Queue, "queue-id", -1, "only this queue (default all)")
	fl.Int64Var(&o.FromOffset, "from-offset", 0, "only queue offsets from here on")
	fl.Int64Var(&o.ToOffset, "to-offset", -1, "only queue offsets below this (default all)")
	fl.Int64Var(&o.FromPos, "from-pos", 0, "only records and keys from this log position on; must be where a record begins, or what is before the next one shows as damage")
	fl.Int64Var(&o.Limit, "limit", 0, "at most so many records, entries and keys (default all)")
	fl.IntVar(&o.BodyBytes, "body", 0, "show so many bytes of each body")
	return cmd
}

func newVerifyCmd(stdout io.Writer, f *storeFlags) *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check everything in a store; exit 1 if there are faults",
		Long: `Check everything in a store; exit 1 if there are faults.

Records of the log against their checksums and places, queues and index against the log, the checkpoint and our own files
against all of them. A fault breaks a rule; a note is worth knowing and allowed, such as what a killed broker leaves behind.`,
		Args: oneDir,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return usage("--max-findings=%d: use at least 1", limit)
			}
			opt, err := f.options(args[0])
			if err != nil {
				return err
			}
			s, err := storetool.Open(opt)
			if err != nil {
				return err
			}
			vo := storetool.VerifyOptions{MaxFindings: limit}
			if !asJSON {
				vo.Each = func(x storetool.Finding) { fmt.Fprintln(stdout, x) }
			}
			r, err := s.Verify(cmd.Context(), vo)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(stdout, r)
			} else {
				printReport(stdout, opt.Dir, r)
			}
			if err == nil && !r.OK() {
				err = errFaults
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().IntVar(&limit, "max-findings", 1000, "findings shown; all are counted")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printReport(w io.Writer, dir string, r *storetool.Report) {
	if more := r.Faults + r.Notes - len(r.Findings); more > 0 {
		fmt.Fprintf(w, "and %d more findings\n", more)
	}
	fmt.Fprintf(w, "%s: log %d to %d, %d records, %d queues with %d entries, %d index files with %d entries\n",
		dir, r.Min, r.End, r.Records, r.Queues, r.QueueEntries, r.IndexFiles, r.IndexEntries)
	fmt.Fprintf(w, "%s, %s\n", count(r.Faults, "fault"), count(r.Notes, "note"))
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func newRepairCmd(stdout io.Writer, f *storeFlags) *cobra.Command {
	var asJSON bool
	var o storetool.RepairOptions
	cmd := &cobra.Command{
		Use:   "repair DIR",
		Short: "Make a sound store out of a damaged one, into a copy unless told otherwise",
		Long: `Make a sound store out of a damaged one, into a copy unless told otherwise.

The log is kept up to its first damage; queues, index and checkpoint are made anew from it. What is cut off lies in
rmq/broken of the result, and every record that is dropped is counted by queue. With --salvage good records behind damage are kept as well:
they move up, so their positions, message ids and queue offsets change.`,
		Args: oneDir,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.InPlace && o.To != "":
				return usage("--in-place and --to exclude each other: leave one out")
			case o.InPlace && o.Salvage:
				return usage("--in-place and --salvage exclude each other: salvage into a copy")
			}
			opt, err := f.options(args[0])
			if err != nil {
				return err
			}
			r, err := storetool.Repair(cmd.Context(), opt, o)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(stdout, r)
			} else {
				printRepair(stdout, r)
			}
			if err == nil && !r.Verified.OK() {
				err = errFaults
			}
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.To, "to", "", "directory of the copy (default DIR-repaired); must not exist")
	fl.BoolVar(&o.InPlace, "in-place", false, "change the store itself")
	fl.BoolVar(&o.Salvage, "salvage", false, "keep good records behind damage by moving them up")
	fl.BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

func printRepair(w io.Writer, r *storetool.RepairReport) {
	fmt.Fprintf(w, "%s: log %d to %d, %d records, %d queues with %d entries, %d index entries\n", r.Dir, r.Min, r.End, r.Records, r.Queues, r.QueueEntries, r.IndexEntries)
	if r.Cut >= 0 {
		fmt.Fprintf(w, "cut at %d: %s\n", r.Cut, r.CutReason)
	}
	if r.Lost > 0 {
		fmt.Fprintf(w, "lost: %d bytes that are no records\n", r.Lost)
	}
	for _, d := range r.Dropped {
		fmt.Fprintf(w, "dropped: %d records of %s/%d, queue offsets %d to %d, log positions %d to %d\n", d.Records, d.Topic, d.Queue, d.MinOffset, d.MaxOffset, d.FirstPos, d.LastPos)
	}
	if len(r.Dropped) > 0 {
		fmt.Fprintln(w, "they are sound: --salvage keeps them, at other positions and queue offsets")
	}
	if r.Moved > 0 {
		fmt.Fprintf(w, "moved: %d records have another position, message id or queue offset\n", r.Moved)
	}
	for _, q := range r.LostEnds {
		fmt.Fprintf(w, "queue %s\n", q)
	}
	for _, k := range r.Kept {
		fmt.Fprintf(w, "kept aside: %s\n", k)
	}
	for _, x := range r.Verified.Findings {
		fmt.Fprintln(w, x)
	}
	fmt.Fprintf(w, "verified: %s, %s\n", count(r.Verified.Faults, "fault"), count(r.Verified.Notes, "note"))
}
