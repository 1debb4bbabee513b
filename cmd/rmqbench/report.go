package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"rmq/results"
	"rmq/results/report"
)

func newReportCmd(stdout, stderr io.Writer) *cobra.Command {
	var html, md string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "report DIR",
		Short: "Show a run again",
		Args:  args(cobra.ExactArgs(1), "the directory of one run"),
		RunE: func(_ *cobra.Command, dirs []string) error {
			show, err := openReport(dirs[0], html)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			write := func(path string, render func(io.Writer) error) error {
				if path == "" {
					return nil
				}
				var b bytes.Buffer
				if err := render(&b); err != nil {
					return err
				}
				if err := results.WriteFileAtomic(path, b.Bytes()); err != nil {
					return usage("%v: choose a file that can be written", err)
				}
				fmt.Fprintln(stderr, "rmqbench: wrote", path)
				return nil
			}
			if err := write(html, show.html); err != nil {
				return err
			}
			if err := write(md, show.md); err != nil {
				return err
			}
			switch {
			case asJSON:
				return show.json(stdout)
			case html == "" && md == "":
				return show.text(stdout)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&html, "html", "", "write one self-contained page to this file")
	cmd.Flags().StringVar(&md, "md", "", "write Markdown to this file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// shown are the forms of one run.
type shown struct{ text, md, html, json func(io.Writer) error }

// openReport reads the run in dir, of either kind; its page is to be at page.
func openReport(dir, page string) (*shown, error) {
	f, env, err := results.ReadFailover(dir)
	if err == nil {
		r := report.NewFailover(f, env)
		return &shown{r.Text, r.Markdown, r.HTML, r.JSON}, nil
	}
	if !errors.Is(err, results.ErrNoRun) {
		return nil, err
	}
	r, err := report.Open(dir)
	if err != nil {
		return nil, err
	}
	return &shown{r.Text, r.Markdown, func(w io.Writer) error {
		return r.HTML(w, report.HTMLOptions{LinkBase: report.LinkBase(page, dir)})
	}, r.JSON}, nil
}
