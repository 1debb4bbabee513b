// Package remoting moves RocketMQ commands over TCP: a [Server] and a [Client] over one kind of connection, [Conn], on
// which requests go either way (org.apache.rocketmq.remoting.netty.NettyRemotingAbstract and its two sides).
//
// # Reading
//
// Each connection has one reader goroutine. It waits on the runtime's poller without a buffer, borrows 64 KiB while bytes
// flow, and parses and serves frames where they lie ([Handler.Serve] for requests, [Call.Done] for answers). A frame that
// breaks the rules of the wire closes the connection without an answer.
//
// # Writing
//
// Whoever has a frame appends it to the connection's outbox ([Conn.Begin], [Conn.End]), and one of several writes the whole
// outbox with one system call: the reader, at the end of what it had read, which makes the answers of a batch leave
// together; a caller of [Conn.Call], who would wait anyway; or one of the endpoint's flushers, which yields once so that
// more can gather. None of them waits for the peer. When the kernel takes no more, a goroutine is started for this
// connection that does wait, until everything is out. Payloads stay where they are ([Payload]) if copying them costs more.
//
// # Bounds
//
// An idle connection owns its goroutine, its descriptor and at most 4 KiB. The memory of a peer that sends grows with what
// it has sent, not with what it announces, up to one frame. At a server, over MaxUnsentBytes of answers, or over 256 KiB while
// all connections together have more than MaxUnsentAll, the connection reads no further requests until half are gone. It is
// closed after SlowTimeout above MaxUnsentBytes, or at once at four times as much and a frame. Nothing is timed per call or
// per read: one clock goroutine ticks for the endpoint, ends calls whose time is up, and closes connections on which nothing
// moved for IdleTimeout.
//
// # Cost
//
// go test -bench 'Echo|Bare|Call' ./remoting. With 64 requests of 1 KiB in flight on each of 1 to 16 connections, a request
// and its answer take 0.65 to 0.75 µs of processor time for both ends together, parsing included: as much as net.Conn and
// bufio take to move the same bytes unread. The server makes 0.06 system calls a request, and neither side allocates. An
// idle connection that was used takes some 2 KiB of heap and 4 KiB of stack.
package remoting
