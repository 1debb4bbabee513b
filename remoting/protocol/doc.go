// Package protocol is what travels between RocketMQ programs: the frame, its two header encodings,
// the request and response codes, and the headers and bodies of the requests.
//
//	0         4         8                8+header          4+total
//	+---------+---------+----------------+-----------------+
//	| total   | type,   | header         | body            |
//	|         | header  |                |                 |
//	+---------+---------+----------------+-----------------+
//
// Integers are big-endian. total counts what follows it; the top byte of the second word is the
// [Serialize] type, its low 24 bits are the length of the header. [ParseCommand] and [AppendCommand]
// read and write whole frames; sends and pulls, requests and answers, have headers of their own that
// cost no allocation ([SendHeader], [SendResponse], [PullHeader], [PullResponse]); all others are
// plain structs that [DecodeExt] and [EncodeExt] move between a command and Go. Bodies go through
// [DecodeBody], which reads the dialects of JSON that are about, and [EncodeBody], which writes the
// one that all clients read.
//
// It follows org.apache.rocketmq.remoting.protocol.RemotingCommand, RocketMQSerializable and
// RemotingSerializable, 4.9.8 and 5.3. Nothing here starts goroutines, opens sockets or reads clocks.
package protocol
