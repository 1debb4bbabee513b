// Package namesrv is the process that tells clients which brokers have a topic
// (org.apache.rocketmq.namesrv).
//
// Brokers register with every name server; name servers do not know of each other. What brokers say
// is kept in memory ([RouteInfoManager]) and forgotten when they go: at once when the connection on
// which they were heard closes, otherwise after 120 s of silence. A name server that starts empty
// knows its brokers again as soon as they have registered. It closes its connections when it ends,
// and the kernel does when it is killed, so a broker learns of it at once: it should dial again
// without waiting (every 100 ms or so) and, once connected, register in full before anything else,
// not wait for its next 30 s tick and not begin with QUERY_DATA_VERSION or a single topic. Then an
// empty name server answers for its topics within a second. The same goes for a broker whose
// registration is answered with an error.
//
// Key-value pairs are local to each name server and kept in a file ([KVConfigManager]).
package namesrv
