// Package wire lets the stock Java clients, admin tools and brokers of Apache RocketMQ speak with the
// programs of this repository over loopback: `make interop`. The tests have the build tag interop.
package wire
