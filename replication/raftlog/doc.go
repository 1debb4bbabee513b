// Package raftlog keeps the log of a broker on a majority of machines that elect their leader
// themselves: the commit log is the raft log.
//
// One raft entry is one frame, one frame is one batch of messages, and a frame stands in the segments
// of the [engine.Store] as the messages of any other log do, 64 bytes in front of each batch. Payload
// is written once a node. See replication/DESIGN.md and docs/format/raftlog.md.
package raftlog
