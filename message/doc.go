// Package message holds a message and the record in which the log stores it: producers, brokers,
// pullers and the log itself share these bytes.
//
// A record, all integers big-endian (org.apache.rocketmq.store.CommitLog, MessageDecoder):
//
//	0 total size  4 magic  8 body CRC  12 queue id  16 flag  20 queue offset (8)
//	28 physical offset (8)  36 system flag  40 born time (8)  48 born host (8 or 20)
//	   store time (8)  store host (8 or 20)  reconsume times  prepared offset (8)
//	   body length, body  topic length (1; V2: 2), topic  properties length (2), properties
//
// With two IPv4 hosts the fixed part is 91 bytes, 92 in V2.
package message
