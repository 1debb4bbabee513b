// Command rmqbench drives the engine on this machine's disk and tells what came of it.
//
//	rmqbench run      measure a matrix of cells (the default when the first argument is a flag)
//	rmqbench failover how long clients go without when a node fails
//	rmqbench probe    what this machine can do at most
//	rmqbench compare  set two runs against each other
//	rmqbench report   show a run again: on the terminal, as Markdown, HTML or JSON
//
// Numbers go to stdout, progress and complaints to stderr. Exit codes: 0 done; 1 something went
// wrong, or messages were lost, or a comparison found B slower; 2 bad input, nothing was done;
// 3 a comparison that cannot tell; 130 interrupted, what was measured is kept.
package main

import "os"

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }
