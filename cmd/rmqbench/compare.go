package main

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rmq/results"
	"rmq/results/report"
)

func newCompareCmd(stdout io.Writer) *cobra.Command {
	var metrics, band, failIfSlower, format, by string
	cmd := &cobra.Command{
		Use:   "compare A [B]",
		Short: "Set run B against run A, cell by cell",
		Example: `  rmqbench compare results/before results/after --fail-if-slower=5%
  rmqbench compare results/peers --by=target=own`,
		Long: `Set run B against run A, cell by cell, with intervals.

With --fail-if-slower=5% it exits 1 when an interval lies below 0.95 as a whole, 3 when it cannot tell.

With --by=FACTOR=LEVEL there is one run: B are its cells of that level, A the others, and B is also ranked where
it promises more.`,
		Args: args(cobra.RangeArgs(1, 2), "two directories of runs, or one with --by"),
		RunE: func(_ *cobra.Command, dirs []string) error {
			if (by == "") != (len(dirs) == 2) {
				return usage("compare takes two directories of runs, or one with --by=FACTOR=LEVEL")
			}
			opt := results.CompareOptions{}
			var err error
			if opt.Band, err = parsePercent("band", band); err != nil {
				return err
			}
			slower, err := parsePercent("fail-if-slower", failIfSlower)
			if err != nil {
				return err
			}
			if metrics != "" {
				if opt.Metrics, err = results.ParseMetrics(metrics); err != nil {
					return usage("--metric: %v", err)
				}
			}
			render, ok := map[string]func(io.Writer, *results.Comparison) error{
				"text": report.CompareText, "md": report.CompareMarkdown, "json": report.CompareJSON,
			}[format]
			if !ok {
				return usage("--format=%s is unknown: use text, md or json", format)
			}
			if done, err := compareFailover(stdout, dirs, format, opt.Band); done || err != nil {
				return err
			}
			var runs [2]*results.Run
			for i, d := range dirs {
				if runs[i], err = loadRun(d); err != nil {
					return &exitError{exitUsage, err}
				}
			}
			if by != "" {
				opt.Stricter = true
				factor, level, _ := strings.Cut(by, "=")
				if runs[1], runs[0], err = runs[0].Split(factor, level); err != nil {
					return &exitError{exitUsage, err}
				}
			}
			c := results.Compare(runs[0], runs[1], opt)
			if err := render(stdout, c); err != nil {
				return err
			}
			if slower > 0 {
				if code := c.ExitCode(slower); code != exitOK {
					return &exitError{code: code}
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&metrics, "metric", "", "what decides: "+metricNames()+" (default tput)")
	cmd.Flags().StringVar(&band, "band", "3%", "noise band within which two numbers are the same")
	cmd.Flags().StringVar(&failIfSlower, "fail-if-slower", "", "exit 1 when B is slower by more than this share, 3 when it cannot be told")
	cmd.Flags().StringVar(&format, "format", "text", "text, md or json")
	cmd.Flags().StringVar(&by, "by", "", "of one run: set the cells of this FACTOR=LEVEL against the others, such as target=own")
	return cmd
}

func loadRun(dir string) (*results.Run, error) {
	st, err := results.Open(dir)
	if err != nil {
		return nil, err
	}
	r, err := st.Load()
	if err != nil {
		return nil, err
	}
	return r, st.Check(r)
}

// compareFailover sets two failover runs against each other; false where the directories hold other runs.
func compareFailover(stdout io.Writer, dirs []string, format string, band float64) (done bool, err error) {
	a, _, err := results.ReadFailover(dirs[0])
	if errors.Is(err, results.ErrNoRun) || len(dirs) < 2 {
		return false, nil
	}
	var b *results.Failover
	if err == nil {
		b, _, err = results.ReadFailover(dirs[1])
	}
	if err != nil {
		return true, &exitError{exitUsage, err}
	}
	return true, report.CompareFailover(stdout, format, a, b, results.CompareFailover(a, b, band))
}

func parsePercent(flag, s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	num, isPercent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(num, 64)
	if isPercent {
		v /= 100
	}
	if err != nil || !(v >= 0) || v >= 1 {
		return 0, usage("--%s=%s is no share: use one such as 5%%", flag, s)
	}
	return v, nil
}

func metricNames() string {
	var names []string
	for _, m := range results.Metrics() {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}
