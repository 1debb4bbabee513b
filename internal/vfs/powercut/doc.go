// Package powercut makes the death of a process look like a power cut.
//
// [New] wraps the real file system for a program under test. Before a byte that was synced, or was never
// written, is changed, its 512-byte sector is copied to a journal in a side directory; so is the size of a
// file, and each change of a directory entry. A sync that returns makes what came before it durable. When
// the process has been killed, [Cut] takes back a subset, drawn by a key, of what was not durable: of each
// sector the old or the new bytes, of each file either size, of the directory changes any subset in order.
//
// What is left out: a directory that is moved or removed is taken back whole or not at all; a process that
// starts on a journal left by a kill syncs everything first, as the kernel would have within seconds.
//
//	journal: records, each
//	+---------+------+-----+-----+-----+-----+---------+-------+--------+
//	| len u32 | kind | ino | off | a   | b   | strings | bytes | crc u32|   integers are varints
//	+---------+------+-----+-----+-----+-----+---------+-------+--------+
//
// The side directory must be on the file system of the store: every file that is written has a second
// name there, its inode number, by which it is found whatever becomes of its own.
package powercut
