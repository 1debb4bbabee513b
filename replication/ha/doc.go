// Package ha keeps a log on slaves too: some time later (asynchronous replication), or before the ack
// (synchronous dual write). One [Service] is the master or a slave; an operator may promote a slave.
//
// The bytes of the log travel as they stand, over a stream of our own ([Header]) in which every frame
// names its group and epoch. On the same port stands the wire of Apache RocketMQ's default HA service
// (org.apache.rocketmq.store.ha.DefaultHAService), both ways, so that a cluster can be moved over.
//
// What is promised: docs/DURABILITY.md; why it is built this way: replication/DESIGN.md; the bytes:
// docs/format/ha-stream.md.
package ha
