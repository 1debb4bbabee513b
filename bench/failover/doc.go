// Package failover measures how long clients go without when a node fails.
//
// Clients of several kinds send on schedules of their own, side by side, to a cluster of real brokers that holds a log of
// some size and is followed by consumers. An event befalls the node that leads; what each client's messages met is told
// by their due times ([results.AnalyseFailover]). Then the cluster is healed and the next trial follows. At the end every
// queue is read back and set against what was acknowledged. See bench/DESIGN.md.
package failover
