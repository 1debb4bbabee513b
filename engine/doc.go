// Package engine is a commit log with the files derived from it: one sequential log of message
// records for all topics, a consume queue per topic queue, a hash index by key, a checkpoint.
// On disk it is the store of Apache RocketMQ 4.9 and 5.x, byte for byte.
//
// Four positions in the log tell what has become of a record, always in this order:
// appended ≥ written ≥ flushed. Appended: it has its offset. Written: it is in the page cache and
// survives the process. Flushed: it survives the machine. Ackable is written under [AsyncFlush]
// and flushed under [SyncFlush]; visible, the end of what any reader may see, is the smaller of
// ackable and the ceiling that [Store.SetConfirm] sets. Dispatched is the end of what consume
// queues and index know.
//
// DESIGN.md beside this file says why it is built this way.
package engine
