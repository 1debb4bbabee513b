package main

import (
	"github.com/spf13/cobra"

	"rmq/bench/driver/wire"
)

// newNullServerCmd is what the driver null-server starts as a child.
func newNullServerCmd() *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:    "null-server",
		Short:  "Answer sends without storing them",
		Hidden: true,
		Args:   args(cobra.NoArgs, "no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return wire.ServeNull(cmd.Context(), addr)
		},
	}
	cmd.Flags().StringVar(&addr, "listen", "127.0.0.1:0", "address")
	return cmd
}
