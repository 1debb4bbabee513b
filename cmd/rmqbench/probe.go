package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rmq/bench"
	"rmq/bench/probe"
	"rmq/results"
)

func newProbeCmd(stdout, stderr io.Writer) *cobra.Command {
	var dir, budget string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Measure what this machine can do at most",
		Args:  args(cobra.NoArgs, "no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := parseDuration("budget", budget)
			if err != nil {
				return err
			}
			if d == 0 {
				return usage("--budget=%s measures nothing: use 25s", budget)
			}
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				return usage("--dir=%s is no directory: name one on the disk to probe", dir)
			}
			show := newProgress(stderr, 5*time.Second)
			p, err := probe.Run(cmd.Context(), probe.Options{Dir: dir, Budget: d, Seed: 1, Progress: func(step string, i, n int) {
				show.update(bench.Progress{Phase: "probe", Detail: fmt.Sprintf("%s (%d of %d)", step, i+1, n)})
			}})
			show.close()
			if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
				return usage("--dir: %v: choose a directory that can be written", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(p)
			}
			return printProbe(stdout, &p)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "a directory on the disk to probe")
	cmd.Flags().StringVar(&budget, "budget", "25s", "time for all of it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printProbe(w io.Writer, p *results.Probe) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "limit\tvalue\tp50\tp99\tn\t")
	for _, l := range p.Start.Limits {
		p50, p99 := "", ""
		if l.P50 > 0 {
			p50, p99 = results.FormatUS(l.P50), results.FormatUS(l.P99)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, limitValue(l), p50, p99, results.FormatCount(float64(l.N)), l.Note)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, n := range p.Start.Notes {
		fmt.Fprintln(w, "note:", n)
	}
	for _, s := range p.Start.Skipped {
		fmt.Fprintln(w, "skipped:", s)
	}
	_, err := fmt.Fprintf(w, "took %.1f s in %s\n", p.Start.TookS, p.Start.Dir)
	return err
}

func limitValue(l results.Limit) string {
	switch l.Unit {
	case "us":
		return results.FormatUS(l.Value)
	case "B":
		return results.FormatBytes(l.Value)
	case "B/s":
		return results.FormatBytes(l.Value) + "/s"
	case "1/s":
		return results.FormatCount(l.Value) + "/s"
	case "msg/s":
		return results.FormatRate(l.Value)
	}
	return results.FormatSig3(l.Value) + " " + l.Unit
}
