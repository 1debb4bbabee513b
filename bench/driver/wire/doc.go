// Package wire is the driver that loads a RocketMQ cluster over TCP: a NameServer and a broker of ours, started as
// child processes for each part, a null server that answers without storing, or any cluster that is running.
//
// Requests are those of a stock Java client: V2 codes, JSON headers (or binary ones), its properties. A worker's
// messages go over its connections in turn, batch by batch, and those of one connection and queue keep their order.
package wire
