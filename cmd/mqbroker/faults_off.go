//go:build !faults

package main

import "rmq/broker"

// withFaults leaves the options as they are. Builds with the tag faults, which are for tests, have their own.
func withFaults(o broker.Options) (broker.Options, error) { return o, nil }
