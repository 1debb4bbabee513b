// Package drills runs the real programs on this machine and does to them what happens in the field: nodes
// are killed, name servers come back empty, clients vanish, disks fill up, files are torn, frames are
// garbage. Each verdict is by audit over the wire: what was acknowledged is there, in order, once.
//
// The programs come from bin/ (make build), the configuration from conf/. Hosts are 127.0.0.1, .2 and .3;
// ports are those of the guides where they are free. The tests need the build tag drills:
//
//	make drills          failover drills of conf/single and conf/2m-noslave
//	make robust          bad input and faults; RMQ_ROUNDS=30 kills under load
//	make drills-short    a few rounds of everything, what CI runs
package drills
