// Package replication says what a broker needs of a log that other machines hold too, and holds the
// simplest of the ways to keep it: none. The others are packages of their own: ha (asynchronous, and
// synchronous dual write) and raftlog (the commit log is the raft log).
//
// All of them stand on one [engine.Store], which does not learn about acks from other machines: it has
// marks that an ack waits for, and a ceiling for what readers see, and their owners are here.
package replication
