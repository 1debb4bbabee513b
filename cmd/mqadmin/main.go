// Command mqadmin looks after clusters and stores.
//
//	mqadmin clusterList        brokers with their load
//	mqadmin updateTopic ...    and the other commands of the mqadmin of Apache RocketMQ 5, with the same
//	                           flags and columns; --json beside them
//	mqadmin completion SHELL   completion for bash, zsh, fish
//	mqadmin store dump DIR     show what is in a store
//	mqadmin store verify DIR   check everything in it
//	mqadmin store repair DIR   make a sound store out of a damaged one
//
// It works on clusters and directories of Apache RocketMQ 4.9 and 5.x as well as on our own. Results go to
// stdout, complaints to stderr. Exit codes: 0 done, and nothing wrong; 1 verify found faults, a server
// refused, or something went wrong; 2 bad input, nothing was done; 130 interrupted.
package main

import "os"

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }
