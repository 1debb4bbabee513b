// Package e2e holds tests of whole clusters: name server, brokers and clients as they ship, over sockets and
// files.
package e2e
