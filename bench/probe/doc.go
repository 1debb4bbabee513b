// Package probe measures what this machine can do, so that what rmq does on it can be told as a
// share of a limit instead of a bare number.
//
// [Run] takes at most its budget, 25 seconds unless told otherwise, and leaves no file behind.
// Its steps, in order:
//
//	memory      copies of 1 KiB and 64 KiB in cache, 1 KiB records into 256 MiB
//	syncs       4 KiB pwrite + fdatasync, 1 to 8 deep, on growing, allocated and written files
//	flushes     one flusher, groups of 1, 8 and 64 KiB on a written file
//	groups      group commit of 1 KiB records by 1, 8, 64 and 256 producers
//	folios      does a small store through a mapping make a flush write a megabyte?
//	appends     one-record pwrites into growing, allocated and prepared files
//	bandwidth   sequential write and read, direct and through the page cache
//	loopback    one request at a time, and eight connections with 64 in flight
//	timers      how late sleeps wake, what a look at the clock costs
//
// Every step owns a slice of the budget that shrinks when an earlier one overran, and every
// loop inside a step ends at its slice, so a slow disk makes figures coarse, not the probe long.
// File sizes shrink with the budget.
//
// [Drift] repeats three of the figures in at most four seconds. Taken at the end of a series it
// tells whether the machine is still the one that was probed at the start.
//
// The probe speaks to the kernel by system calls of its own. It shares no code with the engine
// that is judged by it: a mistake common to both would measure as a perfect score.
package probe
