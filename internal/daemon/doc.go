// Package daemon is what a long-running process of ours has beside its work: a log, a health page,
// a pid file by which it is stopped, and limits for its memory. It knows nothing of brokers or
// name servers.
package daemon
