// Command mqadmin looks after stores.
//
//	mqadmin store dump DIR     show what is in a store
//	mqadmin store verify DIR   check everything in it
//	mqadmin store repair DIR   make a sound store out of a damaged one
//
// It works on directories of Apache RocketMQ 4.9 and 5.x as well as on our own. Results go to stdout,
// complaints to stderr. Exit codes: 0 done, and nothing wrong; 1 verify found faults, or something went
// wrong; 2 bad input, nothing was done; 130 interrupted.
package main

import "os"

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }
