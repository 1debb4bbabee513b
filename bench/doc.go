// Package bench makes load, measures what comes of it and writes it down as a run of package
// results. What is loaded is behind [Driver]; this package links no engine.
//
// One repetition of a cell has up to two parts, a closed loop (the most that a fixed number of
// outstanding messages can do) and an open loop (a schedule that waits for nobody). Each part runs
// through the phases prepare, settle, warm-up, measure, drain, verify and teardown in a data
// directory of its own. Producers are logical: all of them share a few worker goroutines, and no
// message costs a goroutine, a channel operation or an allocation.
//
// Three times are kept apart for every message. service = ack − send, queueing = send − due,
// response = ack − due. Response is the headline: a target that stalls cannot hide it, because the
// due times come from a [Pacer] that looks at nothing but the number of the message.
// See DESIGN.md.
package bench
