// Command mqshutdown stops brokers and name servers of this host: it asks them to drain and waits
// until they have ended.
//
//	mqshutdown broker            all brokers of ROCKETMQ_HOME
//	mqshutdown namesrv           all name servers of it
//	mqshutdown broker -c FILE    the one that was started with this file
//
// Exit codes: 0 all have ended; 1 none was there, or one did not end in time; 2 bad input.
package main

import (
	"os"

	"rmq/cmd/internal/process"
)

func main() { os.Exit(process.Shutdown(os.Args[1:], os.Stdout, os.Stderr)) }
