// Command report writes docs/ROBUSTNESS.md from the results of the fault matrix. It runs in test/robust.
package main

import (
	"fmt"
	"os"

	"rmq/test/robust"
)

func main() {
	results, err := robust.All("results")
	if err == nil {
		err = os.WriteFile(os.Args[1], []byte(robust.Render(results)), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
