package main

import (
	"bytes"
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
			r, err := report.Open(dirs[0])
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
			if err := write(html, func(w io.Writer) error {
				return r.HTML(w, report.HTMLOptions{LinkBase: report.LinkBase(html, dirs[0])})
			}); err != nil {
				return err
			}
			if err := write(md, r.Markdown); err != nil {
				return err
			}
			switch {
			case asJSON:
				return r.JSON(stdout)
			case html == "" && md == "":
				return r.Text(stdout)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&html, "html", "", "write one self-contained page to this file")
	cmd.Flags().StringVar(&md, "md", "", "write Markdown to this file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
