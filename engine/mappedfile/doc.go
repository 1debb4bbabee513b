// Package mappedfile lines up fixed-size files so that they read as one endless range of bytes.
//
// A file is named by the offset of its first byte in twenty decimal digits, so a sorted listing
// is the queue. Every file has its full size from the moment it stands in the directory; the
// [Allocator] makes the next one ready before it is needed. Bytes are visible to this process
// once written, and safe from power loss only after [MappedFile.Sync]. A file leaves the queue
// at once and the disk when its last reader has let go. Layout:
// org.apache.rocketmq.store.MappedFileQueue.
//
// How bytes get into a file is the business of one small interface, [Writer]: positioned writes
// by default, stores into a shared mapping for those who want to compare.
package mappedfile
